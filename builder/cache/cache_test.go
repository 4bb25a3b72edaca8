package cache_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"bareboat/builder/cache"
	"bareboat/internal/oci"
)

func open(t *testing.T, dir string) *cache.Cache {
	t.Helper()
	c, err := cache.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func put(t *testing.T, c *cache.Cache, text string) oci.Descriptor {
	t.Helper()
	d, err := c.PutBytes("text/plain", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestBlob(t *testing.T) {
	c := open(t, t.TempDir())
	d := put(t, c, "ahoy")
	if d.Digest != digest.FromString("ahoy") || d.Size != 4 {
		t.Errorf("put: %+v", d)
	}
	if err := c.Check(d); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(c.Blob(d.Digest), []byte("ahoj"), 0o600); err != nil {
		t.Fatal(err)
	}
	var corrupt *cache.CorruptError
	if err := c.Check(d); !errors.As(err, &corrupt) {
		t.Errorf("a changed blob: %v", err)
	}
	if err := c.Check(d); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}

// A blob whose writing fails leaves nothing.
func TestPutFails(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir)
	why := errors.New("the source broke off")
	_, err := c.Put(func(w io.Writer) error {
		if _, err := io.WriteString(w, "half"); err != nil {
			return err
		}
		return why
	})
	if !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "blobs", "*"))
	if err != nil || len(left) != 1 { // the folder of digests
		t.Errorf("left: %v, %v", left, err)
	}
}

type value struct {
	A string
	B int
}

func TestRecord(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir)
	var in cache.Inputs
	in.Add("file", "%s", "content")
	want := value{"x", 7}
	var got value
	if err := c.Load("kind", in.Key(), &got); !errors.Is(err, cache.ErrNone) {
		t.Errorf("nothing was saved: %v", err)
	}
	if err := c.Save("kind", in.Key(), want); err != nil {
		t.Fatal(err)
	}
	if err := open(t, dir).Load("kind", in.Key(), &got); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	var other cache.Inputs
	other.Add("file", "%s", "other")
	names, err := filepath.Glob(filepath.Join(dir, "records", "*"))
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	// A record in another's place is not taken for its own.
	moved := filepath.Join(dir, "records", "kind-"+other.Key().Encoded()+".json")
	if err := os.Rename(names[0], moved); err != nil {
		t.Fatal(err)
	}
	var corrupt *cache.CorruptError
	if err := c.Load("kind", other.Key(), &got); !errors.As(err, &corrupt) {
		t.Errorf("another's record: %v", err)
	}
}

func TestInputs(t *testing.T) {
	a := cache.Inputs{{Name: "a", Value: "1"}, {Name: "b", Value: "2"}}
	b := cache.Inputs{{Name: "b", Value: "2"}, {Name: "a", Value: "1"}}
	if a.Key() != b.Key() {
		t.Error("the order counts")
	}
	seen := map[oci.Digest]cache.Inputs{}
	for _, in := range []cache.Inputs{
		nil, a, {{Name: "a", Value: "1"}}, {{Name: "a1", Value: ""}}, {{Name: "", Value: "a1"}},
		{{Name: "a", Value: "1b2"}}, {{Name: "a", Value: "1"}, {Name: "b2", Value: ""}},
	} {
		if other, ok := seen[in.Key()]; ok {
			t.Errorf("%v and %v have one key", in, other)
		}
		seen[in.Key()] = in
	}
	got := cache.Changes(a, cache.Inputs{{Name: "a", Value: "3"}, {Name: "c", Value: "4"}})
	if want := []string{"a changed", "c is new", "b is gone"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestOver(t *testing.T) {
	below := open(t, t.TempDir())
	old := put(t, below, "old")
	key := digest.FromString("key")
	if err := below.Save("kind", key, value{"old", 1}); err != nil {
		t.Fatal(err)
	}
	c, err := cache.Over(t.TempDir(), below)
	if err != nil {
		t.Fatal(err)
	}
	var got value
	if err := c.Load("kind", key, &got); err != nil || got.A != "old" || c.Check(old) != nil {
		t.Errorf("what is below is not seen: %+v, %v", got, err)
	}
	fresh := put(t, c, "new")
	if err := c.Save("kind", key, value{"new", 2}); err != nil {
		t.Fatal(err)
	}
	if err := below.Check(fresh); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the blob got below: %v", err)
	}
	if err := below.Load("kind", key, &got); err != nil || got.A != "old" {
		t.Errorf("the record got below: %+v, %v", got, err)
	}
}

func TestPrune(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir)
	used, unused := put(t, c, "used"), put(t, c, "unused")
	for i, d := range []oci.Descriptor{used, unused} {
		key := digest.FromString(fmt.Sprint(i))
		if err := c.Save("part", key, []oci.Descriptor{d}); err != nil {
			t.Fatal(err)
		}
		if _, err := c.View(d); err != nil {
			t.Fatal(err)
		}
	}
	old := time.Now().Add(-time.Hour)
	record := filepath.Join(dir, "records", "part-"+digest.FromString("1").Encoded()+".json")
	for _, path := range []string{record, c.Blob(unused.Digest), filepath.Join(dir, "images", unused.Digest.Encoded())} {
		if err := os.Chtimes(path, old, old); err != nil {
			t.Fatal(err)
		}
	}
	since := old.Add(time.Minute)

	other := open(t, dir)
	if _, err := c.Prune(since, false); !errors.Is(err, cache.ErrInUse) {
		t.Errorf("while another uses it: %v", err)
	}
	other.Close()
	would, err := c.Prune(since, true)
	if err != nil || would.Files != 3 {
		t.Errorf("dry: %+v, %v", would, err)
	}
	if _, err := os.Stat(c.Blob(unused.Digest)); err != nil {
		t.Errorf("dry removed it: %v", err)
	}
	if did, err := c.Prune(since, false); err != nil || did != would {
		t.Errorf("got %+v, %v; dry said %+v", did, err, would)
	}
	if err := c.Check(used); err != nil {
		t.Errorf("what is used is gone: %v", err)
	}
	if err := c.Check(unused); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is not used is there: %v", err)
	}
	if views, err := filepath.Glob(filepath.Join(dir, "images", "*")); err != nil || len(views) != 1 {
		t.Errorf("views: %v, %v", views, err)
	}
}

func TestTidy(t *testing.T) {
	dir := t.TempDir()
	c := open(t, dir)
	old := time.Now().Add(-time.Hour)
	age := func(d oci.Descriptor) {
		t.Helper()
		if err := os.Chtimes(c.Blob(d.Digest), old, old); err != nil {
			t.Fatal(err)
		}
	}
	first := put(t, c, "first") // no record names it
	age(first)
	young := put(t, c, "young")
	if err := c.Tidy(time.Minute, time.Hour); err != nil || c.Check(young) != nil || !errors.Is(c.Check(first), fs.ErrNotExist) {
		t.Errorf("it was not tidied: %v", err)
	}
	second := put(t, c, "second")
	age(second)
	if err := c.Tidy(time.Minute, time.Hour); err != nil || c.Check(second) != nil {
		t.Errorf("it was tidied again at once: %v", err)
	}
}

// Nothing but what was written is taken for a record.
func FuzzDecodeRecord(f *testing.F) {
	dir := f.TempDir()
	c, err := cache.Open(dir)
	if err != nil {
		f.Fatal(err)
	}
	key := digest.FromString("key")
	if err := c.Save("kind", key, value{"x", 1}); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(filepath.Join(dir, "records", "kind-"+key.Encoded()+".json"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add([]byte("bareboat-record-1 \n{}"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, content []byte) {
		var v value
		if err := cache.DecodeRecord(content, key, &v); err != nil {
			return
		}
		// Its digest fits: then it says of what.
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		var again value
		if err := json.Unmarshal(text, &again); err != nil || again != v {
			t.Errorf("%q decodes to %+v", content, v)
		}
	})
}

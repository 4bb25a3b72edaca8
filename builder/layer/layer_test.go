package layer_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"bareboat/builder/layer"
)

// sample has every kind of entry, and a name that USTAR cannot hold.
func sample() []layer.File {
	return []layer.File{
		layer.Bytes("usr/bin/app", 0o755, []byte("binary")),
		layer.Bytes("etc/ssl/Főtanúsítvány.crt", 0o644, []byte("x")),
		layer.Dir("tmp", 0o777|fs.ModeSticky),
		layer.Dir("data", 0o700).Owned(65532, 65532),
		layer.Symlink("bin", "usr/bin"),
		{Path: "usr/bin/alias", Mode: 0o755, Hard: true, Link: "usr/bin/app"},
		layer.Bytes("usr/bin/su", 0o755, nil),
	}
}

func sum(t *testing.T, files []layer.File, mtime time.Time) string {
	t.Helper()
	h := sha256.New()
	if err := layer.WriteTar(h, files, mtime); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// The bytes of a layer are a promise: another digest here is another digest of
// every image in the world.
func TestWriteTarGolden(t *testing.T) {
	const want = "a4d830e265fb84036dea6205efeb1c8b488e119e7171248c4cccacf69a34981d"
	if got := sum(t, sample(), time.Unix(0, 0)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestWriteTarDoesNotDependOnOrder(t *testing.T) {
	want := sum(t, sample(), time.Unix(0, 0))
	for range 20 {
		files := sample()
		rand.Shuffle(len(files), func(i, j int) { files[i], files[j] = files[j], files[i] })
		if got := sum(t, files, time.Unix(0, 0)); got != want {
			t.Fatalf("another order gives %s, not %s", got, want)
		}
	}
}

func TestWriteTarEntries(t *testing.T) {
	var buf bytes.Buffer
	at := time.Unix(1700000000, 999)
	if err := layer.WriteTar(&buf, sample(), at); err != nil {
		t.Fatal(err)
	}
	var got []string
	for r := tar.NewReader(&buf); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.ModTime.UnixNano() != 1700000000e9 || h.Uname != "" || h.Gname != "" {
			t.Errorf("%s: time %v, names %q %q", h.Name, h.ModTime, h.Uname, h.Gname)
		}
		got = append(got, fmt.Sprintf("%c %04o %d:%d %s %s", h.Typeflag, h.Mode, h.Uid, h.Gid, h.Name, h.Linkname))
	}
	want := `2 0777 0:0 bin usr/bin
5 0700 65532:65532 data/ 
5 0755 0:0 etc/ 
5 0755 0:0 etc/ssl/ 
0 0644 0:0 etc/ssl/Főtanúsítvány.crt 
5 1777 0:0 tmp/ 
5 0755 0:0 usr/ 
5 0755 0:0 usr/bin/ 
0 0755 0:0 usr/bin/app 
0 0755 0:0 usr/bin/su 
1 0755 0:0 usr/bin/alias usr/bin/app`
	if strings.Join(got, "\n") != want {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), want)
	}
}

func TestNormalizeRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		files []layer.File
		want  string
	}{
		"twice":        {[]layer.File{layer.Bytes("a", 0o644, nil), layer.Bytes("a", 0o644, nil)}, "a: given twice"},
		"other folder": {[]layer.File{layer.Dir("a", 0o755), layer.Dir("a", 0o700)}, "a: given twice"},
		"below a file": {[]layer.File{layer.Bytes("a", 0o644, nil), layer.Bytes("a/b", 0o644, nil)}, "a/b: lies below a"},
		"below a link": {[]layer.File{layer.Symlink("a", "c"), layer.Bytes("a/b", 0o644, nil)}, "a/b: lies below a"},
		"upwards":      {[]layer.File{layer.Bytes("../a", 0o644, nil)}, "not a clean path"},
		"absolute":     {[]layer.File{layer.Bytes("/a", 0o644, nil)}, "not a clean path"},
		"root":         {[]layer.File{layer.Dir(".", 0o755)}, "not a clean path"},
	} {
		if _, err := layer.Normalize(c.files); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

func TestWriteTarNoticesAChangedFile(t *testing.T) {
	f := layer.Bytes("a", 0o644, []byte("now shorter"))
	f.Size += 5
	err := layer.WriteTar(io.Discard, []layer.File{f}, time.Unix(0, 0))
	if err == nil || !strings.Contains(err.Error(), "a: ") {
		t.Errorf("got %v", err)
	}
	f.Size = 3
	if err := layer.WriteTar(io.Discard, []layer.File{f}, time.Unix(0, 0)); err == nil {
		t.Error("a longer file is not noticed")
	}
}

func BenchmarkWriteTar(b *testing.B) {
	content := bytes.Repeat([]byte("bareboat"), 1<<17) // 1 MiB
	files := make([]layer.File, 16)
	for i := range files {
		files[i] = layer.Bytes(fmt.Sprintf("f%d", i), 0o644, content)
	}
	b.SetBytes(int64(len(files) * len(content)))
	for b.Loop() {
		if err := layer.WriteTar(io.Discard, files, time.Unix(0, 0)); err != nil {
			b.Fatal(err)
		}
	}
}

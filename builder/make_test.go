package builder_test

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"bareboat/builder"
	"bareboat/internal/oci"
)

func recipe(t *testing.T, dir string) *builder.Recipe {
	t.Helper()
	r, err := builder.LoadRecipe(filepath.Join(dir, "image"))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var helloName = oci.Reference{Registry: "localhost", Repository: "hello", Tag: "latest"}

func look(t *testing.T, b *builder.Builder, dir string) builder.Outcome {
	t.Helper()
	out, err := b.Look(t.Context(), recipe(t, dir), dir, helloName)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func makeOutcome(t *testing.T, b *builder.Builder, dir string) builder.Outcome {
	t.Helper()
	out, err := b.Make(t.Context(), recipe(t, dir), dir, helloName)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func write(t *testing.T, text string, path ...string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(path...), []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
}

// What is linked into a frame is, byte for byte, what buildah makes of the same
// layers in one commit.
func TestLinkedIsCommitted(t *testing.T) {
	b, dir := newBuilder(t), project(t, hello)
	img := build(t, b, dir)
	m, c, err := b.CommitWhole(t.Context(), recipe(t, dir), dir, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var gotM oci.Manifest
	var gotC oci.ImageConfig
	readBlob(t, img, img.Digest, &gotM)
	readBlob(t, img, gotM.Config.Digest, &gotC)
	if !reflect.DeepEqual(gotC, c) {
		t.Errorf("config: linked\n%+v\ncommitted\n%+v", gotC, c)
	}
	if !reflect.DeepEqual(gotM, m) {
		t.Errorf("manifest: linked\n%+v\ncommitted\n%+v", gotM, m)
	}
}

func readBlob(t *testing.T, img oci.Image, d oci.Digest, into any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(img.Layout, "blobs", "sha256", d.Encoded()))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatal(err)
	}
}

// A second build makes nothing, and another builder over the same cache knows
// the digest without making anything.
func TestNothingToDo(t *testing.T) {
	b, dir := newBuilder(t), project(t, hello)
	if o := look(t, b, dir); o.Known() || len(o.Explain()) != 3 {
		t.Errorf("before the first build: %+v, %q", o.Image, o.Explain())
	}
	img := build(t, b, dir)
	other := &builder.Builder{Cache: b.Cache, Root: filepath.Join(t.TempDir(), "no store is opened")}
	if o := look(t, other, dir); o.Image.Digest != img.Digest || len(o.Explain()) != 0 {
		t.Errorf("Look = %s, %q; want %s and nothing to explain", o.Image.Digest, o.Explain(), img.Digest)
	}
	again, err := other.Make(t.Context(), recipe(t, dir), dir, helloName)
	if err != nil {
		t.Fatal(err)
	}
	if again.Image != img {
		t.Errorf("again: %+v; want %+v", again.Image, img)
	}
	for _, p := range again.Images[0].Parts {
		if !p.Cached {
			t.Errorf("%s was made again", p.Name)
		}
	}
	if _, err := os.Stat(other.Root); !errors.Is(err, fs.ErrNotExist) {
		t.Error("a store was opened")
	}
}

// Whatever the binary or the files depend on is noticed, and nothing else is.
func TestWhatIsMadeAgain(t *testing.T) {
	source := merged(hello, map[string]string{
		"cmd/hello/m.go": `package main

import (
	"embed"
	"hello/lib"
)

//go:embed data
var data embed.FS

func main() {
	text, _ := data.ReadFile("data/a.txt")
	println(lib.Ahoy, string(text))
}
`,
		"cmd/hello/data/a.txt": "a",
		"cmd/hello/off.go":     "//go:build never\n\npackage main\n\nvar Off = 1\n",
		"lib/lib.go":           "package lib\n\nconst Ahoy = \"ahoy\"\n",
		"docs/index.md":        "# Docs\n",
	})
	for name, c := range map[string]struct {
		path, text string
		want       []string // nil: nothing is made again
		same       bool     // the image is the same all the same
	}{
		"source":            {"lib/lib.go", "package lib\n\nconst Ahoy = \"hoy\"\n", []string{"layer go:hello: lib/lib.go changed"}, false},
		"comment":           {"lib/lib.go", "package lib\n\nconst Ahoy = \"ahoy\" // a greeting\n", []string{"layer go:hello: lib/lib.go changed"}, true},
		"new file":          {"lib/more.go", "package lib\n\nfunc init() { println(1) }\n", []string{"layer go:hello: lib/more.go is new"}, false},
		"embedded":          {"cmd/hello/data/a.txt", "b", []string{"layer go:hello: cmd/hello/data/a.txt changed"}, false},
		"newly embedded":    {"cmd/hello/data/sub/b.txt", "b", []string{"layer go:hello: cmd/hello/data/sub/b.txt is new"}, false},
		"constraint lifted": {"cmd/hello/off.go", "package main\n\nfunc init() { println(2) }\n", []string{"layer go:hello: cmd/hello/off.go is new"}, false},
		"static file":       {"www/index.html", "<p>hoy</p>\n", []string{"layer files: /srv/www/index.html changed"}, false},
		"recipe":            {"image/image.yaml", strings.Replace(source["image/image.yaml"], "1000:1000", "1001:1001", 1), []string{"layer files: /data changed"}, false},
		"docs":              {"docs/index.md", "# More docs\n", nil, true},
		"test":              {"lib/lib_test.go", "package lib\n", nil, true},
		"kept from Go":      {"cmd/hello/off.go", "//go:build never\n\npackage main\n\nvar Off = 2\n", nil, true},
		"config":            {"image/image.yaml", strings.Replace(source["image/image.yaml"], "--loud", "--quiet", 1), nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, dir := newBuilder(t), project(t, source)
			first := build(t, b, dir)
			if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, c.path)), 0o777); err != nil {
				t.Fatal(err)
			}
			write(t, c.text, dir, c.path)
			if got := look(t, b, dir).Explain(); !slices.Equal(got, c.want) {
				t.Errorf("explained: %q; want %q", got, c.want)
			}
			second := build(t, b, dir)
			if (second.Digest == first.Digest) != c.same {
				t.Errorf("%s, then %s", first.Digest, second.Digest)
			}
			if fresh := build(t, newBuilder(t), dir); fresh.Digest != second.Digest {
				t.Errorf("with its cache %s, without %s", second.Digest, fresh.Digest)
			}
		})
	}
}

// Whatever is spoilt in the cache is made anew, and the image is the same.
func TestSpoiltCacheIsRebuilt(t *testing.T) {
	for name, spoil := range map[string]func([]byte) []byte{
		"zeros":     func(b []byte) []byte { return make([]byte, len(b)) },
		"truncated": func(b []byte) []byte { return b[:len(b)/2] },
		"empty":     func([]byte) []byte { return nil },
		"one bit":   func(b []byte) []byte { b[len(b)/2] ^= 4; return b },
		"gone":      nil,
	} {
		for _, part := range []string{"blobs/sha256/*", "records/part-*", "records/blob-*", "records/frame-*", "records/image-*", "records/go-*", "images/*/index.json"} {
			t.Run(name+" "+part, func(t *testing.T) {
				t.Parallel()
				var told events
				b, dir := newBuilder(t), project(t, hello)
				b.Notify = told.note
				img := build(t, b, dir)
				found, err := filepath.Glob(filepath.Join(b.Cache, part))
				if err != nil || len(found) == 0 {
					t.Fatalf("%s: nothing there, %v", part, err)
				}
				for _, path := range found {
					if spoil == nil {
						err = os.Remove(path)
					} else {
						content, readErr := os.ReadFile(path)
						err = errors.Join(readErr, os.WriteFile(path, spoil(content), 0o600))
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				if o := look(t, b, dir); o.Known() && o.Image.Digest != img.Digest {
					t.Errorf("predicted %s, not %s", o.Image.Digest, img.Digest)
				}
				again := build(t, b, dir)
				if again != img {
					t.Errorf("made %s, not %s", again.Digest, img.Digest)
				}
				files(t, again) // reads and checks all of it
				if spoil != nil && strings.HasPrefix(part, "blobs") && !strings.Contains(told.text.String(), "the cache is damaged") {
					t.Errorf("no warning: %s", &told.text)
				}
			})
		}
	}
}

// A dry build knows the digest and leaves nothing.
func TestDryBuild(t *testing.T) {
	b, dir := newBuilder(t), project(t, hello)
	dry := &builder.Builder{Cache: b.Cache, Root: b.Root, RunRoot: b.RunRoot, Dry: true}
	predicted := build(t, dry, dir)
	if err := dry.Close(); err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{"work/*", "blobs/sha256/*", "records/*", "images/*"} {
		if left, err := filepath.Glob(filepath.Join(b.Cache, pattern)); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
	}
	if img := build(t, b, dir); img.Digest != predicted.Digest {
		t.Errorf("predicted %s, made %s", predicted.Digest, img.Digest)
	}
}

func TestPlatforms(t *testing.T) {
	b, dir := newBuilder(t), project(t, hello)
	b.Platforms = []builder.Platform{{OS: "linux", Arch: "amd64"}, {OS: "linux", Arch: "arm64"}}
	out := makeOutcome(t, b, dir)
	var index oci.Index
	readBlob(t, out.Image, out.Image.Digest, &index)
	if len(index.Manifests) != 2 || index.Manifests[1].Platform.Architecture != "arm64" {
		t.Fatalf("index: %+v", index)
	}
	for i, m := range index.Manifests {
		single := newBuilder(t)
		single.Platforms = b.Platforms[i : i+1]
		if img := build(t, single, dir); img.Digest != m.Digest {
			t.Errorf("%s: %s in the index, %s alone", single.Platforms[0], m.Digest, img.Digest)
		}
	}
	if o := look(t, b, dir); o.Image.Digest != out.Image.Digest {
		t.Errorf("Look = %s; want %s", o.Image.Digest, out.Image.Digest)
	}
}

func TestCompression(t *testing.T) {
	b, dir := newBuilder(t), project(t, hello)
	gzip := makeOutcome(t, b, dir)
	for _, c := range []string{"zstd", "zstd:chunked"} {
		b := &builder.Builder{Cache: b.Cache, Root: b.Root, RunRoot: b.RunRoot, Compression: c}
		out := makeOutcome(t, b, dir)
		var m oci.Manifest
		readBlob(t, out.Image, out.Image.Digest, &m)
		for i, l := range m.Layers {
			if l.MediaType != "application/vnd.oci.image.layer.v1.tar+zstd" {
				t.Errorf("%s: layer %d is %s", c, i, l.MediaType)
			}
			if chunked := l.Annotations["io.github.containers.zstd-chunked.manifest-checksum"] != ""; chunked != (c == "zstd:chunked") {
				t.Errorf("%s: layer %d has the annotations %v", c, i, l.Annotations)
			}
		}
		for i, p := range out.Images[0].Parts {
			if p.Layers[0].DiffID != gzip.Images[0].Parts[i].Layers[0].DiffID {
				t.Errorf("%s: %s has other content", c, p.Name)
			}
		}
		if _, err := b.Add(t.Context(), out.Image); err != nil {
			t.Errorf("%s: %v", c, err)
		}
	}
	b.Compression = "lzma"
	if _, err := b.Build(t.Context(), recipe(t, dir), dir, helloName); !errors.Is(err, builder.ErrCompression) {
		t.Errorf("got %v; want ErrCompression", err)
	}
}

// The store's list is read without opening the store.
func TestStores(t *testing.T) {
	b, dir := newBuilder(t), project(t, hello)
	img := build(t, b, dir)
	if b.Stores(img.Name, img.Digest) {
		t.Error("an empty store has it")
	}
	if _, err := b.Add(t.Context(), img); err != nil {
		t.Fatal(err)
	}
	if !b.Stores(img.Name, img.Digest) {
		t.Error("the store does not have it")
	}
	if b.Stores(img.Name.WithTag("other"), img.Digest) || b.Stores(img.Name, oci.Digest("sha256:"+strings.Repeat("0", 64))) {
		t.Error("it has what it has not")
	}
}

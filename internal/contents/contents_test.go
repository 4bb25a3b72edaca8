package contents_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/klauspost/compress/zstd"

	"bareboat/internal/contents"
	"bareboat/internal/oci"
)

// file is an entry of a test's layer: "path", "content", and for other things
// than files a mode or a type.
type file struct {
	name, content string
	mode          int64
	kind          byte
}

func layerTar(t *testing.T, files ...file) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: f.mode, Typeflag: f.kind, Size: int64(len(f.content))}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if h.Typeflag == tar.TypeSymlink {
			h.Linkname, h.Size, f.content = f.content, 0, ""
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, f.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// image writes an image of layers into a layout, and opens and reads it.
func image(t *testing.T, config v1.Config, layers ...[]file) *contents.Image {
	t.Helper()
	img := v1.Image(empty.Image)
	for _, files := range layers {
		text := layerTar(t, files...)
		l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil })
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.Append(img, mutate.Addendum{Layer: l, History: v1.History{CreatedBy: "by " + files[0].name}}); err != nil {
			t.Fatal(err)
		}
	}
	img, err := mutate.Config(img, config)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path, err := layout.Write(dir, empty.Index)
	if err == nil {
		err = path.AppendImage(img)
	}
	if err != nil {
		t.Fatal(err)
	}
	d, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	out, err := contents.Open(dir, oci.Digest(d.String()), "linux/amd64")
	if err != nil {
		t.Fatal(err)
	}
	if err := out.Read(t.Context()); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestLayersHideEachOther(t *testing.T) {
	i := image(t, v1.Config{},
		[]file{
			{name: "replaced", content: "12345"}, {name: "gone", content: "123"},
			{name: "dir/", kind: tar.TypeDir, mode: 0o755}, {name: "dir/a", content: "1"}, {name: "dir/sub/b", content: "12"},
			{name: "emptied/x", content: "1234567"}, {name: "becomes a file/y", content: "12345678"}, {name: "stays", content: "1"},
		},
		[]file{
			{name: "replaced", content: "1"}, {name: ".wh.gone"}, {name: ".wh.dir"},
			{name: "emptied/.wh..wh..opq"}, {name: "emptied/new", content: "1"},
			{name: "becomes a file", content: "1"}, {name: "/./absolute", content: "1"}, {name: "../../outside", content: "1"},
		},
	)
	want := []string{"absolute", "becomes a file", "emptied/new", "outside", "replaced", "stays"}
	if got := i.Paths(); !slices.Equal(got, want) {
		t.Errorf("files: %q; want %q", got, want)
	}
	if l := i.Layers[0]; l.Wasted != 5+3+1+2+7+8 || l.Files != 8 || i.Wasted != l.Wasted || l.CreatedBy != "by replaced" {
		t.Errorf("lower layer: %+v, wasted in all %d", l, i.Wasted)
	}
	if l := i.Layers[1]; l.Wasted != 0 || l.Unpacked != 5 {
		t.Errorf("upper layer: %+v", l)
	}
	if i.Files["replaced"].Layer != 1 || i.Files["replaced"].Size != 1 {
		t.Errorf("replaced: %+v", i.Files["replaced"])
	}
}

func TestCompare(t *testing.T) {
	status := func(version string) file {
		return file{name: "var/lib/dpkg/status.d/nginx", content: "Package: nginx\nArchitecture: amd64\nVersion: " + version + "\n"}
	}
	shared := []file{{name: "shared", content: "x"}}
	a := image(t, v1.Config{Env: []string{"A=1", "B=2"}, User: "1000"}, shared, []file{
		{name: "same", content: "x"}, {name: "content", content: "abc"}, {name: "mode", mode: 0o600}, {name: "only a"},
		{name: "link", content: "there", kind: tar.TypeSymlink}, status("1.0-1"),
	})
	b := image(t, v1.Config{Env: []string{"A=1", "B=3"}, User: "1000", Cmd: []string{"x", "y z"}}, shared, []file{
		{name: "same", content: "x"}, {name: "content", content: "abd"}, {name: "mode", mode: 0o755}, {name: "only b"},
		{name: "link", content: "elsewhere", kind: tar.TypeSymlink}, status("1.0-2"),
	})
	d := contents.Compare(a, b)
	var got []string
	for _, part := range []struct {
		name    string
		changes []contents.Change
	}{{"config", d.Config}, {"package", d.Packages}, {"file", d.Files}} {
		for _, c := range part.changes {
			got = append(got, strings.Join([]string{part.name, c.Name, c.A, c.B, strings.Join(c.What, " ")}, "|"))
		}
	}
	want := []string{
		`config|cmd||["x","y z"]|`, `config|env B|2|3|`, `package|nginx|1.0-1|1.0-2|`,
		`file|/content|-rw-r--r-- 0:0 3 B|-rw-r--r-- 0:0 3 B|content`,
		`file|/link|Lrw-r--r-- 0:0 → there|Lrw-r--r-- 0:0 → elsewhere|link`,
		`file|/mode|-rw------- 0:0 0 B|-rwxr-xr-x 0:0 0 B|mode`,
		`file|/only a|-rw-r--r-- 0:0 0 B||`, `file|/only b||-rw-r--r-- 0:0 0 B|`,
		`file|/var/lib/dpkg/status.d/nginx|-rw-r--r-- 0:0 50 B|-rw-r--r-- 0:0 50 B|content`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if d.Shared != 1 || d.Same || !contents.Compare(a, a).Same {
		t.Errorf("%+v", d)
	}
}

// A layer that is not what the config says, and an image for another platform.
func TestRefuses(t *testing.T) {
	dir := t.TempDir()
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	text := layerTar(t, file{name: "a", content: "a"})
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(text)), nil })
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, l)
	if err != nil {
		t.Fatal(err)
	}
	index := mutate.AppendManifests(empty.Index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}}})
	if err := path.AppendIndex(index); err != nil {
		t.Fatal(err)
	}
	d, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := contents.Open(dir, oci.Digest(d.String()), "linux/amd64"); !errors.Is(err, contents.ErrImage) || !strings.Contains(err.Error(), "linux/arm64") {
		t.Errorf("another platform: %v", err)
	}
	i, err := contents.Open(dir, oci.Digest(d.String()), "linux/arm64")
	if err != nil {
		t.Fatal(err)
	}
	blob := filepath.Join(dir, "blobs", "sha256", i.Layers[0].Digest.Encoded())
	var other bytes.Buffer
	z := gzip.NewWriter(&other)
	if _, err := z.Write(layerTar(t, file{name: "a", content: "b"})); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(z.Close(), os.WriteFile(blob, other.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := i.Read(t.Context()); !errors.Is(err, contents.ErrImage) {
		t.Errorf("another layer: %v", err)
	}
}

// Layers are foreign input: whatever they hold, nothing is found outside of the
// root, and nothing that a whiteout stands for.
func FuzzReadLayer(f *testing.F) {
	plain := layerTar(&testing.T{}, file{name: "a/b", content: "x"}, file{name: "a/.wh.c"}, file{name: "d/.wh..wh..opq"})
	f.Add(plain)
	var z bytes.Buffer
	gz := gzip.NewWriter(&z)
	if _, err := gz.Write(plain); err != nil {
		f.Fatal(err)
	}
	if err := gz.Close(); err != nil {
		f.Fatal(err)
	}
	f.Add(z.Bytes())
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(enc.EncodeAll(plain, nil))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, layer []byte) {
		files, err := contents.ReadLayer(t.Context(), io.LimitReader(bytes.NewReader(layer), 1<<20))
		if err != nil {
			return
		}
		for p := range files {
			if p == "" || strings.HasPrefix(p, "/") || strings.HasPrefix(filepath.Base(p), ".wh.") || slices.Contains(strings.Split(p, "/"), "..") {
				t.Errorf("it has %q", p)
			}
		}
	})
}

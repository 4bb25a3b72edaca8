package registry_test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/opencontainers/go-digest"

	"bareboat/internal/oci"
	"bareboat/registry"
)

// spoiled is a registry that changes the blobs that it sends.
func spoiled(inner http.Handler, change func([]byte) []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") {
			inner.ServeHTTP(w, r)
			return
		}
		answer := httptest.NewRecorder()
		inner.ServeHTTP(answer, r)
		content := change(answer.Body.Bytes())
		w.Write(content[:len(content)/2])
		w.(http.Flusher).Flush() // so that no Content-Length tells the size
		w.Write(content[len(content)/2:])
	})
}

func TestPullCorrupt(t *testing.T) {
	for name, change := range map[string]func([]byte) []byte{
		"other content": func(b []byte) []byte { b[len(b)-1] ^= 1; return b },
		"too short":     func(b []byte) []byte { return b[:len(b)-1] },
		"too long":      func(b []byte) []byte { return append(b, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			c, ref := client(t), serve(t, spoiled(quiet(), change))
			dir, digest := writeLayout(t, 2)
			must[registry.Pushed](t)(c.Push(t.Context(), dir, digest, ref, nil))
			to := t.TempDir()
			_, err := c.Pull(t.Context(), ref, to, nil)
			failure(t, err, registry.Content)
			if left := files(t, to); len(left) != 0 {
				t.Errorf("left in the layout: %s", left)
			}
		})
	}
}

// The connection ends in the middle of a layer: nothing half stays, what was
// whole does, and the next pull brings the rest.
func TestPullBreaksOff(t *testing.T) {
	inner := quiet()
	var broken atomic.Bool
	var cut atomic.Value
	cut.Store("")
	ref := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if broken.Load() && strings.HasSuffix(r.URL.Path, cut.Load().(string)) {
			w.Header().Set("Content-Length", "4000")
			w.Write(make([]byte, 1000))
			panic(http.ErrAbortHandler)
		}
		inner.ServeHTTP(w, r)
	}))
	c := client(t)
	dir, d := writeLayout(t, 1)
	must[registry.Pushed](t)(c.Push(t.Context(), dir, d, ref, nil))
	cut.Store(filepath.Base(largest(t, dir)))
	broken.Store(true)
	to := t.TempDir()
	_, err := c.Pull(t.Context(), ref, to, nil)
	failure(t, err, registry.Unreachable)
	for _, path := range files(t, to) {
		if content := must[[]byte](t)(os.ReadFile(path)); digest.FromBytes(content).Encoded() != filepath.Base(path) {
			t.Errorf("left in the layout: %s", path)
		}
	}
	broken.Store(false)
	must[oci.Descriptor](t)(c.Pull(t.Context(), ref, to, nil))
	checkLayout(t, to, dir, d)
}

// manifestServer is a registry whose only manifest is raw.
func manifestServer(raw []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.Contains(r.URL.Path, "/manifests/") {
			if r.URL.Path != "/v2/" {
				w.WriteHeader(http.StatusNotFound)
			}
			return
		}
		w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
		w.Header().Set("Docker-Content-Digest", digest.FromBytes(raw).String())
		w.Write(raw)
	})
}

const someDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

var nonsense = map[string]string{
	"empty":           ``,
	"no JSON":         `<html>a proxy's page</html>`,
	"no object":       `[]`,
	"no config":       `{"schemaVersion":2,"layers":[]}`,
	"other type":      `{"schemaVersion":2,"mediaType":"application/json","config":{"digest":"` + someDigest + `"}}`,
	"schema 1":        `{"schemaVersion":1,"mediaType":"application/vnd.docker.distribution.manifest.v1+json"}`,
	"path for digest": `{"schemaVersion":2,"config":{"digest":"sha256:../../../../etc/passwd","size":1},"layers":[]}`,
	"empty digest":    `{"schemaVersion":2,"config":{"size":1},"layers":[]}`,
	"negative size":   `{"schemaVersion":2,"config":{"digest":"` + someDigest + `","size":-1}}`,
	"size a string":   `{"schemaVersion":2,"config":{"digest":"` + someDigest + `","size":"1"}}`,
	"index of no one": `{"schemaVersion":2,"manifests":[{"digest":"sha256:no","size":2}]}`,
}

func TestPullNonsense(t *testing.T) {
	for name, raw := range nonsense {
		t.Run(name, func(t *testing.T) {
			c, ref := client(t), serve(t, manifestServer([]byte(raw)))
			to := t.TempDir()
			_, err := c.Pull(t.Context(), ref, to, nil)
			failure(t, err, registry.Content)
			if left := files(t, to); len(left) != 0 {
				t.Errorf("left in the layout: %s", left)
			}
		})
	}
}

func TestPullOtherManifestThanNamed(t *testing.T) {
	c, ref := client(t), serve(t, manifestServer([]byte(`{"schemaVersion":2}`)))
	_, err := c.Pull(t.Context(), ref.WithDigest(someDigest), t.TempDir(), nil)
	failure(t, err, registry.Content)
}

func TestPullHugeManifest(t *testing.T) {
	raw := fmt.Appendf(nil, `{"schemaVersion":2,"config":{"digest":%q},"annotations":{"a":%q}}`, someDigest, bytes.Repeat([]byte("a"), 5<<20))
	c, ref := client(t), serve(t, manifestServer(raw))
	_, err := c.Pull(t.Context(), ref, t.TempDir(), nil)
	failure(t, err, registry.Content)
}

func TestPullToWhereNothingCanBe(t *testing.T) {
	c, ref := client(t), serve(t, quiet())
	dir, d := writeLayout(t, 1)
	must[registry.Pushed](t)(c.Push(t.Context(), dir, d, ref, nil))
	file := filepath.Join(t.TempDir(), "file")
	overwrite(t, file, nil)
	_, err := c.Pull(t.Context(), ref, file, nil)
	if err == nil || !strings.HasPrefix(err.Error(), "pull "+ref.String()+": write layout "+file) {
		t.Errorf("pull = %v", err)
	}
}

// Some registries do not answer HEAD.
func TestResolveWithoutHead(t *testing.T) {
	inner := quiet()
	var mute atomic.Bool
	ref := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if mute.Load() && r.Method == http.MethodHead {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	c := client(t)
	dir, d := writeLayout(t, 1)
	must[registry.Pushed](t)(c.Push(t.Context(), dir, d, ref, nil))
	want := must[oci.Descriptor](t)(c.Resolve(t.Context(), ref))
	mute.Store(true)
	got := must[oci.Descriptor](t)(c.Resolve(t.Context(), ref))
	if got.Digest != d || got.Size != want.Size || got.MediaType != want.MediaType {
		t.Errorf("resolve by GET: %+v; by HEAD: %+v", got, want)
	}
}

// Whatever a registry sends for a manifest, what is taken from it names only
// files of the layout's blobs.
func FuzzManifest(f *testing.F) {
	for _, raw := range nonsense {
		f.Add([]byte(raw))
	}
	f.Add([]byte(`{"schemaVersion":2,"config":{"digest":"` + someDigest + `","size":0},"layers":[{"digest":"` + someDigest + `"}]}`))
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"digest":"` + someDigest + `","size":0}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		children, blobs, err := registry.ParseManifest(raw, digest.FromBytes(raw))
		if err != nil {
			return
		}
		for _, d := range append(children, blobs...) {
			if path := registry.BlobPath("layout", d.Digest); filepath.Dir(filepath.Dir(path)) != "layout/blobs" || d.Size < 0 {
				t.Errorf("%+v is at %s", d, path)
			}
		}
		if _, _, err := registry.ParseManifest(raw, someDigest); err == nil && len(raw) > 0 {
			t.Error("taken under another digest")
		}
	})
}

package registry_test

import (
	"errors"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"

	"bareboat/internal/oci"
	"bareboat/registry"
	"bareboat/registry/embedded"
)

// registries are the ones that every round trip is made with.
var registries = map[string]func(t *testing.T) http.Handler{
	"embedded": func(t *testing.T) http.Handler {
		s, err := embedded.Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		return s
	},
	"ggcr": func(*testing.T) http.Handler { return quiet() },
}

// quietLog hears what servers say of requests that are meant to fail.
var quietLog = log.New(io.Discard, "", 0)

// quiet is go-containerregistry's own registry, in memory.
func quiet() http.Handler { return ggcr.New(ggcr.Logger(quietLog)) }

// serve lets handler answer on this machine and returns a reference below it.
func serve(t *testing.T, handler http.Handler) oci.Reference {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return reference(t, strings.TrimPrefix(server.URL, "http://")+"/team/chat:1")
}

func reference(t *testing.T, s string) oci.Reference {
	t.Helper()
	ref, err := oci.ParseReference(s)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// client is one that no credentials of whoever runs the test reach.
func client(t *testing.T) *registry.Client {
	t.Helper()
	isolate(t)
	return registry.New(registry.Options{})
}

// isolate points every place for credentials into an empty folder.
func isolate(t *testing.T) (home string) {
	t.Helper()
	home = t.TempDir()
	for variable, dir := range map[string]string{
		"HOME": ".", "XDG_RUNTIME_DIR": "run", "XDG_CONFIG_HOME": "config", "DOCKER_CONFIG": "docker",
	} {
		t.Setenv(variable, filepath.Join(home, dir))
	}
	t.Setenv("REGISTRY_AUTH_FILE", "")
	return home
}

// writeLayout makes a layout with an image of random layers.
func writeLayout(t *testing.T, layers int64) (dir string, digest oci.Digest) {
	t.Helper()
	image, err := random.Image(4096, layers)
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	path := must[layout.Path](t)(layout.Write(dir, empty.Index))
	if err := path.AppendImage(image); err != nil {
		t.Fatal(err)
	}
	return dir, oci.Digest(must[v1.Hash](t)(image.Digest()).String())
}

func must[T any](t *testing.T) func(T, error) T {
	return func(value T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
}

// checkLayout reads the layout with another implementation, and compares every
// blob with the one in want.
func checkLayout(t *testing.T, dir, want string, digest oci.Digest) {
	t.Helper()
	path := must[layout.Path](t)(layout.FromPath(dir))
	hash := must[v1.Hash](t)(v1.NewHash(digest.String()))
	if index := must[v1.ImageIndex](t)(path.ImageIndex()); must[*v1.IndexManifest](t)(index.IndexManifest()).Manifests[0].Digest != hash {
		t.Errorf("the layout's index does not name %s", hash)
	}
	names := must[[]string](t)(filepath.Glob(filepath.Join(want, "blobs", "*", "*")))
	for _, name := range names {
		relative := must[string](t)(filepath.Rel(want, name))
		got := must[[]byte](t)(os.ReadFile(filepath.Join(dir, relative)))
		if !slices.Equal(got, must[[]byte](t)(os.ReadFile(name))) {
			t.Errorf("%s differs", relative)
		}
	}
	if got := files(t, filepath.Join(dir, "blobs")); len(got) != len(names) {
		t.Errorf("%d blobs in the layout, want %d: %s", len(got), len(names), got)
	}
}

func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && !entry.IsDir() {
			names = append(names, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// failure is the *registry.Error in err.
func failure(t *testing.T, err error, kind registry.Kind) *registry.Error {
	t.Helper()
	var e *registry.Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v (%T); want a *registry.Error", err, err)
	}
	if e.Kind != kind {
		t.Errorf("error %q is of kind %v; want %v (%v)", e, e.Kind, kind, e.Err)
	}
	return e
}

func TestRoundTrip(t *testing.T) {
	for name, make := range registries {
		t.Run(name, func(t *testing.T) {
			c, ref := client(t), serve(t, make(t))
			dir, digest := writeLayout(t, 5)

			pushed, err := c.Push(t.Context(), dir, digest, ref, nil)
			if err != nil {
				t.Fatal(err)
			}
			if pushed.Digest != digest || pushed.Sent != 6 || pushed.Skipped != 0 || pushed.BytesSent < 5*4096 {
				t.Errorf("pushed %+v", pushed)
			}
			for _, r := range []oci.Reference{ref, ref.WithDigest(digest)} {
				found, err := c.Resolve(t.Context(), r)
				if err != nil || found.Digest != digest || found.Size == 0 || found.MediaType == "" {
					t.Errorf("resolve %s = %+v, %v", r, found, err)
				}
				to := filepath.Join(t.TempDir(), "new")
				got, err := c.Pull(t.Context(), r, to, nil)
				if err != nil || got.Digest != digest || got.Size != found.Size {
					t.Fatalf("pull %s = %+v, %v", r, got, err)
				}
				checkLayout(t, to, dir, digest)
			}
		})
	}
}

func TestPushAgain(t *testing.T) {
	for name, make := range registries {
		t.Run(name, func(t *testing.T) {
			c, ref := client(t), serve(t, make(t))
			dir, digest := writeLayout(t, 3)
			must[registry.Pushed](t)(c.Push(t.Context(), dir, digest, ref, nil))

			// The same tag: a look.
			again := must[registry.Pushed](t)(c.Push(t.Context(), dir, digest, ref, nil))
			if want := (registry.Pushed{Digest: digest, Skipped: 4, Requests: 1}); again != want {
				t.Errorf("pushed again: %+v; want %+v", again, want)
			}
			// Another tag: nothing but the manifest.
			other := must[registry.Pushed](t)(c.Push(t.Context(), dir, digest, ref.WithTag("2"), nil))
			if other.Sent != 0 || other.Skipped != 4 || other.BytesSent > 2000 {
				t.Errorf("pushed to another tag: %+v", other)
			}
			// By digest alone.
			pinned := must[registry.Pushed](t)(c.Push(t.Context(), dir, digest, ref.WithDigest(digest), nil))
			if pinned.BytesSent != 0 {
				t.Errorf("pushed by digest: %+v", pinned)
			}
		})
	}
}

// An image that shares layers with one that is there sends only the others.
func TestPushOnlyWhatIsMissing(t *testing.T) {
	c, ref := client(t), serve(t, quiet())
	first := must[v1.Image](t)(random.Image(4096, 3))
	second := must[v1.Image](t)(mutate.AppendLayers(first, must[v1.Layer](t)(random.Layer(4096, "application/vnd.oci.image.layer.v1.tar+gzip"))))
	for i, image := range []v1.Image{first, second} {
		dir := t.TempDir()
		if err := must[layout.Path](t)(layout.Write(dir, empty.Index)).AppendImage(image); err != nil {
			t.Fatal(err)
		}
		digest := oci.Digest(must[v1.Hash](t)(image.Digest()).String())
		pushed := must[registry.Pushed](t)(c.Push(t.Context(), dir, digest, ref, nil))
		if want := []int{4, 2}[i]; pushed.Sent != want { // the config is a blob, too
			t.Errorf("image %d: sent %d blobs; want %d", i+1, pushed.Sent, want)
		}
	}
}

func TestIndex(t *testing.T) {
	for name, make := range registries {
		t.Run(name, func(t *testing.T) {
			c, ref := client(t), serve(t, make(t))
			index := must[v1.ImageIndex](t)(random.Index(1024, 2, 3))
			dir := t.TempDir()
			if err := must[layout.Path](t)(layout.Write(dir, empty.Index)).AppendIndex(index); err != nil {
				t.Fatal(err)
			}
			digest := oci.Digest(must[v1.Hash](t)(index.Digest()).String())
			must[registry.Pushed](t)(c.Push(t.Context(), dir, digest, ref, nil))
			to := t.TempDir()
			must[oci.Descriptor](t)(c.Pull(t.Context(), ref, to, nil))
			checkLayout(t, to, dir, digest)
		})
	}
}

func TestPullAgain(t *testing.T) {
	var mu sync.Mutex
	var blobs int
	inner := quiet()
	ref := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			mu.Lock()
			blobs++
			mu.Unlock()
		}
		inner.ServeHTTP(w, r)
	}))
	c := client(t)
	dir, digest := writeLayout(t, 3)
	must[registry.Pushed](t)(c.Push(t.Context(), dir, digest, ref, nil))
	to := t.TempDir()
	for range 2 {
		must[oci.Descriptor](t)(c.Pull(t.Context(), ref, to, nil))
	}
	if blobs != 4 {
		t.Errorf("%d blobs were fetched in two pulls; want 4", blobs)
	}
	checkLayout(t, to, dir, digest)
	index := must[v1.ImageIndex](t)(must[layout.Path](t)(layout.FromPath(to)).ImageIndex())
	if n := len(must[*v1.IndexManifest](t)(index.IndexManifest()).Manifests); n != 1 {
		t.Errorf("the layout's index has %d entries; want 1", n)
	}
}

// Each blob is queued before any moves, then moves up to its size and is
// finished; or it is present.
func TestProgress(t *testing.T) {
	c, ref := client(t), serve(t, quiet())
	dir, digest := writeLayout(t, 3)
	check := func(end registry.State, run func(registry.Progress) error) {
		t.Helper()
		last := map[oci.Digest]registry.Event{}
		var order []registry.State
		err := run(func(e registry.Event) {
			order = append(order, e.State)
			if before, ok := last[e.Digest]; ok && (e.Done < before.Done || e.Size != before.Size) && e.State != registry.Present {
				t.Errorf("%v after %v", e, before)
			}
			last[e.Digest] = e
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(last) != 4 || !slices.Equal(order[:4], []registry.State{0, 0, 0, 0}) || slices.Contains(order[4:], registry.Queued) {
			t.Errorf("%d blobs, states %v", len(last), order)
		}
		for _, e := range last {
			if e.State != end || end == registry.Finished && e.Done != e.Size {
				t.Errorf("last %+v; want %v", e, end)
			}
		}
	}
	push := func(p registry.Progress) error {
		_, err := c.Push(t.Context(), dir, digest, ref, p)
		return err
	}
	to := t.TempDir()
	pull := func(p registry.Progress) error {
		_, err := c.Pull(t.Context(), ref, to, p)
		return err
	}
	check(registry.Finished, push)
	check(registry.Present, push)
	check(registry.Finished, pull)
	check(registry.Present, pull)
}

func TestPushAnotherDigestThanNamed(t *testing.T) {
	c, ref := client(t), serve(t, quiet())
	dir, digest := writeLayout(t, 1)
	other := oci.Digest("sha256:" + strings.Repeat("0", 64))
	_, err := c.Push(t.Context(), dir, digest, ref.WithDigest(other), nil)
	if err == nil || !strings.Contains(err.Error(), digest.String()) {
		t.Errorf("push = %v", err)
	}
}

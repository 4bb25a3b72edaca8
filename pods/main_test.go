package pods_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bareboat/pods"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

const hint = "real rootless Podman is needed, run: scripts/test"

// podmanWithImage is what all tests share: a connection, and an image whose
// entrypoint is the probe.
type podmanWithImage struct {
	*pods.Podman
	image string // name
	id    string
	err   error
}

var shared podmanWithImage

func TestMain(m *testing.M) {
	if helper := os.Getenv("BAREBOAT_PODS_HELPER"); helper != "" {
		os.Exit(runHelper(helper))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	shared.err = shared.setUp(ctx)
	cancel()
	code := m.Run()
	if err := shared.tearDown(); err != nil {
		fmt.Fprintln(os.Stderr, "after the tests:", err)
		code = 1
	}
	os.Exit(code)
}

// use gives a test the connection, or fails it.
func use(t *testing.T) *podmanWithImage {
	t.Helper()
	if shared.err != nil {
		t.Fatalf("%v\n%s", shared.err, hint)
	}
	return &shared
}

func (p *podmanWithImage) setUp(ctx context.Context) error {
	archive, err := probeImage(ctx, &p.image)
	if err != nil {
		return err
	}
	if p.Podman, err = pods.Connect(ctx, ""); err != nil {
		return err
	}
	if _, err := p.Load(ctx, bytes.NewReader(archive)); err != nil {
		return err
	}
	var ok bool
	if p.id, ok, err = p.ImageID(ctx, p.image); err == nil && !ok {
		err = fmt.Errorf("image %s is not in the store after it was loaded", p.image)
	}
	return err
}

func (p *podmanWithImage) tearDown() error {
	if p.Podman == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := p.RemoveImage(ctx, p.image); err != nil {
		return err
	}
	return p.Close()
}

// probeImage compiles the probe and packs it into an archive of one image.
func probeImage(ctx context.Context, tag *string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "probe")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	binary := filepath.Join(dir, "probe")
	build := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o", binary, "./testdata/probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("compile the probe: %w: %s", err, out)
	}
	program, err := os.ReadFile(binary)
	if err != nil {
		return nil, err
	}
	layer, err := probeLayer(program)
	if err != nil {
		return nil, err
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, err
	}
	image, err = mutate.Config(image, v1.Config{Entrypoint: []string{"/probe"}, Cmd: []string{"exit", "7"}})
	if err != nil {
		return nil, err
	}
	*tag = "localhost/bareboat-test/probe:" + unique()
	ref, err := name.NewTag(*tag)
	if err != nil {
		return nil, err
	}
	var archive bytes.Buffer
	err = tarball.Write(ref, image, &archive)
	return archive.Bytes(), err
}

func probeLayer(program []byte) (v1.Layer, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range []tar.Header{
		{Name: "data/", Typeflag: tar.TypeDir, Mode: 0o777},
		{Name: "probe", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(program))},
	} {
		if err := w.WriteHeader(&h); err != nil {
			return nil, err
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write(program); err != nil {
				return nil, err
			}
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(buf.Bytes())), nil
	})
}

func unique() string { return "t" + strings.ToLower(rand.Text()[:10]) }

// until polls a condition for as long as anybody would wait for it.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

package pods_test

import (
	"bytes"
	"context"
	"io"
	"log"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"bareboat/pods"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// pushed serves a small image over plain HTTP and gives its pinned reference.
func pushed(t *testing.T) string {
	t.Helper()
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	repo := strings.TrimPrefix(server.URL, "http://") + "/bareboat-test/" + unique()
	ref, err := name.ParseReference(repo + ":1")
	if err != nil {
		t.Fatal(err)
	}
	image, err := random.Image(1000, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, image, remote.WithContext(t.Context())); err != nil {
		t.Fatal(err)
	}
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return repo + "@" + digest.String()
}

func TestImages(t *testing.T) {
	t.Parallel()
	p := use(t)
	ref := pushed(t)
	if id, ok, err := p.ImageID(t.Context(), ref); ok || err != nil {
		t.Fatalf("before: %q, %t, %v", id, ok, err)
	}
	var progress bytes.Buffer
	id, err := p.Pull(t.Context(), ref, true, &progress)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.RemoveImage(context.Background(), id); err != nil {
			t.Error(err)
		}
	})
	if progress.Len() == 0 {
		t.Error("no progress was told")
	}
	if again, err := p.Pull(t.Context(), ref, true, nil); err != nil || again != id {
		t.Errorf("again: %q, %v", again, err)
	}
	if got, ok, err := p.ImageID(t.Context(), ref); got != id || !ok || err != nil {
		t.Errorf("by digest: %q, %t, %v", got, ok, err)
	}

	tag := "localhost:5000/bareboat-test/" + unique() + ":2"
	if err := p.Tag(t.Context(), id, tag); err != nil {
		t.Fatal(err)
	}
	if got, ok, err := p.ImageID(t.Context(), tag); got != id || !ok || err != nil {
		t.Errorf("by tag: %q, %t, %v", got, ok, err)
	}
	list, err := p.Images(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(list, func(i pods.Image) bool { return i.ID == id })
	if i < 0 || !slices.Contains(list[i].Names, tag) || !slices.Contains(list[i].Digests, ref) || list[i].Size == 0 {
		t.Errorf("image %s in %+v", id, list)
	}
	for range 2 {
		if err := p.Untag(t.Context(), tag); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok, err := p.ImageID(t.Context(), tag); ok || err != nil {
		t.Errorf("untagged: %t, %v", ok, err)
	}
	for range 2 {
		if err := p.RemoveImage(t.Context(), id); err != nil {
			t.Fatal(err)
		}
	}
	if _, ok, err := p.ImageID(t.Context(), id); ok || err != nil {
		t.Errorf("removed: %t, %v", ok, err)
	}
}

func TestPullSaysWhatIsMissing(t *testing.T) {
	t.Parallel()
	p := use(t)
	ref := pushed(t)
	host, _, _ := strings.Cut(ref, "/")
	missing := host + "/bareboat-test/none:1"
	if _, err := p.Pull(t.Context(), missing, true, nil); err == nil || !strings.Contains(err.Error(), "pull "+missing) || strings.Contains(err.Error(), "\n") {
		t.Errorf("error is %v", err)
	}
	if _, err := p.Pull(t.Context(), ref, false, nil); err == nil {
		t.Error("pulled over plain HTTP without leave to")
	}
}

func TestImageInUseStays(t *testing.T) {
	t.Parallel()
	p := use(t)
	p.create(t, p.spec("lines", "0"))
	if err := p.RemoveImage(t.Context(), p.image); err == nil || !strings.Contains(err.Error(), p.image) {
		t.Errorf("error is %v", err)
	}
}

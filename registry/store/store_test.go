package store_test

import (
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"bareboat/internal/oci"
	"bareboat/registry/embedded"
	"bareboat/registry/store"
)

// What the registry was given is seen in its store without it, and only when
// nobody serves it, and only what is whole.
func TestTagged(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "registry")
	if d, err := store.Tagged(dir, "team/chat", "1"); d != "" || err != nil {
		t.Errorf("no store: %q, %v", d, err)
	}
	server, err := embedded.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	http := httptest.NewServer(server)
	defer http.Close()
	img, err := random.Image(1024, 1)
	if err != nil {
		t.Fatal(err)
	}
	to, err := name.NewTag(strings.TrimPrefix(http.URL, "http://") + "/team/chat:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(to, img); err != nil {
		t.Fatal(err)
	}
	var locked *store.LockedError
	if _, err := store.Tagged(dir, "team/chat", "1"); !errors.As(err, &locked) || locked.PID != os.Getpid() {
		t.Errorf("while it is served: %v", err)
	}
	if err := server.Close(); err != nil {
		t.Fatal(err)
	}
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	want := oci.Digest(digest.String())
	for at, expected := range map[[2]string]oci.Digest{{"team/chat", "1"}: want, {"team/chat", "2"}: "", {"team/other", "1"}: ""} {
		if d, err := store.Tagged(dir, at[0], at[1]); d != expected || err != nil {
			t.Errorf("%v: %q, %v; want %q", at, d, err, expected)
		}
	}
	blob := filepath.Join(dir, store.Repositories, "team", "chat", "blobs", "sha256", want.Encoded())
	if err := os.WriteFile(blob, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if d, err := store.Tagged(dir, "team/chat", "1"); d != "" || err != nil {
		t.Errorf("a spoilt manifest: %q, %v", d, err)
	}
}

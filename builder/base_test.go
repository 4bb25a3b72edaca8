package builder_test

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bareboat/internal/oci"
	"bareboat/registry"
	"bareboat/registry/embedded"
)

// An image on top of another one, pulled by digest from a registry of this
// machine.
func TestBase(t *testing.T) {
	server, err := embedded.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	http := httptest.NewServer(server)
	defer http.Close()

	b, dir := newBuilder(t), project(t, hello)
	base := build(t, b, dir)
	at, err := oci.ParseReference(strings.TrimPrefix(http.URL, "http://") + "/team/hello:1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := registry.New(registry.Options{}).Push(t.Context(), base.Layout, base.Digest, at, nil); err != nil {
		t.Fatal(err)
	}

	recipe := "base: " + at.WithDigest(base.Digest).String() + `
layers:
  - files: [{from: ../www/index.html, to: /extra.html}]
config: {cmd: [--more]}
`
	if err := os.WriteFile(filepath.Join(dir, "image", "image.yaml"), []byte(recipe), 0o644); err != nil {
		t.Fatal(err)
	}
	got := files(t, build(t, b, dir))
	if got["extra.html"] != "<p>ahoy</p>\n" || got["usr/bin/hello"] == "" {
		t.Errorf("the image has not both its base and its own file: %d files", len(got))
	}
	if _, err := b.Add(t.Context(), build(t, b, dir)); err != nil {
		t.Fatal(err)
	}
	s, err := b.Inspect(t.Context(), "hello")
	if err != nil {
		t.Fatal(err)
	}
	if c := s.Config.Config; c.User != "1000:1000" || strings.Join(c.Entrypoint, " ") != "/usr/bin/hello" || strings.Join(c.Cmd, " ") != "--more" {
		t.Errorf("config: %+v", c)
	}
}

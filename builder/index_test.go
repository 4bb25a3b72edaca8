package builder_test

import (
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"bareboat/builder"
	"bareboat/internal/oci"
	"bareboat/registry"
	"bareboat/registry/embedded"
)

// What is pushed as an index is what others take: skopeo copies all of it, and
// podman runs the image of this machine's platform out of it.
func TestOthersTakeTheIndex(t *testing.T) {
	store, err := embedded.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	server := httptest.NewServer(store)
	defer server.Close()
	to, err := oci.ParseReference(strings.TrimPrefix(server.URL, "http://") + "/team/hello:1")
	if err != nil {
		t.Fatal(err)
	}
	for _, compression := range builder.Compressions {
		b, dir := newBuilder(t), project(t, hello)
		b.Compression = compression
		b.Platforms = []builder.Platform{{OS: "linux", Arch: "amd64"}, {OS: "linux", Arch: "arm64"}}
		img := build(t, b, dir)
		if _, err := registry.New(registry.Options{}).Push(t.Context(), img.Layout, img.Digest, to, nil); err != nil {
			t.Fatal(err)
		}
		command(t, "skopeo", "copy", "--all", "--src-tls-verify=false", "docker://"+to.String(), "oci:"+filepath.Join(t.TempDir(), "copy"))
		got := command(t, "skopeo", "inspect", "--tls-verify=false", "--format={{.Digest}}", "docker://"+to.String())
		if strings.TrimSpace(got) != img.Digest.String() {
			t.Errorf("%s: skopeo sees %s, not %s", compression, got, img.Digest)
		}
		name := to.WithDigest(img.Digest).String()
		t.Cleanup(func() { command(t, "podman", "rmi", "--force", name) })
		command(t, "podman", "pull", "--tls-verify=false", name)
		if got := command(t, "podman", "run", "--rm", "--network=none", name); !strings.Contains(got, "ahoy") {
			t.Errorf("%s: it said %q", compression, got)
		}
	}
}

func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

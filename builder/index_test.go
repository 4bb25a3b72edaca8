package builder_test

import (
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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

// The client of the OCI conformance suite reads what we push: the tag, every
// manifest and every blob, each by each way that the specification has.
func TestConformanceClientTakesIt(t *testing.T) {
	program := filepath.Join(t.TempDir(), "conformance")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "github.com/opencontainers/distribution-spec/conformance")
	build.Dir = filepath.Join("..", "registry", "embedded", "conformance") // the module that pins it
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the conformance suite: %v\n%s", err, out)
	}
	store, err := embedded.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	server := httptest.NewServer(store)
	defer server.Close()
	address := strings.TrimPrefix(server.URL, "http://")
	to, err := oci.ParseReference(address + "/team/hello:1")
	if err != nil {
		t.Fatal(err)
	}
	b, dir := newBuilder(t), project(t, hello)
	b.Platforms = []builder.Platform{{OS: "linux", Arch: "amd64"}, {OS: "linux", Arch: "arm64"}}
	img := makeOutcome(t, b, dir).Image
	if _, err := registry.New(registry.Options{}).Push(t.Context(), img.Layout, img.Digest, to, nil); err != nil {
		t.Fatal(err)
	}
	manifests, blobs := []string{img.Digest.String()}, []string{}
	var index oci.Index
	readBlob(t, img, img.Digest, &index)
	for _, child := range index.Manifests {
		var m oci.Manifest
		readBlob(t, img, child.Digest, &m)
		manifests, blobs = append(manifests, child.Digest.String()), append(blobs, m.Config.Digest.String())
		for _, l := range m.Layers {
			blobs = append(blobs, l.Digest.String())
		}
	}
	results := t.TempDir()
	run := exec.CommandContext(t.Context(), program)
	run.Dir = results
	run.Env = []string{
		"PATH=" + os.Getenv("PATH"), "OCI_VERSION=1.1", "OCI_REGISTRY=" + address, "OCI_TLS=disabled", "OCI_REPO1=team/hello",
		"OCI_RESULTS_DIR=" + results, "OCI_API_PUSH=false", "OCI_API_BLOBS_DELETE=false", "OCI_API_MANIFESTS_DELETE=false",
		"OCI_API_TAGS_DELETE=false", "OCI_RO_DATA_TAGS=1",
		"OCI_RO_DATA_MANIFESTS=" + strings.Join(manifests, " "), "OCI_RO_DATA_BLOBS=" + strings.Join(blobs, " "),
	}
	// How it ends is no matter: this version of the suite trips over its own
	// report when what it reads was given from outside.
	out, _ := run.CombinedOutput()
	for _, want := range []string{
		`OCI Conformance Result: Pass\n`, `FAIL\.+: +0\n`, `Skip\.+: +0\n`, `Read Only Inputs\.+: +Pass\n`, `Tag listing\.+: +Pass\n`,
		`Blob get\.+: +Pass\n`, `Blob head\.+: +Pass\n`, `Manifest get by digest\.+: +Pass\n`, `Manifest get by tag\.+: +Pass\n`,
	} {
		if !regexp.MustCompile(want).Match(out) {
			t.Errorf("the suite does not say %s", want)
		}
	}
	if t.Failed() {
		t.Logf("%s", out)
	}
}

package pipeline_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"

	"bareboat/builder/provenance"
	"bareboat/builder/sbom"
	"bareboat/internal/config"
	"bareboat/internal/oci"
	"bareboat/internal/pipeline"
	"bareboat/registry"
	"bareboat/registry/cosign"
)

// twoPlatforms is an index of two images in a layout.
func twoPlatforms(t *testing.T) oci.Image {
	t.Helper()
	index := v1.ImageIndex(empty.Index)
	for _, arch := range []string{"amd64", "arm64"} {
		image, err := random.Image(1000, 1)
		if err != nil {
			t.Fatal(err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
	}
	dir := t.TempDir()
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := path.AppendIndex(index); err != nil {
		t.Fatal(err)
	}
	h, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	name, err := oci.ParseLocal("team/chat:1")
	if err != nil {
		t.Fatal(err)
	}
	return oci.Image{Name: name, Layout: dir, Digest: oci.Digest(h.String())}
}

func trusting(t *testing.T) *pipeline.Pipeline {
	t.Helper()
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	t.Setenv("REGISTRY_AUTH_FILE", "")
	return &pipeline.Pipeline{Project: &config.Project{}}
}

func newSigner(t *testing.T) *cosign.Signer {
	t.Helper()
	private, _, err := cosign.Generate(nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := cosign.ParsePrivate(private, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// What is attested hangs on the image and its platforms, once however often it
// is pushed, and is found again.
func TestAttest(t *testing.T) {
	const spdx, intoto = "application/spdx+json", "application/vnd.in-toto+json"
	signer := newSigner(t)
	for name, test := range map[string]struct {
		attest              pipeline.Attest
		onIndex, onPlatform []string // types of the referrers
		signatures          int
	}{
		"none":       {},
		"unsigned":   {attest: pipeline.Attest{SBOM: true, Provenance: true}, onIndex: []string{intoto}, onPlatform: []string{spdx}},
		"provenance": {attest: pipeline.Attest{Provenance: true}, onIndex: []string{intoto}},
		"signed": {
			attest:  pipeline.Attest{SBOM: true, Provenance: true, Signer: signer},
			onIndex: []string{cosign.EnvelopeType}, onPlatform: []string{cosign.EnvelopeType}, signatures: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, image := trusting(t), twoPlatforms(t)
			for i := range 2 { // a later run of the same build adds nothing
				facts := provenance.Facts{Recipe: "image.yaml", Started: time.Unix(int64(i), 0)}
				if _, err := p.PushAttested(t.Context(), image, facts, test.attest); err != nil {
					t.Fatal(err)
				}
			}
			tree, err := p.Tree(t.Context(), image.Name.String())
			if err != nil {
				t.Fatal(err)
			}
			if got := referrerTypes(tree); !reflect.DeepEqual(got, test.onIndex) || tree.Signatures != test.signatures || len(tree.Images) != 2 {
				t.Errorf("on the index: %v, %d signatures, %d images", got, tree.Signatures, len(tree.Images))
			}
			for _, i := range tree.Images {
				if got := referrerTypes(i); !reflect.DeepEqual(got, test.onPlatform) || i.Signatures != test.signatures || i.Layers != 1 || i.Size == 0 {
					t.Errorf("on %s: %v, %+v", i.Platform, got, i)
				}
			}
			made, err := sbom.Document(image.Layout, tree.Images[1].Digest)
			if err != nil {
				t.Fatal(err)
			}
			got, err := p.SBOM(t.Context(), image.Name.String(), "linux/arm64", nil)
			if err != nil || len(compact(t, got)) == 0 || !bytes.Equal(compact(t, got), compact(t, made)) {
				t.Errorf("SBOM: %v, %d bytes", err, len(got))
			}
		})
	}
}

func referrerTypes(t pipeline.Tree) []string {
	var out []string
	for _, r := range t.Referrers {
		out = append(out, r.ArtifactType)
	}
	return out
}

// Another revision that gives the same image is told beside the first.
func TestAttestOtherBuild(t *testing.T) {
	p, image := trusting(t), twoPlatforms(t)
	for _, revision := range []string{"1", "2", "1"} {
		facts := provenance.Facts{Source: provenance.Source{Revision: revision}}
		if _, err := p.PushAttested(t.Context(), image, facts, pipeline.Attest{Provenance: true}); err != nil {
			t.Fatal(err)
		}
	}
	tree, err := p.Tree(t.Context(), image.Name.String())
	if err != nil || len(tree.Referrers) != 2 {
		t.Errorf("%d statements, %v", len(tree.Referrers), err)
	}
}

func TestVerify(t *testing.T) {
	p, image := trusting(t), twoPlatforms(t)
	signer, stranger := newSigner(t), newSigner(t)
	name := image.Name.String()
	var access *registry.Error
	if _, err := p.Verify(t.Context(), name, signer.Verifier(), ""); !errors.As(err, &access) {
		t.Errorf("no image: %v", err)
	}
	if _, err := p.PushAttested(t.Context(), image, provenance.Facts{}, pipeline.Attest{SBOM: true, Signer: signer}); err != nil {
		t.Fatal(err)
	}
	if got, err := p.Verify(t.Context(), name, signer.Verifier(), ""); err != nil || got != image.Pinned() {
		t.Errorf("%s, %v", got, err)
	}
	if _, err := p.Verify(t.Context(), name, stranger.Verifier(), ""); !errors.Is(err, cosign.ErrSignature) || !strings.Contains(err.Error(), image.Pinned()) {
		t.Errorf("another key: %v", err)
	}
	if _, err := p.Verify(t.Context(), name, signer.Verifier(), "example.org/other"); !errors.Is(err, cosign.ErrPayload) {
		t.Errorf("another name: %v", err)
	}
	if _, err := p.SBOM(t.Context(), name, "linux/amd64", signer.Verifier()); err != nil {
		t.Errorf("signed SBOM: %v", err)
	}
	if _, err := p.SBOM(t.Context(), name, "linux/amd64", stranger.Verifier()); !errors.Is(err, pipeline.ErrNoSBOM) {
		t.Errorf("SBOM by another key: %v", err)
	}
}

// compact leaves out what JSON leaves open.
func compact(t *testing.T, text []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := json.Compact(&out, text); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// The facts of this project's own images: what git, go.mod and the locks say.
func TestFacts(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	for _, name := range []string{"GITHUB_RUN_ID", "CI_JOB_URL"} {
		t.Setenv(name, "")
	}
	t.Setenv("CI_JOB_URL", "https://ci.example.org/7")
	project, err := config.Load(t.Context(), config.Options{Files: []string{"../../podman-compose.yml"}})
	if err != nil {
		t.Fatal(err)
	}
	p := &pipeline.Pipeline{Project: project}
	chat, err := p.Facts(t.Context(), "chat", []string{"linux/amd64"})
	if err != nil {
		t.Fatal(err)
	}
	if chat.Recipe != "chat/image.yaml" || chat.Service != "chat" || chat.Base != "" || chat.Invocation != "https://ci.example.org/7" {
		t.Errorf("facts are %+v", chat)
	}
	if chat.Toolchain != runtime.Version() {
		t.Errorf("toolchain %s, but this was compiled with %s", chat.Toolchain, runtime.Version())
	}
	named := func(want string) bool {
		return slices.ContainsFunc(chat.Packages, func(k provenance.Package) bool { return k.Name == want && len(k.SHA256) == 64 })
	}
	if !named("tzdata") || !named("ca-certificates") {
		t.Errorf("packages are %v", chat.Packages)
	}
	if other, err := p.Facts(t.Context(), "proxy", []string{"linux/riscv64"}); err != nil || len(other.Packages) != 0 || other.Recipe != "pods/proxy/image.yaml" || other.Toolchain != runtime.Version() {
		t.Errorf("facts of the proxy, for an architecture that is not locked: %+v, %v", other, err)
	}
}

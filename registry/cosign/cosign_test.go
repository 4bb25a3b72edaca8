package cosign_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/random"

	"bareboat/builder/provenance"
	"bareboat/builder/sbom"
	"bareboat/internal/oci"
	"bareboat/registry"
	"bareboat/registry/cosign"
	"bareboat/registry/embedded"
)

const password = "correct horse"

// program is the real cosign, compiled once for all tests. Its version is pinned
// in cosigntest/go.mod, a module apart so that its dependencies stay out of ours.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir = filepath.Join(dir, "bareboat-cosigntest")
	build := exec.Command("go", "build", "-o", dir+string(filepath.Separator), "github.com/sigstore/cosign/v2/cmd/cosign")
	build.Dir = "cosigntest"
	if out, err := build.CombinedOutput(); err != nil {
		return "", errors.New("build cosign: " + err.Error() + "\n" + string(out))
	}
	return filepath.Join(dir, "cosign"), nil
})

// run calls cosign.
func run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.CommandContext(t.Context(), path, args...)
	c.Env = append(os.Environ(), "COSIGN_PASSWORD="+password, "HOME="+t.TempDir(), "COSIGN_EXPERIMENTAL=1")
	out, err := c.CombinedOutput()
	return string(out), err
}

func mustRun(t *testing.T, args ...string) string {
	t.Helper()
	out, err := run(t, args...)
	if err != nil {
		t.Fatalf("cosign %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

var (
	verifyOffline = []string{"--insecure-ignore-tlog=true", "--allow-insecure-registry", "--allow-http-registry"}
	signOffline   = []string{"--tlog-upload=false", "--yes", "--allow-insecure-registry", "--allow-http-registry"}
)

// pushed is an image at a registry, and a client for it.
func pushed(t *testing.T) (*registry.Client, oci.Reference) {
	t.Helper()
	c, ref, _ := pushedLayout(t)
	return c, ref
}

// pushedLayout gives the image's layout, too.
func pushedLayout(t *testing.T) (*registry.Client, oci.Reference, string) {
	t.Helper()
	t.Setenv("REGISTRY_AUTH_FILE", "")
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	store, err := embedded.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(store)
	t.Cleanup(func() {
		server.Close()
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	image := must[v1.Image](t)(random.Image(1000, 2))
	dir := t.TempDir()
	if err := must[layout.Path](t)(layout.Write(dir, empty.Index)).AppendImage(image); err != nil {
		t.Fatal(err)
	}
	digest := oci.Digest(must[v1.Hash](t)(image.Digest()).String())
	ref := must[oci.Reference](t)(oci.ParseReference(strings.TrimPrefix(server.URL, "http://") + "/team/chat:1"))
	c := registry.New(registry.Options{})
	if _, err := c.Push(t.Context(), dir, digest, ref, nil); err != nil {
		t.Fatal(err)
	}
	return c, ref.WithDigest(digest), dir
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

// keys is a key pair of ours, and the files that hold it.
func keys(t *testing.T) (s *cosign.Signer, private, public string) {
	t.Helper()
	key, pub, err := cosign.Generate([]byte(password))
	if err != nil {
		t.Fatal(err)
	}
	return must[*cosign.Signer](t)(cosign.ParsePrivate(key, []byte(password))), file(t, key), file(t, pub)
}

func file(t *testing.T, text []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func tagged(t *testing.T, c *registry.Client, ref oci.Reference) registry.Artifact {
	t.Helper()
	return must[registry.Artifact](t)(c.FetchArtifact(t.Context(), ref))
}

// cosign verifies what we sign, also beside a signature of its own, and signing
// twice changes nothing.
func TestSign(t *testing.T) {
	c, image := pushed(t)
	signer, private, public := keys(t)
	for range 2 {
		if err := signer.Sign(t.Context(), c, image, image); err != nil {
			t.Fatal(err)
		}
	}
	at := image.WithTag(cosign.SignatureTag(image.Digest))
	if a := tagged(t, c, at); len(a.Blobs) != 1 {
		t.Errorf("signed twice: %d signatures", len(a.Blobs))
	}
	mustRun(t, append([]string{"verify", "--key", public, image.String()}, verifyOffline...)...)
	if err := signer.Verifier().Verify(t.Context(), c, image, image); err != nil {
		t.Error(err)
	}
	// cosign takes our key, and adds to what we wrote.
	mustRun(t, append([]string{"sign", "--key", private, "-a", "by=cosign", image.String()}, signOffline...)...)
	if a := tagged(t, c, at); len(a.Blobs) != 2 {
		t.Errorf("signed by cosign, too: %d signatures", len(a.Blobs))
	}
	other, _, otherPublic := keys(t)
	if err := other.Sign(t.Context(), c, image, image); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{public, otherPublic} {
		mustRun(t, append([]string{"verify", "--key", key, image.String()}, verifyOffline...)...)
	}
}

// We verify what cosign signs, with keys of its own, wherever it puts that; and
// its keys sign here.
func TestVerifyCosign(t *testing.T) {
	for mode, flags := range map[string][]string{
		"tag": nil, "referrer": {"--registry-referrers-mode=oci-1-1"},
	} {
		t.Run(mode, func(t *testing.T) {
			c, image := pushed(t)
			prefix := filepath.Join(t.TempDir(), "key")
			mustRun(t, "generate-key-pair", "--output-key-prefix", prefix)
			mustRun(t, append(append([]string{"sign", "--key", prefix + ".key", image.String()}, signOffline...), flags...)...)
			public := must[[]byte](t)(os.ReadFile(prefix + ".pub"))
			verifier := must[*cosign.Verifier](t)(cosign.ParsePublic(public))
			if err := verifier.Verify(t.Context(), c, image, image); err != nil {
				t.Error(err)
			}
			signer := must[*cosign.Signer](t)(cosign.ParsePrivate(must[[]byte](t)(os.ReadFile(prefix+".key")), []byte(password)))
			if err := signer.Sign(t.Context(), c, image, image); err != nil {
				t.Error(err)
			}
			mustRun(t, append([]string{"verify", "--key", prefix + ".pub", image.String()}, verifyOffline...)...)
		})
	}
}

// cosign verifies our statements, by their types.
func TestAttest(t *testing.T) {
	c, image, dir := pushedLayout(t)
	signer, _, public := keys(t)
	statement := must[[]byte](t)(provenance.New(provenance.Facts{Subjects: []oci.Digest{image.Digest}, Name: image.Name(), Recipe: "image.yaml"}))
	for range 2 {
		if err := signer.Attest(t.Context(), c, image, provenance.PredicateType, statement); err != nil {
			t.Fatal(err)
		}
	}
	if all := must[[]registry.Blob](t)(cosign.Attestations(t.Context(), c, image)); len(all) != 1 {
		t.Errorf("attested twice: %d attestations", len(all))
	}
	referrers := must[[]oci.Descriptor](t)(c.Referrers(t.Context(), image))
	if len(referrers) != 1 || referrers[0].ArtifactType != cosign.EnvelopeType {
		t.Fatalf("referrers are %v", referrers)
	}
	mustRun(t, append([]string{"verify-attestation", "--key", public, "--type", "slsaprovenance1", image.String()}, verifyOffline...)...)
	if out, err := run(t, append([]string{"verify-attestation", "--key", public, "--type", "spdxjson", image.String()}, verifyOffline...)...); err == nil {
		t.Errorf("an SBOM that was never attached is verified:\n%s", out)
	}
	envelope := tagged(t, c, image.WithDigest(referrers[0].Digest)).Blobs[0].Data
	if s, err := signer.Verifier().Open(t.Context(), envelope, image.Digest); err != nil || s.PredicateType != provenance.PredicateType {
		t.Errorf("our own envelope: %+v, %v", s, err)
	}
	document := must[[]byte](t)(sbom.Document(dir, image.Digest))
	statement = must[[]byte](t)(json.Marshal(cosign.NewStatement(image.Name(), image.Digest, sbom.PredicateType, document)))
	if err := signer.Attest(t.Context(), c, image, sbom.PredicateType, statement); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"spdxjson", "slsaprovenance1"} {
		mustRun(t, append([]string{"verify-attestation", "--key", public, "--type", kind, image.String()}, verifyOffline...)...)
	}
	stranger, strangerPrivate, strangerPublic := keys(t)
	// cosign attests in its way, beside ours.
	mustRun(t, append([]string{"attest", "--key", strangerPrivate, "--type", "spdxjson", "--predicate", file(t, document), image.String()}, signOffline...)...)
	for _, key := range []string{public, strangerPublic} {
		mustRun(t, append([]string{"verify-attestation", "--key", key, "--type", "spdxjson", image.String()}, verifyOffline...)...)
	}
	all := must[[]registry.Blob](t)(cosign.Attestations(t.Context(), c, image))
	if s, err := stranger.Verifier().Open(t.Context(), all[len(all)-1].Data, image.Digest); err != nil || s.PredicateType != sbom.PredicateType {
		t.Errorf("cosign's attestation: %s, %v", s.PredicateType, err)
	}
	if _, err := stranger.Verifier().Open(t.Context(), envelope, image.Digest); !errors.Is(err, cosign.ErrSignature) {
		t.Errorf("with another key: %v", err)
	}
	changed := []byte(strings.Replace(string(envelope), `"payload":"e`, `"payload":"f`, 1))
	if _, err := signer.Verifier().Open(t.Context(), changed, image.Digest); err == nil || string(changed) == string(envelope) {
		t.Errorf("a changed envelope: %v", err)
	}
}

// What does not verify is told apart.
func TestVerifyFails(t *testing.T) {
	c, image := pushed(t)
	signer, _, _ := keys(t)
	verifier := signer.Verifier()
	if err := verifier.Verify(t.Context(), c, image, image); !errors.Is(err, cosign.ErrUnsigned) {
		t.Errorf("no signature: %v", err)
	}
	if err := signer.Sign(t.Context(), c, image, image); err != nil {
		t.Fatal(err)
	}
	stranger, _, _ := keys(t)
	if err := stranger.Verifier().Verify(t.Context(), c, image, image); !errors.Is(err, cosign.ErrSignature) {
		t.Errorf("another key: %v", err)
	}
	elsewhere := image
	elsewhere.Repository = "team/other"
	if err := verifier.Verify(t.Context(), c, image, elsewhere); !errors.Is(err, cosign.ErrPayload) {
		t.Errorf("another name: %v", err)
	}
	at := image.WithTag(cosign.SignatureTag(image.Digest))
	change := func(edit func(*registry.Blob)) {
		t.Helper()
		if err := c.UpdateArtifact(t.Context(), at, func(a *registry.Artifact) (bool, error) {
			before := string(a.Blobs[0].Data) + a.Blobs[0].MediaType
			edit(&a.Blobs[0])
			return string(a.Blobs[0].Data)+a.Blobs[0].MediaType != before, nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	change(func(b *registry.Blob) {
		b.Data = []byte(strings.Replace(string(b.Data), "team/chat", "team/fake", 1))
	})
	if err := verifier.Verify(t.Context(), c, image, image); !errors.Is(err, cosign.ErrSignature) {
		t.Errorf("a changed payload: %v", err)
	}
	// A true signature of another image, moved to this one.
	other := image
	other.Digest = oci.Digest("sha256:" + strings.Repeat("0", 64))
	if err := signer.Sign(t.Context(), c, other, other); err != nil {
		t.Fatal(err)
	}
	moved := tagged(t, c, image.WithTag(cosign.SignatureTag(other.Digest)))
	if err := c.UpdateArtifact(t.Context(), at, func(a *registry.Artifact) (bool, error) {
		done := len(a.Blobs) == 1 && string(a.Blobs[0].Data) == string(moved.Blobs[0].Data)
		*a = moved
		return !done, nil
	}); err != nil {
		t.Fatal(err)
	}
	if err := verifier.Verify(t.Context(), c, image, image); !errors.Is(err, cosign.ErrPayload) {
		t.Errorf("another image's signature: %v", err)
	}
	var failed *cosign.VerifyError
	if err := verifier.Verify(t.Context(), c, image, image); !errors.As(err, &failed) || failed.Hint() == "" {
		t.Errorf("no hint: %v", err)
	}
}

// RSA and Ed25519 keys that cosign imports sign, and verify here.
func TestOtherKeys(t *testing.T) {
	_, edward, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]crypto.Signer{"RSA": must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 2048)), "Ed25519": edward} {
		t.Run(name, func(t *testing.T) {
			c, image := pushed(t)
			plain := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must[[]byte](t)(x509.MarshalPKCS8PrivateKey(key))})
			prefix := filepath.Join(t.TempDir(), "key")
			mustRun(t, "import-key-pair", "--key", file(t, plain), "--output-key-prefix", prefix)
			mustRun(t, append([]string{"sign", "--key", prefix + ".key", image.String()}, signOffline...)...)
			verifier := must[*cosign.Verifier](t)(cosign.ParsePublic(must[[]byte](t)(os.ReadFile(prefix + ".pub"))))
			if err := verifier.Verify(t.Context(), c, image, image); err != nil {
				t.Error(err)
			}
			signer := must[*cosign.Signer](t)(cosign.ParsePrivate(must[[]byte](t)(os.ReadFile(prefix+".key")), []byte(password)))
			c, image = pushed(t)
			if err := signer.Sign(t.Context(), c, image, image); err != nil {
				t.Fatal(err)
			}
			mustRun(t, append([]string{"verify", "--key", prefix + ".pub", image.String()}, verifyOffline...)...)
		})
	}
}

func TestKeys(t *testing.T) {
	private, public, err := cosign.Generate([]byte(password))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cosign.ParsePrivate(private, []byte("wrong")); !errors.Is(err, cosign.ErrPassword) {
		t.Errorf("a wrong password: %v", err)
	}
	for _, text := range [][]byte{nil, []byte("no key"), public} {
		if _, err := cosign.ParsePrivate(text, []byte(password)); !errors.Is(err, cosign.ErrKey) {
			t.Errorf("as a private key: %v", err)
		}
	}
	for _, text := range [][]byte{nil, []byte("no key"), private} {
		if _, err := cosign.ParsePublic(text); !errors.Is(err, cosign.ErrKey) {
			t.Errorf("as a public key: %v", err)
		}
	}
}

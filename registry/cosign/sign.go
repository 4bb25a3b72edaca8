package cosign

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"bareboat/internal/oci"
	"bareboat/registry"
)

// The media types and names of cosign's formats.
const (
	payloadType   = "application/vnd.dev.cosign.simplesigning.v1+json"
	signatureType = "application/vnd.dev.cosign.artifact.sig.v1+json" // of a referrer with signatures
	signatureName = "dev.cosignproject.cosign/signature"              // annotation of a payload
	predicateName = "predicateType"                                   // annotation of an envelope

	// EnvelopeType is the media type of a signed statement.
	EnvelopeType = "application/vnd.dsse.envelope.v1+json"
	// StatementType is the media type of a statement.
	StatementType = "application/vnd.in-toto+json"
)

// payload is what a signature of an image is over (containers-signature(5)).
type payload struct {
	Critical struct {
		Identity struct {
			Reference string `json:"docker-reference"`
		} `json:"identity"`
		Image struct {
			Digest oci.Digest `json:"docker-manifest-digest"`
		} `json:"image"`
		Type string `json:"type"`
	} `json:"critical"`
	Optional map[string]any `json:"optional"`
}

const payloadKind = "cosign container image signature"

func newPayload(identity oci.Reference, d oci.Digest) ([]byte, error) {
	var p payload
	p.Critical.Identity.Reference = identity.Name()
	p.Critical.Image.Digest = d
	p.Critical.Type = payloadKind
	return json.Marshal(p)
}

// SignatureTag and AttestationTag are where cosign keeps what is signed about
// the manifest with digest d.
func SignatureTag(d oci.Digest) string { return tag(d, "sig") }

// AttestationTag is where cosign keeps attestations.
func AttestationTag(d oci.Digest) string { return tag(d, "att") }

func tag(d oci.Digest, suffix string) string {
	return d.Algorithm().String() + "-" + d.Encoded() + "." + suffix
}

// Sign adds a signature to the image at, a reference with a digest. Identity is
// the name that is signed, for people and mirrors the image's own. Where the
// key has signed the same already, nothing changes. What is wrong with the
// registry is a *registry.Error.
func (s *Signer) Sign(ctx context.Context, c *registry.Client, at, identity oci.Reference) error {
	content, err := newPayload(identity, at.Digest)
	if err != nil {
		return fmt.Errorf("sign %s: %w", at, err)
	}
	signature, err := s.sign(content)
	if err != nil {
		return fmt.Errorf("sign %s: %w", at, err)
	}
	verifier := s.Verifier()
	return c.UpdateArtifact(ctx, at.WithTag(SignatureTag(at.Digest)), func(a *registry.Artifact) (bool, error) {
		if slices.ContainsFunc(a.Blobs, func(b registry.Blob) bool {
			return bytes.Equal(b.Data, content) && verifier.signed(b)
		}) {
			return false, nil
		}
		return true, add(a, registry.Blob{
			MediaType: payloadType, Data: content,
			Annotations: map[string]string{signatureName: base64.StdEncoding.EncodeToString(signature)},
		})
	})
}

// Attest signs a statement and attaches the envelope to the image at, a
// reference with a digest: as a referrer, and under the tag where cosign looks.
// Where the key has signed the same statement already, nothing changes.
func (s *Signer) Attest(ctx context.Context, c *registry.Client, at oci.Reference, predicateType string, statement []byte) error {
	envelope, err := s.Envelope(ctx, statement)
	if err != nil {
		return fmt.Errorf("attest %s: %w", at, err)
	}
	blob := registry.Blob{MediaType: EnvelopeType, Data: envelope, Annotations: map[string]string{predicateName: predicateType}}
	_, err = c.Attach(ctx, at, registry.Artifact{
		Type: EnvelopeType, Annotations: map[string]string{predicateName: predicateType}, Blobs: []registry.Blob{blob},
	})
	if err != nil {
		return err
	}
	return c.UpdateArtifact(ctx, at.WithTag(AttestationTag(at.Digest)), func(a *registry.Artifact) (bool, error) {
		if slices.ContainsFunc(a.Blobs, func(b registry.Blob) bool { return bytes.Equal(b.Data, envelope) }) {
			return false, nil
		}
		blob := blob
		blob.Annotations = map[string]string{signatureName: "", predicateName: predicateType}
		return true, add(a, blob)
	})
}

// add appends a blob as cosign does: its artifacts have the config of an image,
// whose layers the blobs are.
func add(a *registry.Artifact, b registry.Blob) error {
	var config oci.ImageConfig
	if a.Config != nil {
		if err := json.Unmarshal(a.Config.Data, &config); err != nil {
			return fmt.Errorf("the config beside the signatures is none of an image: %w", err)
		}
	}
	config.RootFS.Type = "layers"
	config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, digest.FromBytes(b.Data))
	data, err := json.Marshal(config)
	if err != nil {
		return err
	}
	a.Config = &registry.Blob{MediaType: v1.MediaTypeImageConfig, Data: data}
	a.Blobs = append(a.Blobs, b)
	return nil
}

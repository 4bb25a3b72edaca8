package cosign

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"bareboat/internal/oci"
	"bareboat/registry"
)

// The reasons for which an image does not verify.
var (
	ErrUnsigned  = errors.New("it has no signature")
	ErrSignature = errors.New("no signature is of this key")
	ErrPayload   = errors.New("what the key signed is not this image")
)

// VerifyError says which image does not verify, and why.
type VerifyError struct {
	Image oci.Reference
	Err   error // wraps ErrUnsigned, ErrSignature or ErrPayload
}

// Error is one line.
func (e *VerifyError) Error() string { return fmt.Sprintf("verify %s: %v", e.Image, e.Err) }

// Unwrap gives the reason.
func (e *VerifyError) Unwrap() error { return e.Err }

// Hint is what to try next.
func (e *VerifyError) Hint() string {
	switch {
	case errors.Is(e.Err, ErrUnsigned):
		return "bareboat push --sign KEY signs it"
	case errors.Is(e.Err, ErrSignature):
		return "is the key that of whoever signed it? A signature or what it is over may also have been changed"
	}
	return "an image that was copied here from another name verifies with --identity NAME"
}

// Verify checks that the image at, a reference with a digest, has a signature
// of this key that names its digest and its identity, the name that it was
// signed under. Signatures are looked for under cosign's tag and among the
// image's referrers. The error is a *VerifyError, or a *registry.Error where
// the registry is the trouble.
func (v *Verifier) Verify(ctx context.Context, c *registry.Client, at, identity oci.Reference) error {
	signatures, err := Signatures(ctx, c, at)
	if err != nil {
		return err
	}
	if len(signatures) == 0 {
		return &VerifyError{Image: at, Err: ErrUnsigned}
	}
	reason := ErrSignature
	for _, b := range signatures {
		if !v.signed(b) {
			continue
		}
		if reason = checkPayload(b.Data, at.Digest, identity); reason == nil {
			return nil
		}
	}
	return &VerifyError{Image: at, Err: reason}
}

// Signatures are the payloads about the image at, with their signatures, of
// whatever key.
func Signatures(ctx context.Context, c *registry.Client, at oci.Reference) ([]registry.Blob, error) {
	tagged, err := under(ctx, c, at.WithTag(SignatureTag(at.Digest)))
	if err != nil {
		return nil, err
	}
	all := tagged.Blobs
	referrers, err := c.Referrers(ctx, at)
	if err != nil {
		return nil, err
	}
	for _, r := range referrers {
		if r.ArtifactType != signatureType {
			continue
		}
		a, err := c.FetchArtifact(ctx, at.WithDigest(r.Digest))
		if err != nil {
			return nil, err
		}
		all = append(all, a.Blobs...)
	}
	return all, nil
}

// Attestations are the envelopes under cosign's tag for the image at.
func Attestations(ctx context.Context, c *registry.Client, at oci.Reference) ([]registry.Blob, error) {
	a, err := under(ctx, c, at.WithTag(AttestationTag(at.Digest)))
	return a.Blobs, err
}

// under is the artifact that a tag names; an empty one if there is none.
func under(ctx context.Context, c *registry.Client, ref oci.Reference) (registry.Artifact, error) {
	a, err := c.FetchArtifact(ctx, ref)
	var answer *registry.Error
	if errors.As(err, &answer) && answer.Kind == registry.NotFound {
		return registry.Artifact{}, nil
	}
	return a, err
}

// signed tells whether a payload carries a signature of this key.
func (v *Verifier) signed(b registry.Blob) bool {
	signature, err := base64.StdEncoding.DecodeString(b.Annotations[signatureName])
	return err == nil && b.MediaType == payloadType && v.fits(b.Data, signature)
}

// checkPayload compares what was signed with what is wanted.
func checkPayload(content []byte, d oci.Digest, identity oci.Reference) error {
	var p payload
	if err := json.Unmarshal(content, &p); err != nil {
		return fmt.Errorf("%w: %w", ErrPayload, err)
	}
	if p.Critical.Type != payloadKind {
		return fmt.Errorf("%w: it is a %q", ErrPayload, p.Critical.Type)
	}
	if p.Critical.Image.Digest != d {
		return fmt.Errorf("%w: it is %s", ErrPayload, p.Critical.Image.Digest)
	}
	// cosign writes names of Docker Hub in their longest form.
	signed, err := oci.ParseReference(p.Critical.Identity.Reference)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPayload, err)
	}
	if signed.Name() != identity.Name() {
		return fmt.Errorf("%w: it was signed as %s, not as %s", ErrPayload, signed.Name(), identity.Name())
	}
	return nil
}

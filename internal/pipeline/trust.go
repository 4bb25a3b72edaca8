package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"bareboat/builder/provenance"
	"bareboat/builder/sbom"
	"bareboat/internal/oci"
	"bareboat/registry"
	"bareboat/registry/cosign"
)

// Attest is what is told of images beside them.
type Attest struct {
	SBOM       bool // what they are made of
	Provenance bool // how they were made
	// Signer signs the images, and what is told of them; nil: nobody does.
	Signer *cosign.Signer
}

// attest attaches to an image that was pushed to at what o asks for, and signs
// it. What hangs there already is left as it is. The facts need no subjects.
func (d *destination) attest(ctx context.Context, image oci.Image, at oci.Reference, facts provenance.Facts, o Attest) error {
	images, err := imagesIn(image)
	if err != nil {
		return err
	}
	every := images
	if !slices.Contains(images, image.Digest) {
		every = append([]oci.Digest{image.Digest}, images...)
	}
	identity := d.name(image.Name, at)
	if o.SBOM {
		for _, i := range images {
			if err := d.attachSBOM(ctx, image.Layout, identity, at.WithDigest(i), o.Signer); err != nil {
				return err
			}
		}
	}
	if o.Provenance {
		facts.Subjects, facts.Name = every, identity.Name()
		if err := d.attachProvenance(ctx, facts, at.WithDigest(image.Digest), o.Signer); err != nil {
			return err
		}
	}
	if o.Signer == nil {
		return nil
	}
	for _, i := range every {
		if err := o.Signer.Sign(ctx, d.client, at.WithDigest(i), identity); err != nil {
			return err
		}
	}
	return nil
}

// imagesIn are the images in a layout's manifest: itself, or those of an index.
func imagesIn(image oci.Image) ([]oci.Digest, error) {
	text, err := os.ReadFile(filepath.Join(image.Layout, v1.ImageBlobsDir, image.Digest.Algorithm().String(), image.Digest.Encoded()))
	if err != nil {
		return nil, fmt.Errorf("read image %s: %w", image.Digest, err)
	}
	var index oci.Index
	if err := json.Unmarshal(text, &index); err != nil {
		return nil, fmt.Errorf("read image %s: %w", image.Digest, err)
	}
	if len(index.Manifests) == 0 {
		return []oci.Digest{image.Digest}, nil
	}
	var out []oci.Digest
	for _, m := range index.Manifests {
		out = append(out, m.Digest)
	}
	return out, nil
}

// attachSBOM describes an image where nobody has: the same image has the same
// document, so that one is enough.
func (d *destination) attachSBOM(ctx context.Context, layout string, identity, at oci.Reference, signer *cosign.Signer) error {
	there, err := d.told(ctx, at, sbom.PredicateType, sbom.MediaType, signer)
	if err != nil || len(there) > 0 {
		return err
	}
	text, err := sbom.Document(layout, at.Digest)
	if err != nil {
		return err
	}
	if signer == nil {
		return d.attach(ctx, at, sbom.PredicateType, sbom.MediaType, text)
	}
	statement, err := json.Marshal(cosign.NewStatement(identity.Name(), at.Digest, sbom.PredicateType, text))
	if err != nil {
		return err
	}
	return signer.Attest(ctx, d.client, at, sbom.PredicateType, statement)
}

// attachProvenance tells how an image was made, once for each build that gave
// it: the same image may come of several revisions.
func (d *destination) attachProvenance(ctx context.Context, facts provenance.Facts, at oci.Reference, signer *cosign.Signer) error {
	statement, err := provenance.New(facts)
	if err != nil {
		return err
	}
	there, err := d.told(ctx, at, provenance.PredicateType, provenance.MediaType, signer)
	if err != nil || slices.ContainsFunc(there, func(other []byte) bool { return provenance.SameBuild(other, statement) }) {
		return err
	}
	if signer == nil {
		return d.attach(ctx, at, provenance.PredicateType, provenance.MediaType, statement)
	}
	return signer.Attest(ctx, d.client, at, provenance.PredicateType, statement)
}

// told is what is told already, as attach or the signer would: documents of the
// media type, or statements of the predicate's type that this key has signed.
func (d *destination) told(ctx context.Context, at oci.Reference, predicateType, mediaType string, signer *cosign.Signer) ([][]byte, error) {
	if signer != nil {
		return d.signed(ctx, at, predicateType, signer.Verifier())
	}
	return d.documents(ctx, at, mediaType)
}

func (d *destination) attach(ctx context.Context, at oci.Reference, predicateType, mediaType string, text []byte) error {
	_, err := d.client.Attach(ctx, at, registry.Artifact{
		Type: mediaType, Annotations: map[string]string{"predicateType": predicateType},
		Blobs: []registry.Blob{{MediaType: mediaType, Data: text}},
	})
	return err
}

// documents are the referrers of a media type.
func (d *destination) documents(ctx context.Context, at oci.Reference, mediaType string) ([][]byte, error) {
	referrers, err := d.client.Referrers(ctx, at)
	if err != nil {
		return nil, err
	}
	var out [][]byte
	for _, r := range referrers {
		if r.ArtifactType != mediaType {
			continue
		}
		a, err := d.client.FetchArtifact(ctx, at.WithDigest(r.Digest))
		if err != nil {
			return nil, err
		}
		for _, b := range a.Blobs {
			out = append(out, b.Data)
		}
	}
	return out, nil
}

// signed are the statements of a type in envelopes that verify, from where
// cosign keeps them and from the referrers.
func (d *destination) signed(ctx context.Context, at oci.Reference, predicateType string, verifier *cosign.Verifier) ([][]byte, error) {
	envelopes, err := d.documents(ctx, at, cosign.EnvelopeType)
	if err != nil {
		return nil, err
	}
	tagged, err := cosign.Attestations(ctx, d.client, at)
	if err != nil {
		return nil, err
	}
	for _, b := range tagged {
		envelopes = append(envelopes, b.Data)
	}
	var out [][]byte
	for _, e := range envelopes {
		s, err := verifier.Open(ctx, e, at.Digest)
		if err != nil || s.PredicateType != predicateType {
			continue // of another key, or about something else
		}
		text, err := json.Marshal(s)
		if err != nil {
			return nil, err
		}
		out = append(out, text)
	}
	return out, nil
}

// ErrNoSBOM says that no document is attached that verifies.
var ErrNoSBOM = errors.New("no SBOM is attached that this key has signed")

// find gives an image, a service's or one that is named by a reference, at its
// registry: with its digest, and by the name that others know it under.
func (p *Pipeline) find(ctx context.Context, d *destination, image string) (at, identity oci.Reference, err error) {
	name, err := p.imageName(image)
	if err != nil {
		return at, identity, err
	}
	err = d.steadily(func() (err error) {
		at = name
		if _, service := p.Project.Service(image); service || name.IsLocal() {
			if at, err = d.target(name); err != nil {
				return err
			}
		}
		found, err := d.client.Resolve(ctx, at)
		identity = d.name(name, at)
		at = at.WithDigest(found.Digest)
		return err
	})
	return at, identity, err
}

// imageName takes a single word for a service, never for an image of Docker Hub:
// a slip of the pen would else be looked for there.
func (p *Pipeline) imageName(image string) (oci.Reference, error) {
	if strings.ContainsAny(image, "/:@") {
		return oci.ParseReference(image)
	}
	services, err := p.Services([]string{image})
	if err != nil {
		return oci.Reference{}, err
	}
	return services[0].Image, nil
}

// Verify checks that an image, a service's or one that is named by a reference,
// was signed with the key, under its own name or under identity if that is not
// empty. It gives the image pinned.
func (p *Pipeline) Verify(ctx context.Context, image string, verifier *cosign.Verifier, identity string) (pinned string, err error) {
	d := p.openRegistry(ctx)
	defer func() { err = errors.Join(err, d.close()) }()
	at, name, err := p.find(ctx, d, image)
	if err != nil {
		return "", err
	}
	as := name
	if identity != "" {
		if as, err = oci.ParseReference(identity); err != nil {
			return "", err
		}
	}
	err = verifier.Verify(ctx, d.client, at, as)
	var failed *cosign.VerifyError
	if errors.As(err, &failed) {
		failed.Image = name.WithDigest(at.Digest) // the embedded registry's own address says nothing
	}
	if err != nil {
		return "", err
	}
	return name.WithDigest(at.Digest).String(), nil
}

// SBOM gives the SPDX document of an image, a service's or one that is named by
// a reference: the one that is attached, else one made of its layers. With a
// verifier only an attached one will do that this key has signed. Of an index,
// it is the image for platform, OS/ARCHITECTURE[/VARIANT].
func (p *Pipeline) SBOM(ctx context.Context, image, platform string, verifier *cosign.Verifier) (text []byte, err error) {
	d := p.openRegistry(ctx)
	defer func() { err = errors.Join(err, d.close()) }()
	at, name, err := p.find(ctx, d, image)
	if err != nil {
		return nil, err
	}
	if at, err = d.forPlatform(ctx, at, platform); err != nil {
		return nil, err
	}
	if verifier == nil {
		if there, err := d.documents(ctx, at, sbom.MediaType); err != nil || len(there) > 0 {
			return slices.Concat(there[:min(1, len(there))]...), err
		}
	}
	statements, err := d.signed(ctx, at, sbom.PredicateType, verifier)
	switch {
	case err != nil:
		return nil, err
	case len(statements) > 0:
		s, err := cosign.ParseStatement(statements[0], at.Digest)
		return append(s.Predicate, '\n'), err
	case verifier != nil:
		return nil, fmt.Errorf("%s: %w", name.WithDigest(at.Digest), ErrNoSBOM)
	}
	return d.describe(ctx, at)
}

// describe makes the document of an image of which nothing is told.
func (d *destination) describe(ctx context.Context, at oci.Reference) ([]byte, error) {
	dir, err := os.MkdirTemp("", "bareboat-sbom-*")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if _, err := d.client.Pull(ctx, at, dir, nil); err != nil {
		return nil, err
	}
	return sbom.Document(dir, at.Digest)
}

// forPlatform is the image for a platform, where at is an index.
func (d *destination) forPlatform(ctx context.Context, at oci.Reference, platform string) (oci.Reference, error) {
	_, raw, err := d.client.FetchManifest(ctx, at)
	if err != nil {
		return at, err
	}
	var index oci.Index
	if err := json.Unmarshal(raw, &index); err != nil || len(index.Manifests) == 0 {
		return at, err
	}
	var there []string
	for _, m := range index.Manifests {
		name := platformName(m.Platform)
		if name == platform {
			return at.WithDigest(m.Digest), nil
		}
		there = append(there, name)
	}
	return at, fmt.Errorf("%s has no image for %s, only for %s", at, platform, strings.Join(there, ", "))
}

func platformName(p *v1.Platform) string {
	if p == nil {
		return ""
	}
	return strings.TrimSuffix(p.OS+"/"+p.Architecture+"/"+p.Variant, "/")
}

package pipeline

import (
	"context"
	"errors"

	"bareboat/builder/provenance"
	"bareboat/internal/oci"
)

// PushAttested pushes an image that is built already, and attests it.
func (p *Pipeline) PushAttested(ctx context.Context, image oci.Image, facts provenance.Facts, o Attest) (at oci.Reference, err error) {
	d := p.openRegistry(ctx)
	defer func() { err = errors.Join(err, d.close()) }()
	if at, err = d.target(image.Name); err != nil {
		return at, err
	}
	if _, err := d.client.Push(ctx, image.Layout, image.Digest, at, nil); err != nil {
		return at, err
	}
	return d.name(image.Name, at), d.attest(ctx, image, at, facts, o)
}

// Facts are what is known of the build of a service.
func (p *Pipeline) Facts(ctx context.Context, service string, platforms []string) (provenance.Facts, error) {
	s, err := p.Services([]string{service})
	if err != nil {
		return provenance.Facts{}, err
	}
	return p.facts(ctx, s[0], platforms)
}

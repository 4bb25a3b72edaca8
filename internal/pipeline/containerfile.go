package pipeline

import (
	"context"
	"errors"

	"bareboat/builder"
)

// ErrNotForetold says that nobody knows what a Containerfile gives before it is
// built.
var ErrNotForetold = errors.New("it is built of a Containerfile: what comes of that is not known beforehand")

// containerfile makes the image of a service that has a build and no recipe.
func (p *Pipeline) containerfile(ctx context.Context, s source) (builder.Outcome, error) {
	if p.Builder.Dry {
		return builder.Outcome{}, p.fault(s.service.Name, "build", ErrNotForetold)
	}
	in := s.service.Build
	r := builder.ContainerfileRequest{
		Name: s.service.Image, Path: in.Containerfile, Context: in.Context,
		Args: in.Args, Target: in.Target, NoCache: in.NoCache, Insecure: p.Insecure,
	}
	for _, secret := range in.Secrets {
		r.Secrets = append(r.Secrets, builder.Secret(secret))
	}
	img, err := p.Builder.BuildContainerfile(ctx, r)
	return builder.Outcome{Image: img}, err
}

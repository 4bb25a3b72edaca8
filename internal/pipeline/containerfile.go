package pipeline

import (
	"context"

	"bareboat/builder"
)

// containerfile makes the image of a service that has a build and no recipe.
func (p *Pipeline) containerfile(ctx context.Context, s source) (builder.Outcome, error) {
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

package builder

import (
	"context"
	"errors"

	"bareboat/builder/debian"
	"bareboat/builder/layer"
)

type packages struct{}

func (b *Builder) packages(ctx context.Context, r *Recipe, tell teller) (*packages, error) {
	return &packages{}, nil
}

func (p *packages) layers(ctx context.Context, r debian.Request) ([]layer.Layer, error) {
	return nil, errors.New("x")
}

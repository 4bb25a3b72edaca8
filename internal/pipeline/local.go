package pipeline

import (
	"context"
	"errors"
	"fmt"
	"path"

	"bareboat/internal/oci"
)

// ErrNameless says that an image has no name to push it under.
var ErrNameless = errors.New("it has no name: say where to push it")

// PushImage pushes an image of the local store: to the name given, else to where
// a service's image of its name would go. It gives it by its name there.
func (p *Pipeline) PushImage(ctx context.Context, name, to string) (out Image, err error) {
	img, err := p.Builder.Export(ctx, name)
	if err != nil {
		return Image{}, err
	}
	d := p.openRegistry(ctx)
	defer func() { err = errors.Join(err, d.close()) }()
	if to != "" {
		if img.Name, err = oci.ParseReference(to); err != nil {
			return Image{}, fmt.Errorf("push %s: %w", name, err)
		}
		d.prefix = ""
	}
	if img.Name.Repository == "" {
		return Image{}, fmt.Errorf("push %s: %w", name, ErrNameless)
	}
	if img.Name.Tag == "" && img.Name.Digest == "" {
		img.Name = img.Name.WithTag("latest")
	}
	at, err := p.send(ctx, d, path.Base(img.Name.Repository), img)
	if err != nil {
		return Image{}, err
	}
	return d.pinned("", d.name(img.Name, at), img.Digest), nil
}

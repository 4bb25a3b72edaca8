package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"

	"bareboat/internal/oci"
	"bareboat/pods"
)

// puller pulls images of this machine's own names from the embedded registry,
// and gives them these names in the store: the registry's port is another one
// each time.
type puller struct {
	*pods.Podman
	from   *destination
	tagged map[string]oci.Reference // by pinned name: the name with its tag
}

// localNames are the images that lie in the embedded registry.
func (p *Pipeline) localNames(d *destination, images []Image) map[string]oci.Reference {
	out := map[string]oci.Reference{}
	for _, i := range images {
		if s, ok := p.Project.Service(i.Service); ok && d.prefix == "" && s.Image.IsLocal() {
			out[i.Pinned] = s.Image
		}
	}
	return out
}

// Pull brings an image into the store, if it is not there.
func (p *puller) Pull(ctx context.Context, ref string, insecure bool, progress io.Writer) (string, error) {
	tagged, local := p.tagged[ref]
	if !local {
		return p.Podman.Pull(ctx, ref, insecure, progress)
	}
	if id, ok, err := p.ImageID(ctx, ref); ok || err != nil {
		return id, err
	}
	var at oci.Reference
	var id string
	err := p.from.steadily(func() error {
		address, err := p.from.embeddedAt()
		if err != nil {
			return err
		}
		if at, err = tagged.At(address); err != nil {
			return err
		}
		id, err = p.Podman.Pull(ctx, at.String(), true, progress)
		return err
	})
	if err != nil {
		return "", err
	}
	if err := errors.Join(p.Tag(ctx, id, tagged.String()), p.Untag(ctx, at.String())); err != nil {
		return "", err
	}
	if _, ok, err := p.ImageID(ctx, ref); err != nil {
		return "", err
	} else if !ok {
		return "", fmt.Errorf("pull %s: its tag was moved to another image meanwhile", ref)
	}
	return id, nil
}

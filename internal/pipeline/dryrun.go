package pipeline

import (
	"context"
	"errors"
	"fmt"

	"github.com/dustin/go-humanize"

	"bareboat/builder"
	"bareboat/internal/oci"
)

// ImagePlan says what building an image, and pushing it, would do.
type ImagePlan struct {
	Service   string          `json:"service"`
	Image     string          `json:"image"`            // the name that it would have
	Digest    oci.Digest      `json:"digest,omitempty"` // that it would have; unknown for a Containerfile's
	Platforms []builder.Built `json:"platforms"`
	Size      int64           `json:"size"` // bytes, compressed
	// Upload is how many bytes the registry lacks; -1 where none is asked.
	Upload int64 `json:"upload"`
}

// Lines tell the plan to people.
func (i ImagePlan) Lines() []string {
	out := []string{"image " + i.Image}
	for _, b := range i.Platforms {
		for _, p := range b.Parts {
			state := "cached"
			if !p.Cached {
				state = "to be made"
			}
			if len(p.Why) > 0 {
				state += ": " + p.Why[0]
			}
			if more := len(p.Why) - 1; more > 0 {
				state += fmt.Sprintf(" (and %d more)", more)
			}
			var size int64
			for _, l := range p.Layers {
				size += l.Blob.Size
			}
			name := p.Name
			if len(i.Platforms) > 1 {
				name += " " + b.Platform.String()
			}
			out = append(out, fmt.Sprintf("  layer %-24s %8s  %s", name, humanize.Bytes(uint64(size)), state))
		}
	}
	if i.Digest == "" {
		return append(out, "  of a Containerfile: what comes of that is not known beforehand")
	}
	out = append(out, "  digest "+i.Digest.String())
	if i.Upload >= 0 {
		out = append(out, fmt.Sprintf("  upload %s of %s", humanize.Bytes(uint64(i.Upload)), humanize.Bytes(uint64(i.Size))))
	}
	return out
}

// PlanBuild says what Build would do. To know the digest of what is not cached
// it makes the image, and throws it away: nothing is left but in the compiler's
// own cache.
func (p *Pipeline) PlanBuild(ctx context.Context, services []string) ([]ImagePlan, error) {
	return p.planImages(ctx, services, func(context.Context, *ImagePlan, oci.Image) error { return nil })
}

// PlanPush says what Push would do, and asks the registry what it lacks.
func (p *Pipeline) PlanPush(ctx context.Context, services []string) (out []ImagePlan, err error) {
	d := p.openRegistry(ctx)
	defer func() { err = errors.Join(err, d.close()) }()
	return p.planImages(ctx, services, func(ctx context.Context, plan *ImagePlan, img oci.Image) error {
		return d.steadily(func() error {
			to, err := d.target(img.Name)
			if err != nil {
				return err
			}
			plan.Image = d.name(img.Name, to).String()
			missing, err := d.client.Missing(ctx, img.Layout, img.Digest, to)
			plan.Upload = 0
			for _, m := range missing {
				plan.Upload += m.Size
			}
			return err
		})
	})
}

func (p *Pipeline) planImages(ctx context.Context, services []string, ask func(context.Context, *ImagePlan, oci.Image) error) ([]ImagePlan, error) {
	p.Builder.Dry = true
	sources, err := p.sources(services)
	if err != nil {
		return nil, err
	}
	var out []ImagePlan
	for _, s := range sources {
		if s.recipe == nil {
			out = append(out, ImagePlan{Service: s.service.Name, Image: s.service.Image.String(), Upload: -1})
			continue
		}
		look, err := p.look(ctx, s)
		if err != nil {
			return nil, err
		}
		made, err := p.make(ctx, s)
		if err != nil {
			return nil, err
		}
		plan := ImagePlan{Service: s.service.Name, Image: s.service.Image.String(), Digest: made.Image.Digest, Upload: -1, Platforms: made.Images}
		for i, b := range made.Images {
			plan.Size += b.Size
			for k := range b.Parts {
				b.Parts[k].Cached, b.Parts[k].Why = look.Images[i].Parts[k].Cached, look.Images[i].Parts[k].Why
			}
		}
		if err := ask(ctx, &plan, made.Image); err != nil {
			return nil, err
		}
		out = append(out, plan)
	}
	return out, nil
}

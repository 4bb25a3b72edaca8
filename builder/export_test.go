package builder

import (
	"context"
	"os"
	"path/filepath"

	"bareboat/internal/oci"
)

// CommitWhole commits the layers of a recipe through buildah in one go, without
// frame and cache, and gives manifest and config as they stand in the layout.
func (b *Builder) CommitWhole(ctx context.Context, r *Recipe, tree, dir string) (oci.Manifest, oci.ImageConfig, error) {
	var m oci.Manifest
	var c oci.ImageConfig
	j, err := b.prepare(ctx, r, tree, oci.Reference{Registry: oci.LocalRegistry, Repository: "whole"})
	if err != nil {
		return m, c, err
	}
	req := commitRequest{Base: r.Base, Config: r.Config, Platform: b.platforms()[0], Layout: filepath.Join(dir, "layout"), Compress: true}
	for _, p := range j.platforms[0] {
		work, err := os.MkdirTemp(dir, "work-")
		if err != nil {
			return m, c, err
		}
		layers, err := p.layers(ctx, work)
		if err != nil {
			return m, c, err
		}
		for _, l := range layers {
			f, err := os.CreateTemp(dir, "layer-")
			if err != nil {
				return m, c, err
			}
			f.Close()
			os.Remove(f.Name())
			t, err := writeTar(f.Name(), l, 0)
			if err != nil {
				return m, c, err
			}
			req.Layers = append(req.Layers, t)
		}
	}
	var done commitResult
	if err := b.inStore(ctx, "commit", req, &done); err != nil {
		return m, c, err
	}
	return m, c, readImage(req.Layout, done.Digest, &m, &c)
}

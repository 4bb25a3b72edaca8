package builder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"bareboat/builder/cache"
	"bareboat/builder/layer"
	"bareboat/internal/oci"
)

// part is what one entry of a recipe gives, for one platform: one layer, or of
// Debian packages several.
type part struct {
	name     string // for people, the same each time: "go:chatd", "files"
	platform Platform
	// inputs are all that the part's layers depend on.
	inputs func(context.Context) (cache.Inputs, error)
	// layers assembles them; what it needs of disk it takes below work.
	layers func(ctx context.Context, work string) ([]layer.Layer, error)
}

// Made is a layer that was made, as it stands in the cache.
type Made struct {
	Name      string         `json:"name"`      // "go:chatd", "debian:nginx"
	CreatedBy string         `json:"createdBy"` // what the image's history says of it
	DiffID    oci.Digest     `json:"diffID"`
	Size      int64          `json:"size"` // bytes, unpacked
	Blob      oci.Descriptor `json:"blob"`
}

// partRecord is what the cache knows of a part.
type partRecord struct {
	Layers []Made `json:"layers"`
}

// The kinds of records.
const (
	kindPart  = "part"  // what a part's inputs gave
	kindBlob  = "blob"  // a layer, compressed
	kindFrame = "frame" // config and manifest without layers
	kindImage = "image" // a whole image
	kindGo    = "go"    // which files a Go package is made of
	kindLast  = "last"  // the inputs of the last build, for people
)

// known gives the layers of a part from the cache. Their blobs are there, but
// have not been read. Where nothing is known the error is cache.ErrNone.
func known(c *cache.Cache, key oci.Digest) ([]Made, error) {
	var r partRecord
	if err := c.Load(kindPart, key, &r); err != nil {
		return nil, err
	}
	for _, m := range r.Layers {
		info, err := os.Stat(c.Blob(m.Blob.Digest))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, cache.ErrNone
		}
		if err != nil {
			return nil, err
		}
		if info.Size() != m.Blob.Size {
			return nil, &cache.CorruptError{Path: c.Blob(m.Blob.Digest), Err: fmt.Errorf("it has %d bytes, not %d", info.Size(), m.Blob.Size)}
		}
	}
	return r.Layers, nil
}

// attempts is how often a part is made whose inputs change meanwhile.
const attempts = 3

// make gives the layers of a part: those of the cache, when every byte of them
// is what it was, else it makes them and keeps what came of it. What the files
// hold while they are read has to be what the key was made of; where somebody
// edits meanwhile, it starts again.
func (p *part) make(ctx context.Context, in cache.Inputs, c *cache.Cache, how compressor, epoch int64, work string, tell, warn teller) (PlannedPart, error) {
	for range attempts {
		planned := PlannedPart{Name: p.name, Inputs: in, key: how.key(in, epoch)}
		if planned.Layers = p.fromCache(c, planned.key, warn); planned.Layers != nil {
			planned.Cached = true
			return planned, nil
		}
		layers, err := p.assemble(ctx, c, how, epoch, work, tell)
		if err != nil {
			return PlannedPart{}, err
		}
		planned.Layers = layers
		after, err := p.inputs(ctx)
		if err != nil {
			return PlannedPart{}, err
		}
		if after.Key() == in.Key() {
			return planned, c.Save(kindPart, planned.key, partRecord{planned.Layers})
		}
		tell("layer "+p.name, "%s while it was made: once more", strings.Join(cache.Changes(in, after), ", "))
		in = after
	}
	return PlannedPart{}, fmt.Errorf("layer %s: its files change all the time", p.name)
}

// fromCache gives nil where the cache cannot give the layers.
func (p *part) fromCache(c *cache.Cache, key oci.Digest, warn teller) []Made {
	layers, err := known(c, key)
	for _, m := range layers {
		if err == nil {
			err = c.Check(m.Blob)
		}
	}
	if err == nil {
		return layers
	}
	if !errors.Is(err, cache.ErrNone) && !errors.Is(err, fs.ErrNotExist) {
		warn("layer "+p.name, "the cache is damaged (%v): made anew", err)
	}
	return nil
}

// assemble makes the layers of a part and compresses them.
func (p *part) assemble(ctx context.Context, c *cache.Cache, how compressor, epoch int64, work string, tell teller) ([]Made, error) {
	work, err := os.MkdirTemp(work, "part-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	layers, err := p.layers(ctx, work)
	if err != nil {
		return nil, err
	}
	out := make([]Made, len(layers))
	for i, l := range layers {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := checkMachine(l.Files, p.platform); err != nil {
			return nil, fmt.Errorf("layer %s: %w", l.Name, err)
		}
		if out[i], err = how.keep(c, l, epoch, filepath.Join(work, "layer.tar")); err != nil {
			return nil, fmt.Errorf("layer %s: %w", l.Name, err)
		}
		tell("layer "+l.Name, "%s", humanize.Bytes(uint64(out[i].Size)))
	}
	return out, nil
}

// keep writes a layer's tar to path, and brings it into the cache, compressed.
// A tar that was compressed before is not compressed again.
func (how compressor) keep(c *cache.Cache, l layer.Layer, epoch int64, path string) (Made, error) {
	t, err := writeTar(path, l, epoch)
	if err != nil {
		return Made{}, err
	}
	defer os.Remove(path)
	m := Made{Name: l.Name, CreatedBy: l.CreatedBy, DiffID: t.DiffID, Size: t.Size}
	key := how.blobKey(t.DiffID)
	if err := c.Load(kindBlob, key, &m.Blob); err == nil && c.Check(m.Blob) == nil {
		return m, nil
	}
	if m.Blob, err = how.compress(c, path); err != nil {
		return Made{}, err
	}
	return m, c.Save(kindBlob, key, m.Blob)
}

// namer gives names that stand once.
type namer map[string]int

func (n namer) name(s string) string {
	n[s]++
	if n[s] == 1 {
		return s
	}
	return fmt.Sprintf("%s#%d", s, n[s])
}

// timeOf is an epoch as a time.
func timeOf(epoch int64) time.Time { return time.Unix(epoch, 0).UTC() }

package builder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"bareboat/builder/cache"
	"bareboat/internal/oci"
)

// Outcome is what a build made, or would make.
type Outcome struct {
	// Image has no digest, and no layout, where it is not known without making
	// it (see Look).
	Image  oci.Image
	Images []Built // one for each platform
}

// Known tells that the image need not be made.
func (o Outcome) Known() bool { return o.Image.Digest != "" }

// Built is an image of one platform.
type Built struct {
	Platform Platform      `json:"platform"`
	Digest   oci.Digest    `json:"digest,omitempty"` // of the manifest
	Size     int64         `json:"size"`             // bytes of config, layers and manifest, compressed
	Parts    []PlannedPart `json:"parts"`
}

// PlannedPart is an entry of the recipe.
type PlannedPart struct {
	Name   string `json:"name"`   // "go:chatd", "files"
	Cached bool   `json:"cached"` // it need not be made, or was not
	// Why says what is not as it was at the last build, a line each; empty for a
	// part that is cached.
	Why    []string     `json:"why,omitempty"`
	Layers []Made       `json:"layers,omitempty"` // where they are known
	Inputs cache.Inputs `json:"-"`

	key oci.Digest
}

// job is the building of one image.
type job struct {
	*Builder
	cache     *cache.Cache
	how       compressor
	recipe    *Recipe
	name      oci.Reference
	platforms [][]part
	tell      teller
	warn      teller
}

// prepare reads what a recipe asks for, without making anything but the lock.
func (b *Builder) prepare(ctx context.Context, r *Recipe, tree string, name oci.Reference) (*job, error) {
	how, err := newCompressor(b.Compression)
	if err != nil {
		return nil, err
	}
	c, err := b.cached()
	if err != nil {
		return nil, err
	}
	say := func(warn bool) teller {
		return func(step, format string, args ...any) {
			b.notify(Event{Image: name.Name(), Step: step, Note: fmt.Sprintf(format, args...), Warn: warn})
		}
	}
	j := &job{Builder: b, cache: c, how: how, recipe: r, name: name, tell: say(false), warn: say(true)}
	packages, err := b.packages(ctx, r, b.platforms(), j.tell, j.warn)
	if err != nil {
		return nil, err
	}
	for _, p := range b.platforms() {
		parts, err := b.parts(c, r, tree, p, packages, j.tell)
		if err != nil {
			return nil, err
		}
		j.platforms = append(j.platforms, parts)
	}
	return j, nil
}

// Look says what Build would make of a recipe: which parts the cache has, and,
// where it has them all, the image's digest. It neither compiles nor opens a
// store. What the cache holds has not been read: Build does that.
func (b *Builder) Look(ctx context.Context, r *Recipe, tree string, name oci.Reference) (Outcome, error) {
	j, err := b.prepare(ctx, r, tree, name)
	if err != nil {
		return Outcome{}, fmt.Errorf("build %s: %w", name, err)
	}
	out := Outcome{Image: oci.Image{Name: name}}
	var manifests []oci.Descriptor
	for i, p := range b.platforms() {
		built, m, err := j.look(ctx, p, j.platforms[i])
		if err != nil {
			return Outcome{}, fmt.Errorf("build %s: %w", name, err)
		}
		out.Images = append(out.Images, built)
		if m.Digest != "" {
			manifests = append(manifests, m)
		}
	}
	if len(manifests) < len(j.platforms) {
		return out, nil
	}
	root, _, err := index(manifests)
	if err != nil {
		return Outcome{}, err
	}
	out.Image.Digest = root.Digest
	return out, nil
}

func (j *job) look(ctx context.Context, p Platform, parts []part) (Built, oci.Descriptor, error) {
	out := Built{Platform: p, Parts: make([]PlannedPart, len(parts))}
	last := j.last(p)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(cap(j.jobs))
	for i, part := range parts {
		group.Go(func() error {
			in, err := part.inputs(ctx)
			if err != nil {
				return err
			}
			planned := PlannedPart{Name: part.name, Inputs: in, key: j.how.key(in, j.Epoch)}
			if planned.Layers, err = known(j.cache, planned.key); err == nil {
				planned.Cached = true
			} else {
				planned.Why = why(last, part.name, in, err)
			}
			out.Parts[i] = planned
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return Built{}, oci.Descriptor{}, err
	}
	if slices.ContainsFunc(out.Parts, func(p PlannedPart) bool { return !p.Cached }) {
		return out, oci.Descriptor{}, nil
	}
	var r imageRecord
	if err := j.cache.Load(kindImage, j.imageKey(p, out.Parts), &r); err != nil {
		return out, oci.Descriptor{}, nil // it only has to be linked again
	}
	if _, err := j.cache.Read(r.Manifest.Digest); err != nil {
		return out, oci.Descriptor{}, nil
	}
	out.Digest, out.Size = r.Manifest.Digest, r.Size
	return out, r.Manifest, nil
}

// why says why a part is not cached.
func why(last lastRecord, name string, in cache.Inputs, err error) []string {
	earlier, ok := last.Parts[name]
	if !ok {
		return []string{"it was not built here before"}
	}
	if changes := cache.Changes(earlier, in); len(changes) > 0 {
		return changes
	}
	var corrupt *cache.CorruptError
	if errors.As(err, &corrupt) {
		return []string{"the cache is damaged: " + err.Error()}
	}
	return []string{"the cache has it no more, or in another compression"}
}

// lastRecord is what was built last under a name.
type lastRecord struct {
	Parts map[string]cache.Inputs `json:"parts"`
}

func (j *job) lastKey(p Platform) oci.Digest {
	var in cache.Inputs
	in.Add("recipe", "%s", j.recipe.Path())
	in.Add("name", "%s", j.name.Name())
	in.Add("platform", "%s", p)
	return in.Key()
}

func (j *job) last(p Platform) lastRecord {
	var r lastRecord
	if err := j.cache.Load(kindLast, j.lastKey(p), &r); err != nil {
		return lastRecord{} // it only serves explanations
	}
	return r
}

// imageRecord is what the cache knows of a whole image.
type imageRecord struct {
	Manifest oci.Descriptor `json:"manifest"`
	Config   oci.Descriptor `json:"config"`
	Size     int64          `json:"size"` // bytes, all of it
}

// imageKey is the digest of what an image is linked from.
func (j *job) imageKey(p Platform, parts []PlannedPart) oci.Digest {
	var in cache.Inputs
	in.Add("frame", "%s", j.frameKey(p))
	for i, part := range parts {
		in.Add(fmt.Sprintf("part %d", i), "%s", part.key)
	}
	return in.Key()
}

// Build makes the image of a recipe and keeps it in the user's cache, as an OCI
// image layout. tree is the folder that the recipe's files may not leave,
// usually the project's. The result depends on recipe, lock, files, toolchain,
// platforms, compression and Epoch alone. An interrupted build leaves nothing
// that a later one would take for finished.
func (b *Builder) Build(ctx context.Context, r *Recipe, tree string, name oci.Reference) (oci.Image, error) {
	out, err := b.Make(ctx, r, tree, name)
	return out.Image, err
}

// Make does what Build does, and says what was made.
func (b *Builder) Make(ctx context.Context, r *Recipe, tree string, name oci.Reference) (Outcome, error) {
	out, err := b.makeImage(ctx, r, tree, name)
	if err != nil {
		return Outcome{}, fmt.Errorf("build %s: %w", name, err)
	}
	return out, nil
}

func (b *Builder) makeImage(ctx context.Context, r *Recipe, tree string, name oci.Reference) (Outcome, error) {
	j, err := b.prepare(ctx, r, tree, name)
	if err != nil {
		return Outcome{}, err
	}
	cacheDir, err := b.CacheDir()
	if err != nil {
		return Outcome{}, err
	}
	work, err := b.workDir(cacheDir)
	if err != nil {
		return Outcome{}, err
	}
	defer os.RemoveAll(work)

	out := Outcome{Images: make([]Built, len(j.platforms))}
	manifests := make([]oci.Descriptor, len(j.platforms))
	group, ctx := errgroup.WithContext(ctx)
	for i, p := range b.platforms() {
		group.Go(func() (err error) {
			out.Images[i], manifests[i], err = j.make(ctx, p, j.platforms[i], work)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return Outcome{}, err
	}
	root, content, err := index(manifests)
	if err != nil {
		return Outcome{}, err
	}
	if content != nil {
		if _, err := j.cache.PutBytes(root.MediaType, content); err != nil {
			return Outcome{}, err
		}
	}
	layout, err := j.cache.View(root)
	if err != nil {
		return Outcome{}, err
	}
	if err := j.cache.Tidy(keepUnused, tidyEvery); err != nil {
		j.warn("cache", "%v", err)
	}
	j.tell("image", "%s", root.Digest)
	out.Image = oci.Image{Name: name, Layout: layout, Digest: root.Digest}
	return out, nil
}

// What nobody has used for a month goes, without anybody asking for it.
const (
	keepUnused = 30 * 24 * time.Hour
	tidyEvery  = 24 * time.Hour
)

// make makes the image of one platform.
func (j *job) make(ctx context.Context, p Platform, parts []part, work string) (Built, oci.Descriptor, error) {
	out := Built{Platform: p, Parts: make([]PlannedPart, len(parts))}
	var f frame
	group, inner := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		f, err = j.frame(inner, p, work)
		return err
	})
	for i := range parts {
		group.Go(func() (err error) {
			out.Parts[i], err = j.part(inner, &parts[i], work)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return Built{}, oci.Descriptor{}, err
	}
	var layers []Made
	last := lastRecord{Parts: map[string]cache.Inputs{}}
	for _, part := range out.Parts {
		layers = append(layers, part.Layers...)
		last.Parts[part.Name] = part.Inputs
	}
	r, err := j.link(f, p, layers)
	if err != nil {
		return Built{}, oci.Descriptor{}, err
	}
	out.Digest, out.Size = r.Manifest.Digest, r.Size
	return out, r.Manifest, errors.Join(
		j.cache.Save(kindImage, j.imageKey(p, out.Parts), r),
		j.cache.Save(kindLast, j.lastKey(p), last),
	)
}

// part makes one part, while no more of them are made than there are
// processors. A part that several images want is made once.
func (j *job) part(ctx context.Context, p *part, work string) (PlannedPart, error) {
	select {
	case j.jobs <- struct{}{}:
		defer func() { <-j.jobs }()
	case <-ctx.Done():
		return PlannedPart{}, ctx.Err()
	}
	in, err := p.inputs(ctx)
	if err != nil {
		return PlannedPart{}, err
	}
	for {
		made, err, _ := j.making.Do(j.how.key(in, j.Epoch).String(), func() (any, error) {
			return p.make(ctx, in, j.cache, j.how, j.Epoch, work, j.tell, j.warn)
		})
		if errors.Is(err, context.Canceled) && ctx.Err() == nil {
			continue // another image's build was making it, and ended for a reason of its own
		}
		out, _ := made.(PlannedPart)
		out.Name = p.name
		return out, err
	}
}

// index gives the descriptor of what stands for several images, and its
// content; for a single one that is the image's own manifest, with no content.
func index(manifests []oci.Descriptor) (oci.Descriptor, []byte, error) {
	if len(manifests) == 1 {
		root := manifests[0]
		root.Platform = nil
		return root, nil, nil
	}
	content, err := json.Marshal(oci.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Manifests: manifests,
	})
	return descriptor(v1.MediaTypeImageIndex, content), content, err
}

func descriptor(mediaType string, content []byte) oci.Descriptor {
	return v1.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(content), Size: int64(len(content))}
}

// Explain says in a line each why parts have to be made: "layer go:chatd:
// chat/hub.go changed".
func (o Outcome) Explain() []string {
	const most = 10
	var out []string
	for _, b := range o.Images {
		where := ""
		if len(o.Images) > 1 {
			where = " for " + b.Platform.String()
		}
		for _, p := range b.Parts {
			lines := p.Why
			if more := len(lines) - most; more > 0 {
				lines = append(slices.Clone(lines[:most]), fmt.Sprintf("and %d more", more))
			}
			for _, line := range lines {
				out = append(out, "layer "+p.Name+where+": "+line)
			}
		}
	}
	return out
}

// packagesDir is the folder of Debian packages in the cache.
const packagesDir = "debian"

// CacheUsage says what the cache holds.
func (b *Builder) CacheUsage() ([]cache.Usage, error) {
	c, err := b.cached()
	if err != nil {
		return nil, err
	}
	return c.Usage(packagesDir)
}

// PruneCache removes from the cache what nobody has used for some time, and if
// packages is true the Debian packages as well: mirrors may have dropped what a
// lock pins, and then only the cache has it. With dry it only says what it
// would remove.
func (b *Builder) PruneCache(unused time.Duration, packages, dry bool) (cache.Pruned, error) {
	c, err := b.cached()
	if err != nil {
		return cache.Pruned{}, err
	}
	var also []string
	if packages {
		also = append(also, packagesDir)
	}
	return c.Prune(time.Now().Add(-unused), dry, also...)
}

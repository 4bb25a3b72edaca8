package builder

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"bareboat/builder/cache"
	"bareboat/internal/oci"
)

// Tag gives an image of the local store further names. A name without a host is
// of this machine, as for Podman, and without a tag it is latest.
func (b *Builder) Tag(ctx context.Context, name string, more []oci.Reference) error {
	return b.rename(ctx, "tag", name, more)
}

// Untag takes names from an image of the local store, and with none given all
// of them. The image itself stays.
func (b *Builder) Untag(ctx context.Context, name string, names []oci.Reference) error {
	return b.rename(ctx, "untag", name, names)
}

func (b *Builder) rename(ctx context.Context, op, name string, refs []oci.Reference) error {
	r := renameRequest{Name: name}
	for _, ref := range refs {
		r.Names = append(r.Names, tagged(ref).String())
	}
	var found bool
	if err := b.inStore(ctx, op, r, &found); err != nil {
		return fmt.Errorf("%s %s: %w", op, name, err)
	}
	if !found {
		return fmt.Errorf("%s %s: %w", op, name, ErrNoImage)
	}
	return nil
}

// tagged is a reference as the store names images.
func tagged(ref oci.Reference) oci.Reference {
	if ref.Tag == "" && ref.Digest == "" {
		return ref.WithTag("latest")
	}
	return ref
}

// InUseError says that an image is not removed since containers are made of it.
type InUseError struct {
	Image      string
	Containers []string // IDs
}

func (e *InUseError) Error() string {
	var short []string
	for _, id := range e.Containers {
		short = append(short, id[:min(12, len(id))])
	}
	return fmt.Sprintf("remove %s: in use by container %s", e.Image, strings.Join(short, ", "))
}

// Hint tells how to go on.
func (e *InUseError) Hint() string {
	return "bareboat rmi --force removes these containers too"
}

// Removed is what became of one name.
type Removed struct {
	Untagged []string `json:"untagged,omitempty"` // names
	Deleted  string   `json:"deleted,omitempty"`  // the image's ID, if it is gone
}

// Remove removes an image from the local store. Of an image with several names
// only the name goes that was given; an ID stands for all of them, and then
// several want force. One that containers are made of is not removed but gives
// an *InUseError; with force these containers are removed before it.
func (b *Builder) Remove(ctx context.Context, name string, force bool) (Removed, error) {
	r := removeRequest{Name: name, Force: force}
	var done removeResult
	if err := b.inStore(ctx, "remove", r, &done); err != nil {
		return Removed{}, fmt.Errorf("remove %s: %w", name, err)
	}
	if len(done.InUse) > 0 && force {
		if err := b.removeContainers(ctx, done.InUse); err != nil {
			return Removed{}, fmt.Errorf("remove %s: %w", name, err)
		}
		done = removeResult{}
		if err := b.inStore(ctx, "remove", r, &done); err != nil {
			return Removed{}, fmt.Errorf("remove %s: %w", name, err)
		}
	}
	switch {
	case !done.Found:
		return Removed{}, fmt.Errorf("remove %s: %w", name, ErrNoImage)
	case len(done.InUse) > 0:
		return Removed{}, &InUseError{Image: name, Containers: done.InUse}
	}
	return done.Removed, nil
}

// removeContainers has Podman do it: it keeps a record of them of its own.
func (b *Builder) removeContainers(ctx context.Context, ids []string) error {
	var args []string
	if b.Root != "" {
		args = append(args, "--root", b.Root)
	}
	if b.RunRoot != "" {
		args = append(args, "--runroot", b.RunRoot)
	}
	args = append(append(args, "rm", "--force"), ids...)
	if out, err := exec.CommandContext(ctx, "podman", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("remove its containers: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

// kindLocal is the kind of the records that keep what came from elsewhere: an
// image's blobs, by its manifest.
const kindLocal = "local"

// localRecord names all blobs of an image.
type localRecord struct {
	Manifest oci.Descriptor   `json:"manifest"`
	Blobs    []oci.Descriptor `json:"blobs"`
}

// Export gives an image of the local store as an OCI image layout in the cache,
// as it can be pushed and saved. Its manifest is the one that it came with,
// where its layers can be had as that one names them: in the cache, or by
// compressing them again. The store keeps layers unpacked only, so that this
// may fail for images that other tools compressed; then, and for images that
// another tool built into the store, the layers are compressed as Builder's own
// are, and the manifest is one that names these. The result is the same each
// time.
func (b *Builder) Export(ctx context.Context, name string) (oci.Image, error) {
	img, err := b.export(ctx, name)
	if err != nil {
		return oci.Image{}, fmt.Errorf("read %s from the store: %w", name, err)
	}
	return img, nil
}

func (b *Builder) export(ctx context.Context, name string) (oci.Image, error) {
	c, err := b.cached()
	if err != nil {
		return oci.Image{}, err
	}
	work, err := b.workDir(c.Dir())
	if err != nil {
		return oci.Image{}, err
	}
	defer os.RemoveAll(work)
	var e exported
	if err := b.inStore(ctx, "export", name, &e); err != nil {
		return oci.Image{}, err
	}
	if !e.Found {
		return oci.Image{}, ErrNoImage
	}
	m, err := b.exporting(c, e, work).assemble(ctx)
	if err != nil {
		return oci.Image{}, err
	}
	img := oci.Image{Digest: m.Digest}
	if len(e.Names) > 0 {
		if img.Name, err = oci.ParseReference(cmp.Or(chosenOf(e.Names, name), e.Names[0])); err != nil {
			return oci.Image{}, err
		}
	}
	img.Layout, err = c.View(m)
	return img, err
}

// exporting is the reading of one image out of the store.
type exporting struct {
	exported
	*Builder
	cache *cache.Cache
	work  string
	diffs []oci.Digest
}

func (b *Builder) exporting(c *cache.Cache, e exported, work string) *exporting {
	return &exporting{exported: e, Builder: b, cache: c, work: work}
}

// assemble puts an image's blobs into the cache, and gives its manifest.
func (e *exporting) assemble(ctx context.Context) (oci.Descriptor, error) {
	var parsed oci.ImageConfig
	if err := json.Unmarshal(e.Config, &parsed); err != nil {
		return oci.Descriptor{}, fmt.Errorf("read its config: %w", err)
	}
	if e.diffs = parsed.RootFS.DiffIDs; len(e.diffs) != len(e.Layers) {
		return oci.Descriptor{}, fmt.Errorf("its manifest names %d layers, its config %d", len(e.Layers), len(e.diffs))
	}
	r, same := localRecord{}, true
	for i := range e.Layers {
		blob, err := e.blob(ctx, i)
		if err != nil {
			return oci.Descriptor{}, fmt.Errorf("layer %s: %w", e.diffs[i], err)
		}
		same = same && blob.Digest == e.Layers[i].Digest
		r.Blobs = append(r.Blobs, blob)
	}
	config, err := e.cache.PutBytes(v1.MediaTypeImageConfig, e.Config)
	if err != nil {
		return oci.Descriptor{}, err
	}
	if same {
		r.Manifest, err = e.cache.PutBytes(e.MediaType, e.Manifest)
	} else {
		r.Manifest, err = putJSON(e.cache, v1.MediaTypeImageManifest, oci.Manifest{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest,
			Config: config, Layers: r.Blobs, Annotations: e.Annotations,
		})
	}
	if err != nil {
		return oci.Descriptor{}, err
	}
	r.Blobs = append(r.Blobs, config)
	return r.Manifest, e.cache.Save(kindLocal, r.Manifest.Digest, r)
}

// blob gives a layer as its manifest names it where that is possible, else
// compressed in our own way.
func (e *exporting) blob(ctx context.Context, i int) (oci.Descriptor, error) {
	named := e.Layers[i]
	if named.Digest != e.diffs[i] && e.cache.Check(named) == nil {
		return named, nil
	}
	how, err := newCompressor(compressionOf(named))
	if err != nil {
		return oci.Descriptor{}, err
	}
	d, err := e.compressed(ctx, i, how)
	switch {
	case err != nil:
		return oci.Descriptor{}, err
	case d.Digest == named.Digest:
		return named, nil
	case how.name == Compressions[0]:
		return d, nil
	}
	return e.compressed(ctx, i, compressor{name: Compressions[0]})
}

// compressed gives a layer compressed in some way, from the cache if it is
// there.
func (e *exporting) compressed(ctx context.Context, i int, how compressor) (d oci.Descriptor, err error) {
	key := how.blobKey(e.diffs[i])
	if err := e.cache.Load(kindBlob, key, &d); err == nil && e.cache.Check(d) == nil {
		return d, nil
	}
	r := layerRequest{ID: e.ID, Index: i, Path: filepath.Join(e.work, fmt.Sprintf("layer-%d.tar", i))}
	if err := e.inStore(ctx, "layer", r, new(bool)); err != nil {
		return oci.Descriptor{}, err
	}
	defer func() { err = errors.Join(err, os.Remove(r.Path)) }()
	if d, err = how.compress(e.cache, r.Path); err != nil {
		return oci.Descriptor{}, err
	}
	return d, e.cache.Save(kindBlob, key, d)
}

func putJSON(c *cache.Cache, mediaType string, value any) (oci.Descriptor, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return oci.Descriptor{}, err
	}
	return c.PutBytes(mediaType, text)
}

// compressionOf is how a layer seems to have been compressed.
func compressionOf(d oci.Descriptor) string {
	switch {
	case !strings.HasSuffix(d.MediaType, "zstd"):
		return "gzip"
	case len(d.Annotations) > 0:
		return "zstd:chunked"
	}
	return "zstd"
}

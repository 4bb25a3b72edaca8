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

	"github.com/opencontainers/go-digest"
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
	r := exportRequest{Name: name, Dir: work, Blobs: filepath.Dir(c.Blob(digest.FromString("")))}
	if err := b.inStore(ctx, "export", r, &e); err != nil {
		return oci.Image{}, err
	}
	if !e.Found {
		return oci.Image{}, ErrNoImage
	}
	m, err := b.assemble(c, e)
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

// assemble puts an image's blobs into the cache, and gives its manifest.
func (b *Builder) assemble(c *cache.Cache, e exported) (oci.Descriptor, error) {
	r := localRecord{}
	same := true
	for _, l := range e.Layers {
		blob, err := b.blob(c, l)
		if err != nil {
			return oci.Descriptor{}, err
		}
		same = same && blob.Digest == l.Original.Digest
		r.Blobs = append(r.Blobs, blob)
	}
	config, err := c.PutBytes(v1.MediaTypeImageConfig, e.Config)
	if err != nil {
		return oci.Descriptor{}, err
	}
	if same {
		r.Manifest, err = c.PutBytes(e.MediaType, e.Manifest)
	} else {
		r.Manifest, err = putJSON(c, v1.MediaTypeImageManifest, oci.Manifest{
			Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest,
			Config: config, Layers: r.Blobs, Annotations: e.Annotations,
		})
	}
	if err != nil {
		return oci.Descriptor{}, err
	}
	r.Blobs = append(r.Blobs, config)
	return r.Manifest, c.Save(kindLocal, r.Manifest.Digest, r)
}

// blob gives a layer as its manifest names it where that is possible, else
// compressed in our own way.
func (b *Builder) blob(c *cache.Cache, l exportedLayer) (oci.Descriptor, error) {
	if l.Tar == "" {
		return l.Original, c.Check(l.Original)
	}
	how, err := newCompressor(compressionOf(l.Original))
	if err != nil {
		return oci.Descriptor{}, err
	}
	d, err := how.compress(c, l.Tar)
	if err == nil && d.Digest == l.Original.Digest {
		return l.Original, os.Remove(l.Tar)
	}
	if err == nil && how.name != Compressions[0] {
		d, err = compressor{name: Compressions[0]}.compress(c, l.Tar)
	}
	return d, errors.Join(err, os.Remove(l.Tar))
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

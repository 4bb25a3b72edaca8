package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/sync/errgroup"

	"bareboat/internal/oci"
)

// Resolve asks which manifest ref names now. A reference without tag and
// digest means the tag "latest".
func (c *Client) Resolve(ctx context.Context, ref oci.Reference) (oci.Descriptor, error) {
	s, err := c.open(ctx, "resolve", ref, transport.PullScope)
	if err != nil {
		return oci.Descriptor{}, err
	}
	found, err := s.resolve(ctx)
	if err != nil {
		return oci.Descriptor{}, s.fail(ctx, err)
	}
	return found, nil
}

// resolve looks with HEAD. Some registries do not answer that with a digest,
// or not at all; then GET has to do.
func (s *session) resolve(ctx context.Context) (oci.Descriptor, error) {
	puller, err := remote.NewPuller(s.options...)
	if err != nil {
		return oci.Descriptor{}, err
	}
	if head, err := puller.Head(ctx, s.target()); err == nil {
		d := oci.Digest(head.Digest.String())
		return oci.Descriptor{MediaType: string(head.MediaType), Digest: d, Size: head.Size}, d.Validate()
	} else if kind := classify(err); kind != Other {
		return oci.Descriptor{}, err
	}
	m, err := fetch(ctx, puller, s.target())
	return m.Descriptor, err
}

// fetch gets one manifest, an image's or an index.
func fetch(ctx context.Context, puller *remote.Puller, ref name.Reference) (manifest, error) {
	found, err := puller.Get(ctx, ref)
	if err != nil {
		return manifest{}, asContent(err)
	}
	d := oci.Digest(found.Digest.String())
	if byDigest, ok := ref.(name.Digest); ok {
		d = oci.Digest(byDigest.DigestStr())
	}
	return parseManifest(found.Manifest, d)
}

// Pull brings the image that ref names into a layout, which it creates if need
// be, and returns the descriptor of its manifest. Sizes and digests are
// verified; nothing stands in the layout before it is whole, blobs before the
// manifests that name them. What the layout has is not fetched again. One pull
// at a time may write to a layout.
//
// What is wrong with the registry or with what it sends is an *Error.
func (c *Client) Pull(ctx context.Context, ref oci.Reference, layoutDir string, progress Progress) (oci.Descriptor, error) {
	return c.PullSome(ctx, ref, layoutDir, Selection{}, progress)
}

// Selection says what of an image is wanted. Its zero value is all of it.
type Selection struct {
	// Platform, as "linux/amd64", leaves out the blobs of the others of an
	// index. An image that is no index has no choice.
	Platform string
	// ConfigOnly leaves out the layers.
	ConfigOnly bool
}

// PullSome pulls as Pull does, but only some of the blobs. The layout has all of
// the manifests.
func (c *Client) PullSome(ctx context.Context, ref oci.Reference, layoutDir string, some Selection, progress Progress) (oci.Descriptor, error) {
	s, err := c.open(ctx, "pull", ref, transport.PullScope)
	if err != nil {
		return oci.Descriptor{}, err
	}
	p := &pull{session: s, to: layout(layoutDir), some: some, teller: teller{tell: progress}}
	d, err := p.run(ctx)
	if err != nil {
		var local *layoutError
		if errors.As(err, &local) {
			return oci.Descriptor{}, fmt.Errorf("pull %s: write layout %s: %w", ref, layoutDir, local.err)
		}
		return oci.Descriptor{}, s.fail(ctx, err)
	}
	return d, nil
}

type pull struct {
	*session
	teller
	to     layout
	some   Selection
	puller *remote.Puller
}

func (p *pull) run(ctx context.Context) (oci.Descriptor, error) {
	puller, err := remote.NewPuller(p.options...)
	if err != nil {
		return oci.Descriptor{}, err
	}
	p.puller = puller
	root, err := fetch(ctx, puller, p.target())
	if err != nil {
		return oci.Descriptor{}, err
	}
	all, err := collect(root.Digest, func(d oci.Digest) ([]byte, error) {
		if d == root.Digest {
			return root.raw, nil
		}
		m, err := fetch(ctx, puller, p.byDigest(d))
		return m.raw, err
	})
	if err != nil {
		return oci.Descriptor{}, err
	}
	if err := p.download(ctx, p.some.of(all)); err != nil {
		return oci.Descriptor{}, err
	}
	return root.Descriptor, p.keep(all)
}

// of gives the blobs that are wanted.
func (s Selection) of(all image) []oci.Descriptor {
	if s == (Selection{}) {
		return all.blobs
	}
	wanted := map[oci.Digest]bool{}
	for _, m := range all.manifests {
		if len(m.blobs) == 0 || !s.wants(all, m.Digest) {
			continue
		}
		blobs := m.blobs
		if s.ConfigOnly {
			blobs = blobs[len(blobs)-1:] // the config stands behind the layers
		}
		for _, b := range blobs {
			wanted[b.Digest] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(all.blobs), func(b oci.Descriptor) bool { return !wanted[b.Digest] })
}

// wants tells whether a manifest is of the platform, as the index that names it
// says.
func (s Selection) wants(all image, d oci.Digest) bool {
	for _, index := range all.manifests {
		for _, child := range index.children {
			if child.Digest == d && child.Platform != nil {
				return s.Platform == "" || s.Platform == child.Platform.OS+"/"+child.Platform.Architecture
			}
		}
	}
	return true
}

// keep writes the manifests and names the last of them in the layout's index.
func (p *pull) keep(all image) error {
	for _, m := range all.manifests {
		if err := p.to.put(m.Descriptor, bytes.NewReader(m.raw)); err != nil {
			return &layoutError{err}
		}
	}
	if err := p.to.add(all.root().Descriptor, p.ref.Tag); err != nil {
		return &layoutError{err}
	}
	return nil
}

func (p *pull) download(ctx context.Context, blobs []oci.Descriptor) error {
	p.queue(blobs)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(p.jobs)
	for _, b := range blobs {
		group.Go(func() error { return p.blob(ctx, b) })
	}
	return group.Wait()
}

func (p *pull) blob(ctx context.Context, b oci.Descriptor) error {
	if p.to.has(b) {
		p.say(b, 0, Present)
		return nil
	}
	l, err := p.puller.Layer(ctx, p.byDigest(b.Digest))
	if err != nil {
		return err
	}
	body, err := l.Compressed()
	if err != nil {
		return asContent(err)
	}
	defer body.Close()
	from := &download{verifier: newVerifier(body, b, func(done int64) { p.say(b, done, Moving) })}
	err = p.to.put(b, from)
	switch {
	case from.err != nil:
		return asContent(from.err)
	case err != nil:
		return &layoutError{err}
	}
	p.say(b, b.Size, Finished)
	return nil
}

// download is a blob on its way; it remembers whether the way was the trouble.
type download struct {
	*verifier
	err error
}

func (d *download) Read(p []byte) (int, error) {
	n, err := d.verifier.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		d.err = err
	}
	return n, err
}

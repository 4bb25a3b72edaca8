package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"golang.org/x/sync/errgroup"

	"bareboat/internal/oci"
)

// Pushed is what a push did.
type Pushed struct {
	Digest    oci.Digest // of the manifest
	BytesSent int64      // of blobs and manifests
	Sent      int        // blobs that were sent
	Skipped   int        // blobs that the registry had
	Requests  int        // HTTP requests, the handshake and repetitions included
}

// Push sends the image with the given manifest from a layout to the repository
// and under the tag of to. Blobs that the registry has are not sent; an image
// that the tag names already costs one look. The manifest, be it an image's or
// an index, goes last, so that the tag never names half an image.
//
// What is wrong with the registry is an *Error; what is wrong with the layout
// is not.
func (c *Client) Push(ctx context.Context, layoutDir string, d oci.Digest, to oci.Reference, progress Progress) (Pushed, error) {
	if to.Digest != "" && to.Digest != d {
		return Pushed{}, fmt.Errorf("push %s: the image is %s", to, d)
	}
	from := layout(layoutDir)
	all, err := collect(d, from.manifest)
	if err != nil {
		return Pushed{}, fmt.Errorf("push %s: read layout %s: %w", to.Name(), layoutDir, err)
	}
	s, err := c.open(ctx, "push", to, transport.PushScope)
	if err != nil {
		return Pushed{}, err
	}
	p := &push{session: s, from: from, teller: teller{tell: progress}}
	if err := p.run(ctx, all); err != nil {
		var local *layoutError
		if errors.As(err, &local) {
			return Pushed{}, fmt.Errorf("push %s: read layout %s: %w", to.Name(), layoutDir, local.err)
		}
		return Pushed{}, s.fail(ctx, err)
	}
	sent := int(p.sent.Load())
	return Pushed{
		Digest: d, BytesSent: s.traffic.sent.Load(),
		Sent: sent, Skipped: len(all.blobs) - sent, Requests: int(s.traffic.requests.Load()),
	}, nil
}

type push struct {
	*session
	teller
	from layout
	sent atomic.Int64 // blobs
}

func (p *push) run(ctx context.Context, all image) error {
	p.queue(all.blobs)
	there, err := p.isThere(ctx, all.root().Digest)
	if err != nil {
		return err
	}
	if there {
		for _, b := range all.blobs {
			p.say(b, 0, Present)
		}
		return nil
	}
	pusher, err := remote.NewPusher(p.options...)
	if err != nil {
		return err
	}
	if err := p.upload(ctx, pusher, all.blobs); err != nil {
		return err
	}
	for _, m := range all.manifests {
		var as name.Reference = p.byDigest(m.Digest)
		if m.Digest == all.root().Digest && p.ref.Tag != "" {
			as = p.repository.Tag(p.ref.Tag) // the digest finds it, too
		}
		if err := pusher.Put(ctx, as, m); err != nil {
			return err
		}
	}
	return nil
}

// isThere tells whether the reference names d already. Then the registry has
// all that d names: it takes no manifest before.
func (p *push) isThere(ctx context.Context, d oci.Digest) (bool, error) {
	puller, err := remote.NewPuller(p.options...)
	if err != nil {
		return false, err
	}
	as := name.Reference(p.byDigest(d))
	if p.ref.Tag != "" {
		as = p.repository.Tag(p.ref.Tag)
	}
	found, err := puller.Head(ctx, as)
	if err == nil {
		return found.Digest.String() == d.String(), nil
	}
	switch classify(err) {
	case Unauthorized, Unreachable, Insecure:
		return false, err
	}
	return false, nil // only a look: what else is wrong shows when it matters
}

func (p *push) upload(ctx context.Context, pusher *remote.Pusher, blobs []oci.Descriptor) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(p.jobs)
	for _, b := range blobs {
		group.Go(func() error {
			l := &layer{blob: b, push: p}
			if err := pusher.Upload(ctx, p.repository, l); err != nil {
				return err
			}
			if !l.opened.Load() {
				p.say(b, 0, Present)
				return nil
			}
			p.sent.Add(1)
			p.say(b, b.Size, Finished)
			return nil
		})
	}
	return group.Wait()
}

// layer is a blob of the layout, as the library wants to have it.
type layer struct {
	blob   oci.Descriptor
	push   *push
	opened atomic.Bool
}

func (l *layer) Digest() (v1.Hash, error)             { return v1.NewHash(l.blob.Digest.String()) }
func (l *layer) Size() (int64, error)                 { return l.blob.Size, nil }
func (l *layer) MediaType() (types.MediaType, error)  { return types.MediaType(l.blob.MediaType), nil }
func (l *layer) DiffID() (v1.Hash, error)             { return v1.Hash{}, errors.ErrUnsupported }
func (l *layer) Uncompressed() (io.ReadCloser, error) { return nil, errors.ErrUnsupported }

// Compressed opens the blob, each time anew.
func (l *layer) Compressed() (io.ReadCloser, error) {
	l.opened.Store(true)
	f, err := os.Open(l.push.from.path(l.blob.Digest))
	if err != nil {
		return nil, &layoutError{err}
	}
	moved := func(done int64) { l.push.say(l.blob, done, Moving) }
	return &upload{verifier: newVerifier(f, l.blob, moved), Closer: f}, nil
}

// upload is a blob on its way; what is wrong with it is wrong in the layout.
type upload struct {
	*verifier
	io.Closer
}

func (u *upload) Read(p []byte) (int, error) {
	n, err := u.verifier.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = &layoutError{err}
	}
	return n, err
}

// layoutError marks what went wrong on this side.
type layoutError struct{ err error }

func (e *layoutError) Error() string { return e.err.Error() }
func (e *layoutError) Unwrap() error { return e.err }

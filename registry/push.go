package registry

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"golang.org/x/sync/errgroup"

	"bareboat/internal/oci"
)

// Pushed is what a push did.
type Pushed struct {
	Digest    oci.Digest // of the manifest
	BytesSent int64      // of blobs and manifests
	Sent      int        // blobs that were sent
	Mounted   int        // blobs that another repository of the registry had
	Skipped   int        // blobs that the repository had
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
	s, err := c.openToPush(ctx, to, all.blobs)
	if err != nil {
		return Pushed{}, err
	}
	p := &push{session: s, from: from, teller: teller{tell: progress}}
	if err := errors.Join(p.run(ctx, all), c.places.keep()); err != nil {
		var local *layoutError
		if errors.As(err, &local) {
			return Pushed{}, fmt.Errorf("push %s: read layout %s: %w", to.Name(), layoutDir, local.err)
		}
		return Pushed{}, s.fail(ctx, err)
	}
	sent, mounted := int(p.sent.Load()), int(p.mounted.Load())
	return Pushed{
		Digest: d, BytesSent: s.traffic.sent.Load(),
		Sent: sent, Mounted: mounted, Skipped: len(all.blobs) - sent - mounted, Requests: int(s.traffic.requests.Load()),
	}, nil
}

type push struct {
	*session
	teller
	from          layout
	sent, mounted atomic.Int64 // blobs
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
	if err := p.upload(ctx, all.blobs); err != nil {
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

func (p *push) upload(ctx context.Context, blobs []oci.Descriptor) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(p.jobs)
	for _, b := range blobs {
		group.Go(func() error {
			how, err := p.bring(ctx, b)
			switch {
			case err != nil:
				return err
			case how == uploaded:
				p.sent.Add(1)
				p.say(b, b.Size, Finished)
			default:
				if how == mounted {
					p.mounted.Add(1)
				}
				p.say(b, 0, Present)
			}
			return nil
		})
	}
	return group.Wait()
}

// layoutError marks what went wrong on this side.
type layoutError struct{ err error }

func (e *layoutError) Error() string { return e.err.Error() }
func (e *layoutError) Unwrap() error { return e.err }

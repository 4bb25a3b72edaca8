package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/sync/errgroup"

	"bareboat/internal/oci"
)

// Pushed is what a push did.
type Pushed struct {
	Digest    oci.Digest // of the manifest
	BytesSent int64      // of blobs and manifests
	Sent      int        // blobs that were sent
	Skipped   int        // blobs that the registry had
	Mounted   int        // those of them that another of its repositories had
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
	s, err := c.prepare(ctx, "push", to)
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
		Sent: sent, Mounted: int(p.mounted.Load()), Skipped: len(all.blobs) - sent,
		Requests: int(s.traffic.requests.Load()),
	}, nil
}

type push struct {
	*session
	teller
	from    layout
	sent    atomic.Int64 // blobs
	mounted atomic.Int64
}

func (p *push) run(ctx context.Context, all image) error {
	p.queue(all.blobs)
	there, err := p.names(ctx, all.root().Digest)
	if err != nil {
		return err
	}
	if there {
		for _, b := range all.blobs {
			p.say(b, 0, Present)
		}
		return nil
	}
	if p.transport == nil {
		if err := p.handshake(ctx, transport.PushScope); err != nil {
			return err
		}
	}
	err = p.upload(ctx, all.blobs)
	p.client.places.save(p.host.RegistryStr())
	if err != nil {
		return err
	}
	for _, m := range all.manifests {
		as := m.Digest.String()
		if m.Digest == all.root().Digest && p.ref.Tag != "" {
			as = p.ref.Tag // the digest finds it, too
		}
		if err := p.put(ctx, as, m); err != nil {
			return err
		}
	}
	return nil
}

// put sends a manifest.
func (p *push) put(ctx context.Context, as string, m manifest) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, p.url("manifests", as).String(), bytes.NewReader(m.raw))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", m.Descriptor.MediaType)
	answer, err := (&http.Client{Transport: p.transport}).Do(req)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	return transport.CheckError(answer, http.StatusOK, http.StatusCreated, http.StatusAccepted)
}

func (p *push) upload(ctx context.Context, blobs []oci.Descriptor) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(p.jobs)
	for _, b := range blobs {
		group.Go(func() error { return p.blob(ctx, b) })
	}
	return group.Wait()
}

// blob brings one blob into the repository: it is there, or another repository
// of the registry lends it, or it is sent. One push of a client at a time cares
// for a digest at a registry; the others then find it.
func (p *push) blob(ctx context.Context, b oci.Descriptor) error {
	host, repository := p.host.RegistryStr(), p.repository.RepositoryStr()
	release, err := p.client.busy.lock(ctx, host+" "+b.Digest.String())
	if err != nil {
		return err
	}
	defer release()
	there, err := p.head(ctx, "blobs", b.Digest)
	if err != nil {
		return err
	}
	how := found
	if !there {
		u := &upload{push: p, blob: b}
		if how, err = u.run(ctx); err != nil {
			return err
		}
	}
	p.client.places.add(host, place{b.Digest, repository})
	switch how {
	case sent:
		p.sent.Add(1)
		p.say(b, b.Size, Finished)
		return nil
	case mounted:
		p.mounted.Add(1)
	}
	p.say(b, 0, Present)
	return nil
}

// layoutError marks what went wrong on this side.
type layoutError struct{ err error }

func (e *layoutError) Error() string { return e.err.Error() }
func (e *layoutError) Unwrap() error { return e.err }

package registry

import (
	"context"
	"fmt"
	"net/http"
	"net/url"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"bareboat/internal/oci"
)

// acceptable are the manifests that a look takes for an answer.
const acceptable = v1.MediaTypeImageManifest + ", " + v1.MediaTypeImageIndex +
	", application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json"

// Has tells whether ref names d already, at the cost of one request where the
// registry answers strangers. Then it has all that d names: it takes no manifest
// before.
//
// What is wrong with the registry is an *Error.
func (c *Client) Has(ctx context.Context, ref oci.Reference, d oci.Digest) (bool, error) {
	if found, ok := c.glance(ctx, ref); ok {
		return found == d, nil
	}
	s, err := c.open(ctx, "push", ref, transport.PushScope)
	if err != nil {
		return false, err
	}
	p := &push{session: s}
	there, err := p.isThere(ctx, d)
	if err != nil {
		return false, s.fail(ctx, err)
	}
	return there, nil
}

// glance asks without asking first how the registry wants to be spoken to. Where
// that gives no plain answer, ok is false.
func (c *Client) glance(ctx context.Context, ref oci.Reference) (d oci.Digest, ok bool) {
	host, err := name.NewRegistry(ref.Registry)
	if err != nil || ref.IsLocal() {
		return "", false
	}
	what := ref.Tag
	if what == "" {
		what = name.DefaultTag
	}
	u := url.URL{
		Scheme: host.Scheme(), Host: host.RegistryStr(),
		Path: fmt.Sprintf("/v2/%s/manifests/%s", ref.Repository, what),
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, u.String(), nil)
	if err != nil {
		return "", false
	}
	req.Header.Set("Accept", acceptable)
	req.Header.Set("User-Agent", "bareboat")
	way := &traffic{inner: c.base, plain: func(host string) bool { return c.options.Insecure || isLoopback(host) }}
	answer, err := way.RoundTrip(req)
	if err != nil {
		return "", false
	}
	answer.Body.Close()
	d = oci.Digest(answer.Header.Get("Docker-Content-Digest"))
	switch answer.StatusCode {
	case http.StatusOK:
		return d, d.Validate() == nil
	case http.StatusNotFound:
		return "", true
	}
	return "", false
}

// Missing gives what a push of the image would send: the blobs and manifests
// that the repository of to lacks. Nothing is sent.
//
// What is wrong with the registry is an *Error.
func (c *Client) Missing(ctx context.Context, layoutDir string, d oci.Digest, to oci.Reference) ([]oci.Descriptor, error) {
	all, err := collect(d, layout(layoutDir).manifest)
	if err != nil {
		return nil, fmt.Errorf("push %s: read layout %s: %w", to.Name(), layoutDir, err)
	}
	s, err := c.open(ctx, "push", to, transport.PullScope)
	if err != nil {
		return nil, err
	}
	type question struct {
		what oci.Descriptor
		path string
		not  bool // it is not there
	}
	var questions []*question
	for _, b := range all.blobs {
		questions = append(questions, &question{what: b, path: "blobs"})
	}
	for _, m := range all.manifests {
		questions = append(questions, &question{what: m.Descriptor, path: "manifests"})
	}
	group, inner := errgroup.WithContext(ctx)
	group.SetLimit(s.jobs)
	for _, q := range questions {
		group.Go(func() error {
			there, err := s.head(inner, q.path, q.what.Digest)
			q.not = !there
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, s.fail(ctx, err)
	}
	var out []oci.Descriptor
	for _, q := range questions {
		if q.not {
			out = append(out, q.what)
		}
	}
	return out, nil
}

// head asks whether the repository has a blob or a manifest.
func (s *session) head(ctx context.Context, kind string, d oci.Digest) (bool, error) {
	u := url.URL{
		Scheme: s.repository.Scheme(), Host: s.repository.RegistryStr(),
		Path: fmt.Sprintf("/v2/%s/%s/%s", s.repository.RepositoryStr(), kind, d),
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, u.String(), nil)
	if err != nil {
		return false, err
	}
	if kind == "manifests" {
		req.Header.Set("Accept", acceptable)
	}
	answer, err := (&http.Client{Transport: s.transport}).Do(req)
	if err != nil {
		return false, err
	}
	defer answer.Body.Close()
	if answer.StatusCode == http.StatusNotFound {
		return false, nil
	}
	return true, transport.CheckError(answer, http.StatusOK)
}

package registry

import (
	"context"
	"fmt"
	"net/http"

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
	s, err := c.prepare(ctx, "push", ref)
	if err != nil {
		return false, err
	}
	there, err := s.names(ctx, d)
	if err != nil {
		return false, s.fail(ctx, err)
	}
	return there, nil
}

// names tells whether the reference names d already, and asks how the registry
// wants to be spoken to only where it does not answer without.
func (s *session) names(ctx context.Context, d oci.Digest) (bool, error) {
	if found, ok := s.glance(ctx, d); ok {
		return found == d, nil
	}
	if err := s.handshake(ctx, transport.PushScope); err != nil {
		return false, err
	}
	return s.isThere(ctx, d)
}

// glance asks without asking first how the registry wants to be spoken to. Where
// that gives no plain answer, ok is false.
func (s *session) glance(ctx context.Context, d oci.Digest) (found oci.Digest, ok bool) {
	host, err := name.NewRegistry(s.ref.Registry) // without the option, it says what the host most likely speaks
	if err != nil {
		return "", false
	}
	what := s.ref.Tag
	if what == "" {
		what = d.String()
	}
	u := s.url("manifests", what)
	u.Scheme = host.Scheme()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, u.String(), nil)
	if err != nil {
		return "", false
	}
	req.Header.Set("Accept", acceptable)
	req.Header.Set("User-Agent", "bareboat")
	if s.credential.Password != "" && (u.Scheme == "https" || isLoopback(u.Host)) {
		req.SetBasicAuth(s.credential.Username, s.credential.Password)
	}
	answer, err := s.traffic.RoundTrip(req)
	if err != nil {
		return "", false
	}
	answer.Body.Close()
	found = oci.Digest(answer.Header.Get("Docker-Content-Digest"))
	switch answer.StatusCode {
	case http.StatusOK:
		return found, found.Validate() == nil
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

// isThere tells whether the reference names d already, once the session may speak.
func (s *session) isThere(ctx context.Context, d oci.Digest) (bool, error) {
	what := s.ref.Tag
	if what == "" {
		what = d.String()
	}
	found, err := s.look(ctx, "manifests", what)
	if err == nil {
		return found.Get("Docker-Content-Digest") == d.String(), nil
	}
	switch classify(err) {
	case Unauthorized, Unreachable, Insecure:
		return false, err
	}
	return false, nil // only a look: what else is wrong shows when it matters
}

// head asks whether the repository has a blob or a manifest.
func (s *session) head(ctx context.Context, kind string, d oci.Digest) (bool, error) {
	_, err := s.look(ctx, kind, d.String())
	if err != nil && classify(err) == NotFound {
		return false, nil
	}
	return err == nil, err
}

// look asks for the header of a blob or a manifest.
func (s *session) look(ctx context.Context, kind, what string) (http.Header, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, s.url(kind, what).String(), nil)
	if err != nil {
		return nil, err
	}
	if kind == "manifests" {
		req.Header.Set("Accept", acceptable)
	}
	answer, err := (&http.Client{Transport: s.transport}).Do(req)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	return answer.Header, transport.CheckError(answer, http.StatusOK)
}

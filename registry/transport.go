package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"bareboat/internal/oci"
)

// once is for the library, which would repeat what retry has repeated already.
var once = remote.Backoff{Steps: 1}

var (
	errPlainHTTP  = errors.New("plain HTTP is not allowed")
	errNoRegistry = errors.New("the name has no registry")
)

// session is one operation on one repository.
type session struct {
	client     *Client
	op         string
	ref        oci.Reference
	host       name.Registry
	repository name.Repository
	credential credential
	traffic    *traffic
	transport  http.RoundTripper // as the registry wants to be spoken to
	options    []remote.Option
	jobs       int
}

// open asks the registry how it wants to be spoken to, and gets a token where
// it gives out tokens. The scope is what the operation has to be allowed to do.
func (c *Client) open(ctx context.Context, op string, ref oci.Reference, scope string) (*session, error) {
	s, err := c.prepare(ctx, op, ref)
	if err != nil {
		return nil, err
	}
	if err := s.handshake(ctx, scope); err != nil {
		return nil, s.fail(ctx, err)
	}
	return s, nil
}

// prepare makes a session that has sent nothing yet.
func (c *Client) prepare(ctx context.Context, op string, ref oci.Reference) (*session, error) {
	s := &session{client: c, op: op, ref: ref, jobs: c.options.Jobs}
	if ref.IsLocal() {
		return nil, s.fail(ctx, errNoRegistry)
	}
	var option []name.Option
	if c.mayBePlain(ref.Registry) {
		option = append(option, name.Insecure)
	}
	var err error
	if s.host, err = name.NewRegistry(ref.Registry, option...); err != nil {
		return nil, s.fail(ctx, err)
	}
	s.repository = s.host.Repo(ref.Repository)
	if s.credential, err = c.credential(ref); err != nil {
		return nil, s.fail(ctx, err)
	}
	s.traffic = &traffic{inner: c.base, plain: c.mayBePlain}
	return s, nil
}

// mayBePlain tells whether plain HTTP may be spoken to a host.
func (c *Client) mayBePlain(host string) bool { return c.options.Insecure || isLoopback(host) }

func (s *session) handshake(ctx context.Context, scope string) error {
	ready, err := s.speak(ctx, s.repository.Scope(scope))
	if err != nil {
		return err
	}
	s.transport = ready
	s.options = []remote.Option{
		remote.WithTransport(ready), remote.WithJobs(s.jobs), remote.WithRetryBackoff(once),
	}
	return nil
}

// speak gives a transport that may do what the scopes say. Hosts that it is
// redirected to do not get the credentials.
func (s *session) speak(ctx context.Context, scopes ...string) (http.RoundTripper, error) {
	return transport.NewWithContext(ctx, s.host, s.credential.authenticator(),
		transport.NewUserAgent(retry{s.traffic}, "bareboat"), scopes)
}

// url is where the repository keeps something.
func (s *session) url(kind, what string) *url.URL {
	return &url.URL{
		Scheme: s.repository.Scheme(), Host: s.repository.RegistryStr(),
		Path: fmt.Sprintf("/v2/%s/%s/%s", s.repository.RepositoryStr(), kind, what),
	}
}

// target is the reference in the library's words: by digest where it has one.
func (s *session) target() name.Reference {
	if s.ref.Digest != "" {
		return s.byDigest(s.ref.Digest)
	}
	tag := s.ref.Tag
	if tag == "" {
		tag = name.DefaultTag
	}
	return s.repository.Tag(tag)
}

func (s *session) byDigest(d oci.Digest) name.Digest { return s.repository.Digest(d.String()) }

// traffic is the lowest layer: it counts, and refuses plain HTTP to hosts that
// have to be spoken to over TLS, wherever the registry redirects to.
type traffic struct {
	inner    http.RoundTripper
	plain    func(host string) bool
	requests atomic.Int64
	tokens   atomic.Bool  // the registry gives out tokens
	sent     atomic.Int64 // bytes of request bodies
}

func (t *traffic) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !t.plain(r.URL.Hostname()) {
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, errPlainHTTP
	}
	t.requests.Add(1)
	if r.Body != nil && r.Body != http.NoBody {
		counted := *r // a RoundTripper must not change the request
		counted.Body = &countedBody{ReadCloser: r.Body, sum: &t.sent}
		counted.GetBody = t.counting(r.GetBody)
		r = &counted
	}
	answer, err := t.inner.RoundTrip(r)
	if err == nil && strings.HasPrefix(strings.ToLower(answer.Header.Get("WWW-Authenticate")), "bearer") {
		t.tokens.Store(true)
	}
	return answer, err
}

// counting counts a body also where the connection was found closed, and the
// request is sent anew beneath us.
func (t *traffic) counting(get func() (io.ReadCloser, error)) func() (io.ReadCloser, error) {
	if get == nil {
		return nil
	}
	return func() (io.ReadCloser, error) {
		body, err := get()
		return &countedBody{ReadCloser: body, sum: &t.sent}, err
	}
}

type countedBody struct {
	io.ReadCloser
	sum *atomic.Int64
}

func (c *countedBody) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.sum.Add(int64(n))
	return n, err
}

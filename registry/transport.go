package registry

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"bareboat/internal/oci"
)

// backoff is how a request is tried again that failed for a passing reason:
// three times, 0.3 and 0.9 seconds apart.
var backoff = remote.Backoff{Duration: 300 * time.Millisecond, Factor: 3, Jitter: 0.1, Steps: 3}

// passing are the answers that another try may turn into a good one.
var passing = []int{
	http.StatusRequestTimeout, http.StatusTooManyRequests,
	http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout,
}

var (
	errPlainHTTP  = errors.New("plain HTTP is not allowed")
	errNoRegistry = errors.New("the name has no registry")
)

// session is one operation on one repository.
type session struct {
	op         string
	ref        oci.Reference
	repository name.Repository
	credential credential
	traffic    *traffic
	options    []remote.Option
	client     *http.Client // with the same transport, for what the library does not offer
	jobs       int
	tagging    *sync.Mutex // the client's
}

// open asks the registry how it wants to be spoken to, and gets a token where
// it gives out tokens. The scope is what the operation has to be allowed to do.
func (c *Client) open(ctx context.Context, op string, ref oci.Reference, scope string) (*session, error) {
	s := &session{op: op, ref: ref, jobs: c.options.Jobs, tagging: &c.tagging}
	if ref.IsLocal() {
		return nil, s.fail(ctx, errNoRegistry)
	}
	plain := func(host string) bool { return c.options.Insecure || isLoopback(host) }
	var option []name.Option
	if plain(ref.Registry) {
		option = append(option, name.Insecure)
	}
	host, err := name.NewRegistry(ref.Registry, option...)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	s.repository = host.Repo(ref.Repository)
	if s.credential, err = c.credential(ref); err != nil {
		return nil, s.fail(ctx, err)
	}

	s.traffic = &traffic{inner: c.base, plain: plain}
	again := transport.NewRetry(s.traffic, transport.WithRetryBackoff(backoff), transport.WithRetryStatusCodes(passing...))
	ready, err := transport.NewWithContext(ctx, host, s.credential.authenticator(),
		transport.NewUserAgent(again, "bareboat"), []string{s.repository.Scope(scope)})
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	s.client = &http.Client{Transport: ready}
	s.options = []remote.Option{
		remote.WithTransport(ready), remote.WithJobs(s.jobs), remote.WithRetryBackoff(backoff),
	}
	return s, nil
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
		r = &counted
	}
	return t.inner.RoundTrip(r)
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

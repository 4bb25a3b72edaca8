package downtime

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// Model is how a client of HTTP behaves. Go's own would hide what happens, since
// it retries by itself.
type Model int

// The models.
const (
	// Strict keeps connections and takes every failure for one.
	Strict Model = iota
	// Browser keeps connections, too, and retries once, on another connection, a
	// request that it may repeat and whose reused connection turned out to be
	// closed before the first byte of an answer: RFC 9110, section 9.2.2.
	Browser
	// Fresh has a connection for each request.
	Fresh
)

func (m Model) String() string {
	return [...]string{"strict keep-alive, no retry", "browser, one retry on a reused connection", "new connection each"}[m]
}

const (
	requestTimeout = 10 * time.Second
	maxIdle        = 16 // connections that a client keeps
)

type dialFunc func(ctx context.Context) (net.Conn, error)

// dialer connects to the site, from where the options say.
func dialer(o Options) dialFunc {
	d := &net.Dialer{Timeout: requestTimeout}
	if o.Source != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(o.Source)}
	}
	through := d.DialContext
	if o.URL.Scheme == "https" {
		through = (&tls.Dialer{NetDialer: d, Config: o.TLS}).DialContext
	}
	return func(ctx context.Context) (net.Conn, error) { return through(ctx, "tcp", hostPort(o.URL)) }
}

func hostPort(u *url.URL) string {
	port := "80"
	switch {
	case u.Port() != "":
		return u.Host
	case u.Scheme == "https":
		port = "443"
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// client sends requests according to a model.
type client struct {
	model Model
	host  string
	dial  dialFunc

	mu   sync.Mutex
	idle []*conn
}

type conn struct {
	net.Conn
	in *bufio.Reader
}

// request is what is sent: a body comes in pieces, with pauses.
type request struct {
	method, path string
	header       map[string]string
	body         []byte
	pieces       int
	pause        time.Duration
}

func (r request) idempotent() bool { return r.method == http.MethodGet }

// errNoByte says that a connection ended before the first byte of an answer.
var errNoByte = errors.New("no answer")

// do sends the request and gives the status and the body.
func (c *client) do(ctx context.Context, r request) (status int, body []byte, retried bool, err error) {
	at, reused, err := c.take(ctx)
	if err != nil {
		return 0, nil, false, err
	}
	status, body, err = c.on(ctx, at, r)
	if err != nil && reused && c.model == Browser && r.idempotent() && errors.Is(err, errNoByte) {
		if at, err = c.fresh(ctx); err != nil {
			return 0, nil, true, err
		}
		status, body, err = c.on(ctx, at, r)
		return status, body, true, err
	}
	return status, body, false, err
}

// take gives a connection that is idle, the one used last, or a new one.
func (c *client) take(ctx context.Context) (at *conn, reused bool, err error) {
	if c.model != Fresh {
		c.mu.Lock()
		defer c.mu.Unlock()
		if n := len(c.idle); n > 0 {
			at, c.idle = c.idle[n-1], c.idle[:n-1]
			return at, true, nil
		}
	}
	at, err = c.fresh(ctx)
	return at, false, err
}

func (c *client) fresh(ctx context.Context) (*conn, error) {
	raw, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	return &conn{raw, bufio.NewReader(raw)}, nil
}

// on does the request on the connection, and keeps that if it can be used again.
func (c *client) on(ctx context.Context, at *conn, r request) (status int, body []byte, err error) {
	keep := false
	defer func() {
		if !keep {
			at.Close()
		}
	}()
	if err := at.SetDeadline(time.Now().Add(requestTimeout)); err != nil {
		return 0, nil, err
	}
	if err := c.write(ctx, at, r); err != nil {
		return 0, nil, errors.Join(errNoByte, err)
	}
	if _, err := at.in.Peek(1); err != nil {
		return 0, nil, errors.Join(errNoByte, err)
	}
	resp, err := http.ReadResponse(at.in, &http.Request{Method: r.method})
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	if body, err = io.ReadAll(resp.Body); err != nil {
		return resp.StatusCode, nil, err
	}
	if c.model != Fresh && !resp.Close {
		keep = c.keep(at)
	}
	return resp.StatusCode, body, nil
}

func (c *client) keep(at *conn) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.idle) >= maxIdle {
		return false
	}
	c.idle = append(c.idle, at)
	return true
}

func (c *client) write(ctx context.Context, to io.Writer, r request) error {
	var head bytes.Buffer
	fmt.Fprintf(&head, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: bareboat-verify\r\n", r.method, r.path, c.host)
	for name, value := range r.header {
		fmt.Fprintf(&head, "%s: %s\r\n", name, value)
	}
	if c.model == Fresh {
		head.WriteString("Connection: close\r\n")
	}
	if r.method != http.MethodGet {
		fmt.Fprintf(&head, "Content-Length: %d\r\n", len(r.body))
	}
	head.WriteString("\r\n")
	if r.pieces <= 1 {
		head.Write(r.body)
	}
	if _, err := to.Write(head.Bytes()); err != nil || r.pieces <= 1 {
		return err
	}
	for i := range r.pieces {
		if err := pause(ctx, r.pause); err != nil {
			return err
		}
		if _, err := to.Write(r.body[i*len(r.body)/r.pieces : (i+1)*len(r.body)/r.pieces]); err != nil {
			return err
		}
	}
	return nil
}

func (c *client) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, at := range c.idle {
		at.Close()
	}
}

// stream is a load of requests at intended times.
type stream struct {
	tally
	client   *client
	name     string
	what     string
	interval time.Duration
	next     func(n int) request
	answered func(n int, status int) // may be nil

	ctx  context.Context
	stop context.CancelFunc
	done chan struct{}
}

func newRequests(o Options, m Model, dial dialFunc) part {
	each := time.Duration(3 * float64(time.Second) / o.Rate) // three models share the rate
	return &stream{
		client: &client{model: m, host: o.URL.Host, dial: dial}, name: m.String(), what: "requests", interval: each,
		next: func(n int) request { return request{method: http.MethodGet, path: o.Paths[n%len(o.Paths)]} },
	}
}

// probe is the number of a request that is sent before the others, and is none of
// them.
const probe = 1 << 30

func (s *stream) begin(ctx context.Context) error {
	s.ctx, s.stop = context.WithCancel(ctx)
	s.done = make(chan struct{})
	first := s.next(probe)
	if status, _, _, err := s.client.do(ctx, first); err != nil || status >= 400 {
		return fmt.Errorf("%s: before anything is done the service answers %s", first.path, answer(status, err))
	}
	go func() {
		defer close(s.done)
		every(s.ctx, s.interval, func(n int, intended time.Time) { s.one(ctx, n, intended) })
	}()
	return nil
}

func answer(status int, err error) string {
	if err != nil {
		return kind(err)
	}
	return fmt.Sprint(status)
}

func (s *stream) one(ctx context.Context, n int, intended time.Time) {
	status, _, retried, err := s.client.do(ctx, s.next(n))
	switch {
	case err != nil:
		s.fail(kind(err))
	case status >= 400:
		s.fail(fmt.Sprint("answer ", status))
	default:
		s.ok(intended, retried)
	}
	if s.answered != nil {
		s.answered(n, status)
	}
}

func (s *stream) quiet() {
	s.stop()
	<-s.done
	s.client.close()
}

func (s *stream) line() Line {
	l := s.tally.line(s.name, s.what)
	l.Tolerant = s.client.model == Strict
	return l
}

// Slow requests and uploads are long enough that some cross any switch.
const (
	slowEvery    = 250 * time.Millisecond
	uploadBytes  = 64 << 10
	uploadPieces = 12
	uploadPause  = 150 * time.Millisecond
	postEvery    = 100 * time.Millisecond
)

func newSlow(o Options, dial dialFunc) part {
	return &stream{
		client: &client{model: Browser, host: o.URL.Host, dial: dial}, name: "slow requests", what: "requests", interval: slowEvery,
		next: func(int) request { return request{method: http.MethodGet, path: o.Slow} },
	}
}

func newUploads(o Options, dial dialFunc) part {
	body := bytes.Repeat([]byte("upload.."), uploadBytes/8)
	return &stream{
		client: &client{model: Fresh, host: o.URL.Host, dial: dial}, name: "slow uploads", what: "uploads", interval: slowEvery,
		next: func(int) request {
			return request{method: http.MethodPost, path: o.Upload, body: body, pieces: uploadPieces, pause: uploadPause}
		},
	}
}

// posts are requests that must have their effect once.
type posts struct {
	*stream
	o    Options
	dial dialFunc
	run  string

	mu    sync.Mutex
	acked map[string]bool
}

func newPosts(o Options, dial dialFunc) part {
	p := &posts{o: o, dial: dial, run: fmt.Sprintf("%d-", time.Now().UnixNano()), acked: map[string]bool{}}
	p.stream = &stream{
		client: &client{model: Fresh, host: o.URL.Host, dial: dial}, name: "POSTs, counted at the server", what: "requests", interval: postEvery,
		next: func(n int) request {
			return request{method: http.MethodPost, path: o.Post, body: []byte("1"), header: map[string]string{"Idempotency-Key": p.key(n)}}
		},
		answered: func(n, status int) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.acked[p.key(n)] = status > 0 && status < 400
		},
	}
	return p
}

func (p *posts) key(n int) string { return fmt.Sprint(p.run, n) }

// quiet compares what was answered with what the server counted.
func (p *posts) quiet() {
	p.stream.quiet()
	if p.o.Posted == "" {
		return
	}
	asker := &client{model: Fresh, host: p.o.URL.Host, dial: p.dial}
	status, body, _, err := asker.do(context.Background(), request{method: http.MethodGet, path: p.o.Posted})
	if err != nil || status >= 400 {
		p.blame("what was counted is not told: " + answer(status, err))
		return
	}
	counted := map[string]int{}
	for key := range strings.FieldsSeq(string(body)) {
		counted[key]++
	}
	for key, acked := range p.acked {
		switch n := counted[key]; {
		case acked && n == 0:
			p.blame("answered and not counted")
		case n > 1:
			p.blame("counted twice")
		}
	}
}

package debian

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"
)

const (
	attempts = 3
	// defaultPatience is how long a mirror may take for leastProgress bytes, or
	// for what is left of a file.
	defaultPatience = 60 * time.Second
	leastProgress   = 64 << 10
	pause           = 200 * time.Millisecond
)

// errNotServed is an address that the mirror does not have.
var errNotServed = errors.New("not served")

// statusError is an answer other than 200.
type statusError struct {
	url  string
	code int
}

func (e *statusError) Error() string {
	return fmt.Sprintf("GET %s: %d %s", e.url, e.code, http.StatusText(e.code))
}

func (e *statusError) Is(target error) bool {
	return target == errNotServed && (e.code == http.StatusNotFound || e.code == http.StatusGone)
}

// get hands the body of an address to read, and tries again where that may
// help: after a cut connection or an error of the server, and never after an
// answer that is whole and wrong.
func (a *Archive) get(ctx context.Context, url string, read func(io.Reader) error) error {
	for try := 1; ; try++ {
		err := a.getOnce(ctx, url, read)
		if err == nil || try == attempts || !transient(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Duration(try) * pause):
		}
	}
}

func transient(err error) bool {
	if status, ok := errors.AsType[*statusError](err); ok {
		return status.code >= 500 || status.code == http.StatusTooManyRequests
	}
	_, network := errors.AsType[*networkError](err)
	return network
}

// networkError is a request that got no answer, or only a part of one.
type networkError struct {
	url string
	err error
}

func (e *networkError) Error() string { return fmt.Sprintf("GET %s: %v", e.url, e.err) }
func (e *networkError) Unwrap() error { return e.err }

// Hint tells how to go on.
func (e *networkError) Hint() string {
	return "try again later, or name another mirror: BAREBOAT_DEBIAN_MIRROR, BAREBOAT_DEBIAN_SECURITY_MIRROR"
}

func (a *Archive) getOnce(ctx context.Context, url string, read func(io.Reader) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	patience := cmp.Or(a.Patience, defaultPatience)
	alarm := time.AfterFunc(patience, func() { cancel(fmt.Errorf("too slow: less than %d kB in %s", leastProgress>>10, patience)) })
	defer alarm.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	client := a.Client
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		return &networkError{url: url, err: cause(ctx, err)}
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return &statusError{url: url, code: resp.StatusCode}
	}
	body := &watched{r: resp.Body, progress: func() { alarm.Reset(patience) }}
	err = read(body)
	if err == nil {
		return nil
	}
	if body.err != nil {
		return &networkError{url: url, err: cause(ctx, body.err)}
	}
	return fmt.Errorf("GET %s: %w", url, err)
}

// cause prefers why a context ended to the transport's word for it, which
// repeats the address.
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c != nil {
		return c
	}
	if wrapped := errors.Unwrap(err); wrapped != nil {
		return wrapped
	}
	return err
}

// watched remembers the error of the network apart from those of the reader,
// and tells of each leastProgress bytes.
type watched struct {
	r        io.Reader
	progress func()
	since    int // bytes that nothing was told of yet
	err      error
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if w.since += n; w.since >= leastProgress {
		w.since = 0
		w.progress()
	}
	if err != nil && err != io.EOF {
		w.err = err
	}
	return n, err
}

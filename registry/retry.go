package registry

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"syscall"
	"time"
)

const (
	// tries is how often a request is made that fails for a passing reason, and
	// how often a blob's upload may end without having come further.
	tries = 4
	// firstPause is about how long the second try is put off; each further one
	// twice as long.
	firstPause = 250 * time.Millisecond
	// longestPause is how long a registry may ask us to wait. One that asks for
	// more is believed: it will not answer now.
	longestPause = time.Minute
)

// passing are the answers that another try may turn into a good one.
var passing = []int{
	http.StatusRequestTimeout, http.StatusTooManyRequests,
	http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout,
}

// retry makes requests again that failed for a passing reason. A blob's bytes
// are not its concern: where their upload goes on is for the registry to say.
type retry struct{ inner http.RoundTripper }

func (t retry) RoundTrip(r *http.Request) (*http.Response, error) {
	for try := 1; ; try++ {
		answer, err := t.inner.RoundTrip(r)
		if try == tries || !isRepeatable(r) || !isPassing(answer, err) {
			return answer, err
		}
		wait, ok := pause(try, answer)
		if !ok {
			return answer, err
		}
		if answer != nil {
			answer.Body.Close()
		}
		if err := sleep(r.Context(), wait); err != nil {
			return nil, err
		}
		if r, err = again(r); err != nil {
			return nil, err
		}
	}
}

// isRepeatable tells whether a request can be made anew as it was.
func isRepeatable(r *http.Request) bool {
	return r.Method != http.MethodPatch && (r.Body == nil || r.Body == http.NoBody || r.GetBody != nil)
}

func again(r *http.Request) (*http.Request, error) {
	fresh := r.Clone(r.Context())
	if r.GetBody == nil {
		return fresh, nil
	}
	body, err := r.GetBody()
	fresh.Body = body
	return fresh, err
}

// isPassing tells of failures that may not happen again: an answer that says so,
// or a connection that broke off.
func isPassing(answer *http.Response, err error) bool {
	if err == nil {
		return slices.Contains(passing, answer.StatusCode)
	}
	for _, broken := range []error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, broken) {
			return true
		}
	}
	return false
}

// pause is how long to wait after a try, counted from 1: what the answer asks
// for (RFC 9110, section 10.2.3), else a time that doubles, up to a half more by
// chance, so that clients that failed together do not come back together. It is
// not ok to wait as long as some registries want.
func pause(try int, answer *http.Response) (wait time.Duration, ok bool) {
	base := firstPause << (try - 1)
	wait = base + rand.N(base/2)
	if answer == nil {
		return wait, true
	}
	asked := answer.Header.Get("Retry-After")
	if seconds, err := strconv.ParseUint(asked, 10, 31); err == nil {
		wait = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(asked); err == nil {
		wait = max(0, time.Until(at))
	}
	return wait, wait <= longestPause
}

// sleep waits, but no longer than ctx lasts.
func sleep(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}

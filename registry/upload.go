package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"bareboat/internal/oci"
)

const (
	// tries is how often in a row an upload may get nowhere.
	tries = 5
	// longestPause is how long a registry may ask to be left alone.
	longestPause = time.Minute
	// chunk is what is sent at once to a registry that takes no more, or that
	// keeps nothing of a request that breaks off.
	chunk = 8 << 20
)

// outcome is how a blob came to the registry.
type outcome int

const (
	wasThere outcome = iota
	mounted
	uploaded
)

// bring has the blob in the repository. It is looked for, then mounted from
// another repository of the same registry, and only then sent; an upload that
// breaks off goes on where it was. Two pushes of this client do not send one
// blob at the same time: the second finds it there, or mounts it.
func (p *push) bring(ctx context.Context, b oci.Descriptor) (outcome, error) {
	release, err := p.client.turns.take(ctx, p.ref.Registry+" "+b.Digest.String())
	if err != nil {
		return 0, err
	}
	defer release()
	u := &upload{push: p, blob: b}
	for attempt := 0; ; attempt++ {
		before := u.reached
		how, err := u.run(ctx)
		if err == nil {
			p.client.places.note(p.ref.Registry, b.Digest, p.ref.Repository)
			return how, nil
		}
		if u.reached > before {
			attempt = 0
		}
		if attempt+1 >= tries || !passes(ctx, err) {
			return 0, err
		}
		if err := wait(ctx, attempt, err); err != nil {
			return 0, err
		}
	}
}

// upload is a blob on its way. It remembers how far it came.
type upload struct {
	*push
	blob     oci.Descriptor
	location *url.URL // of the session at the registry; nil before it is open
	reached  int64    // bytes that the registry has
	limit    int64    // bytes that it takes at once; 0: all
}

// run goes on with the upload, from where it is to its end.
func (u *upload) run(ctx context.Context) (outcome, error) {
	if u.location != nil {
		if err := u.resume(ctx); err != nil {
			return 0, err
		}
	}
	if u.location == nil {
		if there, err := u.head(ctx, "blobs", u.blob.Digest); there || err != nil {
			return wasThere, err
		}
		if done, err := u.open(ctx); done || err != nil {
			return mounted, err
		}
	}
	for u.reached < u.blob.Size {
		if err := u.send(ctx); err != nil {
			return 0, err
		}
	}
	return uploaded, u.finish(ctx)
}

// open begins a session, if the blob cannot be mounted.
func (u *upload) open(ctx context.Context) (done bool, err error) {
	for _, from := range append(u.client.places.find(u.ref.Registry, u.blob.Digest, u.ref.Repository), "") {
		at := u.url("blobs/uploads/")
		if from != "" {
			at.RawQuery = url.Values{"mount": {u.blob.Digest.String()}, "from": {from}}.Encode()
		}
		answer, err := u.do(ctx, http.MethodPost, at, nil, http.StatusCreated, http.StatusAccepted)
		if err != nil {
			if from != "" && ctx.Err() == nil {
				continue // it may not be read by us, or be none any more
			}
			return false, err
		}
		if answer.StatusCode == http.StatusCreated {
			return true, nil
		}
		return false, u.moved(answer, at)
	}
	return false, nil
}

// resume asks how much the registry has. Where it does not know the session any
// more, the upload begins anew.
func (u *upload) resume(ctx context.Context) error {
	at := u.location
	answer, err := u.do(ctx, http.MethodGet, at, nil, http.StatusNoContent, http.StatusOK, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusBadRequest)
	if err != nil {
		return err
	}
	_, last, ok := strings.Cut(strings.TrimPrefix(answer.Header.Get("Range"), "bytes="), "-")
	n, err := strconv.ParseInt(last, 10, 64)
	if answer.StatusCode >= http.StatusBadRequest || !ok || err != nil || n >= u.blob.Size {
		u.location, u.reached = nil, 0
		return nil
	}
	before := u.reached
	u.reached = 0
	if n > 0 { // a range names its last byte; "0-0" and "0--1" are how registries say that there is none
		u.reached = n + 1
	}
	if u.reached <= before {
		u.limit = chunk // it keeps nothing of a request that breaks off
	}
	return u.moved(answer, at)
}

// send sends the rest, or as much as the registry takes at once.
func (u *upload) send(ctx context.Context) error {
	size := u.blob.Size - u.reached
	if u.limit > 0 {
		size = min(size, u.limit)
	}
	body, err := u.body(size)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPatch, u.location.String(), body)
	if err != nil {
		return errors.Join(err, body.Close())
	}
	req.ContentLength = size
	req.Header.Set("Content-Type", "application/octet-stream")
	req.Header.Set("Content-Range", fmt.Sprintf("%d-%d", u.reached, u.reached+size-1))
	answer, err := u.answer(req, http.StatusAccepted, http.StatusNoContent, http.StatusCreated, http.StatusRequestEntityTooLarge)
	if body.wrong != nil {
		return &layoutError{body.wrong}
	}
	if err != nil {
		if hasStatus(err, http.StatusRequestedRangeNotSatisfiable) {
			u.location, u.reached = nil, 0 // we do not agree about what it has
		}
		return err
	}
	if answer.StatusCode == http.StatusRequestEntityTooLarge {
		if u.limit > 0 {
			return transport.CheckError(answer, http.StatusAccepted)
		}
		u.limit = chunk
		return u.resume(ctx)
	}
	u.reached += size
	return u.moved(answer, u.location)
}

// finish names the digest of what was sent, which the registry checks.
func (u *upload) finish(ctx context.Context) error {
	at := *u.location
	query := at.Query()
	query.Set("digest", u.blob.Digest.String())
	at.RawQuery = query.Encode()
	_, err := u.do(ctx, http.MethodPut, &at, nil, http.StatusCreated, http.StatusNoContent)
	return err
}

// moved follows the session: each answer may give it another address, relative
// or not, with a query that belongs to it.
func (u *upload) moved(answer *http.Response, from *url.URL) error {
	told := answer.Header.Get("Location")
	if told == "" {
		if u.location == nil {
			return fmt.Errorf("%w: it opened an upload and did not say where", errContent)
		}
		return nil
	}
	at, err := from.Parse(told)
	if err != nil {
		return fmt.Errorf("%w: Location %q: %w", errContent, told, err)
	}
	u.location = at
	return nil
}

// url is an address in the repository.
func (s *session) url(path string) *url.URL {
	return &url.URL{
		Scheme: s.repository.Scheme(), Host: s.repository.RegistryStr(),
		Path: fmt.Sprintf("/v2/%s/%s", s.repository.RepositoryStr(), path),
	}
}

func (s *session) do(ctx context.Context, method string, at *url.URL, header http.Header, good ...int) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, at.String(), nil)
	if err != nil {
		return nil, err
	}
	for k, v := range header {
		req.Header[k] = v
	}
	return s.answer(req, good...)
}

// answer gives the answer to a request, read to its end, if its status is one of
// the good ones.
func (s *session) answer(req *http.Request, good ...int) (*http.Response, error) {
	answer, err := (&http.Client{Transport: s.transport}).Do(req)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if err := transport.CheckError(answer, good...); err != nil {
		return nil, later(err, answer)
	}
	_, err = io.Copy(io.Discard, io.LimitReader(answer.Body, manifestLimit))
	return answer, err
}

// laterError is an answer that says when to ask again.
type laterError struct {
	error
	after time.Duration
}

func (e *laterError) Unwrap() error { return e.error }

func later(err error, answer *http.Response) error {
	seconds, parseErr := strconv.Atoi(answer.Header.Get("Retry-After"))
	if parseErr != nil || seconds < 0 {
		return err
	}
	return &laterError{err, min(time.Duration(seconds)*time.Second, longestPause)}
}

// clientClosed is how some registries answer a request that broke off, to
// whoever may still be listening.
const clientClosed = 499

// passes tells whether another try may turn an error into success.
func passes(ctx context.Context, err error) bool {
	var local *layoutError
	var answer *transport.Error
	switch {
	case ctx.Err() != nil, errors.As(err, &local), errors.Is(err, errContent):
		return false
	case errors.As(err, &answer):
		return answer.StatusCode >= http.StatusInternalServerError || hasStatus(err,
			http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusRequestedRangeNotSatisfiable, clientClosed)
	}
	return isBroken(err)
}

func hasStatus(err error, any ...int) bool {
	var answer *transport.Error
	return errors.As(err, &answer) && slices.Contains(any, answer.StatusCode)
}

// wait waits longer each time, never quite the same, and as long as the registry
// asks for.
func wait(ctx context.Context, attempt int, err error) error {
	pause := backoff.Duration << attempt
	pause += time.Duration(rand.Int64N(int64(pause) / 4))
	var told *laterError
	if errors.As(err, &told) {
		pause = max(pause, told.after)
	}
	t := time.NewTimer(pause)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// part is some of a blob on its way. The whole blob is held against its digest
// when its end is sent, however many parts it took.
type part struct {
	io.Reader
	file  *os.File
	wrong error // what is wrong with the layout, not with the way
}

// body gives the next size bytes of the blob.
func (u *upload) body(size int64) (*part, error) {
	f, err := os.Open(u.from.path(u.blob.Digest))
	if err != nil {
		return nil, &layoutError{err}
	}
	p := &part{file: f}
	sent := int64(0)
	whole := newVerifier(f, u.blob, func(done int64) { sent = done })
	if _, err := io.CopyN(io.Discard, whole, u.reached); err != nil {
		return nil, errors.Join(&layoutError{err}, f.Close())
	}
	p.Reader = readerFunc(func(b []byte) (int, error) {
		n, err := whole.Read(b)
		if err != nil && !errors.Is(err, io.EOF) {
			p.wrong = err
		}
		u.say(u.blob, sent, Moving)
		return n, err
	})
	if u.reached+size < u.blob.Size { // else the end is the blob's own, and what is behind it an error
		p.Reader = io.LimitReader(p.Reader, size)
	}
	return p, nil
}

// Close closes the blob.
func (p *part) Close() error { return p.file.Close() }

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

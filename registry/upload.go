package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
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

// errBroke says that bytes on their way did not all arrive, for a reason that may
// pass.
var errBroke = errors.New("the upload broke off")

// errLost says that the registry does not know an upload, or has come to another
// point of it than we think.
var errLost = errors.New("the registry lost track of the upload")

// outcome is how a blob came into a repository.
type outcome int

const (
	found   outcome = iota // it was there
	mounted                // another repository lent it
	sent
)

// smallestChunk is what a registry has to take at once.
const smallestChunk = 1 << 20

// upload sends one blob, as the protocol's "Pushing a blob in chunks" has it: a
// POST opens an upload and gives its address, which every answer gives anew;
// PATCHes send bytes, and a PUT ends it. Where a PATCH breaks off, a GET tells
// how far the upload has come.
type upload struct {
	*push
	blob     oci.Descriptor
	at       *url.URL // of the upload, nil where there is none
	offset   int64    // what the registry has
	furthest int64    // that it has had
	resumed  bool     // the offset was the registry's word
	chunk    int64    // how much it takes at once; 0: everything
}

// run sends the blob, or has it lent. A try that brought the upload further does
// not count: a bad line ends nothing as long as it carries something.
func (u *upload) run(ctx context.Context) (outcome, error) {
	if lent, err := u.mount(ctx); lent || err != nil {
		return mounted, err
	}
	for try := 1; ; try++ {
		before := u.furthest
		answer, err := u.attempt(ctx)
		if err == nil {
			return sent, nil
		}
		wait, ok := pause(try, answer)
		if !ok || try == tries || !u.isWorthAnother(err) || ctx.Err() != nil {
			return sent, err
		}
		if err := sleep(ctx, wait); err != nil {
			return sent, err
		}
		if err := u.locate(ctx); err != nil {
			return sent, err
		}
		if u.furthest > before {
			try = 0
		}
	}
}

// isWorthAnother tells whether the upload may go on after err. Requests without a
// blob's bytes have been repeated by then.
func (u *upload) isWorthAnother(err error) bool {
	var local *layoutError
	var answer *transport.Error
	switch {
	case errors.As(err, &local):
		return false
	case errors.Is(err, errLost), errors.Is(err, errBroke):
		return true
	}
	return u.resumed && errors.As(err, &answer) && answer.StatusCode == http.StatusBadRequest
}

// attempt sends what the registry has not, and ends the upload. The answer is
// the last, for what it says about trying again.
func (u *upload) attempt(ctx context.Context) (*http.Response, error) {
	for {
		if u.at == nil {
			if err := u.begin(ctx); err != nil {
				return nil, err
			}
		}
		if u.offset == u.blob.Size {
			return u.finish(ctx)
		}
		if answer, err := u.patch(ctx); err != nil {
			return answer, err
		}
	}
}

// begin opens an upload.
func (u *upload) begin(ctx context.Context) error {
	answer, err := u.do(ctx, u.transport, http.MethodPost, u.url("blobs", "uploads/"))
	if err != nil {
		return err
	}
	if err := transport.CheckError(answer, http.StatusAccepted); err != nil {
		return err
	}
	return u.opened(answer)
}

// opened notes where an answer says that the upload is now.
func (u *upload) opened(answer *http.Response) error {
	u.offset, u.resumed = 0, false
	least, err := strconv.ParseInt(answer.Header.Get("OCI-Chunk-Min-Length"), 10, 64)
	if err == nil && u.chunk > 0 {
		u.chunk = max(u.chunk, least)
	}
	u.at = nil
	if err := u.moved(answer); err != nil {
		return err
	}
	if u.at == nil {
		return fmt.Errorf("%w: the registry opened an upload and did not say where", errContent)
	}
	return nil
}

// moved follows the upload to the address that an answer gives it, relative or
// absolute; its query belongs to it.
func (u *upload) moved(answer *http.Response) error {
	if answer.Header.Get("Location") == "" {
		return nil
	}
	at, err := answer.Location()
	if err != nil {
		return fmt.Errorf("%w: the address of an upload: %w", errContent, withoutURL(err))
	}
	u.at = at
	return nil
}

// patch sends the next bytes.
func (u *upload) patch(ctx context.Context) (*http.Response, error) {
	length := u.blob.Size - u.offset
	if u.chunk > 0 {
		length = min(length, u.chunk)
	}
	ctx, watch := newWatch(ctx, u.client.options.Patience)
	defer watch.stop()
	open := func() (io.ReadCloser, error) { return u.open(watch, length) }
	body, err := open()
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPatch, u.at.String(), body)
	if err != nil {
		return nil, err
	}
	req.GetBody = open
	req.ContentLength = length
	req.Header.Set("Content-Type", "application/octet-stream")
	if length < u.blob.Size {
		req.Header.Set("Content-Range", fmt.Sprintf("%d-%d", u.offset, u.offset+length-1))
	}
	answer, err := (&http.Client{Transport: u.transport}).Do(req)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBroke, watch.cause(ctx, err))
	}
	defer answer.Body.Close()
	switch answer.StatusCode {
	case http.StatusRequestedRangeNotSatisfiable:
		return answer, errLost
	case http.StatusRequestEntityTooLarge:
		if length/2 >= smallestChunk {
			u.chunk = length / 2
			return answer, u.locate(ctx)
		}
	}
	if err := transport.CheckError(answer, http.StatusAccepted, http.StatusCreated, http.StatusNoContent, http.StatusOK); err != nil {
		if isPassing(answer, nil) {
			err = fmt.Errorf("%w: %w", errBroke, err)
		}
		return answer, lost(err)
	}
	u.reached(u.offset + length)
	return answer, u.moved(answer)
}

// finish ends the upload: the registry checks the digest. An upload that is gone
// may have been ended by a PUT whose answer was lost.
func (u *upload) finish(ctx context.Context) (*http.Response, error) {
	at := *u.at
	if at.RawQuery != "" {
		at.RawQuery += "&"
	}
	at.RawQuery += "digest=" + url.QueryEscape(u.blob.Digest.String())
	answer, err := u.do(ctx, u.transport, http.MethodPut, &at)
	if err != nil {
		return nil, err
	}
	err = lost(transport.CheckError(answer, http.StatusCreated, http.StatusNoContent, http.StatusOK))
	switch {
	case errors.Is(err, errLost):
		there, headErr := u.head(ctx, "blobs", u.blob.Digest)
		if there || headErr != nil {
			return answer, headErr
		}
		u.at = nil
	case err != nil && u.resumed:
		u.at = nil // what was resumed may not be what was sent
	}
	return answer, err
}

// lost is errLost where err says that the registry does not know the upload.
func lost(err error) error {
	var answer *transport.Error
	if !errors.As(err, &answer) {
		return err
	}
	unknown := func(d transport.Diagnostic) bool {
		return d.Code == transport.BlobUploadUnknownErrorCode || d.Code == transport.BlobUploadInvalidErrorCode
	}
	if answer.StatusCode == http.StatusNotFound || slices.ContainsFunc(answer.Errors, unknown) {
		return fmt.Errorf("%w: %w", errLost, err)
	}
	return err
}

// locate asks how far the upload has come. Where there is no clear answer, it
// has to begin anew.
func (u *upload) locate(ctx context.Context) error {
	if u.at == nil {
		return nil
	}
	answer, err := u.do(ctx, u.transport, http.MethodGet, u.at)
	if err != nil {
		return err
	}
	from, to, ok := strings.Cut(answer.Header.Get("Range"), "-")
	last, err := strconv.ParseInt(to, 10, 64)
	// "0-0" is said of one byte, and by some of none.
	if answer.StatusCode != http.StatusNoContent || !ok || from != "0" || err != nil || last < 1 || last >= u.blob.Size {
		u.at, u.offset = nil, 0
		return nil
	}
	u.reached(last + 1)
	u.resumed = true
	return u.moved(answer)
}

func (u *upload) reached(offset int64) {
	u.offset = offset
	u.furthest = max(u.furthest, offset)
}

// do makes a request without a body.
func (u *upload) do(ctx context.Context, way http.RoundTripper, method string, at *url.URL) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, at.String(), nil)
	if err != nil {
		return nil, err
	}
	answer, err := (&http.Client{Transport: way}).Do(req)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	// What there is to read is short, and CheckError reads it later.
	text, _ := io.ReadAll(io.LimitReader(answer.Body, 64<<10))
	answer.Body = io.NopCloser(strings.NewReader(string(text)))
	return answer, nil
}

// mount asks for the blob of another repository. A registry that does not lend
// it opens an upload instead; one that refuses leaves all as it was.
func (u *upload) mount(ctx context.Context) (lent bool, err error) {
	host := u.host.RegistryStr()
	want := place{u.blob.Digest, u.repository.RepositoryStr()}
	from, ok := u.client.places.source(host, want)
	if !ok {
		return false, nil
	}
	at := u.url("blobs", "uploads/")
	at.RawQuery = url.Values{"mount": {u.blob.Digest.String()}, "from": {from}}.Encode()
	way, err := u.lending(ctx, from)
	if err != nil {
		return false, notAnswer(err)
	}
	answer, err := u.do(ctx, way, http.MethodPost, at)
	if err != nil {
		return false, notAnswer(err)
	}
	if answer.StatusCode == http.StatusCreated {
		return true, nil
	}
	u.client.places.forget(host, place{u.blob.Digest, from})
	if answer.StatusCode == http.StatusAccepted {
		return false, u.opened(answer)
	}
	return false, nil
}

// notAnswer drops an error that is the registry's refusal.
func notAnswer(err error) error {
	var answer *transport.Error
	if errors.As(err, &answer) {
		return nil
	}
	return err
}

// lending is a transport that may also read the other repository. Where tokens
// are given out, it has one of its own: a registry may refuse the whole token
// because of the other repository, and what else is pushed must not suffer.
func (s *session) lending(ctx context.Context, from string) (http.RoundTripper, error) {
	if !s.traffic.tokens.Load() {
		return s.transport, nil
	}
	return s.speak(ctx, s.repository.Scope(transport.PushScope), s.host.Repo(from).Scope(transport.PullScope))
}

// open gives the next bytes of the blob. All before them is read, too, since the
// digest is made of all.
func (u *upload) open(watch *watch, length int64) (io.ReadCloser, error) {
	f, err := os.Open(u.from.path(u.blob.Digest))
	if err != nil {
		return nil, &layoutError{err}
	}
	if info, err := f.Stat(); err != nil || info.Size() != u.blob.Size {
		return nil, errors.Join(&layoutError{fmt.Errorf("%w: blob %s has not %d bytes", errContent, u.blob.Digest, u.blob.Size)}, err, f.Close())
	}
	v := newVerifier(f, u.blob, func(done int64) {
		watch.seen()
		u.say(u.blob, done, Moving)
	})
	if _, err := io.CopyN(io.Discard, v, u.offset); err != nil {
		return nil, errors.Join(&layoutError{err}, f.Close())
	}
	return &blobBody{Reader: io.LimitReader(v, length), Closer: f}, nil
}

// blobBody is a blob on its way; what is wrong with it is wrong in the layout.
type blobBody struct {
	io.Reader
	io.Closer
}

func (b *blobBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = &layoutError{err}
	}
	return n, err
}

// watch ends a context when nothing was seen for a while.
type watch struct {
	timer    *time.Timer
	patience time.Duration
	cancel   context.CancelCauseFunc
}

func newWatch(ctx context.Context, patience time.Duration) (context.Context, *watch) {
	ctx, cancel := context.WithCancelCause(ctx)
	stalled := time.AfterFunc(patience, func() { cancel(os.ErrDeadlineExceeded) })
	return ctx, &watch{timer: stalled, patience: patience, cancel: cancel}
}

func (w *watch) seen() { w.timer.Reset(w.patience) }

func (w *watch) stop() {
	w.timer.Stop()
	w.cancel(nil)
}

// cause is os.ErrDeadlineExceeded where the watch has ended ctx, else err.
func (w *watch) cause(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), os.ErrDeadlineExceeded) {
		return os.ErrDeadlineExceeded
	}
	return err
}

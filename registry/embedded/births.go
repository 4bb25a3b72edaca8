package embedded

import (
	"net/http"
	"regexp"
	"strings"
	"sync"
)

// births keeps the requests on a repository that does not exist yet apart from
// the one that brings it into being. olareg v0.2.2 notes a repository's
// existence in a field that it reads without a lock, and a push begins with
// several requests at once. Requests on repositories that exist wait for nothing
// but mounts, which are quick.
type births struct {
	mu    sync.RWMutex
	known sync.Map // names of the repositories that exist
}

// request matches what reads or writes in a repository; its first group is the
// repository's name.
var request = regexp.MustCompile(`^/v2/(.+)/(?:blobs|manifests|tags|referrers)/`)

// serve answers with next, when it is the request's turn.
func (b *births) serve(next http.Handler, w http.ResponseWriter, r *http.Request) {
	match := request.FindStringSubmatch(r.URL.Path)
	if match == nil {
		next.ServeHTTP(w, r)
		return
	}
	name := match[1]
	r = b.mountable(r)
	_, exists := b.known.Load(name)
	mounts := r.Method == http.MethodPost && r.URL.Query().Get("from") != ""
	if exists && !mounts {
		// A mount reads of its source what a new manifest there writes.
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/") {
			b.mu.RLock()
			defer b.mu.RUnlock()
		}
		next.ServeHTTP(w, r)
		return
	}
	if r.Method != http.MethodPost && r.Method != http.MethodPut {
		b.mu.RLock()
		defer b.mu.RUnlock()
		next.ServeHTTP(w, r)
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	status := &statusRecorder{ResponseWriter: w, status: http.StatusOK}
	next.ServeHTTP(status, r)
	if status.status < http.StatusBadRequest {
		b.known.Store(name, true)
	}
}

// mountable takes the wish to mount a blob out of a request if it is to come from
// a repository that does not exist: olareg v0.2.2 would note that one down, and
// fail over it when it closes. Such a request opens an upload, as the
// specification has it.
func (b *births) mountable(r *http.Request) *http.Request {
	query := r.URL.Query()
	from := query.Get("from")
	if r.Method != http.MethodPost || from == "" {
		return r
	}
	if _, ok := b.known.Load(from); ok {
		return r
	}
	query.Del("from")
	query.Del("mount")
	r = r.Clone(r.Context())
	r.URL.RawQuery = query.Encode()
	return r
}

// statusRecorder remembers the status of an answer.
type statusRecorder struct {
	http.ResponseWriter
	status int
}

func (s *statusRecorder) WriteHeader(status int) {
	s.status = status
	s.ResponseWriter.WriteHeader(status)
}

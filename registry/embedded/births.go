package embedded

import (
	"net/http"
	"regexp"
	"sync"
)

// births keeps the requests on a repository that does not exist yet apart from
// the one that brings it into being. olareg v0.2.2 notes a repository's
// existence in a field that it reads without a lock, and a push begins with
// several requests at once. Requests on repositories that exist never wait.
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
	if _, ok := b.known.Load(name); ok {
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

// statusRecorder remembers the status of an answer.
type statusRecorder struct {
	http.ResponseWriter
	status int
}

func (s *statusRecorder) WriteHeader(status int) {
	s.status = status
	s.ResponseWriter.WriteHeader(status)
}

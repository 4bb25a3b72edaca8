package embedded

import (
	"bytes"
	"io"
	"net/http"
	"strings"
)

// manifestLimit bounds a manifest. The protocol asks registries to take 4 MiB.
const manifestLimit = 16 << 20

// inTurn lets manifests be written and deleted one after the other: olareg
// reads a subject's list of referrers, adds to it and writes it back, and two
// that do so at once lose one of them. The manifest is read before, so that a
// slow sender holds up nobody. What it returns ends the turn.
func (s *Server) inTurn(w http.ResponseWriter, r *http.Request) (end func(), ok bool) {
	if r.Method == http.MethodHead {
		// A look is quick, and reads what olareg notes of a repository each time
		// that its index was written.
		s.manifests.RLock()
		return s.manifests.RUnlock, true
	}
	if r.Method != http.MethodPut && r.Method != http.MethodDelete || !strings.Contains(r.URL.Path, "/manifests/") {
		return func() {}, true
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, manifestLimit))
	if err != nil {
		http.Error(w, "the manifest cannot be read", http.StatusRequestEntityTooLarge)
		return nil, false
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	s.manifests.Lock()
	return s.manifests.Unlock, true
}

package registry

import (
	"bufio"
	"context"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"bareboat/internal/oci"
)

// manyPlaces is how many notes are kept of one registry; the oldest go first.
const manyPlaces = 4096

// place says that a repository was seen to have a blob.
type place struct {
	digest     oci.Digest
	repository string
}

// places are the notes of which repositories have which blobs, by registry. They
// are hints: a registry that lends no blob gets it sent. So notes that cannot be
// read or written are no failure of a push.
type places struct {
	dir string // empty: nothing on disk

	mu    sync.Mutex
	of    map[string][]place // the newest last
	wrong map[wrongPlace]bool
}

// wrongPlace is a note that must not come back from the disk.
type wrongPlace struct {
	registry string
	place
}

func newPlaces(dir string) *places {
	return &places{dir: dir, of: map[string][]place{}, wrong: map[wrongPlace]bool{}}
}

// source is another repository that has a blob, most likely; the one that was
// seen last.
func (p *places) source(registry string, want place) (repository string, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, n := range slices.Backward(p.load(registry)) {
		if n.digest == want.digest && n.repository != want.repository {
			return n.repository, true
		}
	}
	return "", false
}

func (p *places) add(registry string, n place) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.wrong, wrongPlace{registry, n})
	p.of[registry] = newest(append(p.load(registry), n))
}

// forget drops a note that was wrong.
func (p *places) forget(registry string, wrong place) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.wrong[wrongPlace{registry, wrong}] = true
	p.of[registry] = slices.DeleteFunc(p.load(registry), func(n place) bool { return n == wrong })
}

// load gives the notes of a registry, the first time those of the disk.
func (p *places) load(registry string) []place {
	notes, ok := p.of[registry]
	if !ok {
		notes = p.read(registry)
		p.of[registry] = notes
	}
	return notes
}

// save writes the notes of a registry, beside what others wrote meanwhile.
func (p *places) save(registry string) {
	if p.dir == "" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	var text strings.Builder
	for _, n := range newest(append(p.read(registry), p.of[registry]...)) {
		text.WriteString(n.digest.String() + " " + n.repository + "\n")
	}
	_ = replace(p.path(registry), strings.NewReader(text.String()))
}

func (p *places) path(registry string) string {
	return filepath.Join(p.dir, url.PathEscape(registry)+".places")
}

// read takes what a file has that is a note.
func (p *places) read(registry string) (notes []place) {
	if p.dir == "" {
		return nil
	}
	f, err := os.Open(p.path(registry))
	if err != nil {
		return nil
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan() && len(notes) < manyPlaces; {
		digest, repository, _ := strings.Cut(lines.Text(), " ")
		n := place{oci.Digest(digest), repository}
		if _, err := oci.ParseReference("host.invalid/" + repository); err == nil && n.digest.Validate() == nil && !p.wrong[wrongPlace{registry, n}] {
			notes = append(notes, n)
		}
	}
	return notes
}

// newest leaves each note once, where it stands last, and not too many.
func newest(notes []place) []place {
	seen := map[place]bool{}
	var out []place
	for _, n := range slices.Backward(notes) {
		if !seen[n] && len(out) < manyPlaces {
			seen[n] = true
			out = append(out, n)
		}
	}
	slices.Reverse(out)
	return out
}

// locks are held one at a time by key.
type locks struct {
	mu   sync.Mutex
	held map[string]chan struct{}
}

// lock waits until nobody holds key, but no longer than ctx lasts.
func (l *locks) lock(ctx context.Context, key string) (release func(), err error) {
	for {
		l.mu.Lock()
		ended, isHeld := l.held[key]
		if !isHeld {
			break
		}
		l.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-ended:
		}
	}
	defer l.mu.Unlock()
	if l.held == nil {
		l.held = map[string]chan struct{}{}
	}
	mine := make(chan struct{})
	l.held[key] = mine
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.held, key)
		close(mine)
	}, nil
}

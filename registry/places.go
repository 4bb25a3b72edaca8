package registry

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"bareboat/internal/oci"
)

const (
	// mostPlaces is how many places are remembered of one registry.
	mostPlaces = 4000
	// mostMounts is in how many repositories a blob is looked for.
	mostMounts = 2
)

// places remembers in which repositories of a registry a blob was seen, so that
// it can be mounted from there. A note that is wrong costs one request.
type places struct {
	dir string // where notes are kept between commands; empty: nowhere

	mu    sync.Mutex
	known map[string][]place // by registry, the oldest first
	fresh map[string]bool    // registries of which something is not on disk
}

type place struct {
	digest     oci.Digest
	repository string
}

func newPlaces(dir string) *places {
	return &places{dir: dir, known: map[string][]place{}, fresh: map[string]bool{}}
}

func (p *places) path(registry string) string {
	return filepath.Join(p.dir, url.PathEscape(registry))
}

// of gives the places of a registry; p.mu is held.
func (p *places) of(registry string) []place {
	all, ok := p.known[registry]
	if ok || p.dir == "" {
		return all
	}
	f, err := os.Open(p.path(registry))
	if err == nil {
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			d, repository, ok := strings.Cut(lines.Text(), " ")
			if ok && oci.Digest(d).Validate() == nil {
				all = append(all, place{oci.Digest(d), repository})
			}
		}
	}
	p.known[registry] = all
	return all
}

// find gives other repositories that have the blob, the latest first.
func (p *places) find(registry string, d oci.Digest, but string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []string
	for _, at := range slices.Backward(p.of(registry)) {
		if at.digest == d && at.repository != but && len(out) < mostMounts {
			out = append(out, at.repository)
		}
	}
	return out
}

func (p *places) note(registry string, d oci.Digest, repository string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := place{d, repository}
	all := p.of(registry)
	if slices.Contains(all, at) {
		return
	}
	p.known[registry] = append(all, at)[max(0, len(all)+1-mostPlaces):]
	p.fresh[registry] = true
}

// keep writes what is new to disk, whole or not at all. Of two processes that do
// so at once one may be forgotten, which costs no more than an upload.
func (p *places) keep() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dir == "" {
		return nil
	}
	for registry := range p.fresh {
		var text strings.Builder
		for _, at := range p.known[registry] {
			fmt.Fprintf(&text, "%s %s\n", at.digest, at.repository)
		}
		if err := replace(p.path(registry), strings.NewReader(text.String())); err != nil && !errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("note where blobs are: %w", err)
		}
		delete(p.fresh, registry)
	}
	return nil
}

// turns lets one at a time do something that has a name.
type turns struct {
	mu   sync.Mutex
	busy map[string]chan struct{} // closed when the turn ends
}

// take waits for its turn, and gives what ends it.
func (t *turns) take(ctx context.Context, name string) (release func(), err error) {
	for {
		t.mu.Lock()
		other, taken := t.busy[name]
		if !taken {
			done := make(chan struct{})
			t.busy[name] = done
			t.mu.Unlock()
			return func() {
				t.mu.Lock()
				delete(t.busy, name)
				t.mu.Unlock()
				close(done)
			}, nil
		}
		t.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

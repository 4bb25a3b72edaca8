// Package embedded is the registry that needs no set-up: olareg
// (https://github.com/olareg/olareg) over one folder, as an http.Handler.
//
// A store is the folder that holds the repositories. Its owner is the one
// process that has it open: a store is locked for as long as its owner lives,
// since two registries over the same files would overwrite each other's index.
// Whoever finds a store locked learns who the owner is and at which address it
// serves, and goes through it.
//
// Nothing that was pushed is lost by itself. A manifest stays under its digest
// when its tag moves on, since releases are pinned by digest; only a client's
// DELETE removes it. What the garbage collection takes are blobs that no
// manifest names and that are older than a day.
package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/olareg/olareg"
	"github.com/olareg/olareg/config"

	"bareboat/registry/store"
)

const (
	// grace is how long a blob may wait for its manifest. It has to outlast
	// the slowest push, which uploads the blobs first.
	grace = 24 * time.Hour
	// collection is how often the garbage collection looks.
	collection = time.Hour
	// shutdown is how long requests under way may take after the end of
	// Serve's context.
	shutdown = 10 * time.Second
)

// LockedError tells that another process owns a store.
type LockedError = store.LockedError

// ErrClosed is what a Server answers with after Close.
var ErrClosed = errors.New("registry is closed")

// Server is an open store and the registry over it, an http.Handler. Close it
// to let go of the store.
type Server struct {
	dir  string
	lock *store.Lock

	mu       sync.RWMutex // held for reading by each request, so that Close waits
	registry *olareg.Server
	// manifests is held while one is written; see inTurn.
	manifests sync.RWMutex
	births    births
}

// Option changes how a store is opened.
type Option func(*config.Config)

// WithLog sends what the registry has to say to log. The default is silence.
func WithLog(log *slog.Logger) Option {
	return func(c *config.Config) { c.Log = log }
}

// Open takes the store in dir, which it creates with mode 0700 if need be, and
// removes what a crash left of uploads. When another process has the store
// the error is a *LockedError.
func Open(dir string, options ...Option) (*Server, error) {
	root := filepath.Join(dir, store.Repositories)
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("open registry store %s: %w", dir, err)
	}
	lock, err := store.Acquire(dir)
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, lock: lock}
	if err := errors.Join(os.Chmod(root, 0o700), s.sweep(root)); err != nil {
		return nil, errors.Join(fmt.Errorf("open registry store %s: %w", dir, err), s.lock.Release())
	}
	conf := settings(root)
	for _, o := range options {
		o(&conf)
	}
	s.registry = olareg.New(conf)
	return s, nil
}

// sweep removes what a crash leaves: uploads that were not finished, and
// copies of an index that were not put in place. Only the owner may do so. On
// its way it notes which repositories there are.
func (s *Server) sweep(root string) error {
	return filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && entry.Name() == "_uploads":
			if err := os.RemoveAll(path); err != nil {
				return err
			}
			return filepath.SkipDir
		case entry.IsDir() && entry.Name() == "blobs":
			return filepath.SkipDir
		case strings.HasPrefix(entry.Name(), "index.json."):
			return os.Remove(path)
		case entry.Name() == "index.json":
			name, err := filepath.Rel(root, filepath.Dir(path))
			if err != nil {
				return err
			}
			s.births.known.Store(filepath.ToSlash(name), true)
		}
		return nil
	})
}

// settings is olareg's configuration over root.
func settings(root string) config.Config {
	yes, no := true, false
	return config.Config{
		Storage: config.ConfigStorage{
			StoreType: config.StoreDir,
			RootDir:   root,
			GC: config.ConfigGC{
				Frequency:   collection,
				GracePeriod: grace,
				Untagged:    &no, // releases are pinned by digest
				EmptyRepo:   &no,
				// An SBOM or signature may be pushed before its subject.
				ReferrersDangling: &no,
				ReferrersWithSubj: &yes,
			},
		},
		API: config.ConfigAPI{
			PushEnabled:   &yes,
			DeleteEnabled: &yes,
			Blob:          config.ConfigAPIBlob{DeleteEnabled: &yes},
			Referrer:      config.ConfigAPIReferrer{Enabled: &yes},
		},
	}
}

// ServeHTTP answers the OCI distribution protocol v1.1 below /v2/.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.registry == nil {
		http.Error(w, ErrClosed.Error(), http.StatusServiceUnavailable)
		return
	}
	end, ok := s.inTurn(w, r)
	if !ok {
		return
	}
	defer end()
	s.births.serve(s.registry, w, r)
}

// Serve answers on l until ctx ends, then lets the requests under way finish
// for ten seconds. While it serves, LockedError tells other processes the
// address of l. It returns nil after a regular end, ErrClosed when the store is
// closed before it begins, and closes l in any case.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	if err := s.servedAt(l.Addr().String()); err != nil {
		return errors.Join(err, l.Close())
	}
	server := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()

	var err error
	select {
	case err = <-served:
		err = fmt.Errorf("serve registry on %s: %w", l.Addr(), err)
	case <-ctx.Done():
		err = stop(server)
		<-served
	}
	if gone := s.servedAt(""); !errors.Is(gone, ErrClosed) {
		err = errors.Join(err, gone)
	}
	return err
}

// servedAt notes the address, unless the store is closed: then the note is
// another owner's.
func (s *Server) servedAt(addr string) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.registry == nil {
		return ErrClosed
	}
	return s.lock.Announce(addr)
}

// stop ends server; requests that outlast the time limit are cut off.
func stop(server *http.Server) error {
	ctx, cancel := context.WithTimeout(context.Background(), shutdown)
	defer cancel()
	err := server.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		return server.Close()
	}
	return err
}

// Close waits for the requests under way, closes the store and lets go of it.
// Closing twice is harmless.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.registry == nil {
		return nil
	}
	err := s.registry.Close()
	s.registry = nil
	if err != nil {
		err = fmt.Errorf("close registry store %s: %w", s.dir, err)
	}
	return errors.Join(err, s.lock.Release())
}

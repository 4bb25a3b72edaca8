package chat

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"bareboat/chat/bus"
	"bareboat/chat/hub"
	"bareboat/chat/store"
	"bareboat/chat/web"
)

// Server is one running chat server without its listener.
type Server struct {
	config   Config
	front    front
	log      *slog.Logger
	store    *store.SQLite
	bus      *bus.Bus
	hub      *hub.Hub
	page     *web.Handler
	ready    readiness
	draining atomic.Bool
}

// NewServer opens the data and starts the hub. Close it in the end.
func NewServer(ctx context.Context, c Config, log *slog.Logger) (*Server, error) {
	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		return nil, fmt.Errorf("create the data folder: %w", err)
	}
	data, err := store.Open(ctx, filepath.Join(c.Data, "chat.db"))
	if err != nil {
		return nil, err
	}
	hints, err := bus.Listen(filepath.Join(c.Data, "bus"))
	if err != nil {
		return nil, errors.Join(err, data.Close())
	}
	s := &Server{
		config: c, front: front{c.Origins, c.Trusted}, log: log,
		store: data, bus: hints, page: web.New(),
		hub: hub.New(hub.Config{
			Store: data, Bus: hints, Log: log, Process: hints.Name(), Release: c.Release, Limits: c.Limits,
		}),
	}
	s.ready.check = data.Check
	return s, nil
}

// Drain admits no more sessions, and has those that there are go elsewhere; see
// [hub.Hub].
func (s *Server) Drain(ctx context.Context, spread, patience time.Duration) {
	s.draining.Store(true)
	s.hub.Drain(ctx, spread, patience)
}

// Go asks all clients to dial anew, and goes on serving.
func (s *Server) Go(ctx context.Context, spread time.Duration) { s.hub.Go(ctx, spread) }

// Close ends what Drain left, and closes the data.
func (s *Server) Close() error {
	s.draining.Store(true)
	s.hub.Close()
	return errors.Join(s.bus.Close(), s.store.Close())
}

// Handler serves the page, the WebSocket and what operators ask for.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ws", s.serveSession)
	mux.HandleFunc("GET /healthz", s.serveHealth)
	mux.HandleFunc("GET /readyz", s.serveReady)
	mux.HandleFunc("GET /metrics", direct(s.serveMetrics))
	mux.HandleFunc("GET /r/{room}", s.serveRoom)
	mux.HandleFunc("GET /{$}", s.serveStart)
	mux.Handle("GET /assets/", s.page)
	mux.HandleFunc("/", s.serveNotFound)
	return s.guard(mux)
}

package chat

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"bareboat/chat/protocol"

	"github.com/gorilla/websocket"
)

const (
	defaultRoom = "lobby"

	// releaseHeader carries the release on every answer. It is not X-Release,
	// which a proxy in front may set for itself.
	releaseHeader = "X-Chat-Release"

	handshakeTimeout = 10 * time.Second
	readyTimeout     = 3 * time.Second

	// readyAge is how long an answer about the store counts, so that asking
	// costs no write each time.
	readyAge = time.Second
)

// guard sets the headers that hold for every answer. The page loads nothing
// from elsewhere, runs no inline code, and makes no HTML out of strings.
func (s *Server) guard(next http.Handler) http.Handler {
	fixed := map[string]string{
		"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; " +
			"connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; " +
			"require-trusted-types-for 'script'; trusted-types 'none'",
		"X-Content-Type-Options":       "nosniff",
		"X-Frame-Options":              "DENY",
		"Referrer-Policy":              "same-origin",
		"Permissions-Policy":           "camera=(), geolocation=(), microphone=()",
		"Cross-Origin-Opener-Policy":   "same-origin",
		"Cross-Origin-Resource-Policy": "same-origin",
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, value := range fixed {
			w.Header().Set(name, value)
		}
		if s.config.Release != "" {
			w.Header().Set(releaseHeader, s.config.Release)
		}
		next.ServeHTTP(w, r)
	})
}

// direct keeps what is meant for the machine's own tools from the public, who
// come by way of a proxy.
func direct(next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Forwarded-For") != "" {
			http.NotFound(w, r)
			return
		}
		next(w, r)
	}
}

// serveSession turns the request into a WebSocket and hands it to the hub.
func (s *Server) serveSession(w http.ResponseWriter, r *http.Request) {
	addr := s.front.client(r)
	switch {
	case s.draining.Load():
		w.Header().Set("Retry-After", "1")
		http.Error(w, "the server is stopping", http.StatusServiceUnavailable)
		return
	case !websocket.IsWebSocketUpgrade(r):
		w.Header().Set("Upgrade", "websocket")
		http.Error(w, "this address speaks WebSocket", http.StatusUpgradeRequired)
		return
	case !s.front.allows(r):
		s.log.Warn("origin refused", "addr", addr, "origin", r.Header.Get("Origin"))
		http.Error(w, "this origin may not connect", http.StatusForbidden)
		return
	case !slices.Contains(websocket.Subprotocols(r), protocol.Name):
		http.Error(w, "this address speaks the subprotocol "+protocol.Name, http.StatusBadRequest)
		return
	}
	user, cookie := identify(r, s.front.secure(r))
	upgrader := websocket.Upgrader{
		HandshakeTimeout: handshakeTimeout,
		Subprotocols:     []string{protocol.Name},
		CheckOrigin:      s.front.allows,
	}
	header := http.Header{"Set-Cookie": {cookie.String()}}
	if s.config.Release != "" {
		header.Set(releaseHeader, s.config.Release)
	}
	conn, err := upgrader.Upgrade(w, r, header)
	if err != nil {
		s.log.Warn("handshake failed", "addr", addr, "error", err)
		return
	}
	s.hub.Serve(conn, user, addr)
}

// serveRoom serves the page. One page does for all rooms: it reads its address.
func (s *Server) serveRoom(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("room")
	if lower := strings.ToLower(name); lower != name && protocol.ValidRoom(lower) {
		http.Redirect(w, r, "/r/"+lower, http.StatusFound)
		return
	}
	if !protocol.ValidRoom(name) {
		s.serveNotFound(w, r)
		return
	}
	_, cookie := identify(r, s.front.secure(r))
	http.SetCookie(w, cookie)
	s.page.ServePage(w, r)
}

// serveStart leads to the default room.
func (s *Server) serveStart(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-cache")
	http.Redirect(w, r, "/r/"+defaultRoom, http.StatusFound)
}

func (s *Server) serveNotFound(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-cache")
	s.page.ServeNotFound(w, r)
}

// serveHealth tells that the process lives, and which it is.
func (s *Server) serveHealth(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(map[string]string{ // whoever asked may be gone
		"status": "ok", "version": version(), "release": s.config.Release, "protocol": protocol.Name,
	})
}

// serveReady tells whether the server takes sessions and messages.
func (s *Server) serveReady(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	status, text := http.StatusOK, "ready\n"
	if s.draining.Load() {
		status, text = http.StatusServiceUnavailable, "draining\n"
	} else if err := s.ready.now(r.Context()); err != nil {
		s.log.Error("not ready", "error", err)
		status, text = http.StatusServiceUnavailable, "the store cannot be written\n"
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text) // whoever asked may be gone
}

// readiness remembers for a moment whether the store can be written.
type readiness struct {
	check func(context.Context) error

	mu  sync.Mutex
	at  time.Time
	err error
}

func (r *readiness) now(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.at) > readyAge {
		// The answer is for all who ask, so it must not fail with the one who did.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readyTimeout)
		defer cancel()
		r.err = r.check(ctx)
		r.at = time.Now()
	}
	return r.err
}

// version is that of the module, as far as the build knows one.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}

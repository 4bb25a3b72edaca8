package proxy_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gorilla/websocket"

	"bareboat/pods/proxy"
)

const token = "0123456789abcdef0123456789abcdef"

// A new upstream is asked through the edge before the edge is told of it.
func TestPreview(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	told := e.config("1", map[string]string{"web": startBackend(t, "tcp")}, proxy.Site{Path: "/", Service: "web"})
	told.Token = token
	e.start(t, told)
	up := websocket.Upgrader{Subprotocols: []string{"chat.v1"}}
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "shop.example" || r.URL.RawQuery != "a=b" || r.Header.Get("X-Real-IP") != "127.0.0.1" {
			http.Error(w, "asked "+r.Host+" "+r.URL.String(), http.StatusTeapot)
		}
	})
	mux.HandleFunc("/broken", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no database", http.StatusServiceUnavailable)
	})
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/ok", http.StatusFound) })
	mux.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) {
		if c, err := up.Upgrade(w, r, nil); err == nil {
			c.Close()
		}
	})
	mux.HandleFunc("POST /drain", func(http.ResponseWriter, *http.Request) {})
	server := httptest.NewServer(mux)
	defer server.Close()
	upstream := server.Listener.Addr().String()
	for _, c := range []struct {
		check proxy.Check
		want  string
	}{
		{proxy.Check{Path: "/ok?a=b", Host: "shop.example", Strict: true}, ""},
		{proxy.Check{Path: "/ok"}, ""}, // 418 is an answer
		{proxy.Check{Path: "/ok", Strict: true}, "GET /ok: 418 I'm a teapot: asked"},
		{proxy.Check{Path: "/moved", Strict: true}, ""},
		{proxy.Check{Path: "/broken"}, "GET /broken: 503 Service Unavailable: no database"},
		{proxy.Check{Path: "/gone", Strict: true}, "GET /gone: 404 Not Found: 404 page not found"},
		{proxy.Check{Path: "/ws", WebSocket: true, Protocol: "chat.v1"}, ""},
		{proxy.Check{Path: "/ws", WebSocket: true, Protocol: "chat.v2"}, `WebSocket /ws: protocol is "", not "chat.v2"`},
		{proxy.Check{Path: "/ok", WebSocket: true}, "WebSocket /ok: 418 I'm a teapot"},
	} {
		err := proxy.Preview(t.Context(), told, upstream, c.check)
		if got := text(err); got != c.want && (c.want == "" || !strings.HasPrefix(got, c.want)) {
			t.Errorf("Preview %+v = %q, want %q", c.check, got, c.want)
		}
	}
	if err := proxy.Request(t.Context(), told, upstream, "POST", "/drain"); err != nil {
		t.Error(err)
	}
	if err := proxy.Request(t.Context(), told, upstream, "POST", "/none"); err == nil || err.Error() != "POST /none: 404 Not Found" {
		t.Errorf("Request = %v", err)
	}
	socket := startBackend(t, "unix")
	if err := proxy.Preview(t.Context(), told, socket, proxy.Check{Path: "/", Strict: true}); err != nil {
		t.Errorf("at %s: %v", socket, err)
	}
	server.Close()
	if err := proxy.Preview(t.Context(), told, upstream, proxy.Check{Path: "/ok"}); err == nil || !strings.Contains(err.Error(), "502") {
		t.Errorf("where nobody listens: %v", err)
	}
}

// Only who knows the token, on this host, may name an upstream.
func TestPreviewIsNotForAll(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	web := startBackend(t, "tcp")
	told := e.config("1", map[string]string{"web": web}, proxy.Site{Path: "/", Service: "web"})
	told.Token = token
	e.start(t, told)
	guessed := told
	guessed.Token = strings.Repeat("0", 32)
	if err := proxy.Preview(t.Context(), guessed, web, proxy.Check{Path: "/", Strict: true}); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("with a guessed token: %v", err)
	}
	guessed.Token = ""
	if err := proxy.Preview(t.Context(), guessed, web, proxy.Check{Path: "/"}); !errors.Is(err, proxy.ErrNoToken) {
		t.Errorf("without a token: %v", err)
	}
	if strings.Contains(e.read(t), token) {
		t.Error("the token is in the log")
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

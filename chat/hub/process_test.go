package hub_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bareboat/chat/bus"
	"bareboat/chat/chattest"
	"bareboat/chat/hub"
	"bareboat/chat/protocol"
	"bareboat/chat/store"

	"github.com/gorilla/websocket"
)

// process is what one server process has: a store, a bus and a hub, and HTTP
// in front of them.
type process struct {
	hub   *hub.Hub
	store *store.SQLite
	url   string
}

// folder gives a data folder with a path short enough for the bus.
func folder(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hub")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func limits() hub.Limits {
	l := hub.DefaultLimits()
	l.Rate, l.Burst = 1e6, 1e6
	return l
}

// start starts a process on the data in dir. The query's user is the client's.
func start(t testing.TB, dir string, l hub.Limits) *process {
	t.Helper()
	data, err := store.Open(t.Context(), filepath.Join(dir, "chat.db"))
	if err != nil {
		t.Fatal(err)
	}
	hints, err := bus.Listen(filepath.Join(dir, "bus"))
	if err != nil {
		t.Fatal(err)
	}
	h := hub.New(hub.Config{
		Store: data, Bus: hints, Log: slog.New(slog.DiscardHandler), Process: hints.Name(), Release: "r1", Limits: l,
	})
	upgrader := websocket.Upgrader{Subprotocols: []string{protocol.Name}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		h.Serve(conn, r.URL.Query().Get("user"), "test")
	}))
	t.Cleanup(func() {
		h.Close()
		server.Close()
		_ = hints.Close()
		_ = data.Close()
	})
	return &process{hub: h, store: data, url: server.URL}
}

func (p *process) dial(t testing.TB, user string) *chattest.Client {
	t.Helper()
	c, _, err := chattest.Dial(t.Context(), p.url+"/?user="+user, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// enter dials, says hello with one cursor, and waits until the server tells
// from where on it sends.
func (p *process) enter(t testing.TB, user, room string, cursor *int64) (*chattest.Client, chattest.Reply) {
	t.Helper()
	c := p.dial(t, user)
	must(t, c.Hello(user, map[string]*int64{room: cursor}))
	joined, err := c.AwaitType("joined")
	must(t, err)
	return c, joined
}

// here enters and waits until it is a member: then it is on the list.
func (p *process) here(t testing.TB, user, room string) *chattest.Client {
	t.Helper()
	c, _ := p.enter(t, user, room, nil)
	_, err := c.AwaitType("who")
	must(t, err)
	return c
}

// history stores n messages, without the hub.
func (p *process) history(t testing.TB, room string, n int) {
	t.Helper()
	results := make(chan error, n)
	for i := range n {
		m := store.Message{Room: room, User: "past", CID: fmt.Sprintf("%s%d", room, i), Nick: "Past", Text: strings.Repeat("said ", 40)}
		p.store.Append(t.Context(), m, func(_ store.Message, err error) { results <- err })
	}
	for range n {
		must(t, <-results)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

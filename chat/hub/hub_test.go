package hub_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

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

// TestEveryoneGetsEverything lets many clients on two processes talk at once,
// and looks at what each of them gets.
func TestEveryoneGetsEverything(t *testing.T) {
	dir := folder(t)
	processes := []*process{start(t, dir, limits()), start(t, dir, limits())}
	const clients, each = 16, 30
	const total = clients * each
	var talking sync.WaitGroup
	for i := range clients {
		user := fmt.Sprint("user", i)
		c, joined := processes[i%2].enter(t, user, "a", chattest.At(0))
		talking.Go(func() {
			for n := range each {
				if err := c.Send("a", fmt.Sprint(n), fmt.Sprintf("%s says %d", user, n)); err != nil {
					t.Error(err)
				}
			}
		})
		talking.Go(func() { watch(t, c, user, joined.From, total, each) })
	}
	talking.Wait()
}

// watch reads all messages and counts the acknowledgements.
func watch(t *testing.T, c *chattest.Client, user string, at, last int64, acks int) {
	acked := map[string]int64{}
	said := map[string]int64{}
	own := 0
	for at < last || len(acked) < acks {
		r, err := c.Read()
		if err != nil {
			t.Errorf("%s after number %d and %d acks: %v", user, at, len(acked), err)
			return
		}
		if r.T == "ack" {
			acked[r.CID] = r.Seq
		}
		for _, m := range r.Said() {
			if m.Seq != at+1 {
				t.Errorf("%s: number %d followed %d", user, m.Seq, at)
				return
			}
			at++
			if m.User == user {
				if m.Text != fmt.Sprintf("%s says %d", user, own) {
					t.Errorf("%s: own messages out of order: %q is number %d", user, m.Text, own)
				}
				own++
				said[m.CID] = m.Seq
			}
		}
	}
	for cid, seq := range acked {
		if said[cid] != seq {
			t.Errorf("%s: %s was acknowledged as %d and came as %d", user, cid, seq, said[cid])
		}
	}
}

// TestResume comes back with cursors of any age while others talk.
func TestResume(t *testing.T) {
	p := start(t, folder(t), limits())
	const old, more = 1500, 300
	p.history(t, "a", old)
	talker, _ := p.enter(t, "talker", "a", nil)
	var running sync.WaitGroup
	running.Go(func() {
		for i := range more {
			if err := talker.Send("a", fmt.Sprint(i), "now"); err != nil {
				t.Error(err)
			}
		}
	})
	running.Go(func() {
		if _, err := talker.Await(func(r chattest.Reply) bool { return r.T == "ev" && r.Seq == old+more }); err != nil {
			t.Error(err)
		}
	})
	for _, cursor := range []int64{0, 1, 700, old - 1, old} {
		c, joined := p.enter(t, fmt.Sprint("back", cursor), "a", &cursor)
		if joined.From != cursor {
			t.Errorf("cursor %d: joined from %d", cursor, joined.From)
		}
		running.Go(func() {
			if _, err := c.Follow(cursor, old+more); err != nil {
				t.Errorf("cursor %d: %v", cursor, err)
			}
		})
	}
	running.Wait()
}

func TestFirstPageAndFill(t *testing.T) {
	p := start(t, folder(t), limits())
	p.history(t, "a", 230)
	c, joined := p.enter(t, "u", "a", nil)
	if joined.From != 180 || joined.Head != 230 {
		t.Errorf("joined from %d to %d, want 180 to 230", joined.From, joined.Head)
	}
	_, err := c.Follow(joined.From, joined.Head)
	must(t, err)
	for first := joined.From + 1; first > 1; {
		must(t, c.Say(protocol.Frame{T: "fill", Room: "a", Before: first, Limit: 100}))
		r, err := c.AwaitType("fill")
		must(t, err)
		if r.Before != first || len(r.Messages) == 0 || r.Messages[len(r.Messages)-1].Seq != first-1 {
			t.Fatalf("filled before %d with %d messages before %d", first, len(r.Messages), r.Before)
		}
		first = r.Messages[0].Seq
		if r.More != (first > 1) {
			t.Errorf("more is %v at number %d", r.More, first)
		}
	}
}

func TestCursorOfAnotherPast(t *testing.T) {
	p := start(t, folder(t), limits())
	p.history(t, "a", 3)
	_, joined := p.enter(t, "u", "a", chattest.At(40))
	if joined.From != 0 || joined.Head != 3 {
		t.Errorf("a cursor ahead joined from %d to %d", joined.From, joined.Head)
	}
	c := p.dial(t, "v")
	must(t, c.Say(protocol.Frame{T: "hello", V: 1, Store: "another", Cursors: map[string]*int64{"a": chattest.At(2)}}))
	joined, err := c.AwaitType("joined")
	must(t, err)
	if joined.From != 0 {
		t.Errorf("a cursor of another store joined from %d", joined.From)
	}
}

func TestResend(t *testing.T) {
	p := start(t, folder(t), limits())
	c, _ := p.enter(t, "u", "a", chattest.At(0))
	for range 3 {
		must(t, c.Send("a", "same", "once"))
		ack, err := c.AwaitType("ack")
		must(t, err)
		if ack.Seq != 1 || ack.CID != "same" || ack.Room != "a" {
			t.Errorf("acknowledged as %+v", ack)
		}
	}
	must(t, c.Send("a", "next", "twice"))
	other, joined := p.enter(t, "v", "a", chattest.At(0))
	all, err := other.Follow(joined.From, 2)
	must(t, err)
	if all[0].Text != "once" || all[1].Text != "twice" || all[0].User != "u" || all[0].Nick != "u" {
		t.Errorf("got %+v", all)
	}
}

// TestPollFindsWhatNoHintTold writes to the data without the bus.
func TestPollFindsWhatNoHintTold(t *testing.T) {
	p := start(t, folder(t), limits())
	c := p.here(t, "u", "a")
	p.history(t, "a", 5)
	_, err := c.Follow(0, 5)
	must(t, err)
}

func TestSlowReader(t *testing.T) {
	l := limits()
	l.Queue = 512 << 10 // more than what one client can have on its way
	p := start(t, folder(t), l)
	slow := p.here(t, "slow", "a")
	quick := p.here(t, "quick", "a")
	const n = 3000 // more than the kernel's buffers and the queue take
	text := strings.Repeat("x", 4000)
	for at, sent := int64(0), int64(0); at < n; {
		for ; sent < min(n, at+32); sent++ {
			must(t, quick.Send("a", fmt.Sprint(sent), text))
		}
		said, err := quick.Follow(at, at+1)
		if err != nil {
			t.Fatalf("the quick reader was held up: %v", err)
		}
		at += int64(len(said))
	}
	var last int64
	_, err := slow.Await(func(r chattest.Reply) bool {
		last = max(last, r.Seq)
		return false
	})
	if !websocket.IsCloseError(err, protocol.CloseSlow) {
		t.Fatalf("the slow reader ended with %v", err)
	}
	if last == 0 || last >= n {
		t.Fatalf("the slow reader had %d of %d messages", last, n)
	}
	back, joined := p.enter(t, "slow", "a", &last)
	_, err = back.Follow(joined.From, n)
	must(t, err)
}

func TestWho(t *testing.T) {
	dir := folder(t)
	one, two := start(t, dir, limits()), start(t, dir, limits())
	ann, _ := one.enter(t, "ann", "a", nil)
	bob, _ := two.enter(t, "bob", "a", nil)
	twice, _ := two.enter(t, "ann", "a", nil) // a second tab
	names := func(names ...string) func(chattest.Reply) bool {
		return func(r chattest.Reply) bool {
			var got []string
			for _, m := range r.Members {
				got = append(got, m.Nick)
			}
			return r.T == "who" && r.N == len(names) && strings.Join(got, " ") == strings.Join(names, " ")
		}
	}
	for _, c := range []*chattest.Client{ann, bob, twice} {
		_, err := c.Await(names("ann", "bob"))
		must(t, err)
	}
	must(t, bob.Say(protocol.Frame{T: "nick", Nick: " Robert\n"}))
	_, err := ann.Await(names("ann", "Robert"))
	must(t, err)
	bob.Close()
	_, err = ann.Await(names("ann"))
	must(t, err)
}

func TestBadClients(t *testing.T) {
	l := hub.DefaultLimits()
	l.Hello = 300 * time.Millisecond
	p := start(t, folder(t), l)
	text := func(data string) func(*websocket.Conn) error {
		return func(c *websocket.Conn) error { return c.WriteMessage(websocket.TextMessage, []byte(data)) }
	}
	const hello = `{"t":"hello","v":1,"cursors":{"a":null}}`
	cases := []struct {
		name string
		do   func(*websocket.Conn) error
		want int
	}{
		{"not UTF-8", text("{\"t\":\"hello\xff\"}"), protocol.CloseBadUTF8},
		{"not JSON", text("hello"), protocol.CloseBadFrame},
		{"binary", func(c *websocket.Conn) error { return c.WriteMessage(websocket.BinaryMessage, []byte(hello)) }, protocol.CloseBadFrame},
		{"too big", text(`{"t":"hello","nick":"` + strings.Repeat("x", protocol.MaxFrame) + `"}`), protocol.CloseTooBig},
		{"no hello", text(`{"t":"ping"}`), protocol.CloseBadFrame},
		{"version 2", text(`{"t":"hello","v":2,"cursors":{"a":null}}`), protocol.CloseBadFrame},
		{"silence", func(*websocket.Conn) error { return nil }, protocol.CloseNoHello},
		{"hello twice", func(c *websocket.Conn) error {
			return firstError(text(hello)(c), text(hello)(c))
		}, protocol.CloseBadFrame},
		{"too fast", func(c *websocket.Conn) error {
			err := text(hello)(c)
			for range l.Burst + 20 {
				err = firstError(err, text(`{"t":"ping"}`)(c))
			}
			return err
		}, protocol.CloseTooFast},
	}
	for _, test := range cases {
		t.Run(test.name, func(t *testing.T) {
			c := p.dial(t, "u")
			must(t, test.do(c.Conn))
			code, err := c.AwaitClose()
			if err != nil || code != test.want {
				t.Errorf("closed with %d, %v; want %d", code, err, test.want)
			}
		})
	}
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func TestErrorsThatGoOn(t *testing.T) {
	p := start(t, folder(t), limits())
	c, _ := p.enter(t, "u", "a", nil)
	must(t, c.Send("a", "c1", strings.Repeat("x", protocol.MaxText+1)))
	must(t, c.Send("b", "c2", "not joined"))
	must(t, c.Say(protocol.Frame{T: "fill", Room: "b", Before: 5}))
	must(t, c.Say(protocol.Frame{T: "later", Text: "of another release"}))
	must(t, c.Say(protocol.Frame{T: "ping"}))
	for _, want := range []struct{ code, cid string }{{protocol.CodeText, "c1"}, {protocol.CodeRoom, "c2"}, {protocol.CodeRoom, ""}} {
		r, err := c.AwaitType("error")
		must(t, err)
		if r.Code != want.code || r.CID != want.cid {
			t.Errorf("got %s for %q, want %v", r.Code, r.CID, want)
		}
	}
	_, err := c.AwaitType("pong")
	must(t, err)
}

func TestStoreFails(t *testing.T) {
	p := start(t, folder(t), limits())
	c := p.here(t, "u", "a")
	must(t, p.store.Close())
	must(t, c.Send("a", "c1", "hi"))
	r, err := c.Await(func(r chattest.Reply) bool { return r.T == "error" || r.T == "ack" })
	must(t, err)
	if r.T != "error" || r.Code != protocol.CodeUnavailable || r.CID != "c1" {
		t.Errorf("got %+v", r)
	}
}

func TestTooManySessions(t *testing.T) {
	l := limits()
	l.Sessions = 1
	p := start(t, folder(t), l)
	p.enter(t, "u", "a", nil)
	code, err := p.dial(t, "v").AwaitClose()
	if err != nil || code != protocol.CloseTryLater {
		t.Errorf("closed with %d, %v", code, err)
	}
}

// TestDrain stops a process in the middle of talk: what is not acknowledged
// when the close comes is not stored, so that sending it again stores it once.
func TestDrain(t *testing.T) {
	dir := folder(t)
	p := start(t, dir, limits())
	const clients = 8
	var talking sync.WaitGroup
	var mu sync.Mutex
	acked := map[string]int64{}
	warm := make(chan struct{}, clients)
	over := make(chan struct{})
	for i := range clients {
		user := fmt.Sprint("user", i)
		c, _ := p.enter(t, user, "a", nil)
		unacked := make(chan struct{}, 8)
		talking.Go(func() { // ends when the server has closed
			for n := 0; c.Send("a", fmt.Sprint(n), "hi") == nil; n++ {
				select {
				case unacked <- struct{}{}:
				case <-over:
					return
				}
			}
		})
		talking.Go(func() {
			seen := 0
			_, err := c.Await(func(r chattest.Reply) bool {
				if r.T != "ack" {
					return false
				}
				<-unacked
				if seen++; seen == 20 {
					warm <- struct{}{}
				}
				mu.Lock()
				defer mu.Unlock()
				acked[user+" "+r.CID] = r.Seq
				return false
			})
			if !websocket.IsCloseError(err, protocol.CloseRestart) {
				t.Errorf("%s ended with %v", user, err)
			}
			c.Close()
		})
	}
	for range clients {
		<-warm
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	p.hub.Drain(ctx, 50*time.Millisecond)
	close(over)
	talking.Wait()
	if ctx.Err() != nil {
		t.Error("draining ran out of time")
	}
	if code, err := p.dial(t, "late").AwaitClose(); err != nil || code != protocol.CloseRestart {
		t.Errorf("a late client was closed with %d, %v", code, err)
	}
	all, err := p.store.After(t.Context(), "a", 0, 1<<30)
	must(t, err)
	for _, m := range all {
		if seq, ok := acked[m.User+" "+m.CID]; ok && seq != m.Seq {
			t.Errorf("%s %s was acknowledged as %d and is %d", m.User, m.CID, seq, m.Seq)
		}
		delete(acked, m.User+" "+m.CID)
	}
	if len(acked) > 0 {
		t.Errorf("acknowledged and lost: %v", acked)
	}
}

func BenchmarkFanOut(b *testing.B) {
	for _, members := range []int{2, 200} {
		b.Run(fmt.Sprint(members), func(b *testing.B) {
			p := start(b, folder(b), limits())
			var reading sync.WaitGroup
			target := make(chan int64)
			for i := range members {
				c, _ := p.enter(b, fmt.Sprint("u", i), "a", nil)
				reading.Go(func() {
					last := <-target
					for at := int64(0); at < last; {
						r, err := c.Read()
						if err != nil {
							b.Error(err)
							return
						}
						for _, m := range r.Said() {
							at = m.Seq
						}
					}
				})
			}
			talker, _ := p.enter(b, "talker", "a", nil)
			text := strings.Repeat("x", 120)
			b.ResetTimer()
			for range members {
				target <- int64(b.N)
			}
			for i := range b.N {
				must(b, talker.Send("a", fmt.Sprint(i), text))
				if i%100 == 99 || i == b.N-1 { // as fast as it is acknowledged
					_, err := talker.Await(func(r chattest.Reply) bool { return r.T == "ack" && r.CID == fmt.Sprint(i) })
					must(b, err)
				}
			}
			reading.Wait()
			b.ReportMetric(float64(b.N*members)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}

package hub_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"bareboat/chat/chattest"
	"bareboat/chat/hub"
	"bareboat/chat/protocol"

	"github.com/gorilla/websocket"
)

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
	p.hub.Drain(ctx, 50*time.Millisecond, 100*time.Millisecond)
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

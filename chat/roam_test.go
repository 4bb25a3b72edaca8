package chat_test

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"bareboat/chat/chattest"
	"bareboat/chat/protocol"

	"github.com/gorilla/websocket"
)

// crowd is a number of roamers who talk, and dial whatever socket at says.
type crowd struct {
	at     atomic.Pointer[string]
	heard  []atomic.Int64
	people []*chattest.Roamer
	ended  chan error
	stop   context.CancelFunc
}

func (c *crowd) start(t *testing.T, n int, say func(i int, say chan<- string)) {
	t.Helper()
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	c.stop, c.ended, c.heard = stop, make(chan error, n), make([]atomic.Int64, n)
	for i := range n {
		dialer := func() *websocket.Dialer {
			return &websocket.Dialer{NetDialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "unix", *c.at.Load())
			}}
		}
		r := &chattest.Roamer{Room: "a", Nick: fmt.Sprint("p", i), Heard: func(protocol.Message) { c.heard[i].Add(1) }}
		r.Dial = func(ctx context.Context) (*chattest.Client, error) {
			client, _, err := chattest.DialWith(ctx, dialer(), "http://chatd/ws", nil)
			return client, err
		}
		c.people = append(c.people, r)
		texts := make(chan string)
		go say(i, texts)
		go func() { c.ended <- r.Run(ctx, texts) }()
	}
	t.Cleanup(stop)
}

// await waits until each has heard so many.
func (c *crowd) await(t *testing.T, each int) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		behind := 0
		for i := range c.heard {
			if c.heard[i].Load() < int64(each) {
				behind++
			}
		}
		if behind == 0 {
			return
		}
		select {
		case err := <-c.ended:
			t.Fatalf("one ended: %v", err)
		case <-time.After(5 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d have not heard %d messages", behind, each)
		}
	}
}

// leave ends the crowd, all of whom have gone so often.
func (c *crowd) leave(t *testing.T, moves int) {
	t.Helper()
	c.stop()
	for range c.people {
		if err := <-c.ended; err != nil {
			t.Error(err)
		}
	}
	for _, r := range c.people {
		if r.Moves != moves {
			t.Errorf("%s went %d times, want %d", r.Nick, r.Moves, moves)
		}
	}
}

// A release: a second server comes, new connections lead to it, and the first is
// told to stop, or to send its clients away first. All go over while they talk;
// nobody is cut off, and nobody misses, doubles or reorders a message.
func TestEverybodyGoesOver(t *testing.T) {
	for _, sendAway := range []bool{false, true} {
		t.Run(fmt.Sprintf("told to move first %t", sendAway), func(t *testing.T) {
			dir := folder(t)
			socket := func(name string) string { return filepath.Join(dir, name+".sock") }
			server := func(name string) *daemon {
				return serve(t, "CHATD_LISTEN=unix:"+socket(name), "CHATD_DATA="+filepath.Join(dir, "data"), "CHATD_RATE=100000", "CHATD_BURST=100000")
			}
			const people, each = 20, 40
			old := server("old")
			at, then := socket("old"), socket("next")
			var c crowd
			c.at.Store(&at)
			half := make(chan struct{})
			var talking sync.WaitGroup
			talking.Add(people)
			c.start(t, people, func(i int, say chan<- string) {
				defer talking.Done()
				for n := range each {
					if n == each/2 {
						<-half
					}
					say <- fmt.Sprint(n)
				}
			})
			c.await(t, people*each/2)
			server("next")
			c.at.Store(&then)
			close(half)
			if sendAway {
				must(t, old.cmd.Process.Signal(syscall.SIGUSR1))
				c.await(t, people*each)
			}
			if code, _ := old.terminate(t); code != 0 {
				t.Errorf("exit code %d: %s", code, old.lines())
			}
			c.await(t, people*each)
			talking.Wait()
			c.leave(t, 1)
		})
	}
}

package hub_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"bareboat/chat/chattest"
	"bareboat/chat/protocol"
)

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

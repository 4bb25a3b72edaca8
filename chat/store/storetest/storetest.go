// Package storetest is the contract of a store as tests. Every backend runs it.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"bareboat/chat/store"
)

// Open opens the same data each time it is called within one test, as another
// process would. The test closes what it opened.
type Open func(t *testing.T) store.Store

// Run tests a backend. fresh gives, for each test, a way to open data of its own.
func Run(t *testing.T, fresh func(t *testing.T) Open) {
	tests := []struct {
		name string
		run  func(*testing.T, Open)
	}{
		{"AppendNumbersWithoutGaps", appendNumbers},
		{"AppendKeepsOrder", appendKeepsOrder},
		{"ResendIsHarmless", resend},
		{"ResendWithinOneBatch", resendWithinBatch},
		{"ReadsPages", readsPages},
		{"KeepsText", keepsText},
		{"Reopens", reopens},
		{"TwoAtOnce", twoAtOnce},
		{"Attendance", attendance},
		{"AttendanceExpires", attendanceExpires},
		{"ClosedRefuses", closedRefuses},
		{"CloseFinishesQueue", closeFinishesQueue},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { test.run(t, fresh(t)) })
	}
}

// Append stores one message and waits for it.
func Append(ctx context.Context, s store.Log, m store.Message) (store.Message, error) {
	type result struct {
		m   store.Message
		err error
	}
	done := make(chan result, 1)
	s.Append(ctx, m, func(m store.Message, err error) { done <- result{m, err} })
	r := <-done
	return r.m, r.err
}

func message(room, user, cid string) store.Message {
	return store.Message{Room: room, User: user, CID: cid, Nick: user, Text: "text of " + cid}
}

func mustAppend(t *testing.T, s store.Log, m store.Message) store.Message {
	t.Helper()
	stored, err := Append(t.Context(), s, m)
	if err != nil {
		t.Fatal(err)
	}
	return stored
}

func open(t *testing.T, o Open) store.Store {
	t.Helper()
	s := o(t)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// gapless fails unless the room holds exactly n messages, numbered 1 to n.
func gapless(t *testing.T, s store.Log, room string, n int) []store.Message {
	t.Helper()
	all, err := s.After(t.Context(), room, 0, n+1000)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != n {
		t.Fatalf("room %s holds %d messages, want %d", room, len(all), n)
	}
	for i, m := range all {
		if m.Seq != int64(i+1) {
			t.Fatalf("message %d of room %s has number %d", i+1, room, m.Seq)
		}
	}
	return all
}

func appendNumbers(t *testing.T, o Open) {
	s := open(t, o)
	const writers, each = 16, 25
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				room := fmt.Sprintf("room%d", i%2)
				if _, err := Append(t.Context(), s, message(room, fmt.Sprint("u", w), fmt.Sprint("c", i))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	gapless(t, s, "room0", writers*13)
	gapless(t, s, "room1", writers*12)
}

func appendKeepsOrder(t *testing.T, o Open) {
	s := open(t, o)
	const n = 500
	var seqs []int64 // done runs on one goroutine
	finished := make(chan struct{})
	for i := range n {
		s.Append(t.Context(), message("a", "u", fmt.Sprint(i)), func(m store.Message, err error) {
			if err != nil {
				t.Error(err)
			}
			if seqs = append(seqs, m.Seq); len(seqs) == n {
				close(finished)
			}
		})
	}
	<-finished
	if !slices.IsSorted(seqs) || seqs[0] != 1 || seqs[n-1] != n {
		t.Errorf("acknowledged out of order: %v", seqs)
	}
	for i, m := range gapless(t, s, "a", n) {
		if m.CID != fmt.Sprint(i) {
			t.Fatalf("number %d is %q", m.Seq, m.CID)
		}
	}
}

func resend(t *testing.T, o Open) {
	s := open(t, o)
	first := mustAppend(t, s, message("a", "u", "c1"))
	mustAppend(t, s, message("a", "u", "c2"))
	again := mustAppend(t, s, store.Message{Room: "b", User: "u", CID: "c1", Nick: "other", Text: "other"})
	if again != first {
		t.Errorf("resend gave %+v, want %+v", again, first)
	}
	other := mustAppend(t, s, message("a", "v", "c1"))
	if other.Seq != 3 {
		t.Errorf("the same cid of another user got number %d, want 3", other.Seq)
	}
	gapless(t, s, "a", 3)
	gapless(t, s, "b", 0)
}

func resendWithinBatch(t *testing.T, o Open) {
	s := open(t, o)
	const n = 50
	seqs := make(chan int64, n)
	for range n {
		s.Append(t.Context(), message("a", "u", "same"), func(m store.Message, err error) {
			if err != nil {
				t.Error(err)
			}
			seqs <- m.Seq
		})
	}
	for range n {
		if seq := <-seqs; seq != 1 {
			t.Errorf("number %d, want 1", seq)
		}
	}
	gapless(t, s, "a", 1)
}

func readsPages(t *testing.T, o Open) {
	s := open(t, o)
	for i := range 10 {
		mustAppend(t, s, message("a", "u", fmt.Sprint(i)))
	}
	mustAppend(t, s, message("b", "u", "elsewhere"))
	pages := []struct {
		name        string
		read        func(context.Context, string, int64, int) ([]store.Message, error)
		seq         int64
		limit       int
		first, last int64
	}{
		{"after 0", s.After, 0, 3, 1, 3},
		{"after 7", s.After, 7, 100, 8, 10},
		{"before 8", s.Before, 8, 3, 5, 7},
		{"before 3", s.Before, 3, 100, 1, 2},
		{"before all", s.Before, 1 << 60, 4, 7, 10},
	}
	for _, p := range pages {
		got, err := p.read(t.Context(), "a", p.seq, p.limit)
		if err != nil {
			t.Fatal(err)
		}
		if len(got) != int(p.last-p.first+1) || got[0].Seq != p.first || got[len(got)-1].Seq != p.last {
			t.Errorf("%s: got %v, want %d to %d", p.name, got, p.first, p.last)
		}
	}
	if got, err := s.After(t.Context(), "a", 10, 5); err != nil || len(got) != 0 {
		t.Errorf("after the head: %v, %v", got, err)
	}
	heads, err := s.Heads(t.Context(), []string{"a", "b", "none"})
	if err != nil || len(heads) != 2 || heads["a"] != 10 || heads["b"] != 1 {
		t.Errorf("heads are %v, %v", heads, err)
	}
}

func keepsText(t *testing.T, o Open) {
	s := open(t, o)
	before := time.Now().Truncate(time.Millisecond)
	m := store.Message{Room: "a", User: "u", CID: "c", Nick: "Zoë 🚣", Text: "a\x00b '); DROP TABLE message; -- <b>\n\u202e𝕏"}
	stored := mustAppend(t, s, m)
	got := gapless(t, s, "a", 1)[0]
	if got != stored {
		t.Errorf("read %+v, want %+v", got, stored)
	}
	if got.Text != m.Text || got.Nick != m.Nick || got.User != m.User {
		t.Errorf("read %+v, want %+v", got, m)
	}
	if got.At.Before(before) || got.At.After(time.Now()) {
		t.Errorf("stored at %v, appended at %v", got.At, before)
	}
}

func reopens(t *testing.T, o Open) {
	s := open(t, o)
	id := s.ID()
	mustAppend(t, s, message("a", "u", "c1"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, o)
	if s.ID() != id || id == "" {
		t.Errorf("id is %q, was %q", s.ID(), id)
	}
	if again := mustAppend(t, s, message("a", "u", "c1")); again.Seq != 1 {
		t.Errorf("a resend after reopening got number %d", again.Seq)
	}
	if next := mustAppend(t, s, message("a", "u", "c2")); next.Seq != 2 {
		t.Errorf("the next message got number %d", next.Seq)
	}
}

func twoAtOnce(t *testing.T, o Open) {
	one, two := open(t, o), open(t, o)
	if one.ID() != two.ID() {
		t.Errorf("ids differ: %q, %q", one.ID(), two.ID())
	}
	const writers, each = 8, 40
	var wg sync.WaitGroup
	for w := range writers {
		s := []store.Store{one, two}[w%2]
		wg.Go(func() {
			for i := range each {
				// Each cid is sent by two writers, one on each side.
				if _, err := Append(t.Context(), s, message("a", fmt.Sprint("u", w/2), fmt.Sprint(i))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	gapless(t, one, "a", writers/2*each)
	gapless(t, two, "a", writers/2*each)
}

func attendance(t *testing.T, o Open) {
	one, two := open(t, o), open(t, o)
	now := time.Now()
	until := now.Add(time.Hour)
	ann := store.Attendance{N: 1, Members: []store.Member{{User: "u1", Nick: "Ann"}}}
	if err := one.Attend(t.Context(), "p1", map[string]store.Attendance{"a": ann, "b": ann}, until); err != nil {
		t.Fatal(err)
	}
	if err := one.Attend(t.Context(), "p1", map[string]store.Attendance{"b": {}}, until); err != nil {
		t.Fatal(err)
	}
	others, err := two.Attendance(t.Context(), "p2", now)
	if err != nil || len(others) != 1 || len(others["a"]) != 1 || others["a"][0].Members[0] != ann.Members[0] {
		t.Errorf("the other process sees %v, %v", others, err)
	}
	if own, err := two.Attendance(t.Context(), "p1", now); err != nil || len(own) != 0 {
		t.Errorf("the process itself sees %v, %v", own, err)
	}
}

func attendanceExpires(t *testing.T, o Open) {
	s := open(t, o)
	now := time.Now()
	ann := map[string]store.Attendance{"a": {N: 1, Members: []store.Member{{User: "u1", Nick: "Ann"}}}}
	seen := func(at time.Time) int {
		t.Helper()
		others, err := s.Attendance(t.Context(), "p2", at)
		if err != nil {
			t.Fatal(err)
		}
		return len(others)
	}
	if err := s.Attend(t.Context(), "p1", ann, now.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if seen(now) != 1 || seen(now.Add(2*time.Minute)) != 0 {
		t.Error("attendance does not end when it expires")
	}
	if err := s.Attend(t.Context(), "p1", nil, now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if seen(now.Add(2*time.Minute)) != 1 {
		t.Error("attendance was not prolonged")
	}
}

func closedRefuses(t *testing.T, o Open) {
	s := open(t, o)
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("check: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Append(t.Context(), s, message("a", "u", "c")); !errors.Is(err, store.ErrClosed) {
		t.Errorf("append after close: %v", err)
	}
	if err := s.Check(t.Context()); !errors.Is(err, store.ErrClosed) {
		t.Errorf("check after close: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
}

func closeFinishesQueue(t *testing.T, o Open) {
	s := open(t, o)
	const n = 200
	results := make(chan error, n)
	for i := range n {
		s.Append(t.Context(), message("a", "u", fmt.Sprint(i)), func(_ store.Message, err error) { results <- err })
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for range n {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	gapless(t, open(t, o), "a", n)
}

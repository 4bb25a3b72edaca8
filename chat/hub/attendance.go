package hub

import (
	"context"
	"maps"
	"reflect"
	"sync"
	"time"

	"bareboat/chat/bus"
	"bareboat/chat/store"
)

const (
	// joinDelay gathers those who come at once, as all do after a restart.
	joinDelay = 50 * time.Millisecond

	// leaveDelay lets somebody who comes back at once never have left.
	leaveDelay = 2 * time.Second

	// beatEvery is how often a process prolongs what it said, lent for
	// beatsLent beats.
	beatEvery = 15 * time.Second
	beatsLent = 3
)

// attendance keeps every room's list of who is there, over all processes. One
// goroutine does all of it, so a room's lists go out in order.
type attendance struct {
	hub  *Hub
	wake chan struct{}

	mu   sync.Mutex
	due  map[string]time.Time // when to look at a room's members again
	news bool                 // another process said something new

	said   map[string]store.Attendance   // what the store has of this process
	others map[string][]store.Attendance // what it has of the others
}

func (a *attendance) init(h *Hub) {
	a.hub = h
	a.wake = make(chan struct{}, 1)
	a.due = map[string]time.Time{}
	a.said = map[string]store.Attendance{}
	a.news = true
}

func (a *attendance) joined(room string) { a.mark(room, joinDelay) }

// left waits longer where many would hear of each one who goes.
func (a *attendance) left(room string, n int) {
	a.mark(room, leaveDelay+time.Duration(min(n, 2000))*time.Millisecond)
}

func (a *attendance) mark(room string, delay time.Duration) {
	at := time.Now().Add(delay)
	a.mu.Lock()
	if due, ok := a.due[room]; !ok || at.Before(due) {
		a.due[room] = at
	}
	a.mu.Unlock()
	signal(a.wake)
}

func (a *attendance) heard() {
	a.mu.Lock()
	a.news = true
	a.mu.Unlock()
	signal(a.wake)
}

func (a *attendance) run() {
	beat := time.NewTicker(beatEvery)
	defer beat.Stop()
	timer := time.NewTimer(0)
	for {
		beating := false
		select {
		case <-a.hub.ctx.Done():
			a.leave()
			return
		case <-beat.C:
			beating = true
		case <-a.wake:
		case <-timer.C:
		}
		rooms, news, next := a.take(time.Now())
		a.look(rooms, news, beating)
		timer.Reset(next)
	}
}

// take gives the rooms that are due, whether others said something, and how
// long until the next room is due.
func (a *attendance) take(now time.Time) (rooms map[string]bool, news bool, next time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	rooms, next = map[string]bool{}, time.Hour
	for room, due := range a.due {
		if wait := due.Sub(now); wait > 0 {
			next = min(next, wait)
			continue
		}
		rooms[room] = true
		delete(a.due, room)
	}
	news, a.news = a.news, false
	return rooms, news, next
}

// look tells the store what changed here, learns what changed elsewhere, and
// tells the rooms concerned.
func (a *attendance) look(rooms map[string]bool, news, beat bool) {
	changed := map[string]store.Attendance{}
	for room := range rooms {
		if here := a.here(room); !reflect.DeepEqual(here, a.said[room]) {
			changed[room] = here
		}
	}
	if len(changed) > 0 || beat && len(a.said) > 0 {
		a.say(changed)
	}
	if news || beat {
		for room := range a.learn() {
			rooms[room] = true
		}
	}
	for room := range rooms {
		if r := a.hub.room(room); r != nil {
			r.tell(merge(a.here(room), a.others[room]))
		}
	}
}

// here gives an empty attendance the zero value, so that two compare equal.
func (a *attendance) here(room string) store.Attendance {
	r := a.hub.room(room)
	if r == nil {
		return store.Attendance{}
	}
	if here := r.here(); here.N > 0 {
		return here
	}
	return store.Attendance{}
}

func (a *attendance) say(changed map[string]store.Attendance) {
	until := time.Now().Add(beatsLent * beatEvery)
	if err := a.hub.Store.Attend(a.hub.ctx, a.hub.Process, changed, until); err != nil {
		a.hub.complain("say who is here", err)
		for room := range changed {
			a.mark(room, leaveDelay)
		}
		return
	}
	for room, who := range changed {
		if who.N == 0 {
			delete(a.said, room)
		} else {
			a.said[room] = who
		}
		a.hub.Bus.Publish(bus.Hint{Room: room})
	}
}

// learn reads what the others say, and gives the rooms where that changed.
func (a *attendance) learn() map[string]bool {
	others, err := a.hub.Store.Attendance(a.hub.ctx, a.hub.Process, time.Now())
	if err != nil {
		a.hub.complain("learn who is elsewhere", err)
		return nil
	}
	changed := map[string]bool{}
	for room := range others {
		changed[room] = !reflect.DeepEqual(others[room], a.others[room])
	}
	for room := range a.others {
		changed[room] = !reflect.DeepEqual(others[room], a.others[room])
	}
	a.others = others
	maps.DeleteFunc(changed, func(_ string, differs bool) bool { return !differs })
	return changed
}

// leave takes back all that this process said. The hub's own context is over.
func (a *attendance) leave() {
	gone := map[string]store.Attendance{}
	for room := range a.said {
		gone[room] = store.Attendance{}
	}
	if len(gone) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaveDelay)
	defer cancel()
	if err := a.hub.Store.Attend(ctx, a.hub.Process, gone, time.Now()); err != nil {
		a.hub.Log.Warn("take back who is here", "error", err) // it expires
		return
	}
	for room := range gone {
		a.hub.Bus.Publish(bus.Hint{Room: room})
	}
}

// merge puts together who is here and who is elsewhere. Somebody who moves
// between two processes is in both for a moment and counts once, as far as
// the lists name them.
func merge(here store.Attendance, others []store.Attendance) store.Attendance {
	if len(others) == 0 {
		return here
	}
	nicks := map[string]string{}
	n := 0
	for _, who := range append([]store.Attendance{here}, others...) {
		n += who.N
		for _, m := range who.Members {
			if _, twice := nicks[m.User]; twice {
				n--
			}
			nicks[m.User] = max(nicks[m.User], m.Nick)
		}
	}
	all := attendanceOf(nicks)
	all.N = n
	return all
}

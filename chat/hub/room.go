package hub

import (
	"bytes"
	"slices"
	"strings"
	"sync"

	"bareboat/chat/protocol"
	"bareboat/chat/store"
)

const (
	// maxRun is the most messages that are read from the store for one run.
	maxRun = 512

	// maxNamed is the most members that a who frame names.
	maxNamed = 100
)

// Room is a room with at least one session of this process in it, or coming.
type Room struct {
	hub   *Hub
	name  string
	users int // guarded by the shard's lock

	mu      sync.Mutex // members and what they were given
	members map[*Session]*member
	last    int64 // the number of the last message handed out
	who     frame // the last who frame

	in      sync.Mutex // what comes in; held only for moments, since the store's writer waits for it
	fresh   map[int64]store.Message
	known   int64 // the highest number heard of since the last look
	look    bool  // the store may hold more than was heard of
	live    bool  // there was a first member
	pumping bool
}

type member struct {
	after int64 // the number of the last message it was given
	told  bool  // it has the last who frame
}

func newRoom(h *Hub, name string) *Room {
	return &Room{hub: h, name: name, members: map[*Session]*member{}, fresh: map[int64]store.Message{}}
}

// attach makes s a member that has every message up to at. It refuses when the
// room is ahead of that: then s reads on in the store.
func (r *Room) attach(s *Session, at int64) bool {
	r.mu.Lock()
	first := len(r.members) == 0
	if first {
		r.last = at
	}
	if r.last > at {
		r.mu.Unlock()
		return false
	}
	r.members[s] = &member{after: at}
	r.mu.Unlock()
	r.hub.people.joined(r.name)
	if first {
		r.wakeUp()
	}
	return true
}

func (r *Room) detach(s *Session) {
	r.mu.Lock()
	delete(r.members, s)
	n := len(r.members)
	r.mu.Unlock()
	r.hub.people.left(r.name, n)
}

// offer takes a message that this process stored.
func (r *Room) offer(m store.Message) {
	r.in.Lock()
	defer r.in.Unlock()
	r.known = max(r.known, m.Seq)
	if r.live {
		r.fresh[m.Seq] = m
		r.pump()
	}
}

// hint takes the news that the store holds messages up to seq.
func (r *Room) hint(seq int64) {
	r.in.Lock()
	defer r.in.Unlock()
	r.known = max(r.known, seq)
	if r.live {
		r.pump()
	}
}

// wakeUp starts the fan-out for a first member. What was said between its last
// look into the store and now may have been told to nobody.
func (r *Room) wakeUp() {
	r.in.Lock()
	defer r.in.Unlock()
	r.live, r.look = true, true
	r.pump()
}

// pump starts the fan-out unless it runs. r.in is held.
func (r *Room) pump() {
	if !r.pumping {
		r.pumping = true
		go r.fanOut()
	}
}

// fanOut hands out runs until there is nothing left. One runs at a time.
func (r *Room) fanOut() {
	for {
		run, look := r.next(r.reached())
		if look {
			var err error
			if run, err = r.hub.Store.After(r.hub.ctx, r.name, r.reached(), maxRun); err != nil {
				r.hub.complain("read a room", err)
				r.rest()
				return
			}
			if len(run) == maxRun {
				r.lookAgain()
			}
		}
		if len(run) > 0 {
			r.deliver(run)
		} else if !look {
			return
		}
	}
}

func (r *Room) reached() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

// next takes the run that follows last out of what is in hand, or tells to
// look into the store. With neither the fan-out rests.
func (r *Room) next(last int64) (run []store.Message, look bool) {
	r.in.Lock()
	defer r.in.Unlock()
	for {
		m, ok := r.fresh[last+1]
		if !ok {
			break
		}
		delete(r.fresh, m.Seq)
		run = append(run, m)
		last++
	}
	if len(run) > 0 {
		return run, false
	}
	for seq := range r.fresh {
		if seq <= last {
			delete(r.fresh, seq)
		}
	}
	if r.look || r.known > last {
		// From here on the store's answer counts, not what was said of it; news
		// that comes while it is read raises known again.
		r.look, r.known = false, last
		return nil, true
	}
	r.pumping = false
	return nil, false
}

// lookAgain notes that the store has more than it gave at once.
func (r *Room) lookAgain() {
	r.in.Lock()
	defer r.in.Unlock()
	r.look = true
}

// rest ends the fan-out after a failure. The next hint tries again, at the
// latest that of the poll.
func (r *Room) rest() {
	r.in.Lock()
	defer r.in.Unlock()
	r.pumping, r.look = false, true
}

// deliver hands a run to every member that does not have it.
func (r *Room) deliver(run []store.Message) {
	frames := make([]frame, len(run))
	size := 0
	for i, m := range run {
		frames[i] = newFrame(protocol.NewEvent(r.name, wire(m)))
		size += frames[i].size()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if run[0].Seq != r.last+1 {
		return // another first member came meanwhile, with another beginning
	}
	for s, m := range r.members {
		if missing := m.after - r.last; missing > 0 {
			s.send(frames[min(int(missing), len(frames)):]...)
		} else {
			s.queue.push(frames, size)
		}
		m.after = max(m.after, run[len(run)-1].Seq)
	}
	r.last = run[len(run)-1].Seq
	r.hub.stats.delivered(len(run), len(r.members))
}

// here tells who of this process is in the room.
func (r *Room) here() store.Attendance {
	r.mu.Lock()
	nicks := make(map[string]string, len(r.members))
	for s := range r.members {
		nicks[s.user] = max(nicks[s.user], s.name())
	}
	r.mu.Unlock()
	return attendanceOf(nicks)
}

// attendanceOf sorts users by name and keeps the first.
func attendanceOf(nicks map[string]string) store.Attendance {
	members := make([]store.Member, 0, len(nicks))
	for user, nick := range nicks {
		members = append(members, store.Member{User: user, Nick: nick})
	}
	slices.SortFunc(members, func(a, b store.Member) int {
		if c := strings.Compare(strings.ToLower(a.Nick), strings.ToLower(b.Nick)); c != 0 {
			return c
		}
		return strings.Compare(a.User, b.User)
	})
	return store.Attendance{N: len(members), Members: members[:min(len(members), maxNamed)]}
}

// tell gives the members the who frame, unless they have the same one.
func (r *Room) tell(who store.Attendance) {
	members := make([]protocol.Member, len(who.Members))
	for i, m := range who.Members {
		members[i] = protocol.Member(m)
	}
	f := newFrame(protocol.NewWho(r.name, who.N, members))
	r.mu.Lock()
	defer r.mu.Unlock()
	same := bytes.Equal(f.data, r.who.data)
	r.who = f
	for s, m := range r.members {
		if !same || !m.told {
			s.send(f)
			m.told = true
		}
	}
}

func wire(m store.Message) protocol.Message {
	return protocol.Message{Seq: m.Seq, At: m.At.UnixMilli(), User: m.User, Nick: m.Nick, CID: m.CID, Text: m.Text}
}

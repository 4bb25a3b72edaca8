package hub

import (
	"context"
	"hash/maphash"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"bareboat/chat/bus"
	"bareboat/chat/protocol"
	"bareboat/chat/store"

	"github.com/gorilla/websocket"
)

// pollEvery is how often the store is asked for news that no hint told of.
const pollEvery = time.Second

const shards = 64

// Store is what the hub needs of a store.
type Store interface {
	store.Log
	store.Presence
}

// Bus is how the hub tells other processes, and hears from them.
type Bus interface {
	Publish(bus.Hint)
	Hints() <-chan bus.Hint
}

// Limits are what a session may cost.
type Limits struct {
	Queue    int           // bytes that may wait for a slow reader
	Rate     float64       // frames a second that a session may send
	Burst    int           // frames that it may send at once
	Sessions int           // sessions at a time
	Write    time.Duration // for one frame to be taken by the connection
	Hello    time.Duration // for the client to say hello
	Ping     time.Duration // between two pings; two and a half without an answer end the session
}

// DefaultLimits suit a small machine.
func DefaultLimits() Limits {
	return Limits{
		Queue: 1 << 20, Rate: 10, Burst: 40, Sessions: 20_000,
		Write: 10 * time.Second, Hello: 10 * time.Second, Ping: 25 * time.Second,
	}
}

// Config is what a hub is made of. Every field but Release is needed.
type Config struct {
	Store   Store
	Bus     Bus
	Log     *slog.Logger
	Process string // this process's name, unlike that of any other on the store
	Release string // shown to clients
	Limits  Limits
}

// Hub holds the sessions and the rooms of one process.
type Hub struct {
	Config
	seed   maphash.Seed
	shards [shards]shard
	people attendance
	stats  counters

	mu       sync.Mutex
	sessions map[*Session]struct{}
	draining bool

	serving sync.WaitGroup // sessions
	running sync.WaitGroup // the hub's own goroutines
	stop    context.CancelFunc
	ctx     context.Context // ends with Close
}

type shard struct {
	mu    sync.Mutex
	rooms map[string]*Room
}

// New starts a hub. Close it before its store and its bus.
func New(c Config) *Hub {
	h := &Hub{Config: c, seed: maphash.MakeSeed(), sessions: map[*Session]struct{}{}}
	for i := range h.shards {
		h.shards[i].rooms = map[string]*Room{}
	}
	h.ctx, h.stop = context.WithCancel(context.Background())
	h.people.init(h)
	h.running.Go(h.listen)
	h.running.Go(h.poll)
	h.running.Go(h.people.run)
	return h
}

// Serve talks to the client on conn, which becomes the hub's, until it ends.
// user is who the client is to the others, addr where it comes from.
func (h *Hub) Serve(conn *websocket.Conn, user, addr string) {
	s := newSession(h, conn, user, addr)
	if code, reason := h.admit(s); code != 0 {
		s.refuse(code, reason)
		return
	}
	defer h.serving.Done()
	defer h.dismiss(s)
	s.run()
}

func (h *Hub) admit(s *Session) (code int, reason string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.draining:
		return protocol.CloseRestart, restartReason
	case len(h.sessions) >= h.Limits.Sessions:
		return protocol.CloseTryLater, "too many sessions"
	}
	h.sessions[s] = struct{}{}
	h.serving.Add(1)
	return 0, ""
}

func (h *Hub) dismiss(s *Session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.sessions, s)
}

const restartReason = "service restart"

// Go asks every client to dial anew, spread over the given time, and goes on
// serving those that do not yet. A client is up to date on its new connection
// before it closes the old one.
func (h *Hub) Go(ctx context.Context, spread time.Duration) {
	staggered(ctx, h.all(), spread, (*Session).sendAway)
}

// Drain admits no more sessions and asks those that there are to dial anew, which
// leads them elsewhere, spread over the given time. It returns when all are gone.
// Those that are left when patience is over are ended with 1012, their sends being
// acknowledged first; what is left of these when ctx ends is cut off.
func (h *Hub) Drain(ctx context.Context, spread, patience time.Duration) {
	h.mu.Lock()
	h.draining = true
	h.mu.Unlock()
	gone := make(chan struct{})
	go func() {
		h.serving.Wait()
		close(gone)
	}()
	began := time.Now()
	h.Go(ctx, spread)
	select {
	case <-gone:
		return
	case <-ctx.Done():
	case <-time.After(time.Until(began.Add(patience))):
	}
	left := h.all()
	for _, s := range left {
		s.leave(protocol.CloseRestart, restartReason)
	}
	select {
	case <-gone:
	case <-ctx.Done():
		for _, s := range left {
			s.cut()
		}
		<-gone
	}
}

// all gives the sessions that there are.
func (h *Hub) all() []*Session {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Collect(maps.Keys(h.sessions))
}

// isDraining tells whether clients belong elsewhere.
func (h *Hub) isDraining() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.draining
}

// staggered does something to each session, one after the other, until ctx ends.
func staggered(ctx context.Context, list []*Session, spread time.Duration, do func(*Session)) {
	began := time.Now()
	for i, s := range list {
		pause(ctx, time.Until(began.Add(spread*time.Duration(i)/time.Duration(len(list)))))
		do(s)
	}
}

func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// Close ends what Drain left and the hub's own work.
func (h *Hub) Close() {
	over, cancel := context.WithCancel(context.Background())
	cancel()
	h.Drain(over, 0, 0)
	h.stop()
	h.running.Wait()
}

// acquire gives the room and keeps it until release.
func (h *Hub) acquire(name string) *Room {
	sh := h.shard(name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	r := sh.rooms[name]
	if r == nil {
		r = newRoom(h, name)
		sh.rooms[name] = r
	}
	r.users++
	return r
}

func (h *Hub) release(r *Room) {
	sh := h.shard(r.name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if r.users--; r.users == 0 {
		delete(sh.rooms, r.name)
	}
}

// room gives the room if somebody is in it, else nil.
func (h *Hub) room(name string) *Room {
	sh := h.shard(name)
	sh.mu.Lock()
	defer sh.mu.Unlock()
	return sh.rooms[name]
}

func (h *Hub) shard(room string) *shard {
	return &h.shards[maphash.String(h.seed, room)%shards]
}

func (h *Hub) rooms() []string {
	var names []string
	for i := range h.shards {
		sh := &h.shards[i]
		sh.mu.Lock()
		for name := range sh.rooms {
			names = append(names, name)
		}
		sh.mu.Unlock()
	}
	return names
}

// stored hands on a message that the store just took.
func (h *Hub) stored(m store.Message) {
	if r := h.room(m.Room); r != nil {
		r.offer(m)
	}
	h.Bus.Publish(bus.Hint{Room: m.Room, Seq: m.Seq})
}

func (h *Hub) listen() {
	for {
		select {
		case <-h.ctx.Done():
			return
		case hint, open := <-h.Bus.Hints():
			if !open {
				return
			}
			h.heard(hint)
		}
	}
}

func (h *Hub) heard(hint bus.Hint) {
	if hint.Seq == 0 {
		h.people.heard()
		return
	}
	if r := h.room(hint.Room); r != nil {
		r.hint(hint.Seq)
	}
}

// poll asks the store for what no hint told of: a datagram can get lost.
func (h *Hub) poll() {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		select {
		case <-h.ctx.Done():
			return
		case <-tick.C:
		}
		if rooms := h.rooms(); len(rooms) > 0 {
			h.catchUp(rooms)
		}
	}
}

func (h *Hub) catchUp(rooms []string) {
	heads, err := h.Store.Heads(h.ctx, rooms)
	if err != nil {
		h.complain("look for news", err)
		return
	}
	for name, head := range heads {
		if r := h.room(name); r != nil {
			r.hint(head)
		}
	}
}

// complain logs a failure, unless it comes from closing.
func (h *Hub) complain(what string, err error) {
	if h.ctx.Err() == nil {
		h.Log.Error(what, "error", err)
	}
}

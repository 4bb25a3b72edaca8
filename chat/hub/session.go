package hub

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"bareboat/chat/protocol"

	"github.com/gorilla/websocket"
)

const (
	// closeWait is how long a session waits for the client's half of the close.
	closeWait = 3 * time.Second

	// linger is how long the rest of a frame that is too big is read, so that
	// the close frame is not lost in a reset of the connection.
	linger = time.Second

	// maxPending is how many sends of one session wait for the disk. More wait
	// in the connection, so that nobody fills the store's queue alone.
	maxPending = 64
)

// Session is one client's connection.
type Session struct {
	hub    *Hub
	conn   *websocket.Conn
	user   string
	addr   string
	queue  *queue
	bucket bucket
	nick   atomic.Pointer[string]
	rooms  map[string]*Room // those that the hello named; only the reader's
	ctx    context.Context
	stop   context.CancelFunc

	mu      sync.Mutex
	leaving bool
	pending sync.WaitGroup // sends that wait for the disk; none is added once leaving
	slots   chan struct{}  // one for each of them

	joining sync.WaitGroup
}

func newSession(h *Hub, conn *websocket.Conn, user, addr string) *Session {
	s := &Session{
		hub: h, conn: conn, user: user, addr: addr,
		queue:  newQueue(h.Limits.Queue, ending{protocol.CloseSlow, "reading too slowly"}),
		bucket: newBucket(h.Limits.Rate, h.Limits.Burst, time.Now()),
		rooms:  map[string]*Room{},
		slots:  make(chan struct{}, maxPending),
	}
	s.ctx, s.stop = context.WithCancel(h.ctx)
	return s
}

// refuse closes a connection that does not become a session.
func (s *Session) refuse(code int, reason string) {
	defer s.stop()
	s.conn.SetReadLimit(protocol.MaxFrame)
	s.hub.stats.closed(code)
	s.writeClose(ending{code, reason})
	s.awaitClose()
	_ = s.conn.Close()
}

// run serves the session until its connection is over.
func (s *Session) run() {
	began := time.Now()
	log := s.hub.Log.With("addr", s.addr, "user", s.user)
	log.Info("session begins")

	written := make(chan struct{})
	go func() {
		defer close(written)
		s.write()
	}()
	end := s.read()
	if end.toTell() {
		s.sayNoMore()
		s.pending.Wait()
	}
	final := s.queue.finish(end)
	if end.toTell() {
		s.awaitClose()
	}
	<-written
	_ = s.conn.Close()
	s.stop()
	s.joining.Wait()
	for _, r := range s.rooms {
		r.detach(s)
		s.hub.release(r)
	}
	s.hub.stats.closed(final.code)
	log.Info("session ends", "code", final.code, "seconds", time.Since(began).Seconds())
}

// leave ends the session once its sends are on disk and acknowledged. The
// client's half of the close ends the reader.
func (s *Session) leave(code int, reason string) {
	s.sayNoMore()
	go func() {
		s.pending.Wait()
		s.queue.finish(ending{code, reason})
	}()
}

// sendAway asks the client to dial anew. It does so at once: the hub spreads
// what it asks of all.
func (s *Session) sendAway() { s.send(newFrame(protocol.NewGo(0))) }

// cut ends the session at once.
func (s *Session) cut() { _ = s.conn.Close() }

func (s *Session) sayNoMore() {
	s.mu.Lock()
	s.leaving = true
	s.mu.Unlock()
}

// begin notes a send that waits for the disk. A session that leaves takes no
// more: the client sends again what is not acknowledged.
func (s *Session) begin() bool {
	select {
	case s.slots <- struct{}{}:
	case <-s.ctx.Done():
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leaving {
		<-s.slots
		return false
	}
	s.pending.Add(1)
	return true
}

// end notes that a send is on disk, or failed.
func (s *Session) end() {
	<-s.slots
	s.pending.Done()
}

// name is the nickname to show.
func (s *Session) name() string {
	if nick := s.nick.Load(); nick != nil {
		return *nick
	}
	return ""
}

// call sets the nickname, or makes one up.
func (s *Session) call(nick string) {
	if nick == "" {
		nick = "guest-" + s.user[:min(4, len(s.user))]
	}
	s.nick.Store(&nick)
}

func (s *Session) send(frames ...frame) {
	size := 0
	for _, f := range frames {
		size += f.size()
	}
	if size > 0 {
		s.queue.push(frames, size)
	}
}

package hub

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

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

// read handles what the client says until there is a reason to end.
func (s *Session) read() ending {
	s.conn.SetReadLimit(protocol.MaxFrame)
	s.extend(s.hub.Limits.Hello)
	alive := s.hub.Limits.Ping * 5 / 2
	s.conn.SetPongHandler(func(string) error {
		if len(s.rooms) > 0 { // a pong is no hello
			s.extend(alive)
		}
		return nil
	})
	for {
		kind, data, err := s.conn.ReadMessage()
		if err != nil {
			return s.lost(err)
		}
		if end := s.take(kind, data); end.toTell() {
			return end
		}
		s.extend(alive)
	}
}

// extend sets until when the client must have said something.
func (s *Session) extend(d time.Duration) {
	_ = s.conn.SetReadDeadline(time.Now().Add(d)) // a closed connection fails at the next read
}

// lost tells how a connection ended that cannot be read any more.
func (s *Session) lost(err error) ending {
	var closed *websocket.CloseError
	var timeout interface{ Timeout() bool }
	switch {
	case errors.As(err, &closed):
		return ending{code: closed.Code}
	case errors.Is(err, websocket.ErrReadLimit): // the library told the client
		s.skim()
		return ending{code: protocol.CloseTooBig}
	case len(s.rooms) == 0 && errors.As(err, &timeout) && timeout.Timeout():
		return ending{protocol.CloseNoHello, "no hello in time"}
	}
	return ending{code: websocket.CloseAbnormalClosure}
}

// skim reads on without understanding.
func (s *Session) skim() {
	s.extend(linger)
	buffer := make([]byte, 4<<10)
	for {
		if _, err := s.conn.NetConn().Read(buffer); err != nil {
			return
		}
	}
}

// awaitClose reads on, without heed, until the client closes too.
func (s *Session) awaitClose() {
	s.extend(closeWait)
	for {
		if _, _, err := s.conn.ReadMessage(); err != nil {
			return
		}
	}
}

// take handles one message, and gives the ending when it was the last.
func (s *Session) take(kind int, data []byte) ending {
	switch {
	case !s.bucket.take(time.Now()):
		return ending{protocol.CloseTooFast, "too many frames"}
	case kind != websocket.TextMessage:
		return ending{protocol.CloseBadFrame, "a frame is a text message"}
	case !utf8.Valid(data):
		return ending{protocol.CloseBadUTF8, "not UTF-8"}
	}
	f, err := protocol.Decode(data)
	switch {
	case errors.Is(err, protocol.ErrText):
		s.send(newFrame(protocol.NewError(protocol.CodeText, err.Error(), f.Room, f.CID)))
		return ending{}
	case err != nil:
		return ending{protocol.CloseBadFrame, clip(err.Error())}
	}
	return s.handle(f)
}

// clip makes a text fit into a close frame.
func clip(text string) string {
	const most = 123
	for len(text) > most {
		_, size := utf8.DecodeLastRuneInString(text)
		text = text[:len(text)-size]
	}
	return text
}

// write sends what is queued, and pings, until the queue has an ending.
func (s *Session) write() {
	defer s.stop() // whoever waits for the queue waits no more
	ping := time.NewTicker(s.hub.Limits.Ping)
	defer ping.Stop()
	for {
		frames, end := s.queue.take()
		if err := s.writeAll(frames); err != nil {
			s.cut() // which ends the reader
			return
		}
		if end != nil {
			s.writeClose(*end)
			return
		}
		select {
		case <-s.queue.ready:
		case <-ping.C:
			if err := s.conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(s.hub.Limits.Write)); err != nil {
				s.cut()
				return
			}
		}
	}
}

func (s *Session) writeAll(frames []frame) error {
	for _, f := range frames {
		if err := s.conn.SetWriteDeadline(time.Now().Add(s.hub.Limits.Write)); err != nil {
			return err
		}
		if err := s.conn.WritePreparedMessage(f.prepared); err != nil {
			return err
		}
		s.hub.stats.wrote(f.size())
		if !s.queue.written(f) {
			return nil
		}
	}
	return nil
}

// writeClose sends the close frame, and gives the client a moment to answer.
func (s *Session) writeClose(e ending) {
	if !e.toTell() {
		return
	}
	message := websocket.FormatCloseMessage(e.code, e.reason)
	if err := s.conn.WriteControl(websocket.CloseMessage, message, time.Now().Add(closeWait)); err != nil {
		s.cut()
		return
	}
	time.AfterFunc(closeWait, s.cut)
}

package hub

import (
	"context"
	"maps"
	"math"
	"slices"

	"bareboat/chat/protocol"
	"bareboat/chat/store"
)

const (
	// firstPage is how many messages a client gets that has none.
	firstPage = 50

	// readPage is how many messages are read at once to bring a client up to date.
	readPage = 200

	// fillBytes bounds one fill frame.
	fillBytes = 64 << 10
)

// handle does what a frame asks for. Frames of types that are not known here
// come from a newer page and are no fault.
func (s *Session) handle(f protocol.Frame) ending {
	if len(s.rooms) == 0 {
		if f.T != "hello" {
			return ending{protocol.CloseBadFrame, "say hello first"}
		}
		s.hello(f)
		return ending{}
	}
	switch f.T {
	case "hello":
		return ending{protocol.CloseBadFrame, "hello was said"}
	case "send":
		s.say(f)
	case "fill":
		s.fill(f)
	case "nick":
		s.call(f.Nick)
		for room := range s.rooms {
			s.hub.people.joined(room)
		}
	case "ping":
		s.send(newFrame(protocol.NewPong()))
	}
	return ending{}
}

func (s *Session) hello(f protocol.Frame) {
	s.call(f.Nick)
	s.send(newFrame(protocol.NewWelcome(protocol.Welcome{
		Release: s.hub.Release, Store: s.hub.Store.ID(), User: s.user, Nick: s.name(),
		Limits: protocol.Limits{Text: protocol.MaxText, Nick: protocol.MaxNick, Rate: s.hub.Limits.Rate, Burst: s.hub.Limits.Burst},
	})))
	if s.hub.isDraining() { // it was let in just before
		s.sendAway()
	}
	if f.Store != "" && f.Store != s.hub.Store.ID() {
		for room := range f.Cursors { // they count something else
			f.Cursors[room] = nil
		}
	}
	names := slices.Sorted(maps.Keys(f.Cursors))
	rooms := make([]*Room, len(names))
	for i, name := range names {
		rooms[i] = s.hub.acquire(name)
		s.rooms[name] = rooms[i]
	}
	s.joining.Go(func() { s.join(rooms, f.Cursors) })
}

// join brings the client up to date in each room. It goes at the pace at which
// the client reads.
func (s *Session) join(rooms []*Room, cursors map[string]*int64) {
	heads, err := s.hub.Store.Heads(s.ctx, slices.Collect(maps.Keys(cursors)))
	for _, r := range rooms {
		if err == nil {
			err = s.catchUp(r, cursors[r.name], heads[r.name])
		}
	}
	if err != nil && s.ctx.Err() == nil {
		s.hub.complain("bring a client up to date", err)
		s.leave(protocol.CloseNotServed, "the messages cannot be read now")
	}
}

func (s *Session) catchUp(r *Room, cursor *int64, head int64) error {
	at, page, err := s.start(r, cursor, head)
	if err != nil {
		return err
	}
	if err := s.queue.pushInTurn(s.ctx, newFrame(protocol.NewJoined(r.name, at, head))); err != nil {
		return err
	}
	for {
		if err := s.sendPage(r.name, page); err != nil {
			return err
		}
		if len(page) > 0 {
			at = page[len(page)-1].Seq
		}
		if len(page) < readPage && r.attach(s, at) {
			return nil
		}
		if page, err = s.hub.Store.After(s.ctx, r.name, at, readPage); err != nil {
			return err
		}
	}
}

// start tells from where on a client gets the room's messages, and reads the
// first of them. A cursor ahead of the head is of a past that is gone.
func (s *Session) start(r *Room, cursor *int64, head int64) (at int64, page []store.Message, err error) {
	if cursor != nil && *cursor <= head {
		page, err = s.hub.Store.After(s.ctx, r.name, *cursor, readPage)
		return *cursor, page, err
	}
	page, err = s.hub.Store.Before(s.ctx, r.name, math.MaxInt64, firstPage)
	if len(page) > 0 {
		return page[0].Seq - 1, page, err
	}
	return 0, nil, err
}

// sendPage sends messages in as many fills as they need.
func (s *Session) sendPage(room string, page []store.Message) error {
	for len(page) > 0 {
		n := fitting(page)
		f := newFrame(protocol.NewFill(room, 0, wireAll(page[:n]), false))
		page = page[n:]
		if err := s.queue.pushInTurn(s.ctx, f); err != nil {
			return err
		}
	}
	return nil
}

// fitting tells how many messages from the start go into one fill: one at least.
func fitting(page []store.Message) int {
	size := 0
	for i, m := range page {
		if size += len(m.Text); size > fillBytes && i > 0 {
			return i
		}
	}
	return len(page)
}

func wireAll(page []store.Message) []protocol.Message {
	messages := make([]protocol.Message, len(page))
	for i, m := range page {
		messages[i] = wire(m)
	}
	return messages
}

// fill answers with the newest messages before a bound.
func (s *Session) fill(f protocol.Frame) {
	if s.rooms[f.Room] == nil {
		s.send(newFrame(protocol.NewError(protocol.CodeRoom, "join the room first", f.Room, "")))
		return
	}
	page, err := s.hub.Store.Before(s.ctx, f.Room, f.Before, f.Limit)
	if err != nil {
		s.hub.complain("fill", err)
		s.send(newFrame(protocol.NewError(protocol.CodeUnavailable, "the messages cannot be read now", f.Room, "")))
		return
	}
	slices.Reverse(page) // the newest count when not all fit
	page = page[:fitting(page)]
	slices.Reverse(page)
	more := len(page) > 0 && page[0].Seq > 1
	_ = s.queue.pushInTurn(s.ctx, newFrame(protocol.NewFill(f.Room, f.Before, wireAll(page), more))) // else the session is over
}

// say stores a message, and acknowledges it when it is on disk.
func (s *Session) say(f protocol.Frame) {
	if s.rooms[f.Room] == nil {
		s.send(newFrame(protocol.NewError(protocol.CodeRoom, "join the room first", f.Room, f.CID)))
		return
	}
	if !s.begin() {
		return
	}
	m := store.Message{Room: f.Room, User: s.user, CID: f.CID, Nick: s.name(), Text: f.Text}
	s.hub.Store.Append(context.WithoutCancel(s.ctx), m, func(m store.Message, err error) {
		defer s.end()
		if err != nil {
			s.hub.complain("store a message", err)
			s.send(newFrame(protocol.NewError(protocol.CodeUnavailable, "the message could not be stored", f.Room, f.CID)))
			return
		}
		s.send(newFrame(protocol.NewAck(f.CID, m.Room, m.Seq, m.At)))
		s.hub.stored(m)
	})
}

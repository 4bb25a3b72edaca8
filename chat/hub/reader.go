package hub

import (
	"errors"
	"time"
	"unicode/utf8"

	"bareboat/chat/protocol"

	"github.com/gorilla/websocket"
)

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

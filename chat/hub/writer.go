package hub

import (
	"time"

	"github.com/gorilla/websocket"
)

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

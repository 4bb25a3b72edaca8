package chat

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
)

// serveMetrics writes the counts in Prometheus's text format.
func (s *Server) serveMetrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	m := metrics{w}
	h, st := s.hub.Stats(), s.store.Stats()
	sent, received := s.bus.Counts()
	m.head("chat_info", "gauge", "Which server this is.")
	m.line("chat_info", fmt.Sprintf("{version=%s,release=%s}", strconv.Quote(version()), strconv.Quote(s.config.Release)), 1)
	m.one("chat_sessions", "gauge", "Sessions that are open.", float64(h.Sessions))
	m.one("chat_rooms", "gauge", "Rooms with somebody in them.", float64(h.Rooms))
	m.one("chat_messages_stored_total", "counter", "Messages stored.", float64(st.Appended))
	m.one("chat_messages_resent_total", "counter", "Messages that came again and were there already.", float64(st.Duplicates))
	m.one("chat_messages_delivered_total", "counter", "Messages handed to members of rooms.", float64(h.Delivered))
	m.one("chat_frames_written_total", "counter", "Frames written to clients.", float64(h.Frames))
	m.one("chat_frame_bytes_written_total", "counter", "Bytes of the frames written to clients.", float64(h.Bytes))
	m.one("chat_store_commits_total", "counter", "Transactions on disk.", float64(st.Commits))
	m.one("chat_store_failures_total", "counter", "Transactions that failed.", float64(st.Failures))
	m.one("chat_store_commit_seconds_total", "counter", "Time spent in transactions.", st.CommitTime.Seconds())
	m.one("chat_bus_hints_sent_total", "counter", "Hints given to other processes.", float64(sent))
	m.one("chat_bus_hints_received_total", "counter", "Hints taken from other processes.", float64(received))
	m.head("chat_sessions_closed_total", "counter", "Sessions that ended, by close code.")
	for _, code := range slices.Sorted(maps.Keys(h.Closed)) {
		m.line("chat_sessions_closed_total", fmt.Sprintf("{code=\"%d\"}", code), float64(h.Closed[code]))
	}
}

// metrics writes to a client, which may be gone: errors matter to nobody.
type metrics struct{ w io.Writer }

func (m metrics) head(name, kind, help string) {
	_, _ = fmt.Fprintf(m.w, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

func (m metrics) line(name, labels string, value float64) {
	_, _ = fmt.Fprintf(m.w, "%s%s %s\n", name, labels, strconv.FormatFloat(value, 'f', -1, 64))
}

func (m metrics) one(name, kind, help string, value float64) {
	m.head(name, kind, help)
	m.line(name, "", value)
}

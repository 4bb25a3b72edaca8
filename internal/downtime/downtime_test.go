package downtime_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"bareboat/internal/downtime"
)

// site is a service that can be made to misbehave.
type site struct {
	*httptest.Server
	fault atomic.Value // string: what it does wrong now

	mu    sync.Mutex
	keys  []string
	rooms map[string]*room
	conns map[*websocket.Conn]bool
}

// room is one room of a chat.
type room struct {
	messages []frame
	cids     map[string]int64
	members  map[*member]bool
}

type member struct {
	mu   sync.Mutex
	conn *websocket.Conn
}

func (m *member) write(v any) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_ = m.conn.WriteJSON(v) // whoever left hears nothing
}

type frame struct {
	T        string            `json:"t"`
	Store    string            `json:"store,omitempty"`
	Cursors  map[string]*int64 `json:"cursors,omitempty"`
	Room     string            `json:"room,omitempty"`
	CID      string            `json:"cid,omitempty"`
	Text     string            `json:"text,omitempty"`
	Seq      int64             `json:"seq,omitempty"`
	From     int64             `json:"from"`
	Head     int64             `json:"head"`
	Messages []frame           `json:"messages,omitempty"`
}

func (s *site) does(fault string) bool { return s.fault.Load() == fault }

// newSite listens with connections that can be reset while they are idle.
func newSite(t *testing.T) *site {
	t.Helper()
	return startSite(t, false)
}

func startSite(t *testing.T, withTLS bool) *site {
	t.Helper()
	s := &site{rooms: map[string]*room{}, conns: map[*websocket.Conn]bool{}}
	s.fault.Store("")
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		if s.does("502") {
			w.WriteHeader(http.StatusBadGateway)
		}
		if s.does("close idle connections") {
			s.Config.SetKeepAlivesEnabled(false) // which closes those that are idle
			s.Config.SetKeepAlivesEnabled(true)
		}
	})
	mux.HandleFunc("GET /slow", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("POST /upload", func(w http.ResponseWriter, r *http.Request) {
		if n, err := io.Copy(io.Discard, r.Body); err != nil || n != 64<<10 || s.does("refuse uploads") {
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	mux.HandleFunc("POST /post", func(_ http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		key := r.Header.Get("Idempotency-Key")
		if !s.does("forget") {
			s.keys = append(s.keys, key)
		}
		if s.does("count twice") {
			s.keys = append(s.keys, key)
		}
	})
	mux.HandleFunc("GET /posted", func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		fmt.Fprintln(w, strings.Join(s.keys, "\n"))
	})
	mux.HandleFunc("/echo", s.echo)
	mux.HandleFunc("/ws", s.chat)
	s.Server = httptest.NewUnstartedServer(mux)
	if withTLS {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(func() {
		s.fault.Store("")
		s.Close()
	})
	return s
}

func (s *site) upgrade(w http.ResponseWriter, r *http.Request) *websocket.Conn {
	up := websocket.Upgrader{Subprotocols: []string{"chat.v1"}, CheckOrigin: func(*http.Request) bool { return true }}
	c, err := up.Upgrade(w, r, nil)
	if err != nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[c] = true
	return c
}

func (s *site) echo(w http.ResponseWriter, r *http.Request) {
	c := s.upgrade(w, r)
	if c == nil {
		return
	}
	defer c.Close()
	for {
		kind, data, err := c.ReadMessage()
		if err != nil {
			return
		}
		if s.does("hang") {
			continue
		}
		if s.does("echo something else") {
			data = []byte("else")
		}
		if err := c.WriteMessage(kind, data); err != nil {
			return
		}
	}
}

// closeAll ends all WebSockets, with a code or without a word.
func (s *site) closeAll(code int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		if code != 0 {
			bye := websocket.FormatCloseMessage(code, "")
			_ = c.WriteControl(websocket.CloseMessage, bye, time.Now().Add(time.Second)) // it may be gone
		}
		c.Close()
	}
	clear(s.conns)
}

func (s *site) chat(w http.ResponseWriter, r *http.Request) {
	c := s.upgrade(w, r)
	if c == nil {
		return
	}
	me := &member{conn: c}
	defer c.Close()
	for {
		var f frame
		_, data, err := c.ReadMessage()
		if err != nil || json.Unmarshal(data, &f) != nil {
			s.leave(me)
			return
		}
		if s.does("hang") {
			continue
		}
		switch f.T {
		case "ping":
			me.write(frame{T: "pong"})
		case "hello":
			s.enter(me, f)
		case "send":
			s.say(me, f)
		}
	}
}

func (s *site) leave(m *member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.rooms {
		delete(r.members, m)
	}
}

func (s *site) enter(m *member, f frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m.write(frame{T: "welcome", Store: "s"})
	for name, cursor := range f.Cursors {
		r := s.rooms[name]
		if r == nil {
			r = &room{cids: map[string]int64{}, members: map[*member]bool{}}
			s.rooms[name] = r
		}
		from := int64(len(r.messages))
		if cursor != nil {
			from = *cursor
		}
		m.write(frame{T: "joined", Room: name, From: from, Head: int64(len(r.messages))})
		if from < int64(len(r.messages)) {
			m.write(frame{T: "fill", Room: name, Messages: r.messages[from:]})
		}
		r.members[m] = true
	}
}

func (s *site) say(m *member, f frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.rooms[f.Room]
	seq, known := r.cids[f.CID]
	if !known || s.does("double messages") {
		seq = int64(len(r.messages)) + 1
		r.cids[f.CID] = seq
		f.T, f.Seq = "ev", seq
		r.messages = append(r.messages, f)
		if s.does("double messages") {
			again := f
			again.Seq++
			r.messages = append(r.messages, again)
		}
		for to := range r.members {
			if s.does("lose messages") {
				continue
			}
			for _, said := range r.messages[seq-1:] {
				to.write(said)
			}
			if s.does("tell again") {
				to.write(f)
			}
			if s.does("tell the past") && seq > 1 {
				to.write(r.messages[seq-2])
			}
		}
	}
	m.write(frame{T: "ack", CID: f.CID, Room: f.Room, Seq: seq})
}

// sendAway says go to everybody.
func (s *site) sendAway() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.rooms {
		for m := range r.members {
			m.write(frame{T: "go"})
		}
	}
}

func (s *site) options(t *testing.T) downtime.Options {
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return downtime.Options{
		URL: u, Rate: 150, Paths: []string{"/"}, Slow: "/slow", Upload: "/upload", Post: "/post", Posted: "/posted",
		Echo: "/echo", Chat: "/ws", Echoes: 8, Clients: 8, Rooms: 2, Talk: 80, Lead: 500 * time.Millisecond,
	}
}

func (s *site) run(t *testing.T, o downtime.Options, during func()) downtime.Report {
	t.Helper()
	report, err := downtime.Run(t.Context(), o, func(context.Context) error { during(); return nil })
	if err != nil {
		t.Fatal(err)
	}
	return report
}

// Nothing is noticed of a service that does everything right, though it sends its
// clients away and restarts its sockets.
func TestNothingToNotice(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	report := s.run(t, s.options(t), s.sendAway)
	if noticed := report.Noticed(true); len(noticed) > 0 {
		t.Errorf("noticed %q", noticed)
	}
	for _, l := range report.Lines {
		if l.Count < 3 || l.Bound != 3/float64(l.Count) || l.Latency.Max <= 0 {
			t.Errorf("%+v", l)
		}
	}
	chat := report.Lines[len(report.Lines)-1]
	if chat.Moves != 8 || len(chat.Closes) != 0 || chat.Silence == nil || chat.Silence.Max <= 0 {
		t.Errorf("the chat's clients: %+v", chat)
	}
	var table strings.Builder
	if err := report.Write(&table); err != nil || strings.Count(table.String(), "\n") != len(report.Lines)+1 {
		t.Errorf("%v\n%s", err, table.String())
	}
	t.Log("\n" + table.String())
}

// Each fault is found, and blamed on those who meet it.
func TestFaults(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		fault string
		who   string // begins the line
		why   string
		lasts time.Duration
	}{
		{"502", "strict", "answer 502", 300 * time.Millisecond},
		{"502", "browser", "answer 502", 300 * time.Millisecond},
		{"502", "new connection", "answer 502", 300 * time.Millisecond},
		{"refuse uploads", "slow uploads", "answer 500", 2500 * time.Millisecond},
		{"forget", "POSTs", "answered and not counted", 300 * time.Millisecond},
		{"count twice", "POSTs", "counted twice", 300 * time.Millisecond},
		{"echo something else", "8 WebSockets", "another message came back", 300 * time.Millisecond},
		{"lose messages", "8 chat clients", "message missing or out of order", 300 * time.Millisecond},
		{"double messages", "8 chat clients", "message doubled", 300 * time.Millisecond},
		{"tell again", "8 chat clients", "message again or out of order on one connection", 300 * time.Millisecond},
		{"tell the past", "8 chat clients", "message again or out of order on one connection", 300 * time.Millisecond},
		{"hang", "8 WebSockets", "hung: nothing came for 5s", 6 * time.Second},
		{"hang", "8 chat clients", "hung: nothing came for 5s", 6 * time.Second},
	} {
		t.Run(c.fault+", "+c.who, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			report := s.run(t, s.options(t), func() {
				s.fault.Store(c.fault)
				time.Sleep(c.lasts) // as long as the fault is there
				s.fault.Store("")
			})
			i := slices.IndexFunc(report.Lines, func(l downtime.Line) bool { return strings.HasPrefix(l.Client, c.who) })
			if l := report.Lines[i]; l.Why[c.why] == 0 || l.Failed < l.Why[c.why] || l.Bound != 0 {
				t.Errorf("%+v, want %q", l, c.why)
			}
			if len(report.Noticed(true)) == 0 {
				t.Error("nothing is noticed")
			}
		})
	}
}

// A connection that is closed while it is idle fails a strict client, and a
// browser retries.
func TestIdleConnectionsClosed(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	o := s.options(t)
	o.Slow, o.Upload, o.Post, o.Echo, o.Chat = "", "", "", "", ""
	report := s.run(t, o, func() {
		s.fault.Store("close idle connections")
		time.Sleep(2 * time.Second) // as long as the fault is there
		s.fault.Store("")
	})
	strict, browser, fresh := report.Lines[0], report.Lines[1], report.Lines[2]
	if strict.Failed == 0 || browser.Failed != 0 || browser.Retried == 0 || fresh.Failed != 0 {
		t.Errorf("strict %+v\nbrowser %+v\nnew %+v", strict, browser, fresh)
	}
	if noticed := report.Noticed(false); len(noticed) != 0 {
		t.Errorf("strict clients count: %q", noticed)
	}
	if noticed := report.Noticed(true); len(noticed) != 1 {
		t.Errorf("strict clients do not count: %q", noticed)
	}
}

// An announced restart of sockets is told and no fault; one without a word is.
func TestCloses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		code int
		want string
		bad  bool
	}{{1012, "1012", false}, {0, "1006", true}, {1011, "1011", true}} {
		t.Run(c.want, func(t *testing.T) {
			t.Parallel()
			s := newSite(t)
			report := s.run(t, s.options(t), func() { s.closeAll(c.code) })
			for _, l := range report.Lines[len(report.Lines)-2:] {
				if l.Closes[c.want] != 8 || (l.Failed > 0) != c.bad {
					t.Errorf("%+v", l)
				}
			}
		})
	}
}

// A site that is not there for a moment is noticed by all.
func TestOutage(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := front.Addr().String()
	go forward(front, s.Listener.Addr().String())
	o := s.options(t)
	o.URL = &url.URL{Scheme: "http", Host: address}
	report := s.run(t, o, func() {
		front.Close()
		s.CloseClientConnections()
		s.closeAll(0)
		time.Sleep(300 * time.Millisecond) // as long as the outage is
		if front, err = net.Listen("tcp", address); err == nil {
			go forward(front, s.Listener.Addr().String())
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer front.Close()
	for _, l := range report.Lines {
		if strings.HasPrefix(l.Client, "slow requests") {
			continue // so few that all may have been lucky
		}
		if l.Failed == 0 {
			t.Errorf("nobody noticed: %+v", l)
		}
	}
	if l := report.Lines[2]; l.Why["refused"] == 0 {
		t.Errorf("new connections were not refused: %+v", l)
	}
}

// A chat in which nobody speaks for long is not one that hangs.
func TestSilentChat(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	o := s.options(t)
	o.Talk, o.Lead = 0.01, 3*time.Second
	report := s.run(t, o, s.sendAway)
	if noticed := report.Noticed(true); len(noticed) > 0 {
		t.Errorf("noticed %q", noticed)
	}
	if chat := report.Lines[len(report.Lines)-1]; chat.Moves != 8 {
		t.Errorf("the chat's clients: %+v", chat)
	}
}

// A site behind TLS is loaded like any other.
func TestTLS(t *testing.T) {
	t.Parallel()
	s := startSite(t, true)
	o := s.options(t)
	if _, err := downtime.Run(t.Context(), o, func(context.Context) error { return nil }); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate that nobody trusts: %v", err)
	}
	o.TLS = &tls.Config{RootCAs: x509.NewCertPool()}
	o.TLS.RootCAs.AddCert(s.Certificate())
	report := s.run(t, o, s.sendAway)
	if noticed := report.Noticed(true); len(noticed) > 0 {
		t.Errorf("noticed %q", noticed)
	}
	if chat := report.Lines[len(report.Lines)-1]; chat.Count < 3 || chat.Moves != 8 {
		t.Errorf("the chat's clients: %+v", chat)
	}
}

// A site that goes away for good is noticed, and waited for no longer than need be.
func TestGoneForGood(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	o := s.options(t)
	o.Slow, o.Upload, o.Post, o.Clients, o.Rooms = "", "", "", 1, 1
	report := s.run(t, o, func() {
		s.Listener.Close()
		s.CloseClientConnections()
		s.closeAll(0)
	})
	for _, l := range report.Lines {
		if l.Failed == 0 {
			t.Errorf("nobody noticed: %+v", l)
		}
	}
}

// forward passes connections on until l is closed.
func forward(l net.Listener, to string) {
	for {
		in, err := l.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", to)
		if err != nil {
			in.Close()
			continue
		}
		go func() { _, _ = io.Copy(out, in); out.Close() }()
		go func() { _, _ = io.Copy(in, out); in.Close() }()
	}
}

// What cannot begin is said before anything is done.
func TestCannotBegin(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	for _, change := range []func(*downtime.Options){
		func(o *downtime.Options) { o.Paths = []string{"/nowhere"} },
		func(o *downtime.Options) { o.Echo = "/nowhere" },
		func(o *downtime.Options) { o.Chat = "/nowhere" },
	} {
		o := s.options(t)
		change(&o)
		_, err := downtime.Run(t.Context(), o, func(context.Context) error {
			t.Error("something is done all the same")
			return nil
		})
		if err == nil || !strings.Contains(err.Error(), "/nowhere") || !strings.Contains(err.Error(), "404") {
			t.Errorf("error is %v", err)
		}
	}
}

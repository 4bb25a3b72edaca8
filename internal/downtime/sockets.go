package downtime

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

const (
	echoEvery = 100 * time.Millisecond
	// hung is how long a socket may say nothing that should.
	hung = 5 * time.Second
	// askEvery is how often a client of the chat asks for a sign of life: a room in
	// which nobody speaks is not one that hangs.
	askEvery = time.Second
	// comeBack spreads those who dial again.
	comeBack = 100 * time.Millisecond
)

// shake dials a WebSocket. What the server calls the client by, in cookies, is
// kept in jar.
func shake(ctx context.Context, site *url.URL, dial dialFunc, jar http.CookieJar, path string, protocols ...string) (*websocket.Conn, error) {
	d := websocket.Dialer{
		HandshakeTimeout: requestTimeout, Subprotocols: protocols, Jar: jar,
	}
	// With https, dial has spoken TLS already.
	d.NetDialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) }
	d.NetDialTLSContext = d.NetDialContext
	origin := site.Scheme + "://" + site.Host
	at, resp, err := d.DialContext(ctx, "ws"+strings.TrimPrefix(origin, "http")+path, http.Header{"Origin": {origin}})
	if err != nil && resp != nil {
		return nil, fmt.Errorf("answer %d", resp.StatusCode)
	}
	return at, err
}

// ended counts how a connection ended: one that hung is none that was closed, and
// one that was closed without a word counts as 1006, as browsers say. A restart that
// is announced is no fault.
func (t *tally) ended(err error) {
	var closed *websocket.CloseError
	var timeout net.Error
	code := websocket.CloseAbnormalClosure
	switch {
	case errors.As(err, &closed):
		code = closed.Code
	case errors.As(err, &timeout) && timeout.Timeout():
		t.blame(fmt.Sprint("hung: nothing came for ", hung))
		return
	}
	t.closed(fmt.Sprint(code))
	switch code {
	case websocket.CloseNormalClosure, websocket.CloseGoingAway, websocket.CloseServiceRestart:
	default:
		t.blame(fmt.Sprint("closed with ", code))
	}
}

// echoes are clients of a WebSocket that sends back what it gets. Each comes back
// when it is closed.
type echoes struct {
	tally
	o    Options
	dial dialFunc
	stop context.CancelFunc
	all  sync.WaitGroup
}

func newEchoes(o Options, dial dialFunc) part { return &echoes{o: o, dial: dial} }

func (e *echoes) begin(ctx context.Context) error {
	ctx, e.stop = context.WithCancel(ctx)
	for range e.o.Echoes {
		at, err := shake(ctx, e.o.URL, e.dial, nil, e.o.Echo)
		if err != nil {
			return fmt.Errorf("%s: %w", e.o.Echo, err)
		}
		e.all.Go(func() { e.person(ctx, at) })
	}
	return nil
}

func (e *echoes) person(ctx context.Context, at *websocket.Conn) {
	heard := time.Now()
	for {
		err := e.talk(ctx, at, &heard)
		at.Close()
		if ctx.Err() != nil {
			return
		}
		e.ended(err)
		for {
			if pause(ctx, rand.N(comeBack)) != nil {
				return
			}
			if at, err = shake(ctx, e.o.URL, e.dial, nil, e.o.Echo); err == nil {
				break
			}
			if ctx.Err() == nil {
				e.blame("dial: " + kind(err))
			}
		}
	}
}

// talk sends and hears until the connection or ctx ends.
func (e *echoes) talk(ctx context.Context, at *websocket.Conn, heard *time.Time) error {
	defer context.AfterFunc(ctx, func() { at.Close() })()
	for n := 0; ; n++ {
		began := time.Now()
		text := fmt.Sprint(n)
		if err := at.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
			// What was said before the end is the close frame.
			_ = at.SetReadDeadline(time.Now().Add(hung))
			if _, _, readErr := at.ReadMessage(); readErr != nil {
				err = readErr
			}
			return err
		}
		if err := at.SetReadDeadline(time.Now().Add(hung)); err != nil {
			return err
		}
		_, back, err := at.ReadMessage()
		if err != nil {
			return err
		}
		if string(back) != text {
			e.blame("another message came back")
		}
		e.quietFor(time.Since(*heard))
		*heard = time.Now()
		e.ok(began, false)
		if err := pause(ctx, echoEvery); err != nil {
			return err
		}
	}
}

func (e *echoes) quiet() {
	e.stop()
	e.all.Wait()
}

func (e *echoes) line() Line {
	return e.tally.line(fmt.Sprintf("%d WebSockets that echo", e.o.Echoes), "echoes")
}

// chatProtocol is the subprotocol of the chat: docs/protocol.md.
const chatProtocol = "chat.v1"

// said is what a frame of the chat can hold.
type said struct {
	T        string            `json:"t"`
	V        int               `json:"v,omitempty"`
	Nick     string            `json:"nick,omitempty"`
	Store    string            `json:"store,omitempty"`
	Cursors  map[string]*int64 `json:"cursors,omitempty"`
	Room     string            `json:"room,omitempty"`
	CID      string            `json:"cid,omitempty"`
	Text     string            `json:"text,omitempty"`
	Seq      int64             `json:"seq,omitempty"`
	Head     int64             `json:"head,omitempty"`
	From     *int64            `json:"from,omitempty"`
	After    int               `json:"after,omitempty"`
	Messages []said            `json:"messages,omitempty"`
}

// talk is people in the rooms of a chat, who say something at intended times.
type talk struct {
	tally
	o      Options
	dial   dialFunc
	people []*person
	stop   context.CancelFunc
	hush   context.CancelFunc
	all    sync.WaitGroup
	spoken sync.WaitGroup

	mu    sync.Mutex
	said  map[string]map[string]bool // by room: what was said
	heads map[string]int64           // by room: the highest number that anybody heard
}

func newTalk(o Options, dial dialFunc) part {
	return &talk{o: o, dial: dial, said: map[string]map[string]bool{}, heads: map[string]int64{}}
}

func (t *talk) begin(ctx context.Context) error {
	ctx, t.stop = context.WithCancel(ctx)
	run := time.Now().UnixNano()
	for i := range t.o.Clients {
		jar, err := cookiejar.New(nil)
		if err != nil {
			return err
		}
		p := &person{
			jar:  jar,
			talk: t, room: fmt.Sprintf("verify-%d-%d", run%1e9, i%max(t.o.Rooms, 1)), nick: fmt.Sprint("p", i),
			say: make(chan spoken, 64), arrivals: make(chan arrival, 64), ready: make(chan struct{}), heard: map[string]bool{},
		}
		if err := p.connect(ctx); err != nil {
			return fmt.Errorf("%s: %w", t.o.Chat, err)
		}
		t.people = append(t.people, p)
		t.all.Go(func() { p.live(ctx) })
	}
	for _, p := range t.people {
		select {
		case <-p.ready:
		case <-time.After(requestTimeout):
			return fmt.Errorf("%s: no welcome", t.o.Chat)
		}
	}
	speaking, hush := context.WithCancel(ctx)
	t.hush = hush
	t.spoken.Go(func() {
		every(speaking, time.Duration(float64(time.Second)/t.o.Talk), func(n int, intended time.Time) {
			// Neighbours are in different rooms, so each room hears something at an even pace.
			select {
			case t.people[n%len(t.people)].say <- spoken{intended, n}:
			case <-ctx.Done():
				t.blame("message not said: no connection")
			}
		})
	})
	return nil
}

// quiet waits until all have heard what was said, or nothing comes any more.
func (t *talk) quiet() {
	t.hush()
	defer time.AfterFunc(hung, t.stop).Stop() // where there is no site any more, nobody takes what is to be said
	t.spoken.Wait()
	for deadline := time.Now().Add(hung); time.Now().Before(deadline) && !t.allHeard(); {
		time.Sleep(comeBack / 2)
	}
	t.stop()
	t.all.Wait()
	for _, p := range t.people {
		t.audit(p)
	}
}

func (t *talk) allHeard() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.people {
		if p.count() < len(t.said[p.room]) {
			return false
		}
	}
	return true
}

// audit finds what the person has not heard.
func (t *talk) audit(p *person) {
	for text := range t.said[p.room] {
		if !p.heard[text] {
			t.blame("message lost")
		}
	}
}

func (t *talk) line() Line {
	return t.tally.line(fmt.Sprintf("%d chat clients, %d rooms", t.o.Clients, max(t.o.Rooms, 1)), "messages heard")
}

// spoken is something to say, and when it should have been.
type spoken struct {
	intended time.Time
	n        int
}

// arrival is what came on one of a person's connections.
type arrival struct {
	from  *websocket.Conn
	frame said
	err   error
}

// person is one client of the chat, who behaves as the page does: on go it dials
// anew and leaves the old connection when the new one has welcomed it; on a close
// it comes back. Either way it names its cursor, and says again what is not
// acknowledged.
type person struct {
	*talk
	room, nick string
	say        chan spoken
	arrivals   chan arrival
	ready      chan struct{}
	jar        http.CookieJar

	current, next *websocket.Conn
	store         string
	cursor        int64
	known         bool                      // the cursor is one
	highest       map[*websocket.Conn]int64 // number that came on a connection
	unacked       []said
	last          time.Time // when something was heard last

	counting sync.Mutex
	heard    map[string]bool
}

func (p *person) count() int {
	p.counting.Lock()
	defer p.counting.Unlock()
	return len(p.heard)
}

func (p *person) connect(ctx context.Context) error {
	at, err := shake(ctx, p.o.URL, p.dial, p.jar, p.o.Chat, chatProtocol)
	if err != nil {
		return err
	}
	p.next = at
	hello := said{T: "hello", V: 1, Nick: p.nick, Store: p.store, Cursors: map[string]*int64{p.room: nil}}
	if p.known {
		cursor := p.cursor
		hello.Cursors[p.room] = &cursor
	}
	go p.read(ctx, at)
	return at.WriteJSON(hello)
}

func (p *person) read(ctx context.Context, at *websocket.Conn) {
	defer context.AfterFunc(ctx, func() { at.Close() })()
	for {
		var a arrival
		a.from = at
		_ = at.SetReadDeadline(time.Now().Add(hung)) // it fails at the next read
		_, data, err := at.ReadMessage()
		if err == nil {
			err = json.Unmarshal(data, &a.frame)
		}
		a.err = err
		select {
		case p.arrivals <- a:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

func (p *person) live(ctx context.Context) {
	p.highest = map[*websocket.Conn]int64{}
	ask := time.NewTicker(askEvery)
	defer ask.Stop()
	for {
		say := p.say
		if p.current == nil {
			say = nil
		}
		select {
		case <-ctx.Done():
			for _, at := range []*websocket.Conn{p.current, p.next} {
				if at != nil {
					at.Close()
				}
			}
			return
		case s := <-say:
			p.speak(s)
		case <-ask.C:
			if p.current != nil {
				_ = p.current.WriteJSON(said{T: "ping"}) // else reading fails, too
			}
		case a := <-p.arrivals:
			p.take(ctx, a)
		}
	}
}

func (p *person) speak(s spoken) {
	text := fmt.Sprintf("%s says %d at %d", p.nick, s.n, s.intended.UnixNano())
	f := said{T: "send", Room: p.room, CID: fmt.Sprintf("%s-%d", p.nick, s.n), Text: text}
	p.talk.mu.Lock()
	if p.said[p.room] == nil {
		p.said[p.room] = map[string]bool{}
	}
	p.said[p.room][text] = true
	p.talk.mu.Unlock()
	p.unacked = append(p.unacked, f)
	_ = p.current.WriteJSON(f) // else it is said again on the next
}

func (p *person) take(ctx context.Context, a arrival) {
	if a.from != p.current && a.from != p.next {
		return // it was left
	}
	if a.err != nil {
		p.lost(ctx, a)
		return
	}
	f := a.frame
	switch f.T {
	case "welcome":
		p.store = f.Store
		p.promote()
	case "joined":
		if f.From != nil && !p.known {
			p.cursor, p.known = *f.From, true
			close(p.ready)
		}
	case "ev":
		p.hear(a.from, f)
	case "fill":
		for _, m := range f.Messages {
			p.hear(a.from, m)
		}
	case "ack":
		p.unacked = slices.DeleteFunc(p.unacked, func(u said) bool { return u.CID == f.CID })
	case "go":
		if p.next == nil {
			p.again(ctx)
		}
	}
}

// lost comes back after a connection ended that was not left.
func (p *person) lost(ctx context.Context, a arrival) {
	a.from.Close()
	delete(p.highest, a.from)
	if a.from == p.next {
		p.next = nil
		if p.current != nil {
			p.again(ctx)
			return
		}
	}
	if a.from == p.current {
		p.current = nil
	}
	if ctx.Err() != nil {
		return
	}
	p.ended(a.err)
	if p.next == nil {
		p.again(ctx)
	}
}

// again dials until it succeeds.
func (p *person) again(ctx context.Context) {
	for {
		err := p.connect(ctx)
		if err == nil || ctx.Err() != nil {
			return
		}
		if p.current == nil {
			p.blame("dial: " + kind(err))
		}
		if pause(ctx, rand.N(comeBack)) != nil {
			return
		}
	}
}

func (p *person) promote() {
	if p.current != nil {
		p.moved()
		bye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
		_ = p.current.WriteControl(websocket.CloseMessage, bye, time.Now().Add(hung)) // or it is gone already
		p.current.Close()
		delete(p.highest, p.current)
	}
	p.current, p.next = p.next, nil
	for _, f := range p.unacked {
		_ = p.current.WriteJSON(f) // else it is said again on the next
	}
}

// hear takes a message: what came on the old connection and on the new is one, and
// what comes twice on one of them is none.
func (p *person) hear(from *websocket.Conn, m said) {
	if m.Seq <= p.highest[from] {
		p.blame("message again or out of order on one connection")
		return
	}
	p.highest[from] = m.Seq
	if m.Seq <= p.cursor {
		return
	}
	if m.Seq > p.cursor+1 {
		p.blame("message missing or out of order")
	}
	p.cursor = m.Seq
	now := time.Now()
	if !p.last.IsZero() {
		p.quietFor(now.Sub(p.last))
	}
	p.last = now
	var who string
	var n int
	var at int64
	if _, err := fmt.Sscanf(m.Text, "%s says %d at %d", &who, &n, &at); err != nil {
		p.blame("message of somebody else")
		return
	}
	p.counting.Lock()
	twice := p.heard[m.Text]
	p.heard[m.Text] = true
	p.counting.Unlock()
	if twice {
		p.blame("message doubled")
		return
	}
	p.ok(time.Unix(0, at), false)
}

package chattest

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"bareboat/chat/protocol"

	"github.com/gorilla/websocket"
)

// Roamer is a client in one room that goes where it is sent, as the page does:
// when the server says go it dials anew, says hello with its cursor, and closes
// the old connection once the new one has welcomed it. What is not acknowledged
// then is sent again. It never comes back by itself from a close.
type Roamer struct {
	Room string
	Nick string
	Dial func(context.Context) (*Client, error)

	// Heard is told each message once, in order. It may call Send.
	Heard func(protocol.Message)

	Moves int // how often it went

	cursor  int64
	unacked []protocol.Frame // oldest first
	current *Client
	next    *Client
	frames  chan arrival
}

// arrival is what came on one of the connections.
type arrival struct {
	from  *Client
	frame Reply
	err   error
}

// Run talks until ctx ends, which is no error. say gives what to send. A close
// that the roamer did not ask for is an error, and so is a gap.
func (r *Roamer) Run(ctx context.Context, say <-chan string) error {
	r.frames = make(chan arrival)
	defer func() {
		for _, c := range []*Client{r.current, r.next} {
			if c != nil {
				c.Close()
			}
		}
	}()
	if err := r.dial(ctx); err != nil {
		return err
	}
	for n := 0; ; {
		speak := say
		if r.current == nil {
			speak = nil
		}
		select {
		case <-ctx.Done():
			return nil
		case text := <-speak:
			n++
			if err := r.send(protocol.Frame{T: "send", Room: r.Room, CID: fmt.Sprint(r.Nick, n), Text: text}); err != nil {
				return err
			}
		case a := <-r.frames:
			if err := r.take(ctx, a); err != nil {
				return err
			}
		}
	}
}

func (r *Roamer) send(f protocol.Frame) error {
	r.unacked = append(r.unacked, f)
	return r.current.Say(f)
}

// dial begins the next connection.
func (r *Roamer) dial(ctx context.Context) error {
	c, err := r.Dial(ctx)
	if err != nil {
		return err
	}
	r.next = c
	go r.read(ctx, c)
	return c.Hello(r.Nick, map[string]*int64{r.Room: At(r.cursor)})
}

func (r *Roamer) read(ctx context.Context, c *Client) {
	for {
		frame, err := c.Read()
		select {
		case r.frames <- arrival{c, frame, err}:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

func (r *Roamer) take(ctx context.Context, a arrival) error {
	if a.from != r.current && a.from != r.next {
		return nil // it was left
	}
	if a.err != nil {
		return fmt.Errorf("%s was not asked to leave: %w", r.Nick, a.err)
	}
	for _, m := range a.frame.Said() {
		if err := r.hear(m); err != nil {
			return err
		}
	}
	switch a.frame.T {
	case "welcome":
		return r.promote()
	case "ack":
		r.unacked = slices.DeleteFunc(r.unacked, func(f protocol.Frame) bool { return f.CID == a.frame.CID })
	case "go":
		if r.next == nil {
			return r.dial(ctx)
		}
	}
	return nil
}

// promote leaves the old connection for the new one.
func (r *Roamer) promote() error {
	if r.current != nil {
		r.Moves++
		bye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
		if err := r.current.Conn.WriteMessage(websocket.CloseMessage, bye); err != nil {
			return err
		}
		r.current.Close()
	}
	r.current, r.next = r.next, nil
	for _, f := range r.unacked {
		if err := r.current.Say(f); err != nil {
			return err
		}
	}
	return nil
}

var errGap = errors.New("a message is missing")

func (r *Roamer) hear(m protocol.Message) error {
	switch {
	case m.Seq <= r.cursor:
		return nil // it came on both
	case m.Seq > r.cursor+1:
		return fmt.Errorf("%s: %w: %d followed %d", r.Nick, errGap, m.Seq, r.cursor)
	}
	r.cursor = m.Seq
	r.Heard(m)
	return nil
}

// Package chattest is a client of chat.v1 for tests.
package chattest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"bareboat/chat/protocol"

	"github.com/gorilla/websocket"
)

// patience is how long a client waits for a frame.
const patience = 20 * time.Second

// Reply is any frame of the server; which fields count depends on T.
type Reply struct {
	protocol.Message
	T        string             `json:"t"`
	Room     string             `json:"room"`
	Release  string             `json:"release"`
	Store    string             `json:"store"`
	From     int64              `json:"from"`
	Head     int64              `json:"head"`
	Before   int64              `json:"before"`
	More     bool               `json:"more"`
	Messages []protocol.Message `json:"messages"`
	N        int                `json:"n"`
	Members  []protocol.Member  `json:"members"`
	Code     string             `json:"code"`
	Limits   protocol.Limits    `json:"limits"`
}

// Said gives the messages that an ev or a fill carries.
func (r Reply) Said() []protocol.Message {
	switch r.T {
	case "ev":
		return []protocol.Message{r.Message}
	case "fill":
		return r.Messages
	}
	return nil
}

// Client is one connection.
type Client struct {
	Conn *websocket.Conn
}

// Dial connects to address, like http://HOST/ws, with header.
func Dial(ctx context.Context, address string, header http.Header) (*Client, *http.Response, error) {
	return DialWith(ctx, &websocket.Dialer{}, address, header)
}

// DialWith is Dial with a dialer of one's own.
func DialWith(ctx context.Context, dialer *websocket.Dialer, address string, header http.Header) (*Client, *http.Response, error) {
	dialer.Subprotocols = []string{protocol.Name}
	conn, response, err := dialer.DialContext(ctx, "ws"+strings.TrimPrefix(address, "http"), header)
	if err != nil {
		return nil, response, err
	}
	return &Client{conn}, response, nil
}

// At makes a cursor.
func At(seq int64) *int64 { return &seq }

// Hello says hello with cursors.
func (c *Client) Hello(nick string, cursors map[string]*int64) error {
	return c.Say(protocol.Frame{T: "hello", V: protocol.Version, Nick: nick, Cursors: cursors})
}

// Send sends a message.
func (c *Client) Send(room, cid, text string) error {
	return c.Say(protocol.Frame{T: "send", Room: room, CID: cid, Text: text})
}

// Say writes any frame.
func (c *Client) Say(f protocol.Frame) error { return c.Conn.WriteJSON(f) }

// Read gives the next frame.
func (c *Client) Read() (Reply, error) {
	var r Reply
	if err := c.Conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return r, err
	}
	_, data, err := c.Conn.ReadMessage()
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("read %s: %w", data, err)
	}
	return r, nil
}

// Await reads until a frame fits.
func (c *Client) Await(fits func(Reply) bool) (Reply, error) {
	for {
		r, err := c.Read()
		if err != nil || fits(r) {
			return r, err
		}
	}
}

// AwaitType reads until a frame of that type.
func (c *Client) AwaitType(t string) (Reply, error) {
	return c.Await(func(r Reply) bool { return r.T == t })
}

// AwaitClose reads until the server closes, and gives its code.
func (c *Client) AwaitClose() (int, error) {
	_, err := c.Await(func(Reply) bool { return false })
	var closed *websocket.CloseError
	if errors.As(err, &closed) {
		return closed.Code, nil
	}
	return 0, err
}

// Follow reads messages until it has the one with number last. It fails
// unless they follow after without a gap or a double.
func (c *Client) Follow(after, last int64) ([]protocol.Message, error) {
	var all []protocol.Message
	for at := after; at < last; {
		r, err := c.Read()
		if err != nil {
			return all, fmt.Errorf("after number %d: %w", at, err)
		}
		for _, m := range r.Said() {
			if m.Seq != at+1 {
				return all, fmt.Errorf("number %d followed %d", m.Seq, at)
			}
			at++
			all = append(all, m)
		}
	}
	return all, nil
}

// Close leaves.
func (c *Client) Close() { _ = c.Conn.Close() }

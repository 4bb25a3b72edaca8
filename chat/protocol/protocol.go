// Package protocol is chat.v1, what a page and a server say to each other over
// a WebSocket. docs/protocol.md describes it for people.
//
// Its words:
//
//   - A frame is one JSON object in one text message; its field "t" says what
//     it is. Frames and fields that a reader does not know are ignored, since
//     two releases talk to the same pages.
//   - A cursor is the sequence number up to which a client has all messages of
//     a room.
//   - A cid is the name that a client gives to a message before it sends it.
package protocol

import "time"

// Name is the WebSocket subprotocol, and Version what a hello carries.
const (
	Name    = "chat.v1"
	Version = 1
)

// Close codes of the server.
const (
	CloseRestart   = 1012 // the server stops; come back at once
	CloseTryLater  = 1013 // the server is full; come back later
	CloseSlow      = 4008 // the client reads too slowly; come back with its cursors
	CloseTooFast   = 4029 // the client sent more frames than it may
	CloseBadFrame  = 4400 // what the client said is not chat.v1
	CloseNoHello   = 4401 // the client did not say hello in time
	CloseBadUTF8   = 1007 // a text message is not UTF-8
	CloseTooBig    = 1009 // a message is longer than MaxFrame
	CloseNotServed = 1011 // the server cannot read its store
)

// Limits of what a client may send.
const (
	MaxFrame = 32 << 10 // bytes of one frame
	MaxText  = 4000     // characters of a message
	MaxNick  = 32       // characters of a nickname
	MaxRoom  = 32       // characters of a room's name
	MaxCID   = 64       // characters of a cid
	MaxRooms = 32       // rooms in one hello
	MaxFill  = 100      // messages in one fill
)

// Codes of an error frame.
const (
	CodeText        = "text"        // the message is empty or too long; do not send it again
	CodeRoom        = "room"        // the session is not in that room
	CodeUnavailable = "unavailable" // the store did not take the message; send it again later
)

// Message is one thing said, as frames carry it.
type Message struct {
	Seq  int64  `json:"seq"`
	At   int64  `json:"at"` // milliseconds since 1970
	User string `json:"user"`
	Nick string `json:"nick"`
	CID  string `json:"cid"`
	Text string `json:"text"`
}

// Member is one user in a room.
type Member struct {
	User string `json:"user"`
	Nick string `json:"nick"`
}

// Welcome answers a hello.
type Welcome struct {
	T       string `json:"t"`
	V       int    `json:"v"`
	Release string `json:"release,omitempty"` // which release serves
	Store   string `json:"store"`             // cursors hold for this store only
	User    string `json:"user"`              // who the client is to the others
	Nick    string `json:"nick"`              // and under which name
	Limits  Limits `json:"limits"`
}

// Limits tells a client what it may send.
type Limits struct {
	Text  int     `json:"text"`  // characters of a message
	Nick  int     `json:"nick"`  // characters of a nickname
	Rate  float64 `json:"rate"`  // frames a second
	Burst int     `json:"burst"` // frames at once
}

// Joined says that the messages of a room come now: everything after From, in
// order. From is the client's cursor, or what precedes the newest messages when
// it had none that holds.
type Joined struct {
	T    string `json:"t"`
	Room string `json:"room"`
	From int64  `json:"from"`
	Head int64  `json:"head"`
}

// Event is a message that was just said.
type Event struct {
	T    string `json:"t"`
	Room string `json:"room"`
	Message
}

// Fill carries messages that were said before. Before is that of the fill
// frame which it answers, or 0 when it brings a joining client up to date.
type Fill struct {
	T        string    `json:"t"`
	Room     string    `json:"room"`
	Before   int64     `json:"before,omitempty"`
	Messages []Message `json:"messages"`
	More     bool      `json:"more"` // in an answer: the room has older ones still
}

// Ack says that a message is on disk.
type Ack struct {
	T    string `json:"t"`
	CID  string `json:"cid"`
	Room string `json:"room"`
	Seq  int64  `json:"seq"`
	At   int64  `json:"at"`
}

// Who says who is in a room: how many users, and some of them.
type Who struct {
	T       string   `json:"t"`
	Room    string   `json:"room"`
	N       int      `json:"n"`
	Members []Member `json:"members"`
}

// Error says why one frame had no effect. The connection goes on.
type Error struct {
	T       string `json:"t"`
	Code    string `json:"code"`
	Message string `json:"message"`
	Room    string `json:"room,omitempty"`
	CID     string `json:"cid,omitempty"`
}

// Pong answers a ping.
type Pong struct {
	T string `json:"t"`
}

// Go asks the client to dial a new connection with its cursors within After
// milliseconds, and to close this one once the new one has answered.
type Go struct {
	T     string `json:"t"`
	After int64  `json:"after"`
}

// NewWelcome sets the frame's "t" and "v"; the functions after it set "t".
func NewWelcome(w Welcome) Welcome {
	w.T, w.V = "welcome", Version
	return w
}

// NewJoined makes a Joined frame.
func NewJoined(room string, from, head int64) Joined { return Joined{"joined", room, from, head} }

// NewEvent makes an Event frame.
func NewEvent(room string, m Message) Event { return Event{"ev", room, m} }

// NewFill makes a Fill frame.
func NewFill(room string, before int64, messages []Message, more bool) Fill {
	if messages == nil {
		messages = []Message{}
	}
	return Fill{"fill", room, before, messages, more}
}

// NewAck makes an Ack frame.
func NewAck(cid, room string, seq int64, at time.Time) Ack {
	return Ack{"ack", cid, room, seq, at.UnixMilli()}
}

// NewWho makes a Who frame.
func NewWho(room string, n int, members []Member) Who {
	if members == nil {
		members = []Member{}
	}
	return Who{"who", room, n, members}
}

// NewError makes an Error frame.
func NewError(code, message, room, cid string) Error {
	return Error{"error", code, message, room, cid}
}

// NewPong makes a Pong frame.
func NewPong() Pong { return Pong{"pong"} }

// NewGo makes a Go frame.
func NewGo(after time.Duration) Go { return Go{"go", after.Milliseconds()} }

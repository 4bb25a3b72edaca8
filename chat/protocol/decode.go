package protocol

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ErrFrame says that a frame is not one of chat.v1.
var ErrFrame = errors.New("not a chat.v1 frame")

// ErrText says that a message is empty or too long. It concerns that message
// alone, and so does not end the connection.
var ErrText = fmt.Errorf("a message has 1 to %d characters and is not blank", MaxText)

// Frame is what a client says; which fields count depends on T.
type Frame struct {
	T       string            `json:"t"`
	V       int               `json:"v,omitempty"`       // hello
	Nick    string            `json:"nick,omitempty"`    // hello, nick
	Store   string            `json:"store,omitempty"`   // hello: where the cursors come from
	Cursors map[string]*int64 `json:"cursors,omitempty"` // hello: the rooms to join; null asks for the newest messages only
	CID     string            `json:"cid,omitempty"`     // send
	Room    string            `json:"room,omitempty"`    // send, fill
	Text    string            `json:"text,omitempty"`    // send
	Before  int64             `json:"before,omitempty"`  // fill: an upper bound, exclusive
	Limit   int               `json:"limit,omitempty"`   // fill: how many, at most MaxFill
}

// Decode reads what a client sent. The error is ErrText, with the frame, when
// only the message's text is at fault; else it matches ErrFrame. A frame of a
// type that is not known is not an error.
func Decode(data []byte) (Frame, error) {
	var f Frame
	if !utf8.Valid(data) {
		return Frame{}, fmt.Errorf("%w: not UTF-8", ErrFrame)
	}
	err := json.Unmarshal(data, &f)
	if mismatch := new(json.UnmarshalTypeError); errors.As(err, &mismatch) && f.T != "" && !known(f.T) {
		return Frame{T: f.T}, nil // its fields mean something else
	}
	if err != nil {
		return Frame{}, fmt.Errorf("%w: %w", ErrFrame, err)
	}
	if f.T == "" {
		return Frame{}, fmt.Errorf("%w: it has no type", ErrFrame)
	}
	err = f.check()
	if err != nil && !errors.Is(err, ErrText) {
		return Frame{}, err
	}
	return f, err
}

func known(t string) bool {
	switch t {
	case "hello", "send", "fill", "nick", "ping":
		return true
	}
	return false
}

func (f *Frame) check() error {
	switch f.T {
	case "hello":
		f.Nick = CleanNick(f.Nick)
		return f.checkHello()
	case "nick":
		f.Nick = CleanNick(f.Nick)
	case "send":
		return f.checkSend()
	case "fill":
		if !ValidRoom(f.Room) || f.Before < 1 || f.Limit < 0 {
			return fmt.Errorf("%w: a fill names a room, a bound of at least 1 and a limit", ErrFrame)
		}
		if f.Limit == 0 || f.Limit > MaxFill {
			f.Limit = MaxFill
		}
	}
	return nil
}

func (f *Frame) checkHello() error {
	if f.V != Version {
		return fmt.Errorf("%w: version %d is not spoken here", ErrFrame, f.V)
	}
	if len(f.Cursors) == 0 || len(f.Cursors) > MaxRooms {
		return fmt.Errorf("%w: a hello names 1 to %d rooms", ErrFrame, MaxRooms)
	}
	for room, cursor := range f.Cursors {
		if !ValidRoom(room) || cursor != nil && *cursor < 0 {
			return fmt.Errorf("%w: a cursor has a room's name and a number from 0", ErrFrame)
		}
	}
	return nil
}

func (f *Frame) checkSend() error {
	if !ValidRoom(f.Room) || !validCID(f.CID) {
		return fmt.Errorf("%w: a send names a room and a cid", ErrFrame)
	}
	if utf8.RuneCountInString(f.Text) > MaxText || strings.TrimSpace(f.Text) == "" {
		return ErrText
	}
	return nil
}

// ValidRoom tells whether a room can have that name: lower-case Latin letters,
// digits, "-" and "_", the first a letter or digit.
func ValidRoom(name string) bool {
	if name == "" || len(name) > MaxRoom || name[0] == '-' || name[0] == '_' {
		return false
	}
	for _, c := range []byte(name) {
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

func validCID(cid string) bool {
	if cid == "" || len(cid) > MaxCID {
		return false
	}
	for _, c := range []byte(cid) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return true
}

// CleanNick makes a nickname fit to show in one line: no control characters,
// none that turn the direction of the text, single spaces, at most MaxNick
// characters. Nothing may be left.
func CleanNick(nick string) string {
	const joiner = '\u200d' // holds emoji together, and is nothing at an end
	nick = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return ' '
		}
		if unicode.IsControl(r) || unicode.Is(unicode.Cf, r) && r != joiner {
			return -1
		}
		return r
	}, nick)
	runes := []rune(strings.Join(strings.Fields(nick), " "))
	return strings.Trim(string(runes[:min(len(runes), MaxNick)]), " "+string(joiner))
}

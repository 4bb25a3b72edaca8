// Package store keeps what was said in the rooms of the chat.
//
// Its words:
//
//   - A message is what one user said in one room. It is durable: once it is
//     acknowledged it outlives any crash of the process.
//   - A sequence number orders the messages of one room. It starts at 1 and has
//     no gaps, whichever and however many processes append.
//   - A head is the highest sequence number of a room, 0 for an empty one.
//   - A cid is the name that the sender gave a message. A user and a cid name
//     one message for ever, so sending it again changes nothing.
//   - A process is one running server. Several share one store while one
//     release takes over from another.
//   - Attendance is who one process sees in a room. It is lent, not kept: it
//     expires unless the process prolongs it, so a killed process leaves no
//     ghosts.
package store

import (
	"context"
	"errors"
	"time"
)

// ErrClosed is given to whoever appends to a store that was closed.
var ErrClosed = errors.New("store is closed")

// ErrNewerSchema says that the data was written by a newer program in a way
// that this one cannot read.
var ErrNewerSchema = errors.New("schema is newer than this program reads")

// ErrForeign says that the file holds something that is not a chat.
var ErrForeign = errors.New("not a chat database")

// Message is one thing said. The store sets Seq and At; the sender sets the rest.
type Message struct {
	Room string
	Seq  int64
	User string
	CID  string
	Nick string
	Text string
	At   time.Time // when it was stored, to the millisecond
}

// Member is one user in a room, under the name to show.
type Member struct {
	User string `json:"user"`
	Nick string `json:"nick"`
}

// Attendance is who is in a room: how many users, and at least the first of
// them by name. The zero value is an empty room.
type Attendance struct {
	N       int      `json:"n"`
	Members []Member `json:"members"`
}

// Log is the messages of all rooms.
type Log interface {
	// ID names this set of data for as long as it exists. A client that holds
	// cursors into another set must not use them here.
	ID() string

	// Append stores m behind the newest message of its room. It waits only
	// while too many others are queued. done is called exactly once: with the
	// stored message after it is on disk, or with an error. A message that the
	// same user already sent under the same cid is not stored again; done gets
	// the one that is there. Appends from one goroutine are stored in their
	// order. done runs on the store's own goroutine and must not block.
	Append(ctx context.Context, m Message, done func(Message, error))

	// After gives at most limit messages of room with a sequence number above
	// seq, oldest first.
	After(ctx context.Context, room string, seq int64, limit int) ([]Message, error)

	// Before gives the newest messages of room with a sequence number below
	// seq, at most limit, oldest first.
	Before(ctx context.Context, room string, seq int64, limit int) ([]Message, error)

	// Heads gives the head of each of the rooms that has messages.
	Heads(ctx context.Context, rooms []string) (map[string]int64, error)
}

// Presence is who is where, as the processes tell each other.
type Presence interface {
	// Attend replaces what process says of the rooms named, and lends all that
	// it says until the given time. An empty attendance takes a room back.
	Attend(ctx context.Context, process string, rooms map[string]Attendance, until time.Time) error

	// Attendance gives, by room, what every process but one says at now.
	Attendance(ctx context.Context, except string, now time.Time) (map[string][]Attendance, error)
}

// Store is everything that the chat keeps. It may be used by many goroutines.
type Store interface {
	Log
	Presence

	// Check writes something and waits until it is on disk.
	Check(ctx context.Context) error

	// Close waits for what is queued and releases the data.
	Close() error
}

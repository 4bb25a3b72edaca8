// Package store is the folder that the embedded registry keeps: who owns it,
// and what is in it, for those who need not run the registry to know.
//
// The owner of a store is the one process that has it open. It holds a lock that
// the kernel drops when it ends, and leaves a note of who it is and where it
// serves, so that others can go through it.
package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	lockFile  = "lock"
	ownerFile = "owner.json"
)

// ExitLocked is the exit code by which the registry's program says, to whoever
// has started it, that another process owns the store.
const ExitLocked = 6

// LockedError tells that another process owns a store.
type LockedError struct {
	Dir string // the store
	// PID is the owner's process, 0 if that cannot be told, as when the owner
	// has only just begun.
	PID int
	// Addr is where the owner serves the store, HOST:PORT; empty while it
	// does not serve.
	Addr    string
	Started time.Time // when the owner opened the store
}

func (e *LockedError) Error() string {
	who := "another process"
	if e.PID != 0 {
		who = fmt.Sprintf("process %d", e.PID)
	}
	if e.Addr != "" {
		who += ", which serves it at " + e.Addr
	}
	return fmt.Sprintf("open registry store %s: in use by %s", e.Dir, who)
}

// owner is what owner.json holds. The lock is what counts; the file only tells
// others whom to ask.
type owner struct {
	PID     int       `json:"pid"`
	Addr    string    `json:"addr,omitempty"`
	Started time.Time `json:"started"`
}

// Lock is the ownership of a store.
type Lock struct {
	dir  string
	file *os.File

	mu   sync.Mutex
	note owner
	gone bool
}

// Acquire takes the store in dir, a folder that is there. When another process
// has it the error is a *LockedError. The kernel drops the lock when the process
// ends, however that happens.
func Acquire(dir string) (*Lock, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open registry store %s: %w", dir, err)
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, errors.Join(lockedBy(dir), f.Close())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock registry store %s: %w", dir, err), f.Close())
	}
	l := &Lock{dir: dir, file: f, note: owner{PID: os.Getpid(), Started: time.Now().UTC()}}
	if err := l.Announce(""); err != nil {
		return nil, errors.Join(err, l.Release())
	}
	return l, nil
}

// Release lets go of the lock, the owner's note first: between the two the
// store has an owner that nobody can name, never a note without an owner.
func (l *Lock) Release() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone = true
	err := os.Remove(filepath.Join(l.dir, ownerFile))
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, l.file.Close())
}

// Announce writes the owner's note, with the address where the store is served.
func (l *Lock) Announce(addr string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone {
		return nil // the note is another owner's
	}
	note := l.note
	note.Addr = addr
	text, err := json.Marshal(note)
	if err != nil {
		return err
	}
	path := filepath.Join(l.dir, ownerFile)
	temporary := path + ".new"
	err = os.WriteFile(temporary, text, 0o600)
	if err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		return fmt.Errorf("note the owner of registry store %s: %w", l.dir, err)
	}
	return nil
}

// lockedBy reads the owner's note. A note whose process is gone is one that a
// killed owner left behind and the new one has not replaced yet.
func lockedBy(dir string) *LockedError {
	locked := &LockedError{Dir: dir}
	text, err := os.ReadFile(filepath.Join(dir, ownerFile))
	if err != nil {
		return locked
	}
	note, err := parseOwner(text)
	if err != nil || errors.Is(unix.Kill(note.PID, 0), unix.ESRCH) {
		return locked
	}
	locked.PID, locked.Addr, locked.Started = note.PID, note.Addr, note.Started
	return locked
}

func parseOwner(text []byte) (owner, error) {
	var note owner
	if err := json.Unmarshal(text, &note); err != nil {
		return owner{}, err
	}
	if note.PID <= 0 {
		return owner{}, fmt.Errorf("process %d", note.PID)
	}
	return note, nil
}

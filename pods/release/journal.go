package release

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Entry is one line of a project's journal: what was done to it. A release has one
// when it begins and one when it ends.
type Entry struct {
	Time     time.Time         `json:"time"`
	Event    string            `json:"event"` // begun, done, failed
	Release  int               `json:"release"`
	Serving  int               `json:"serving"`            // that serves after it; at the beginning, before
	Who      string            `json:"who"`                // USER@HOST
	Command  string            `json:"command"`            // such as "bareboat up"
	Revision string            `json:"revision,omitempty"` // of the source
	Images   map[string]string `json:"images,omitempty"`   // by service, NAME@DIGEST
	Seconds  float64           `json:"seconds,omitempty"`  // that it took
	Error    string            `json:"error,omitempty"`

	// Before is the SHA-256 of the line before, so that a line that was changed or
	// taken out is found. The first line has none.
	Before string `json:"before"`
}

// The events of a journal.
const (
	EventBegun  = "begun"
	EventDone   = "done"
	EventFailed = "failed"
)

// BrokenJournalError says that a journal is not as it was written.
type BrokenJournalError struct {
	File string
	Line int // from 1
}

func (e *BrokenJournalError) Error() string {
	return fmt.Sprintf("%s: line %d does not follow the line before: the journal was changed", e.File, e.Line)
}

// Journal is the history of a project. It remembers, and decides nothing: losing it
// loses no state.
type Journal struct{ file string }

// NewJournal is that of the project whose state is in dir.
func NewJournal(dir string) Journal { return Journal{filepath.Join(dir, "journal.jsonl")} }

// Entries reads the journal. What a crash left of a last line is left out. With a
// *BrokenJournalError come all lines that can be read.
func (j Journal) Entries() ([]Entry, error) {
	text, err := j.read()
	if err != nil {
		return nil, err
	}
	var list []Entry
	var broken error
	before := ""
	for n, line := range whole(text) {
		var e Entry
		if json.Unmarshal(line, &e) != nil || e.Before != before {
			broken = errors.Join(broken, &BrokenJournalError{j.file, n + 1})
		}
		list = append(list, e)
		before = sumOf(line)
	}
	return list, broken
}

func (j Journal) read() ([]byte, error) {
	text, err := os.ReadFile(j.file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the journal: %w", err)
	}
	return text, nil
}

// whole gives the lines that end.
func whole(text []byte) [][]byte {
	end := bytes.LastIndexByte(text, '\n')
	if end < 0 {
		return nil
	}
	return bytes.Split(text[:end], []byte("\n"))
}

func sumOf(line []byte) string {
	sum := sha256.Sum256(line)
	return hex.EncodeToString(sum[:])
}

// Append writes an entry behind the others. The project has to be locked.
func (j Journal) Append(e Entry) error {
	text, err := j.read()
	if err != nil {
		return err
	}
	if lines := whole(text); len(lines) > 0 {
		e.Before = sumOf(lines[len(lines)-1])
	}
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	if err := j.append(int64(bytes.LastIndexByte(text, '\n')+1), append(line, '\n')); err != nil {
		return fmt.Errorf("write the journal: %w", err)
	}
	return nil
}

// append writes behind the last whole line, over what a crash left.
func (j Journal) append(at int64, line []byte) (err error) {
	f, err := os.OpenFile(j.file, os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := f.Truncate(at); err != nil {
		return err
	}
	if _, err := f.WriteAt(line, at); err != nil {
		return err
	}
	return f.Sync()
}

package release

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Holder is who holds a lock.
type Holder struct {
	PID     int       `json:"pid"`
	User    string    `json:"user"`
	Host    string    `json:"host"`
	Doing   string    `json:"doing"` // the command
	Started time.Time `json:"started"`
}

// String says who it is and what they do.
func (h Holder) String() string {
	return fmt.Sprintf("%s runs (process %d of %s on %s, since %s)", h.Doing, h.PID, h.User, h.Host, h.Started.Local().Format(time.TimeOnly))
}

// LockHolder tells whether the project whose state is in dir is locked now, and by
// whom. It asks the kernel's list: trying the lock would keep others from it.
func LockHolder(dir string) (Holder, bool) {
	path := filepath.Join(dir, "lock")
	var is unix.Stat_t
	if err := unix.Stat(path, &is); err != nil {
		return Holder{}, false
	}
	text, err := os.ReadFile("/proc/locks")
	if err != nil {
		return Holder{}, false
	}
	file := fmt.Sprintf(" %02x:%02x:%d ", unix.Major(is.Dev), unix.Minor(is.Dev), is.Ino) // proc_locks(5)
	for line := range strings.Lines(string(text)) {
		if !strings.Contains(line, " FLOCK ") || !strings.Contains(line, file) {
			continue
		}
		f, err := os.Open(path)
		if err != nil {
			return Holder{}, true
		}
		return readHolder(f), true
	}
	return Holder{}, false
}

// LockedError says that somebody else is at it.
type LockedError struct {
	Project string
	Holder  Holder // zero when it cannot be read
}

func (e *LockedError) Error() string {
	if e.Holder.PID == 0 {
		return fmt.Sprintf("project %s is locked by another command", e.Project)
	}
	return fmt.Sprintf("project %s is locked: %s runs there (process %d of %s on %s, since %s)", e.Project,
		e.Holder.Doing, e.Holder.PID, e.Holder.User, e.Holder.Host, e.Holder.Started.Local().Format(time.TimeOnly))
}

// Hints says what to do.
func (e *LockedError) Hints() []string {
	return []string{"wait until it has ended; the lock ends with its holder, however that ends"}
}

// Lock is held until Unlock or the end of the process.
type Lock struct{ file *os.File }

// lockTries is far more often than anybody removes a folder.
const lockTries = 1000

// Acquire locks the project whose state is in dir, which it makes, and says in
// the lock what for. When somebody else holds it the error is a *LockedError.
func Acquire(dir, doing string) (*Lock, error) {
	for try := 1; ; try++ {
		lock, err := acquire(dir, doing)
		// `down` may remove the folder meanwhile: at each look that it is there, or is not.
		gone := errors.Is(err, errReplaced) || errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrExist)
		if gone && try < lockTries {
			continue
		}
		var locked *LockedError
		if err != nil && !errors.As(err, &locked) {
			err = fmt.Errorf("lock %s: %w", dir, err)
		}
		return lock, err
	}
}

func acquire(dir, doing string) (*Lock, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	file, err := lockFile(filepath.Join(dir, "lock"))
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil, &LockedError{Project: filepath.Base(dir), Holder: readHolder(file)}
	}
	if err != nil {
		return nil, err
	}
	if err := writeHolder(file, doing); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &Lock{file}, nil
}

// Unlock lets others go on. The file stays: removing it would let two hold a
// lock at once, one on the old file and one on the new.
func (l *Lock) Unlock() error { return l.file.Close() }

var errReplaced = errors.New("the lock file was replaced")

// lockFile opens and locks; on EWOULDBLOCK the file is open to be read, and
// read before it is closed.
func lockFile(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return file, err
	}
	// `down` removes the folder while it holds the lock: a lock on a file that
	// is gone from there keeps nobody out.
	locked, err := file.Stat()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	if named, err := os.Stat(path); err != nil || !os.SameFile(locked, named) {
		return nil, errors.Join(errReplaced, file.Close())
	}
	return file, nil
}

func readHolder(file *os.File) Holder {
	defer file.Close()
	var h Holder
	if json.NewDecoder(io.LimitReader(file, 4096)).Decode(&h) != nil {
		return Holder{}
	}
	return h
}

func writeHolder(file *os.File, doing string) error {
	h := Holder{PID: os.Getpid(), Doing: doing, Started: time.Now().UTC().Truncate(time.Second)}
	h.Host, _ = os.Hostname()
	if u, err := user.Current(); err == nil {
		h.User = u.Username
	}
	text, err := json.Marshal(h)
	if err != nil {
		return err
	}
	if err := file.Truncate(0); err != nil {
		return err
	}
	_, err = file.WriteAt(append(text, '\n'), 0)
	return err
}

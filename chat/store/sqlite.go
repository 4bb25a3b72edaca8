package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

const (
	// lockWait is how long a write waits for the other process on the same
	// file. A commit takes milliseconds, so running into it means trouble.
	lockWait = 10 * time.Second

	// maxQueued bounds the appends that wait for the writer.
	maxQueued = 4096

	// maxBatch bounds one transaction, so that the other process gets its turn.
	maxBatch = 512

	readers = 4
)

// SQLite is a store in one SQLite file. Several processes may open the same
// file: every sequence number is taken inside a write transaction, none from
// memory. It is a [Store].
type SQLite struct {
	id     string
	writes *sql.DB
	reads  *sql.DB
	writer writer
	stats  counters

	// submitting is held for reading by whoever queues a job and for writing
	// to close the queue, so that a job is either refused or done, never lost.
	submitting sync.RWMutex
	refusing   bool
	queue      chan job
	finished   chan struct{}
	close      func() error
}

// Open opens the store in the file at path and creates it when it is not
// there. Its files are readable for the owner only.
func Open(ctx context.Context, path string) (*SQLite, error) {
	if err := createPrivate(path); err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	s := &SQLite{queue: make(chan job, maxQueued), finished: make(chan struct{})}
	s.close = sync.OnceValue(s.shut)
	if err := s.open(ctx, path); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), s.closeFiles())
	}
	go s.write()
	return s, nil
}

// createPrivate makes the file before SQLite does, which would let the umask
// decide; SQLite gives its -wal and -shm files the mode of the main one. A file
// that is there is left alone: closing it would drop SQLite's locks on it.
func createPrivate(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return errors.Unwrap(err)
	}
	return f.Close()
}

func (s *SQLite) open(ctx context.Context, path string) (err error) {
	if s.writes, err = connect(path, "journal_mode(WAL)", "synchronous(FULL)"); err != nil {
		return err
	}
	s.writes.SetMaxOpenConns(1)
	if s.reads, err = connect(path, "query_only(1)"); err != nil {
		return err
	}
	s.reads.SetMaxOpenConns(readers)
	s.reads.SetMaxIdleConns(readers)

	conn, err := patiently(ctx, s.writes)
	if err != nil {
		return err
	}
	if s.id, err = migrate(ctx, conn); err != nil {
		return errors.Join(err, conn.Close())
	}
	s.writer, err = prepareWriter(ctx, conn)
	return err
}

// connect gives a pool whose connections carry the pragmas. SQLite's own
// temporary files stay in memory, since the root file system may be read-only.
func connect(path string, pragmas ...string) (*sql.DB, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	always := []string{fmt.Sprintf("busy_timeout(%d)", lockWait.Milliseconds()), "temp_store(MEMORY)", "trusted_schema(0)"}
	query := url.Values{"_pragma": append(always, pragmas...)}
	name := url.URL{Scheme: "file", Path: abs, RawQuery: query.Encode()}
	return sql.Open("sqlite", name.String())
}

// patiently takes the writer's connection. Turning a new file to WAL needs it
// alone and does not use the busy timeout, so it is tried again while another
// process does the same.
func patiently(ctx context.Context, db *sql.DB) (*sql.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	for {
		conn, err := db.Conn(ctx)
		if !isBusy(err) {
			return conn, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func isBusy(err error) bool {
	var failure *sqlite.Error
	return errors.As(err, &failure) && failure.Code()&0xff == sqlite3.SQLITE_BUSY
}

// ID names this set of data; see [Log].
func (s *SQLite) ID() string { return s.id }

// Close writes what is queued and closes the files.
func (s *SQLite) Close() error { return s.close() }

func (s *SQLite) shut() error {
	s.submitting.Lock()
	s.refusing = true
	close(s.queue)
	s.submitting.Unlock()
	<-s.finished
	return s.closeFiles()
}

func (s *SQLite) closeFiles() error {
	var errs []error
	errs = append(errs, s.writer.close())
	for _, db := range []*sql.DB{s.reads, s.writes} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}

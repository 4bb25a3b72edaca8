package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// A job is one change that waits for the writer. run makes it inside the
// transaction; done hears of it after the commit.
type job struct {
	run  func(ctx context.Context, w *writer) error
	done func(error)
}

// writer is the one connection that writes, with its statements. Only the
// store's own goroutine uses it.
type writer struct {
	conn *sql.Conn
	find, number, insert,
	attend, depart, prolong, expire, check *sql.Stmt
	prepared []*sql.Stmt // all of them
}

func prepareWriter(ctx context.Context, conn *sql.Conn) (writer, error) {
	w := writer{conn: conn}
	statements := []struct {
		to  **sql.Stmt
		sql string
	}{
		{&w.find, "SELECT r.name, m.seq, m.nick, m.text, m.at FROM message m JOIN room r ON r.id = m.room WHERE m.user = ? AND m.cid = ?"},
		{&w.number, "INSERT INTO room (name, seq) VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET seq = seq + 1 RETURNING id, seq"},
		{&w.insert, "INSERT INTO message (room, seq, user, cid, nick, text, at) VALUES (?, ?, ?, ?, ?, ?, ?)"},
		{&w.attend, "INSERT INTO attendance (process, room, who, until) VALUES (?, ?, ?, ?) ON CONFLICT (process, room) DO UPDATE SET who = excluded.who, until = excluded.until"},
		{&w.depart, "DELETE FROM attendance WHERE process = ? AND room = ?"},
		{&w.prolong, "UPDATE attendance SET until = ? WHERE process = ?"},
		{&w.expire, "DELETE FROM attendance WHERE until < ?"},
		{&w.check, "UPDATE meta SET value = ? WHERE key = 'checked'"},
	}
	for _, s := range statements {
		var err error
		if *s.to, err = conn.PrepareContext(ctx, s.sql); err != nil {
			return w, fmt.Errorf("prepare: %w", err)
		}
		w.prepared = append(w.prepared, *s.to)
	}
	return w, nil
}

// close closes the statements too: SQLite moves the log into the database only
// when the last connection to it has none.
func (w *writer) close() error {
	if w.conn == nil {
		return nil
	}
	var errs []error
	for _, s := range w.prepared {
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, w.conn.Close())...)
}

// Append stores a message; see [Log].
func (s *SQLite) Append(ctx context.Context, m Message, done func(Message, error)) {
	var duplicate bool
	s.submit(ctx, job{
		run: func(ctx context.Context, w *writer) (err error) {
			m, duplicate, err = w.append(ctx, m)
			return err
		},
		done: func(err error) {
			if err != nil {
				done(Message{}, fmt.Errorf("append to %s: %w", m.Room, err))
				return
			}
			s.stats.appended(duplicate)
			done(m, nil)
		},
	})
}

// Check writes the time; see [Store].
func (s *SQLite) Check(ctx context.Context) error {
	return s.await(ctx, func(ctx context.Context, w *writer) error {
		_, err := w.check.ExecContext(ctx, time.Now().UnixMilli())
		return err
	})
}

// await submits a change and waits for it.
func (s *SQLite) await(ctx context.Context, run func(context.Context, *writer) error) error {
	result := make(chan error, 1)
	s.submit(ctx, job{run: run, done: func(err error) { result <- err }})
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *SQLite) submit(ctx context.Context, j job) {
	if err := s.enqueue(ctx, j); err != nil {
		j.done(err)
	}
}

func (s *SQLite) enqueue(ctx context.Context, j job) error {
	s.submitting.RLock()
	defer s.submitting.RUnlock()
	if s.refusing {
		return ErrClosed
	}
	select {
	case s.queue <- j:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// write is the group commit: while one transaction goes to disk the next
// changes queue up, and all of them share the next sync. It ends when the
// queue is closed and empty.
func (s *SQLite) write() {
	defer close(s.finished)
	for j := range s.queue {
		s.commit(s.batch(j))
	}
}

func (s *SQLite) batch(first job) []job {
	jobs := []job{first}
	for len(jobs) < maxBatch {
		select {
		case j, open := <-s.queue:
			if !open {
				return jobs
			}
			jobs = append(jobs, j)
		default:
			return jobs
		}
	}
	return jobs
}

func (s *SQLite) commit(jobs []job) {
	began := time.Now()
	err := s.writer.transact(jobs)
	s.stats.committed(time.Since(began), err)
	for _, j := range jobs {
		j.done(err)
	}
}

// transact runs all jobs in one transaction. One that fails takes the others
// with it: the inputs were checked before, so what fails here is the disk.
func (w *writer) transact(jobs []job) (err error) {
	ctx := context.Background() // an unfinished transaction helps nobody
	if _, err := w.conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return err
	}
	for _, j := range jobs {
		if err := j.run(ctx, w); err != nil {
			_, rollback := w.conn.ExecContext(ctx, "ROLLBACK")
			return errors.Join(err, rollback)
		}
	}
	if _, err := w.conn.ExecContext(ctx, "COMMIT"); err != nil {
		_, _ = w.conn.ExecContext(ctx, "ROLLBACK") // SQLite may have done so already
		return err
	}
	return nil
}

func (w *writer) append(ctx context.Context, m Message) (stored Message, duplicate bool, err error) {
	found, err := w.sent(ctx, m)
	if err == nil {
		return found, true, nil
	}
	if !errors.Is(err, sql.ErrNoRows) {
		return m, false, err
	}
	var room int64
	if err := w.number.QueryRowContext(ctx, m.Room).Scan(&room, &m.Seq); err != nil {
		return m, false, err
	}
	at := time.Now().UnixMilli()
	m.At = time.UnixMilli(at)
	_, err = w.insert.ExecContext(ctx, room, m.Seq, m.User, m.CID, m.Nick, m.Text, at)
	return m, false, err
}

// sent looks for the message that the user already sent under this cid.
func (w *writer) sent(ctx context.Context, m Message) (Message, error) {
	var at int64
	err := w.find.QueryRowContext(ctx, m.User, m.CID).Scan(&m.Room, &m.Seq, &m.Nick, &m.Text, &at)
	m.At = time.UnixMilli(at)
	return m, err
}

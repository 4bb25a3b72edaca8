package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
)

// applicationID marks a SQLite file as a chat ("chat" in ASCII), so that a
// mistaken path is told apart from data.
const applicationID = 0x63686174

// A migration only expands: it adds tables, columns with defaults and indexes,
// because the release before is still writing to the same file, and a roll
// back starts it anew. reader is the oldest schema whose programs can still
// read and write the result; it moves only when a contraction is unavoidable.
type migration struct {
	reader     int
	statements string
}

// migrations lists what turns schema n into schema n+1.
func migrations() []migration {
	return []migration{{reader: 1, statements: `
CREATE TABLE room (
	id   INTEGER PRIMARY KEY,
	name TEXT    NOT NULL UNIQUE,
	seq  INTEGER NOT NULL
) STRICT;
CREATE TABLE message (
	id   INTEGER PRIMARY KEY,
	room INTEGER NOT NULL REFERENCES room(id),
	seq  INTEGER NOT NULL,
	user TEXT    NOT NULL,
	cid  TEXT    NOT NULL,
	nick TEXT    NOT NULL,
	text TEXT    NOT NULL,
	at   INTEGER NOT NULL,
	UNIQUE (room, seq),
	UNIQUE (user, cid)
) STRICT;
CREATE TABLE attendance (
	process TEXT    NOT NULL,
	room    TEXT    NOT NULL,
	who     TEXT    NOT NULL,
	until   INTEGER NOT NULL,
	PRIMARY KEY (process, room)
) STRICT, WITHOUT ROWID;
`}}
}

// migrate brings the data to the newest schema inside one write transaction, so
// that two processes that start together do it once.
func migrate(ctx context.Context, conn *sql.Conn) (id string, err error) {
	if _, err := conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return "", fmt.Errorf("lock: %w", err)
	}
	defer func() {
		if err != nil {
			_, _ = conn.ExecContext(ctx, "ROLLBACK")
		}
	}()
	if err := claim(ctx, conn); err != nil {
		return "", err
	}
	if err := expand(ctx, conn); err != nil {
		return "", err
	}
	err = conn.QueryRowContext(ctx, "SELECT value FROM meta WHERE key = 'store'").Scan(&id)
	if err != nil {
		return "", fmt.Errorf("read its id: %w", err)
	}
	if _, err := conn.ExecContext(ctx, "COMMIT"); err != nil {
		return "", fmt.Errorf("commit the schema: %w", err)
	}
	return id, nil
}

// claim makes an empty file ours and refuses one that belongs to something else.
func claim(ctx context.Context, conn *sql.Conn) error {
	var app, tables int
	err := conn.QueryRowContext(ctx, "SELECT (SELECT application_id FROM pragma_application_id), (SELECT count(*) FROM sqlite_schema)").Scan(&app, &tables)
	if err != nil {
		return fmt.Errorf("look at the file: %w", err)
	}
	if app == applicationID {
		return nil
	}
	if app != 0 || tables != 0 {
		return ErrForeign
	}
	statements := fmt.Sprintf(`PRAGMA application_id = %d;
CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES ('version', 0), ('reader', 0), ('checked', 0), ('store', '%s');`, applicationID, rand.Text())
	if _, err := conn.ExecContext(ctx, statements); err != nil {
		return fmt.Errorf("create: %w", err)
	}
	return nil
}

// expand runs the migrations that the data has not seen.
func expand(ctx context.Context, conn *sql.Conn) error {
	var version, reader int
	err := conn.QueryRowContext(ctx, "SELECT (SELECT value FROM meta WHERE key = 'version'), (SELECT value FROM meta WHERE key = 'reader')").Scan(&version, &reader)
	if err != nil {
		return errors.Join(ErrForeign, err)
	}
	all := migrations()
	if reader > len(all) {
		return fmt.Errorf("%w: it needs schema %d, this program knows %d", ErrNewerSchema, reader, len(all))
	}
	for n := version; n < len(all); n++ {
		if _, err := conn.ExecContext(ctx, all[n].statements); err != nil {
			return fmt.Errorf("migrate to schema %d: %w", n+1, err)
		}
		_, err := conn.ExecContext(ctx, "UPDATE meta SET value = CASE key WHEN 'version' THEN ? ELSE ? END WHERE key IN ('version', 'reader')", n+1, all[n].reader)
		if err != nil {
			return fmt.Errorf("record schema %d: %w", n+1, err)
		}
	}
	return nil
}

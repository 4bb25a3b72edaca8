package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// After gives the messages that follow seq; see [Log].
func (s *SQLite) After(ctx context.Context, room string, seq int64, limit int) ([]Message, error) {
	return s.messages(ctx, "m.seq > ? ORDER BY m.seq", room, seq, limit)
}

// Before gives the messages that precede seq; see [Log].
func (s *SQLite) Before(ctx context.Context, room string, seq int64, limit int) ([]Message, error) {
	found, err := s.messages(ctx, "m.seq < ? ORDER BY m.seq DESC", room, seq, limit)
	slices.Reverse(found)
	return found, err
}

func (s *SQLite) messages(ctx context.Context, which, room string, seq int64, limit int) ([]Message, error) {
	rows, err := s.reads.QueryContext(ctx, "SELECT m.seq, m.user, m.cid, m.nick, m.text, m.at FROM message m JOIN room r ON r.id = m.room WHERE r.name = ? AND "+which+" LIMIT ?", room, seq, limit)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", room, err)
	}
	defer rows.Close()
	var found []Message
	for rows.Next() {
		m := Message{Room: room}
		var at int64
		if err := rows.Scan(&m.Seq, &m.User, &m.CID, &m.Nick, &m.Text, &at); err != nil {
			return nil, fmt.Errorf("read %s: %w", room, err)
		}
		m.At = time.UnixMilli(at)
		found = append(found, m)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read %s: %w", room, err)
	}
	return found, nil
}

// Heads gives the heads of the rooms; see [Log].
func (s *SQLite) Heads(ctx context.Context, rooms []string) (map[string]int64, error) {
	names, err := json.Marshal(rooms)
	if err != nil {
		return nil, fmt.Errorf("read heads: %w", err)
	}
	rows, err := s.reads.QueryContext(ctx, "SELECT r.name, r.seq FROM json_each(?) j CROSS JOIN room r ON r.name = j.value", string(names))
	if err != nil {
		return nil, fmt.Errorf("read heads: %w", err)
	}
	return collect(rows, func(heads map[string]int64) error {
		var room string
		var seq int64
		err := rows.Scan(&room, &seq)
		heads[room] = seq
		return err
	})
}

// collect reads all rows into a map.
func collect[V any](rows *sql.Rows, scan func(map[string]V) error) (map[string]V, error) {
	defer rows.Close()
	found := map[string]V{}
	for rows.Next() {
		if err := scan(found); err != nil {
			return nil, err
		}
	}
	return found, rows.Err()
}

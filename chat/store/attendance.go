package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// Attend says who is where; see [Presence].
func (s *SQLite) Attend(ctx context.Context, process string, rooms map[string]Attendance, until time.Time) error {
	err := s.await(ctx, func(ctx context.Context, w *writer) error {
		if _, err := w.expire.ExecContext(ctx, time.Now().UnixMilli()); err != nil {
			return err
		}
		for room, who := range rooms {
			if err := w.say(ctx, process, room, who, until); err != nil {
				return err
			}
		}
		_, err := w.prolong.ExecContext(ctx, until.UnixMilli(), process)
		return err
	})
	if err != nil {
		return fmt.Errorf("record attendance: %w", err)
	}
	return nil
}

func (w *writer) say(ctx context.Context, process, room string, who Attendance, until time.Time) error {
	if who.N == 0 {
		_, err := w.depart.ExecContext(ctx, process, room)
		return err
	}
	text, err := json.Marshal(who)
	if err != nil {
		return err
	}
	_, err = w.attend.ExecContext(ctx, process, room, string(text), until.UnixMilli())
	return err
}

// Attendance tells who is where; see [Presence].
func (s *SQLite) Attendance(ctx context.Context, except string, now time.Time) (map[string][]Attendance, error) {
	rows, err := s.reads.QueryContext(ctx, "SELECT room, who FROM attendance WHERE process != ? AND until >= ? ORDER BY process", except, now.UnixMilli())
	if err != nil {
		return nil, fmt.Errorf("read attendance: %w", err)
	}
	return collect(rows, func(found map[string][]Attendance) error {
		var room, text string
		if err := rows.Scan(&room, &text); err != nil {
			return err
		}
		var who Attendance
		err := json.Unmarshal([]byte(text), &who)
		found[room] = append(found[room], who)
		return err
	})
}

package store

import (
	"sync/atomic"
	"time"
)

// Stats counts what a store did since it was opened.
type Stats struct {
	Appended   int64         // messages stored
	Duplicates int64         // messages that were there already
	Commits    int64         // transactions on disk
	Failures   int64         // transactions that failed
	CommitTime time.Duration // time spent in transactions, waiting for the lock included
}

type counters struct {
	messages, duplicates, commits, failures, nanoseconds atomic.Int64
}

// Stats gives the counts so far.
func (s *SQLite) Stats() Stats {
	return Stats{
		Appended:   s.stats.messages.Load(),
		Duplicates: s.stats.duplicates.Load(),
		Commits:    s.stats.commits.Load(),
		Failures:   s.stats.failures.Load(),
		CommitTime: time.Duration(s.stats.nanoseconds.Load()),
	}
}

func (c *counters) appended(duplicate bool) {
	if duplicate {
		c.duplicates.Add(1)
		return
	}
	c.messages.Add(1)
}

func (c *counters) committed(took time.Duration, err error) {
	c.nanoseconds.Add(int64(took))
	if err != nil {
		c.failures.Add(1)
		return
	}
	c.commits.Add(1)
}

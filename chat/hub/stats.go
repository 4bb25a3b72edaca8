package hub

import (
	"maps"
	"sync"
	"sync/atomic"
)

// Stats counts what a hub did since it began, and what it has.
type Stats struct {
	Sessions  int           // at the moment
	Rooms     int           // at the moment
	Delivered int64         // messages handed to members: one message to ten counts ten
	Frames    int64         // frames written
	Bytes     int64         // bytes of them
	Closed    map[int]int64 // sessions that ended, by close code
}

type counters struct {
	handed, frames, bytes atomic.Int64

	mu    sync.Mutex
	codes map[int]int64
}

// Stats gives the counts so far.
func (h *Hub) Stats() Stats {
	h.mu.Lock()
	sessions := len(h.sessions)
	h.mu.Unlock()
	h.stats.mu.Lock()
	codes := maps.Clone(h.stats.codes)
	h.stats.mu.Unlock()
	return Stats{
		Sessions: sessions, Rooms: len(h.rooms()),
		Delivered: h.stats.handed.Load(), Frames: h.stats.frames.Load(), Bytes: h.stats.bytes.Load(),
		Closed: codes,
	}
}

func (c *counters) delivered(messages, members int) { c.handed.Add(int64(messages * members)) }

func (c *counters) wrote(bytes int) {
	c.frames.Add(1)
	c.bytes.Add(int64(bytes))
}

func (c *counters) closed(code int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.codes == nil {
		c.codes = map[int]int64{}
	}
	c.codes[code]++
}

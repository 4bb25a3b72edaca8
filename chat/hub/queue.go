package hub

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/gorilla/websocket"
)

// frame is one encoded frame, shared by everybody who gets it.
type frame struct {
	data     []byte
	prepared *websocket.PreparedMessage
}

// newFrame encodes one of the protocol's frames.
func newFrame(v any) frame {
	data, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("encode %T: %v", v, err)) // strings and numbers only
	}
	prepared, err := websocket.NewPreparedMessage(websocket.TextMessage, data)
	if err != nil {
		panic(fmt.Sprintf("prepare %T: %v", v, err)) // it writes to memory
	}
	return frame{data, prepared}
}

func (f frame) size() int { return len(f.data) }

// ending is how a session ends: with a close frame after what is queued.
type ending struct {
	code   int
	reason string
}

// toTell says whether the client is to get a close frame: not when it closed
// itself, nor when there is no connection left.
func (e ending) toTell() bool { return e.reason != "" }

// queue is what one session has still to write. Its bound counts the bytes
// that are being written too.
type queue struct {
	limit int
	slow  ending // how a session ends that lets the queue grow over the limit

	mu     sync.Mutex
	frames []frame
	bytes  int
	end    *ending
	cut    bool // what is queued is dropped

	ready   chan struct{} // there is something to write
	drained chan struct{} // something was written
}

func newQueue(limit int, slow ending) *queue {
	return &queue{limit: limit, slow: slow, ready: make(chan struct{}, 1), drained: make(chan struct{}, 1)}
}

// push queues frames without ever waiting. size is the sum of theirs.
func (q *queue) push(frames []frame, size int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.end != nil {
		return
	}
	if q.bytes > 0 && q.bytes+size > q.limit {
		q.frames, q.end, q.cut = nil, &q.slow, true
	} else {
		q.frames = append(q.frames, frames...)
		q.bytes += size
	}
	signal(q.ready)
}

// pushInTurn queues a frame that the client asked for, and waits until the
// queue is half empty, so that it does not crowd out what others say.
func (q *queue) pushInTurn(ctx context.Context, f frame) error {
	for !q.roomy() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-q.drained:
		}
	}
	q.push([]frame{f}, f.size())
	return ctx.Err()
}

func (q *queue) roomy() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.bytes <= q.limit/2 || q.end != nil {
		signal(q.drained) // for the next who waits
		return true
	}
	return false
}

// finish lets nothing more in. The first ending counts, and is given.
func (q *queue) finish(e ending) ending {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.end == nil {
		q.end = &e
	}
	signal(q.ready)
	return *q.end
}

// take gives what is to be written, and the ending when nothing follows.
func (q *queue) take() ([]frame, *ending) {
	q.mu.Lock()
	defer q.mu.Unlock()
	frames := q.frames
	q.frames = nil
	return frames, q.end
}

// written notes a frame that is out, and tells whether to go on.
func (q *queue) written(f frame) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.bytes -= f.size()
	signal(q.drained)
	return !q.cut
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it is signalled already
	}
}

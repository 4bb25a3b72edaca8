package registry

import (
	"sync"

	"bareboat/internal/oci"
)

// State is how far a blob has come.
type State int

// The states of a blob, in their order. A blob is either moved and finished,
// or found present.
const (
	Queued   State = iota // it belongs to the image
	Moving                // some of it was sent or received
	Finished              // all of it was
	Present               // it was there already
)

func (s State) String() string {
	return [...]string{"queued", "moving", "finished", "present"}[s]
}

// Event tells how far one blob has come.
type Event struct {
	Digest oci.Digest
	Size   int64 // of the blob, in bytes
	Done   int64 // bytes moved so far; begins anew when a transfer is tried again
	State  State
}

// Progress hears of each blob: first that it is queued, all of them before any
// moves, then the rest. Calls do not overlap and have to be quick. A nil
// Progress is one that nobody listens to.
type Progress func(Event)

// teller passes events on, one at a time.
type teller struct {
	mu   sync.Mutex
	tell Progress
}

func (t *teller) say(blob oci.Descriptor, done int64, state State) {
	if t.tell == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tell(Event{Digest: blob.Digest, Size: blob.Size, Done: done, State: state})
}

func (t *teller) queue(blobs []oci.Descriptor) {
	for _, b := range blobs {
		t.say(b, 0, Queued)
	}
}

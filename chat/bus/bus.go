// Package bus tells the processes that share one store when to look into it.
//
// Its words:
//
//   - A hint says that something changed in a room. It carries no content, and
//     losing one costs time only: the truth is in the store.
//   - A peer is another process on the same folder. Each process has one unix
//     datagram socket there, so the bus needs neither a network nor a server,
//     and reaches across containers that share the volume.
package bus

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// suffix ends the names of the sockets.
	suffix = ".sock"

	// maxPath is the longest path that the kernel takes for a unix socket.
	maxPath = 107

	// patience is how long one datagram waits for a peer whose queue is full.
	// Hints pile up into one meanwhile, so waiting loses nothing.
	patience = 200 * time.Millisecond

	// maxReceived bounds the hints that wait for the reader of Hints.
	maxReceived = 1024
)

// Hint says that a room changed.
type Hint struct {
	Room string

	// Seq is the room's highest sequence number that the sender knows of, or 0
	// when it is the people in the room that changed.
	Seq int64
}

// Bus is one process's place on the folder.
type Bus struct {
	dir  string
	name string
	conn *net.UnixConn

	mu      sync.Mutex
	pending map[string]int64 // the newest sequence number to tell, by room
	people  map[string]bool  // the rooms whose people changed
	wake    chan struct{}
	done    chan struct{}
	hints   chan Hint
	running sync.WaitGroup

	sent, received atomic.Int64
}

// Listen joins the bus in dir, which is created when it is not there.
func Listen(dir string) (*Bus, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("join the bus: %w", err)
	}
	name := strings.ToLower(rand.Text()[:10]) + suffix
	path := filepath.Join(dir, name)
	if len(path) > maxPath {
		return nil, fmt.Errorf("join the bus: %s is longer than the %d bytes of a socket's path: choose a shorter data folder", path, maxPath)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("join the bus: %w", err)
	}
	b := &Bus{
		dir: dir, name: name, conn: conn,
		pending: map[string]int64{}, people: map[string]bool{},
		wake: make(chan struct{}, 1), done: make(chan struct{}),
		hints: make(chan Hint, maxReceived),
	}
	b.running.Go(b.send)
	b.running.Go(b.receive)
	return b, nil
}

// Name is this process's own name on the bus, different at each start.
func (b *Bus) Name() string { return b.name }

// Hints gives what the peers tell. It is closed by Close.
func (b *Bus) Hints() <-chan Hint { return b.hints }

// Counts gives how many hints were handed to peers and received from them.
func (b *Bus) Counts() (sent, received int64) { return b.sent.Load(), b.received.Load() }

// Publish tells the peers soon. It never waits; hints for the same room that
// were not sent yet become one.
func (b *Bus) Publish(h Hint) {
	b.mu.Lock()
	if h.Seq == 0 {
		b.people[h.Room] = true
	} else {
		b.pending[h.Room] = max(b.pending[h.Room], h.Seq)
	}
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default: // it will wake
	}
}

// Close leaves the bus and removes its socket.
func (b *Bus) Close() error {
	close(b.done)
	path := filepath.Join(b.dir, b.name)
	err := b.conn.Close()
	b.running.Wait()
	close(b.hints)
	if remove := os.Remove(path); remove != nil && !errors.Is(remove, os.ErrNotExist) {
		return errors.Join(err, remove)
	}
	return err
}

func (b *Bus) send() {
	for {
		select {
		case <-b.done:
			return
		case <-b.wake:
		}
		hints := b.take()
		peers := b.peers()
		for _, datagram := range encode(hints) {
			for _, peer := range peers {
				b.sendTo(peer, datagram)
			}
		}
		if len(peers) > 0 {
			b.sent.Add(int64(len(hints)))
		}
	}
}

func (b *Bus) take() []Hint {
	b.mu.Lock()
	defer b.mu.Unlock()
	hints := make([]Hint, 0, len(b.pending)+len(b.people))
	for room, seq := range b.pending {
		hints = append(hints, Hint{room, seq})
	}
	for room := range b.people {
		hints = append(hints, Hint{Room: room})
	}
	clear(b.pending)
	clear(b.people)
	return hints
}

// peers lists the sockets of the others. Reading a folder of a few names costs
// less than keeping the list true in another way.
func (b *Bus) peers() []string {
	entries, err := os.ReadDir(b.dir)
	if err != nil {
		return nil // the folder is gone, and with it the peers
	}
	var peers []string
	for _, e := range entries {
		if e.Name() != b.name && strings.HasSuffix(e.Name(), suffix) {
			peers = append(peers, filepath.Join(b.dir, e.Name()))
		}
	}
	return peers
}

// sendTo gives a peer a datagram. Nobody answers on the socket of a process
// that was killed; such a file is removed. Names are never used twice, so it
// cannot be a new process's.
func (b *Bus) sendTo(peer string, datagram []byte) {
	if err := b.conn.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		return // closed
	}
	_, err := b.conn.WriteToUnix(datagram, &net.UnixAddr{Name: peer, Net: "unixgram"})
	if errors.Is(err, syscall.ECONNREFUSED) {
		_ = os.Remove(peer) // the other peers try the same
	}
}

func (b *Bus) receive() {
	datagram := make([]byte, maxDatagram)
	for {
		n, err := b.conn.Read(datagram)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		hints, err := parse(datagram[:n])
		if err != nil {
			continue // of a release that speaks otherwise: the store catches up
		}
		for _, h := range hints {
			select {
			case b.hints <- h:
				b.received.Add(1)
			case <-b.done:
				return
			}
		}
	}
}

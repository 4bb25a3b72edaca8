package bus_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"bareboat/chat/bus"
)

// folder gives a folder with a path short enough for a socket, which that of
// t.TempDir is not always.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "bus")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func listen(t *testing.T, dir string) *bus.Bus {
	t.Helper()
	b, err := bus.Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func receive(t *testing.T, b *bus.Bus) bus.Hint {
	t.Helper()
	select {
	case h := <-b.Hints():
		return h
	case <-time.After(10 * time.Second):
		t.Fatal("no hint came")
		return bus.Hint{}
	}
}

func TestPeersHear(t *testing.T) {
	dir := folder(t)
	one, two, three := listen(t, dir), listen(t, dir), listen(t, dir)
	for _, b := range []*bus.Bus{one, two, three} {
		defer b.Close()
	}
	one.Publish(bus.Hint{Room: "a", Seq: 7})
	for _, b := range []*bus.Bus{two, three} {
		if h := receive(t, b); h != (bus.Hint{Room: "a", Seq: 7}) {
			t.Errorf("heard %v", h)
		}
	}
	two.Publish(bus.Hint{Room: "b"})
	if h := receive(t, one); h != (bus.Hint{Room: "b"}) {
		t.Errorf("heard %v", h)
	}
}

// TestLastHintArrives floods a peer that reads slowly: hints may melt together,
// the newest must come.
func TestLastHintArrives(t *testing.T) {
	dir := folder(t)
	one, two := listen(t, dir), listen(t, dir)
	defer one.Close()
	defer two.Close()
	const rooms, last = 300, 50
	for seq := range int64(last) {
		for room := range rooms {
			one.Publish(bus.Hint{Room: fmt.Sprint("room", room), Seq: seq + 1})
		}
	}
	heads := map[string]int64{}
	for done := 0; done < rooms; {
		h := receive(t, two)
		if h.Seq <= heads[h.Room] {
			t.Fatalf("room %s went from %d to %d", h.Room, heads[h.Room], h.Seq)
		}
		if heads[h.Room] = h.Seq; h.Seq == last {
			done++
		}
	}
}

func TestStaleSocketIsRemoved(t *testing.T) {
	dir := folder(t)
	stale := filepath.Join(dir, "killed.sock")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: stale, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.Close(); err != nil { // like a kill, closing leaves the file
		t.Fatal(err)
	}
	one, two := listen(t, dir), listen(t, dir)
	defer one.Close()
	defer two.Close()
	for seq := int64(1); ; seq++ {
		one.Publish(bus.Hint{Room: "a", Seq: seq})
		receive(t, two)
		if _, err := os.Stat(stale); os.IsNotExist(err) {
			return
		}
		if seq > 100 {
			t.Fatal("the socket of a killed process is still there")
		}
	}
}

func TestCloseRemovesSocket(t *testing.T) {
	dir := folder(t)
	b := listen(t, dir)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if _, open := <-b.Hints(); open {
		t.Error("hints are not closed")
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestLongPath(t *testing.T) {
	dir := filepath.Join(folder(t), strings.Repeat("long", 30))
	if _, err := bus.Listen(dir); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("listened with %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("chat.bus.1\na 1\nb-c 0\n"))
	f.Add([]byte("chat.bus.1\n"))
	f.Add([]byte("chat.bus.2\na 1\n"))
	f.Add([]byte("chat.bus.1\na -1\n"))
	f.Add([]byte("chat.bus.1\na 1"))
	f.Fuzz(func(t *testing.T, datagram []byte) {
		hints, err := bus.Parse(datagram)
		if err != nil {
			return
		}
		var again []bus.Hint
		for _, d := range bus.Encode(hints) {
			part, err := bus.Parse(d)
			if err != nil {
				t.Fatalf("%q: %v", d, err)
			}
			again = append(again, part...)
		}
		if !reflect.DeepEqual(hints, again) {
			t.Errorf("%v became %v", hints, again)
		}
	})
}

package bus

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
)

// A datagram is a line that names the format, then a line for each hint: the
// room, a space and the sequence number.
const (
	header      = "chat.bus.1\n"
	maxDatagram = 8 << 10
)

var errDatagram = errors.New("not a datagram of this bus")

// encode writes the hints into as few datagrams as they need.
func encode(hints []Hint) [][]byte {
	var datagrams [][]byte
	current := []byte(header)
	for _, h := range hints {
		line := fmt.Appendf(nil, "%s %d\n", h.Room, h.Seq)
		if len(current)+len(line) > maxDatagram {
			datagrams = append(datagrams, current)
			current = []byte(header)
		}
		current = append(current, line...)
	}
	if len(current) > len(header) {
		datagrams = append(datagrams, current)
	}
	return datagrams
}

// parse reads a datagram, which may come from any program that can write to
// the folder.
func parse(datagram []byte) ([]Hint, error) {
	body, ok := bytes.CutPrefix(datagram, []byte(header))
	if !ok {
		return nil, errDatagram
	}
	var hints []Hint
	for line := range bytes.Lines(body) {
		line, ended := bytes.CutSuffix(line, []byte("\n"))
		room, number, found := bytes.Cut(line, []byte(" "))
		seq, err := strconv.ParseInt(string(number), 10, 64)
		if !ended || !found || len(room) == 0 || err != nil || seq < 0 {
			return nil, errDatagram
		}
		hints = append(hints, Hint{Room: string(room), Seq: seq})
	}
	return hints, nil
}

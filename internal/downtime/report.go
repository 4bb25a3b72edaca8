package downtime

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"
)

// Report is what the clients met.
type Report struct {
	Seconds float64 `json:"seconds"`
	Lines   []Line  `json:"lines"`
}

// Line is what one kind of client met. Times are in milliseconds.
type Line struct {
	Client   string         `json:"client"` // which kind, and how it behaves
	What     string         `json:"what"`   // what is counted
	Count    int            `json:"count"`
	Failed   int            `json:"failed"`
	Retried  int            `json:"retried,omitempty"` // of those that did not fail
	Why      map[string]int `json:"why,omitempty"`     // kinds of failures
	Bound    float64        `json:"bound,omitempty"`   // with none failed: the share is below this
	Latency  Times          `json:"latency"`           // from the intended time
	Silence  *Times         `json:"silence,omitempty"`
	Closes   map[string]int `json:"closes,omitempty"` // by code
	Moves    int            `json:"moves,omitempty"`  // to a new connection before the old was closed
	Tolerant bool           `json:"-"`                // failures of it are told, and do not count
}

// Times are what of a number of times is interesting.
type Times struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// Noticed lists what people noticed, one line each; none is what one hopes for.
// Strict clients, of which there are none among browsers, count only if asked.
func (r Report) Noticed(strict bool) []string {
	var out []string
	for _, l := range r.Lines {
		if l.Failed > 0 && (strict || !l.Tolerant) {
			out = append(out, fmt.Sprintf("%s: %d of %d %s: %s", l.Client, l.Failed, l.Count, l.What, counts(l.Why)))
		}
	}
	return out
}

// Write prints the report as a table.
func (r Report) Write(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "CLIENT\tCOUNT\tFAILED\tBOUND\tLATENCY MS P50, P99, MAX\tSILENCE MS P50, P99, MAX\tMORE")
	for _, l := range r.Lines {
		bound := "-"
		if l.Failed == 0 && l.Count > 0 {
			bound = fmt.Sprintf("< %.2g", l.Bound)
		}
		silence := ""
		if s := l.Silence; s != nil {
			silence = fmt.Sprintf("%.0f, %.0f, %.0f", s.P50, s.P99, s.Max)
		}
		fmt.Fprintf(t, "%s\t%d %s\t%d\t%s\t%.1f, %.1f, %.1f\t%s\t%s\n", l.Client, l.Count, l.What, l.Failed, bound,
			l.Latency.P50, l.Latency.P99, l.Latency.Max, silence, l.More())
	}
	return t.Flush()
}

// More is what else there is to tell: failures by kind, closes by code.
func (l Line) More() string {
	var more []string
	if l.Failed > 0 {
		more = append(more, counts(l.Why))
	}
	if l.Retried > 0 {
		more = append(more, fmt.Sprintf("%d retried", l.Retried))
	}
	if l.Moves > 0 {
		more = append(more, fmt.Sprintf("%d moves", l.Moves))
	}
	if len(l.Closes) > 0 {
		more = append(more, "closed with "+counts(l.Closes))
	}
	return strings.Join(more, "; ")
}

func counts(m map[string]int) string {
	var list []string
	for _, k := range slices.SortedFunc(maps.Keys(m), func(a, b string) int { return cmp.Or(m[b]-m[a], strings.Compare(a, b)) }) {
		list = append(list, fmt.Sprintf("%d × %s", m[k], k))
	}
	return strings.Join(list, ", ")
}

// tally counts what happened to one kind of client.
type tally struct {
	mu      sync.Mutex
	count   int
	failed  int
	retried int
	why     map[string]int
	closes  map[string]int
	moves   int
	times   []time.Duration
	silence []time.Duration
}

func (t *tally) ok(since time.Time, retried bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count++
	if retried {
		t.retried++
	}
	t.times = append(t.times, time.Since(since))
}

func (t *tally) fail(why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.count++
	t.note(why)
}

// blame counts a failure of something that is counted already.
func (t *tally) blame(why string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.note(why)
}

func (t *tally) note(why string) {
	t.failed++
	if t.why == nil {
		t.why = map[string]int{}
	}
	t.why[why]++
}

func (t *tally) closed(code string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closes == nil {
		t.closes = map[string]int{}
	}
	t.closes[code]++
}

func (t *tally) moved() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.moves++
}

func (t *tally) quietFor(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.silence = append(t.silence, d)
}

func (t *tally) line(client, what string) Line {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := Line{
		Client: client, What: what, Count: t.count, Failed: t.failed, Retried: t.retried, Why: t.why,
		Closes: t.closes, Moves: t.moves, Latency: timesOf(t.times),
	}
	if t.failed == 0 && t.count > 0 {
		l.Bound = 3 / float64(t.count)
	}
	if len(t.silence) > 0 {
		s := timesOf(t.silence)
		l.Silence = &s
	}
	return l
}

func timesOf(list []time.Duration) Times {
	if len(list) == 0 {
		return Times{}
	}
	sorted := slices.Sorted(slices.Values(list))
	at := func(share float64) float64 {
		return float64(sorted[int(share*float64(len(sorted)-1))].Microseconds()) / 1000
	}
	return Times{P50: at(0.5), P99: at(0.99), Max: at(1)}
}

// kind names a failure by what a client sees of it.
func kind(err error) string {
	var timeout net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "reset"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return "closed"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timed out"
	}
	return err.Error()
}

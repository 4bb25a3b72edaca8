// Package report writes measurements as a section of a Markdown page.
//
// A row is one situation, such as a build with no change. In it stands an entry
// for each tool, with one sample per round. Tools are compared round by round,
// since the machine may be busier in one round than in another: a ratio is the
// median of the rounds' ratios.
package report

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"bareboat/internal/bench/measure"
)

// Sample is one tool's run in one round.
type Sample struct {
	measure.Usage
	measure.Traffic
}

// Entry is one tool in one row. With a Failure, which says why, it has no numbers.
type Entry struct {
	Tool    string
	Samples []Sample
	Failure string
}

// Row is one situation.
type Row struct {
	Title, Note string
	Entries     []Entry
}

// Fact is something about the machine or a tool.
type Fact struct{ Name, Value string }

// Section is all that one benchmark says.
type Section struct {
	Facts     []Fact
	Baselines []string // the tools that the others are compared with
	Rows      []Row
}

// WriteTo writes the section as Markdown.
func (s *Section) WriteTo(w io.Writer) (int64, error) {
	var b strings.Builder
	for _, f := range s.Facts {
		fmt.Fprintf(&b, "- %s: %s\n", f.Name, oneLine(f.Value))
	}
	for _, r := range s.Rows {
		s.writeRow(&b, r)
	}
	n, err := io.WriteString(w, b.String())
	return int64(n), err
}

func (s *Section) writeRow(b *strings.Builder, r Row) {
	fmt.Fprintf(b, "\n### %s\n\n", r.Title)
	if r.Note != "" {
		fmt.Fprintf(b, "%s\n\n", r.Note)
	}
	columns := []string{"tool", "wall s, median", "min", "max"}
	for _, base := range s.Baselines {
		columns = append(columns, "× "+base)
	}
	columns = append(columns, "CPU s", "memory MB", "sent MB", "requests")
	writeCells(b, columns)
	b.WriteString("|---|" + strings.Repeat("--:|", len(columns)-1) + "\n")
	for _, e := range r.Entries {
		writeCells(b, s.cells(r, e, len(columns)))
	}
}

func (s *Section) cells(r Row, e Entry, n int) []string {
	cells := []string{e.Tool}
	if e.Failure != "" || len(e.Samples) == 0 {
		cells = append(cells, oneLine(e.Failure))
		return append(cells, make([]string, n-len(cells))...)
	}
	walls := each(e.Samples, wall)
	cells = append(cells, seconds(median(walls)), seconds(slices.Min(walls)), seconds(slices.Max(walls)))
	for _, base := range s.Baselines {
		cells = append(cells, r.ratio(e, base))
	}
	return append(cells,
		seconds(median(each(e.Samples, func(s Sample) float64 { return s.CPU.Seconds() }))),
		fmt.Sprintf("%.0f", median(each(e.Samples, func(s Sample) float64 { return float64(s.Memory) / 1e6 }))),
		fmt.Sprintf("%.2f", median(each(e.Samples, func(s Sample) float64 { return float64(s.Sent) / 1e6 }))),
		fmt.Sprintf("%.0f", median(each(e.Samples, func(s Sample) float64 { return float64(s.Requests) }))))
}

// ratio compares the rounds that both have.
func (r Row) ratio(e Entry, base string) string {
	i := slices.IndexFunc(r.Entries, func(b Entry) bool { return b.Tool == base })
	if i < 0 || r.Entries[i].Failure != "" {
		return "–"
	}
	with := r.Entries[i].Samples
	var ratios []float64
	for round := range min(len(e.Samples), len(with)) {
		ratios = append(ratios, float64(e.Samples[round].Wall)/float64(max(with[round].Wall, time.Nanosecond)))
	}
	if len(ratios) == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f", median(ratios))
}

func writeCells(b *strings.Builder, cells []string) {
	b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
}

func wall(s Sample) float64 { return s.Wall.Seconds() }

func each(samples []Sample, value func(Sample) float64) []float64 {
	values := make([]float64, len(samples))
	for i, s := range samples {
		values[i] = value(s)
	}
	return values
}

// median of an even number of values is the mean of the two in the middle.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

func seconds(s float64) string { return fmt.Sprintf("%.3f", s) }

// oneLine keeps what a program said inside a table's cell.
func oneLine(s string) string {
	return strings.ReplaceAll(strings.Join(strings.Fields(s), " "), "|", `\|`)
}

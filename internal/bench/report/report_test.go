package report_test

import (
	"strings"
	"testing"
	"time"

	"bareboat/internal/bench/measure"
	"bareboat/internal/bench/report"
)

func samples(walls ...time.Duration) []report.Sample {
	var all []report.Sample
	for _, w := range walls {
		all = append(all, report.Sample{
			Usage:   measure.Usage{Wall: w, CPU: 2 * w, Memory: 20e6},
			Traffic: measure.Traffic{Requests: 4, Sent: 1_500_000},
		})
	}
	return all
}

func TestSection(t *testing.T) {
	s := report.Section{
		Facts:     []report.Fact{{Name: "machine", Value: "2 cores\n"}},
		Baselines: []string{"ours", "missing", "broken"},
		Rows: []report.Row{{Title: "Cold", Note: "Nothing cached.", Entries: []report.Entry{
			{Tool: "ours", Samples: samples(time.Second, 4*time.Second, 2*time.Second)},
			// By medians alone it would be 2.00.
			{Tool: "theirs", Samples: samples(3*time.Second, 4*time.Second, 6*time.Second)},
			{Tool: "broken", Samples: samples(time.Second), Failure: "exit status 1: a|b\nc"},
		}}},
	}
	const want = `- machine: 2 cores

### Cold

Nothing cached.

| tool | wall s, median | min | max | × ours | × missing | × broken | CPU s | memory MB | sent MB | requests |
|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|
| ours | 2.000 | 1.000 | 4.000 | 1.00 | – | – | 4.000 | 20 | 1.50 | 4 |
| theirs | 4.000 | 3.000 | 6.000 | 3.00 | – | – | 8.000 | 20 | 1.50 | 4 |
| broken | exit status 1: a\|b c |  |  |  |  |  |  |  |  |  |
`
	var got strings.Builder
	if _, err := s.WriteTo(&got); err != nil {
		t.Fatal(err)
	}
	if got.String() != want {
		t.Errorf("got\n%s\nwant\n%s", got.String(), want)
	}
}

package cache

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"

	"bareboat/internal/oci"
)

var (
	versioned  = specs.Versioned{SchemaVersion: 2}
	layoutFile = []byte(`{"imageLayoutVersion":"1.0.0"}`)
)

// Input is one thing that a result depends on.
type Input struct {
	Name  string `json:"name"`  // for people: "chat/hub.go", "flags"
	Value string `json:"value"` // another value, another result
}

// Inputs are all that a result depends on. Their order does not matter; a name
// stands in them once.
type Inputs []Input

// Add puts in one more.
func (in *Inputs) Add(name, format string, args ...any) {
	*in = append(*in, Input{name, fmt.Sprintf(format, args...)})
}

func (in Inputs) sorted() Inputs {
	return slices.SortedFunc(slices.Values(in), func(a, b Input) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Value, b.Value)) })
}

// Key is the digest of the inputs.
func (in Inputs) Key() oci.Digest {
	sum := digest.Canonical.Digester()
	for _, i := range in.sorted() {
		// With the lengths no two lists give the same bytes.
		fmt.Fprintf(sum.Hash(), "%d %d\n%s%s", len(i.Name), len(i.Value), i.Name, i.Value)
	}
	return sum.Digest()
}

// Changes tells what has become of earlier inputs, a line each: "NAME changed",
// "NAME is new", "NAME is gone".
func Changes(earlier, later Inputs) []string {
	before, after := byName(earlier), byName(later)
	var out []string
	for _, i := range later.sorted() {
		old, ok := before[i.Name]
		switch {
		case !ok:
			out = append(out, i.Name+" is new")
		case old != i.Value:
			out = append(out, i.Name+" changed")
		}
	}
	for _, i := range earlier.sorted() {
		if _, ok := after[i.Name]; !ok {
			out = append(out, i.Name+" is gone")
		}
	}
	return out
}

func byName(in Inputs) map[string]string {
	out := make(map[string]string, len(in))
	for _, i := range in {
		out[i.Name] = i.Value
	}
	return out
}

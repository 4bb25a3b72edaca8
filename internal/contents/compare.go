package contents

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"

	"bareboat/internal/oci"
)

// Difference is how two images differ.
type Difference struct {
	A        oci.Digest `json:"a"`
	B        oci.Digest `json:"b"`
	Same     bool       `json:"same"` // nothing differs, down to the digest
	Config   []Change   `json:"config,omitempty"`
	Packages []Change   `json:"packages,omitempty"` // Debian packages
	Modules  []Change   `json:"modules,omitempty"`  // Go modules
	Files    []Change   `json:"files,omitempty"`
	// Shared is how many layers both have, of LayersA and LayersB.
	Shared  int   `json:"sharedLayers"`
	LayersA int   `json:"layersA"`
	LayersB int   `json:"layersB"`
	SizeA   int64 `json:"sizeA"` // bytes, compressed
	SizeB   int64 `json:"sizeB"`
}

// Change is one thing that differs. A is empty for what only B has, and B for
// what only A has.
type Change struct {
	Name string   `json:"name"`
	A    string   `json:"a,omitempty"`
	B    string   `json:"b,omitempty"`
	What []string `json:"what,omitempty"` // of a file: "content", "mode", "owner", "size", "type", "link"
}

// Compare says how two images differ that have been Read.
func Compare(a, b *Image) Difference {
	d := Difference{
		A: a.Digest, B: b.Digest, Same: a.Digest == b.Digest,
		LayersA: len(a.Layers), LayersB: len(b.Layers), SizeA: a.Size, SizeB: b.Size,
		Config: values(flat(a.Config), flat(b.Config)), Packages: values(a.Packages, b.Packages), Modules: values(a.Modules, b.Modules),
	}
	for _, l := range a.Layers {
		if slices.ContainsFunc(b.Layers, func(o Layer) bool { return o.DiffID == l.DiffID }) {
			d.Shared++
		}
	}
	for _, p := range slices.Compact(slices.Sorted(slices.Values(append(a.Paths(), b.Paths()...)))) {
		if c, differs := compareFiles(a, b, p); differs {
			d.Files = append(d.Files, c)
		}
	}
	return d
}

// compareFiles holds what two images have at a path against each other.
func compareFiles(a, b *Image, p string) (Change, bool) {
	x, inA := a.Files[p]
	y, inB := b.Files[p]
	c := Change{Name: "/" + p}
	if inA {
		c.A = x.String()
	}
	if inB {
		c.B = y.String()
	}
	if !inA || !inB {
		return c, true
	}
	for _, of := range []struct {
		what    string
		differs bool
	}{
		{"type", x.Mode.Type() != y.Mode.Type()},
		{"mode", x.Mode&^fs.ModeType != y.Mode&^fs.ModeType},
		{"owner", x.UID != y.UID || x.GID != y.GID},
		{"link", x.Link != y.Link},
		{"size", x.Size != y.Size},
		{"content", x.Digest != y.Digest},
	} {
		if of.differs {
			c.What = append(c.What, of.what)
		}
	}
	return c, len(c.What) > 0
}

// String is a file in a few words: "-rwxr-xr-x 0:0 12 MB".
func (f File) String() string {
	s := fmt.Sprintf("%s %d:%d", f.Mode, f.UID, f.GID)
	if f.Link != "" {
		return s + " → " + f.Link
	}
	if f.Mode.IsRegular() {
		s += " " + humanize.Bytes(uint64(f.Size))
	}
	return s
}

// values compares what has names.
func values(a, b map[string]string) []Change {
	var out []Change
	for name, x := range a {
		if y := b[name]; x != y {
			out = append(out, Change{Name: name, A: x, B: y})
		}
	}
	for name, y := range b {
		if _, ok := a[name]; !ok {
			out = append(out, Change{Name: name, B: y})
		}
	}
	slices.SortFunc(out, func(x, y Change) int { return cmp.Compare(x.Name, y.Name) })
	return out
}

// flat is a config as names and values: each variable, label and port by itself.
func flat(c oci.ImageConfig) map[string]string {
	out := map[string]string{
		"os": c.OS, "architecture": c.Architecture, "user": c.Config.User, "workdir": c.Config.WorkingDir,
		"stop signal": c.Config.StopSignal, "entrypoint": list(c.Config.Entrypoint), "cmd": list(c.Config.Cmd),
	}
	for _, kv := range c.Config.Env {
		name, value, _ := strings.Cut(kv, "=")
		out["env "+name] = value
	}
	for name, value := range c.Config.Labels {
		out["label "+name] = value
	}
	for name := range c.Config.ExposedPorts {
		out["port "+name] = "exposed"
	}
	for name := range c.Config.Volumes {
		out["volume "+name] = "declared"
	}
	if c.Created != nil {
		out["created"] = c.Created.UTC().String()
	}
	maps.DeleteFunc(out, func(_, v string) bool { return v == "" })
	return out
}

func list(words []string) string {
	if len(words) == 0 {
		return ""
	}
	text, err := json.Marshal(words)
	if err != nil {
		panic(err) // strings
	}
	return string(text)
}

package debian

import (
	_ "embed"
	"slices"
	"strings"
)

//go:embed data/excludes.txt
var builtinExcludes string

// excludes maps a name to those who may want it in vain; nobody named means
// anybody.
type excludes map[string][]string

func newExcludes(req Request) excludes {
	e := excludes{}
	for line := range strings.Lines(builtinExcludes) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] == "#" || slices.Contains(req.Include, f[0]) {
			continue
		}
		e[f[0]] = nil
		if len(f) > 2 {
			e[f[0]] = f[2:]
		}
	}
	for _, name := range req.Exclude {
		e[name] = nil
	}
	return e
}

func (e excludes) matches(name, by string) bool {
	who, ok := e[name]
	return ok && (len(who) == 0 || slices.Contains(who, by))
}

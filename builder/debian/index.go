package debian

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// candidate is a package of an index. Of each name the archive offers one, the
// latest, as apt does without pinning.
type candidate struct {
	name, version, arch, source, suite string
	path, sha256, size, priority       string
	depends, preDepends, provides      string
	conflicts, breaks                  string
}

// provision is a package that provides a name, maybe with a version.
type provision struct {
	by      *candidate
	version string
}

// universe is what a suite, its updates and its security updates offer.
type universe struct {
	arch      string
	best      map[string]*candidate
	providers map[string][]provision
}

var indexFields = []string{
	"Package", "Version", "Architecture", "Source", "Filename", "SHA256", "Size", "Priority",
	"Depends", "Pre-Depends", "Provides", "Conflicts", "Breaks",
}

// readIndex reads a package index.
func readIndex(r io.Reader, suite string) ([]*candidate, error) {
	var out []*candidate
	stanzas := newStanzaReader(r, indexFields...)
	for {
		s, err := stanzas.next()
		if errors.Is(err, io.EOF) {
			return out, nil
		} else if err != nil {
			return nil, fmt.Errorf("read the index of %s: %w", suite, err)
		}
		c := &candidate{suite: suite}
		for _, f := range s {
			c.set(f)
		}
		if c.name == "" || c.version == "" {
			return nil, fmt.Errorf("read the index of %s: line %d: a package without name or version", suite, stanzas.line)
		}
		out = append(out, c)
	}
}

func (c *candidate) set(f field) {
	switch f.name {
	case "Package":
		c.name = f.value
	case "Version":
		c.version = f.value
	case "Architecture":
		c.arch = f.value
	case "Source":
		c.source = f.value
	case "Filename":
		c.path = f.value
	case "SHA256":
		c.sha256 = f.value
	case "Size":
		c.size = f.value
	case "Priority":
		c.priority = f.value
	case "Depends":
		c.depends = f.value
	case "Pre-Depends":
		c.preDepends = f.value
	case "Provides":
		c.provides = f.value
	case "Conflicts":
		c.conflicts = f.value
	case "Breaks":
		c.breaks = f.value
	}
}

// newUniverse joins indices. Of two equal versions the earlier index wins.
func newUniverse(arch string, indices ...[]*candidate) (*universe, error) {
	u := &universe{arch: arch, best: map[string]*candidate{}, providers: map[string][]provision{}}
	for _, index := range indices {
		for _, c := range index {
			if c.arch != arch && c.arch != "all" {
				continue
			}
			if have := u.best[c.name]; have == nil || CompareVersions(c.version, have.version) > 0 {
				u.best[c.name] = c
			}
		}
	}
	for _, c := range u.best {
		if err := u.addProvides(c); err != nil {
			return nil, err
		}
	}
	for _, list := range u.providers {
		slices.SortFunc(list, func(a, b provision) int { return strings.Compare(a.by.name, b.by.name) })
	}
	return u, nil
}

func (u *universe) addProvides(c *candidate) error {
	if c.provides == "" {
		return nil
	}
	deps, err := ParseDependencies(c.provides)
	if err != nil {
		return fmt.Errorf("package %s: provides: %w", c.name, err)
	}
	for _, d := range deps {
		u.providers[d[0].Name] = append(u.providers[d[0].Name], provision{by: c, version: d[0].Version})
	}
	return nil
}

// provide gives the packages that provide what r asks for. A versioned
// relation needs a versioned provision.
func (u *universe) provide(r Relation) []*candidate {
	var out []*candidate
	if u.foreign(r) {
		return nil
	}
	for _, p := range u.providers[r.Name] {
		if p.satisfies(r) && !slices.Contains(out, p.by) {
			out = append(out, p.by)
		}
	}
	return out
}

func (p provision) satisfies(r Relation) bool {
	return r.Op == "" || p.version != "" && r.Allows(p.version)
}

// pin makes the locked form of a candidate.
func (c *candidate) pin(depends []string) (Package, error) {
	size, err := strconv.ParseInt(c.size, 10, 64)
	if err != nil {
		return Package{}, fmt.Errorf("package %s: %q is not a size", c.name, c.size)
	}
	p := Package{
		Name: c.name, Version: c.version, Architecture: c.arch, Source: c.name, Suite: c.suite,
		Path: c.path, SHA256: c.sha256, Size: size, Depends: depends,
	}
	if c.source != "" {
		name, version, _ := strings.Cut(c.source, " ")
		p.Source = name
		if v := strings.Trim(version, "()"); v != c.version {
			p.SourceVersion = v
		}
	}
	if err := p.validate(); err != nil {
		return Package{}, fmt.Errorf("package %s: %w", c.name, err)
	}
	return p, nil
}

package debian

import (
	"fmt"
	"strings"
)

// Relation names a package that another wants: "libc6 (>= 2.38)".
type Relation struct {
	Name    string
	Arch    string // the qualifier after the colon: "any", "native", an architecture, or ""
	Op      string // "<<", "<=", "=", ">=", ">>", or "" for any version
	Version string
}

// Dependency is a list of alternatives, any one of which will do.
type Dependency []Relation

// ParseDependencies parses a relationship field of a binary package
// (deb-control(5)), such as Depends or Provides.
func ParseDependencies(s string) ([]Dependency, error) {
	var out []Dependency
	for group := range strings.SplitSeq(s, ",") {
		if strings.TrimSpace(group) == "" {
			continue // "a, , b" and a trailing comma occur
		}
		var dep Dependency
		for alternative := range strings.SplitSeq(group, "|") {
			r, err := parseRelation(alternative)
			if err != nil {
				return nil, err
			}
			dep = append(dep, r)
		}
		out = append(out, dep)
	}
	return out, nil
}

func parseRelation(s string) (Relation, error) {
	text := strings.TrimSpace(s)
	head, version, versioned := strings.Cut(text, "(")
	name, arch, _ := strings.Cut(strings.TrimSpace(head), ":")
	r := Relation{Name: name, Arch: arch}
	if err := checkName(name); err != nil {
		return Relation{}, fmt.Errorf("relation %q: %w", text, err)
	}
	if !versioned {
		return r, nil
	}
	inner, rest, closed := strings.Cut(version, ")")
	if !closed || strings.TrimSpace(rest) != "" {
		return Relation{}, fmt.Errorf("relation %q: expected one version in parentheses", text)
	}
	r.Op, r.Version = cutOperator(strings.TrimSpace(inner))
	if r.Op == "" {
		return Relation{}, fmt.Errorf("relation %q: no operator", text)
	}
	if err := checkVersion(r.Version); err != nil {
		return Relation{}, fmt.Errorf("relation %q: %w", text, err)
	}
	return r, nil
}

func cutOperator(s string) (op, version string) {
	i := 0
	for i < len(s) && strings.IndexByte("<>=", s[i]) >= 0 {
		i++
	}
	switch op := s[:i]; op {
	case "<<", "<=", "=", ">=", ">>":
		return op, strings.TrimSpace(s[i:])
	case "<", ">": // old spellings of <= and >=
		return op + "=", strings.TrimSpace(s[i:])
	}
	return "", s
}

// Allows tells whether a version satisfies the relation.
func (r Relation) Allows(version string) bool {
	if r.Op == "" {
		return true
	}
	c := CompareVersions(version, r.Version)
	switch r.Op {
	case "<<":
		return c < 0
	case "<=":
		return c <= 0
	case "=":
		return c == 0
	case ">=":
		return c >= 0
	}
	return c > 0
}

// String is the relation as Debian writes it.
func (r Relation) String() string {
	s := r.Name
	if r.Arch != "" {
		s += ":" + r.Arch
	}
	if r.Op != "" {
		s += " (" + r.Op + " " + r.Version + ")"
	}
	return s
}

// String is the dependency as Debian writes it.
func (d Dependency) String() string {
	names := make([]string, len(d))
	for i, r := range d {
		names[i] = r.String()
	}
	return strings.Join(names, " | ")
}

// checkName tells whether s can be the name of a package; such a name is also
// safe as a part of a path.
func checkName(s string) error {
	if len(s) < 2 || !isDigit(s[0]) && !isLetter(s[0]) {
		return fmt.Errorf("%q is not a package name", s)
	}
	for i := range len(s) {
		if c := s[i]; !isDigit(c) && !isLetter(c) && c != '+' && c != '-' && c != '.' {
			return fmt.Errorf("%q is not a package name", s)
		}
	}
	return nil
}

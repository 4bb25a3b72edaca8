package debian

import (
	"fmt"
	"slices"
	"strings"
)

// resolver finds a closure. It decides each dependency once and never takes a
// decision back: one version of each name is offered, so that apt with an
// empty status has no more to choose from either.
type resolver struct {
	u        *universe
	exclude  excludes
	chosen   map[string]*choice
	queue    []*choice
	open     []wish // alternatives and virtual packages, decided last
	excluded map[string][]string
}

type choice struct {
	*candidate
	by   *choice // who wanted it first; nil for the request
	deps []Dependency
}

type wish struct {
	by  *choice
	dep Dependency
}

func (u *universe) resolve(req Request) ([]Package, []Excluded, error) {
	r := &resolver{
		u:        u,
		exclude:  newExcludes(req),
		chosen:   map[string]*choice{},
		excluded: map[string][]string{},
	}
	// In order of name, so that the order in the request does not matter.
	for _, name := range sorted(req.Packages) {
		c := u.best[name]
		if c == nil {
			return nil, nil, r.unknown(req, name)
		}
		r.add(c, nil)
	}
	if err := r.close(); err != nil {
		return nil, nil, err
	}
	if err := r.checkConflicts(); err != nil {
		return nil, nil, err
	}
	return r.result()
}

// close follows dependencies until none is open. Those that leave no choice
// come first: what they bring may satisfy the others.
func (r *resolver) close() error {
	for len(r.queue) > 0 || len(r.open) > 0 {
		if len(r.queue) == 0 {
			w := r.open[0]
			r.open = r.open[1:]
			if err := r.decide(w); err != nil {
				return err
			}
			continue
		}
		c := r.queue[0]
		r.queue = r.queue[1:]
		deps, err := ParseDependencies(c.preDepends + "," + c.depends)
		if err != nil {
			return fmt.Errorf("package %s: %w", c.name, err)
		}
		c.deps = deps
		for _, dep := range deps {
			w := wish{by: c, dep: dep}
			if len(dep) > 1 || r.u.real(dep[0]) == nil && !r.exclude.matches(dep[0].Name, c.name) {
				r.open = append(r.open, w)
			} else if err := r.decide(w); err != nil {
				return err
			}
		}
	}
	return nil
}

// real gives the package of that very name, if its version will do.
func (u *universe) real(rel Relation) *candidate {
	if c := u.best[rel.Name]; c != nil && rel.Allows(c.version) && !u.foreign(rel) {
		return c
	}
	return nil
}

// foreign tells whether a relation is about another architecture, of which
// there are no packages here.
func (u *universe) foreign(rel Relation) bool {
	return rel.Arch != "" && rel.Arch != "any" && rel.Arch != "native" && rel.Arch != u.arch
}

// decide satisfies one dependency: by what is chosen already, else by the
// first alternative that is there. A real package goes before those that
// provide its name.
func (r *resolver) decide(w wish) error {
	if len(r.satisfiers(w.dep)) > 0 {
		return nil
	}
	var ambiguous []*candidate
	for _, rel := range w.dep {
		if r.leaveOut(rel.Name, w.by) {
			return nil
		}
		if c := r.u.real(rel); c != nil {
			r.add(c, w.by)
			return nil
		}
		providers := preferred(r.u.provide(rel))
		if len(providers) == 1 {
			if !r.leaveOut(providers[0].name, w.by) {
				r.add(providers[0], w.by)
			}
			return nil
		}
		ambiguous = append(ambiguous, providers...)
	}
	if len(ambiguous) > 0 {
		return fmt.Errorf("%s wants %s, which any of %s gives: add the one to have to packages",
			w.by.chain(), w.dep, strings.Join(names(ambiguous), ", "))
	}
	return fmt.Errorf("%s wants %s, which the suite does not have%s", w.by.chain(), w.dep, r.u.offered(w.dep))
}

// offered tells which versions there are of what cannot be satisfied.
func (u *universe) offered(dep Dependency) string {
	for _, rel := range dep {
		if c := u.best[rel.Name]; c != nil {
			return fmt.Sprintf(" (it has %s %s)", c.name, c.version)
		}
	}
	return ""
}

// satisfiers gives the chosen packages that satisfy a dependency.
func (r *resolver) satisfiers(dep Dependency) []*choice {
	var out []*choice
	for _, rel := range dep {
		if r.u.foreign(rel) {
			continue
		}
		if c := r.chosen[rel.Name]; c != nil && rel.Allows(c.version) {
			out = append(out, c)
		}
		for _, c := range r.u.provide(rel) {
			if have := r.chosen[c.name]; have != nil {
				out = append(out, have)
			}
		}
	}
	return out
}

// preferred narrows providers to those of the highest priority, of which
// Debian's standard choice for a virtual package is usually the only one.
func preferred(list []*candidate) []*candidate {
	for _, priority := range []string{"required", "important", "standard"} {
		var out []*candidate
		for _, c := range list {
			if c.priority == priority {
				out = append(out, c)
			}
		}
		if len(out) > 0 {
			return out
		}
	}
	return list
}

func (r *resolver) add(c *candidate, by *choice) {
	if r.chosen[c.name] != nil {
		return
	}
	ch := &choice{candidate: c, by: by}
	r.chosen[c.name] = ch
	r.queue = append(r.queue, ch)
}

// leaveOut tells whether a dependency is on the exclude list, and notes it.
func (r *resolver) leaveOut(name string, by *choice) bool {
	if !r.exclude.matches(name, by.name) {
		return false
	}
	if !slices.Contains(r.excluded[name], by.name) {
		r.excluded[name] = append(r.excluded[name], by.name)
	}
	return true
}

// chain tells why a package is wanted: "nginx-light → nginx".
func (c *choice) chain() string {
	if c.by == nil {
		return c.name
	}
	return c.by.chain() + " → " + c.name
}

func (r *resolver) unknown(req Request, name string) error {
	if providers := r.u.provide(Relation{Name: name}); len(providers) > 0 {
		return fmt.Errorf("package %s: a virtual package of %s; ask for one of %s", name, req.Suite, strings.Join(names(providers), ", "))
	}
	return fmt.Errorf("package %s: %s has none of that name for %s", name, req.Suite, r.u.arch)
}

// checkConflicts finds packages of the closure that cannot stand together.
func (r *resolver) checkConflicts() error {
	for _, name := range sortedKeys(r.chosen) {
		c := r.chosen[name]
		deps, err := ParseDependencies(c.conflicts + "," + c.breaks)
		if err != nil {
			return fmt.Errorf("package %s: %w", name, err)
		}
		for _, dep := range deps {
			for _, other := range r.satisfiers(dep) {
				if other != c {
					return fmt.Errorf("%s conflicts with %s (%s)", c.chain(), other.chain(), dep)
				}
			}
		}
	}
	return nil
}

// result lists the closure, each package after what it depends on; the names
// decide where the dependencies do not, or go round in a circle.
func (r *resolver) result() ([]Package, []Excluded, error) {
	var out []Package
	done := map[string]bool{}
	var visit func(name string) error
	visit = func(name string) error {
		if done[name] {
			return nil
		}
		done[name] = true
		c := r.chosen[name]
		var depends []string
		for _, dep := range c.deps {
			for _, d := range r.satisfiers(dep) {
				if d != c {
					depends = append(depends, d.name)
				}
			}
		}
		slices.Sort(depends)
		depends = slices.Compact(depends)
		for _, d := range depends {
			if err := visit(d); err != nil {
				return err
			}
		}
		p, err := c.pin(depends)
		out = append(out, p)
		return err
	}
	for _, name := range sortedKeys(r.chosen) {
		if err := visit(name); err != nil {
			return nil, nil, err
		}
	}
	var excluded []Excluded
	for _, name := range sortedKeys(r.excluded) {
		if r.chosen[name] == nil {
			excluded = append(excluded, Excluded{Name: name, WantedBy: sorted(r.excluded[name])})
		}
	}
	return out, excluded, nil
}

func names(list []*candidate) []string {
	var out []string
	for _, c := range list {
		out = append(out, c.name)
	}
	return sorted(out)
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

package debian

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"bareboat/builder/layer"
)

// maxLayers is how many layers a plan is split into at most. Registries and
// container engines take some 127 in all, of which others need some too.
const maxLayers = 40

// Report tells what an installation by dpkg would have done and layers do not
// have, and what was done in its place.
type Report struct {
	Scripts  []Script // not run
	Fixups   []Fixup  // applied
	Setuid   []string // files whose setuid or setgid bit was dropped
	Warnings []string // what may or may not matter, such as a script without its interpreter
}

// Script is a maintainer script that was not run.
type Script struct {
	Package, Name string
	// Covered tells that what it does for an image was done as a fix-up.
	Covered bool
}

// Fixup is what was done in place of a package's scripts.
type Fixup struct {
	Package string
	Paths   []string
}

// Layers plans the file system that the lock's packages make, and splits it
// into layers: one of folders, links and accounts, and one for each package,
// or for each source package where those would be too many. Every package must
// be in the cache (see Fetch).
//
// A program that would not find its libraries is an error, as is a script that
// diverts files or sets alternatives in a way that is not understood, if
// neither a fix-up nor the request covers it.
func (a *Archive) Layers(ctx context.Context, l Lock, req Request) ([]layer.Layer, Report, error) {
	if err := a.check(); err != nil {
		return nil, Report{}, err
	}
	if err := req.Validate(); err != nil {
		return nil, Report{}, err
	}
	debs, err := a.open(ctx, l)
	if err != nil {
		return nil, Report{}, err
	}
	p := &plan{tree: newTree(req.ExcludePaths), debs: debs, lock: l}
	if err := p.build(req.Acknowledge); err != nil {
		return nil, Report{}, fmt.Errorf("debian: %w", err)
	}
	return p.split(), p.report, nil
}

// open unpacks every package into the cache and reads its control files.
func (a *Archive) open(ctx context.Context, l Lock) ([]*deb, error) {
	debs := make([]*deb, len(l.Packages))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(workers())
	for i, p := range l.Packages {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			d, err := a.cache().openDeb(p)
			if errors.Is(err, fs.ErrNotExist) {
				err = errors.New("not in the cache: fetch it first")
			}
			if err != nil {
				return fmt.Errorf("unpack %s %s: %w", p.Name, p.Version, err)
			}
			debs[i] = d
			return nil
		})
	}
	return debs, g.Wait()
}

// plan is a file system in the making.
type plan struct {
	*tree
	lock   Lock
	debs   []*deb
	report Report
}

func (p *plan) build(acknowledge []string) error {
	if err := p.addBase(); err != nil {
		return err
	}
	for _, d := range p.debs {
		if err := p.add(d); err != nil {
			return fmt.Errorf("%s: %w", d.Name, err)
		}
	}
	if err := p.standIn(acknowledge); err != nil {
		return err
	}
	if err := p.addAccounts(); err != nil {
		return err
	}
	p.dropUnusedLinks()
	if err := p.addStatus(); err != nil {
		return err
	}
	if err := p.finish(); err != nil {
		return err
	}
	slices.Sort(p.setuid)
	p.report.Setuid = p.setuid
	if err := checkLibraries(p.tree, p.lock.Architecture); err != nil {
		return err
	}
	warnings, err := checkShebangs(p.tree)
	p.report.Warnings = append(p.report.Warnings, warnings...)
	return err
}

// several tells of the first failures in one line.
func several(failures []error) error {
	const most = 5
	var texts []string
	for _, err := range failures[:min(most, len(failures))] {
		texts = append(texts, err.Error())
	}
	if n := len(failures) - most; n > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", n))
	}
	return errors.New(strings.Join(texts, "; "))
}

// mergedLinks are the folders that the merged /usr makes links of.
var mergedLinks = []string{"bin", "sbin", "lib", "lib32", "lib64", "libo32", "libx32"}

// addBase puts what any file system has: first, so that the packages' files
// come to lie behind the links, and the folders keep their modes.
func (p *plan) addBase() error {
	for _, name := range mergedLinks {
		if err := p.set("", layer.Symlink(name, "usr/"+name)); err != nil {
			return err
		}
	}
	base := []layer.File{
		layer.Dir("tmp", fs.ModeSticky|0o777),
		layer.Dir("var/tmp", fs.ModeSticky|0o777),
		layer.Dir("run/lock", fs.ModeSticky|0o777),
		layer.Dir("root", 0o700),
		layer.Symlink("var/run", "/run"),
		layer.Symlink("var/lock", "/run/lock"),
	}
	for _, name := range []string{
		"dev", "etc", "home", "media", "mnt", "opt", "proc", "run", "srv", "sys",
		"usr", "usr/bin", "usr/lib", "usr/sbin", "usr/share", "usr/local",
		"var", "var/cache", "var/lib", "var/log", "var/spool",
	} {
		base = append(base, layer.Dir(name, 0o755))
	}
	for _, f := range base {
		if err := p.set("", f); err != nil {
			return err
		}
	}
	return nil
}

// dropUnusedLinks removes the links of the merged /usr that lead nowhere.
func (p *plan) dropUnusedLinks() {
	used := map[string]bool{}
	for name := range p.nodes {
		if top, rest, ok := strings.Cut(name, "/"); ok && top == "usr" {
			first, _, _ := strings.Cut(rest, "/")
			used[first] = true
		}
	}
	for _, name := range mergedLinks {
		if !used[name] {
			delete(p.nodes, name)
		}
	}
}

// standIn does what scripts would: alternatives and fix-ups.
func (p *plan) standIn(acknowledge []string) error {
	var all []alternative
	var failures []error
	for _, d := range p.debs {
		_, known := fixupFor(d.Name)
		found, err := readScripts(d, known || slices.Contains(acknowledge, d.Name))
		if err != nil {
			failures = append(failures, err)
		}
		all = append(all, found...)
	}
	if len(failures) > 0 {
		return several(failures)
	}
	made, err := setAlternatives(p.tree, all)
	if err != nil {
		return err
	}
	for _, d := range p.debs {
		f, known := fixupFor(d.Name)
		paths, err := f.apply(p.tree, d)
		if err != nil {
			return err
		}
		if paths = append(made[d.Name], paths...); len(paths) > 0 {
			p.report.Fixups = append(p.report.Fixups, Fixup{Package: d.Name, Paths: paths})
		}
		for _, name := range scriptNames {
			if _, ok := d.scripts[name]; ok {
				p.report.Scripts = append(p.report.Scripts, Script{Package: d.Name, Name: name, Covered: known})
			}
		}
	}
	return nil
}

// addAccounts writes passwd and group, with the accounts that sysusers.d asks
// for, and makes what tmpfiles.d asks for.
func (p *plan) addAccounts() error {
	a := newAccounts()
	for _, name := range p.glob("usr/lib/sysusers.d/*.conf") {
		text, err := content(p.nodes[name])
		if err != nil {
			return err
		}
		p.warn(name, a.readSysusers(string(text)))
	}
	for _, name := range p.glob("usr/lib/tmpfiles.d/*.conf") {
		n := p.nodes[name]
		text, err := content(n)
		if err != nil {
			return err
		}
		unread, err := a.readTmpfiles(p.tree, n.owner, string(text))
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		p.warn(name, unread)
	}
	for _, f := range a.files() {
		if err := p.set("", f); err != nil {
			return err
		}
	}
	return nil
}

func (p *plan) warn(name string, unread []string) {
	for _, line := range unread {
		p.report.Warnings = append(p.report.Warnings, fmt.Sprintf("%s: not understood: %s", name, line))
	}
}

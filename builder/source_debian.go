package builder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/dustin/go-humanize"

	"bareboat/builder/debian"
	"bareboat/builder/layer"
)

// LockError says that a lock cannot be followed, and that it may not be
// written anew.
type LockError struct {
	Lock string // path of image.lock
	Err  error
}

func (e *LockError) Error() string { return fmt.Sprintf("%s: %v", e.Lock, e.Err) }
func (e *LockError) Unwrap() error { return e.Err }

// Hint is the remedy.
func (e *LockError) Hint() string {
	return "bareboat lock, then look at the change and commit " + filepath.Base(e.Lock)
}

// packages are the Debian packages of one recipe, as its lock has them.
type packages struct {
	archive *debian.Archive
	path    string // of the lock
	file    debian.LockFile
	arch    string
	tell    teller
	warn    teller
}

// packages reads the lock of a recipe and brings all that it pins into the
// cache. What the lock lacks, or the mirrors have dropped since, is resolved
// anew and written, unless the builder is Locked.
func (b *Builder) packages(ctx context.Context, r *Recipe, tell teller, warn teller) (*packages, error) {
	p := &packages{path: r.LockPath(), tell: tell, warn: warn}
	requests := r.requests()
	if len(requests) == 0 {
		return p, nil
	}
	if err := b.openArchive(r, p); err != nil {
		return nil, err
	}
	changed := false
	for _, request := range requests {
		lock, ok := p.file.Find(request.Hash(), p.arch)
		fresh, err := p.ensure(ctx, request, lock, ok, b.Locked)
		if err != nil {
			return nil, err
		}
		changed = changed || fresh
	}
	if changed {
		// A checkout that cannot be written to is no reason not to build.
		if err := p.write(requests); err != nil {
			p.warn("lock", "%v: the next build resolves again", err)
		}
	}
	return p, nil
}

func (b *Builder) openArchive(r *Recipe, p *packages) (err error) {
	cache, err := b.CacheDir()
	if err != nil {
		return err
	}
	p.archive = &debian.Archive{Mirrors: b.Mirrors, Cache: mkdir(cache, "debian")}
	p.archive.Progress = func(what string, size int64) {
		b.notify(Event{Image: r.Path(), Step: "fetch " + what, Note: humanize.Bytes(uint64(size))})
	}
	if p.arch, err = debian.Architecture(b.platform().Arch); err != nil {
		return err
	}
	p.file, err = debian.ReadLock(p.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRecipe, err)
	}
	return nil
}

// requests are what the recipe's layers want of Debian, each once.
func (r *Recipe) requests() []debian.Request {
	seen := map[string]bool{}
	var out []debian.Request
	for _, l := range r.Layers {
		request, ok := l.request()
		if ok && !seen[request.Hash()] {
			seen[request.Hash()] = true
			out = append(out, request)
		}
	}
	return out
}

// ensure has the packages of one request in the cache, and tells whether it
// had to resolve them for that.
func (p *packages) ensure(ctx context.Context, r debian.Request, lock debian.Lock, have, locked bool) (fresh bool, err error) {
	if have {
		err = p.archive.Fetch(ctx, lock)
		var gone *debian.GoneError
		if !errors.As(err, &gone) {
			return false, err
		}
		if locked {
			return false, &LockError{p.path, fmt.Errorf("it pins %s %s, which no mirror serves any more", gone.Package, gone.Version)}
		}
		p.warn("lock", "%s %s is no longer served: resolving %s anew", gone.Package, gone.Version, lock.Suite)
	} else if locked {
		return false, &LockError{p.path, fmt.Errorf("it does not pin what the recipe asks for (%v for %s)", r.Packages, p.arch)}
	}
	if err := p.resolve(ctx, r, lock); err != nil {
		return false, err
	}
	lock, _ = p.file.Find(r.Hash(), p.arch)
	return true, p.archive.Fetch(ctx, lock)
}

// resolve pins one request anew and says what changed.
func (p *packages) resolve(ctx context.Context, r debian.Request, old debian.Lock) error {
	old.Architecture = p.arch
	lock, err := p.archive.Renew(ctx, r, old)
	if err != nil {
		return err
	}
	for _, c := range debian.Diff(old, lock) {
		p.tell("lock", "%s", c)
	}
	p.file = p.file.With(lock)
	return nil
}

// write keeps the lock, without what no request asks for any more.
func (p *packages) write(requests []debian.Request) error {
	wanted := map[string]bool{}
	for _, r := range requests {
		wanted[r.Hash()] = true
	}
	kept := debian.LockFile{}
	for _, l := range p.file.Locks {
		if wanted[l.Request] {
			kept = kept.With(l)
		}
	}
	if err := debian.WriteLock(p.path, kept); err != nil {
		return fmt.Errorf("%s is not written: %w", p.path, err)
	}
	p.tell("lock", "%s is written: commit it", p.path)
	return nil
}

// unpack gives the files of one request's packages, and what there is to say
// about them.
func (p *packages) unpack(ctx context.Context, r debian.Request) ([]layer.Layer, debian.Report, error) {
	lock, ok := p.file.Find(r.Hash(), p.arch)
	if !ok {
		return nil, debian.Report{}, &LockError{p.path, fmt.Errorf("it does not pin %v", r.Packages)}
	}
	return p.archive.Layers(ctx, lock, r)
}

// layers unpacks and tells what a person should know of it.
func (p *packages) layers(ctx context.Context, r debian.Request) ([]layer.Layer, error) {
	layers, report, err := p.unpack(ctx, r)
	if err != nil {
		return nil, err
	}
	for _, s := range report.Scripts {
		if !s.Covered {
			p.tell("script", "%s of %s is not run", s.Name, s.Package)
		}
	}
	for _, name := range report.Setuid {
		p.tell("setuid", "%s loses its setuid or setgid bit", name)
	}
	for _, w := range report.Warnings {
		p.warn("packages", "%s", w)
	}
	return layers, nil
}

// Lock resolves the Debian packages of a recipe anew, writes its lock and says
// what changed, a line each.
func (b *Builder) Lock(ctx context.Context, r *Recipe) ([]string, error) {
	requests := r.requests()
	if len(requests) == 0 {
		return nil, nil
	}
	var said []string
	say := func(step, format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }
	p := &packages{path: r.LockPath(), tell: say, warn: say}
	if err := b.openArchive(r, p); err != nil {
		return nil, err
	}
	for _, request := range requests {
		old, _ := p.file.Find(request.Hash(), p.arch)
		if err := p.resolve(ctx, request, old); err != nil {
			return nil, fmt.Errorf("lock %s: %w", r.Path(), err)
		}
	}
	if err := p.write(requests); err != nil {
		return nil, fmt.Errorf("lock %s: %w", r.Path(), err)
	}
	return said, nil
}

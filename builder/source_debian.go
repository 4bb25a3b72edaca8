package builder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"

	"github.com/dustin/go-humanize"

	"bareboat/builder/cache"
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
	wanted  []debian.Request
	locked  bool // what the lock lacks is an error
	dry     bool // the lock is not written
	tell    teller
	warn    teller

	mu   sync.Mutex // layers are made side by side
	file debian.LockFile
}

// packages reads the lock of a recipe. What it lacks is resolved for the
// platforms and written, unless the builder is Locked.
func (b *Builder) packages(ctx context.Context, r *Recipe, platforms []Platform, tell, warn teller) (*packages, error) {
	p := &packages{path: r.LockPath(), wanted: r.requests(), locked: b.Locked, dry: b.Dry, tell: tell, warn: warn}
	if len(p.wanted) == 0 {
		return p, nil
	}
	if err := b.openArchive(r, p); err != nil {
		return nil, err
	}
	fresh := false
	for _, platform := range platforms {
		arch, err := debian.Architecture(platform.Arch)
		if err != nil {
			return nil, err
		}
		for _, request := range p.wanted {
			if _, ok := p.file.Find(request.Hash(), arch); ok {
				continue
			}
			if p.locked {
				return nil, &LockError{p.path, fmt.Errorf("it does not pin what the recipe asks for (%v for %s)", request.Packages, arch)}
			}
			if err := p.resolve(ctx, request, arch); err != nil {
				return nil, err
			}
			fresh = true
		}
	}
	if fresh {
		p.keep()
	}
	return p, nil
}

func (b *Builder) openArchive(r *Recipe, p *packages) error {
	cache, err := b.CacheDir()
	if err != nil {
		return err
	}
	p.archive = &debian.Archive{Mirrors: b.Mirrors, Cache: mkdir(cache, packagesDir)}
	p.archive.Progress = func(what string, size int64) {
		b.notify(Event{Image: r.Path(), Step: "fetch " + what, Note: humanize.Bytes(uint64(size))})
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

// lock is what is pinned for a request now.
func (p *packages) lock(r debian.Request, arch string) (debian.Lock, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	lock, ok := p.file.Find(r.Hash(), arch)
	if !ok {
		return debian.Lock{}, &LockError{p.path, fmt.Errorf("it does not pin %v for %s", r.Packages, arch)}
	}
	return lock, nil
}

// inputs are what the layers of a request depend on.
func (p *packages) inputs(r debian.Request, arch string) (cache.Inputs, error) {
	lock, err := p.lock(r, arch)
	if err != nil {
		return nil, err
	}
	asked, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	var in cache.Inputs
	in.Add("bareboat", "%s", self())
	in.Add("architecture", "%s", arch)
	in.Add("request", "%s", asked)
	for i, pkg := range lock.Packages {
		// The order counts: it is the order of layers.
		in.Add("package "+pkg.Name, "%d %s %s", i, pkg.Version, pkg.SHA256)
	}
	return in, nil
}

// fetch has the packages of one request in the cache. What the mirrors have
// dropped is resolved anew: then the lock pins something else.
func (p *packages) fetch(ctx context.Context, r debian.Request, arch string) (debian.Lock, error) {
	lock, err := p.lock(r, arch)
	if err != nil {
		return debian.Lock{}, err
	}
	err = p.archive.Fetch(ctx, lock)
	var gone *debian.GoneError
	if !errors.As(err, &gone) {
		return lock, err
	}
	if p.locked {
		return debian.Lock{}, &LockError{p.path, fmt.Errorf("it pins %s %s, which no mirror serves any more", gone.Package, gone.Version)}
	}
	p.warn("lock", "%s %s is no longer served: resolving %s anew", gone.Package, gone.Version, lock.Suite)
	p.mu.Lock()
	if err = p.resolve(ctx, r, arch); err == nil {
		p.keep()
		lock, _ = p.file.Find(r.Hash(), arch)
	}
	p.mu.Unlock()
	if err != nil {
		return debian.Lock{}, err
	}
	return lock, p.archive.Fetch(ctx, lock)
}

// resolve pins one request anew and says what changed.
func (p *packages) resolve(ctx context.Context, r debian.Request, arch string) error {
	old, _ := p.file.Find(r.Hash(), arch)
	old.Architecture = arch
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

// keep writes the lock. A checkout that cannot be written to is no reason not
// to build.
func (p *packages) keep() {
	if p.dry {
		return
	}
	if err := p.write(); err != nil {
		p.warn("lock", "%v: the next build resolves again", err)
	}
}

// write keeps the lock, without what no request asks for any more.
func (p *packages) write() error {
	wanted := map[string]bool{}
	for _, r := range p.wanted {
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
func (p *packages) unpack(ctx context.Context, r debian.Request, arch string) ([]layer.Layer, debian.Report, error) {
	lock, err := p.fetch(ctx, r, arch)
	if err != nil {
		return nil, debian.Report{}, err
	}
	return p.archive.Layers(ctx, lock, r)
}

// layers unpacks and tells what a person should know of it.
func (p *packages) layers(ctx context.Context, r debian.Request, arch string) ([]layer.Layer, error) {
	layers, report, err := p.unpack(ctx, r, arch)
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

// Lock resolves the Debian packages of a recipe anew for the builder's
// platforms, writes its lock and says what changed, a line each.
func (b *Builder) Lock(ctx context.Context, r *Recipe) ([]string, error) {
	var said []string
	say := func(step, format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }
	p := &packages{path: r.LockPath(), wanted: r.requests(), tell: say, warn: say}
	if len(p.wanted) == 0 {
		return nil, nil
	}
	if err := b.openArchive(r, p); err != nil {
		return nil, err
	}
	for _, platform := range b.platforms() {
		arch, err := debian.Architecture(platform.Arch)
		if err != nil {
			return nil, err
		}
		for _, request := range p.wanted {
			if err := p.resolve(ctx, request, arch); err != nil {
				return nil, fmt.Errorf("lock %s: %w", r.Path(), err)
			}
		}
	}
	if err := p.write(); err != nil {
		return nil, fmt.Errorf("lock %s: %w", r.Path(), err)
	}
	return said, nil
}

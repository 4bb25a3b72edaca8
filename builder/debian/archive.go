package debian

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"golang.org/x/sync/errgroup"
)

// maxRelease bounds an InRelease file; Debian's have 50 to 250 kB.
const maxRelease = 8 << 20

// parallelFetches is kind to mirrors and yet hides their latency.
const parallelFetches = 4

// Archive is a Debian archive together with a cache of what came from it. The
// zero value of every field but Cache means Debian's own.
type Archive struct {
	Mirrors Mirrors
	// Cache is a folder for indices, packages and their unpacked content.
	Cache string
	// Keys are those of which one must have signed a suite.
	Keys   openpgp.EntityList
	Client *http.Client
	Now    func() time.Time
	// Patience is how long a mirror may go without sending anything to speak
	// of; default a minute.
	Patience time.Duration
	// Progress, if set, is told of each finished download: what it was, and
	// its size in bytes. It may be called from several goroutines.
	Progress func(what string, size int64)
}

// GoneError is a pinned package that the mirrors no longer serve: Debian drops
// superseded versions. The remedy is to resolve anew.
type GoneError struct {
	Package, Version, URL string
}

func (e *GoneError) Error() string {
	return fmt.Sprintf("fetch %s %s: %s: no longer served", e.Package, e.Version, e.URL)
}

// Fetch brings every package of the lock into the cache, and verifies those
// that are there; it needs no network if all are. A package that no mirror
// serves any more gives a *GoneError.
func (a *Archive) Fetch(ctx context.Context, l Lock) error {
	if err := a.check(); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelFetches)
	for _, p := range l.Packages {
		g.Go(func() error { return a.fetchPackage(ctx, p) })
	}
	return g.Wait()
}

func (a *Archive) fetchPackage(ctx context.Context, p Package) error {
	var urls []string
	for _, base := range a.mirrors().bases(p.Suite) {
		urls = append(urls, base+"/"+p.Path)
	}
	err := a.fetchBlob(ctx, p.Name+" "+p.Version, urls, indexFile{sha256: p.SHA256, size: p.Size})
	if errors.Is(err, errNotServed) {
		return &GoneError{Package: p.Name, Version: p.Version, URL: urls[0]}
	}
	if err != nil {
		return fmt.Errorf("fetch %s %s: %w", p.Name, p.Version, err)
	}
	return nil
}

// fetchBlob brings one file into the cache from the first address that has it.
func (a *Archive) fetchBlob(ctx context.Context, what string, urls []string, want indexFile) error {
	if ok, err := a.cache().has(want.sha256, want.size); ok || err != nil {
		return err
	}
	err := tryEach(urls, func(url string) error {
		return a.get(ctx, url, func(r io.Reader) error {
			return a.cache().put(want.sha256, want.size, r)
		})
	})
	if err == nil && a.Progress != nil {
		a.Progress(what, want.size)
	}
	return err
}

// loadRelease reads and verifies the InRelease of a suite, from the first
// mirror that gives a good one.
func (a *Archive) loadRelease(ctx context.Context, suite string) (r release, src Source, err error) {
	keys := a.Keys
	if keys == nil {
		if keys, err = Keyring(); err != nil {
			return release{}, Source{}, err
		}
	}
	mirrors := a.mirrors()
	var urls []string
	for _, base := range mirrors.bases(suite) {
		urls = append(urls, base+"/dists/"+suite+"/InRelease")
	}
	err = tryEach(urls, func(url string) error {
		var data []byte
		if err := a.get(ctx, url, func(body io.Reader) (err error) {
			data, err = io.ReadAll(io.LimitReader(body, maxRelease))
			return err
		}); err != nil {
			return err
		}
		now := a.now()
		if r, err = readRelease(data, keys, now); err == nil {
			err = r.check(suite, now, mirrors.AllowExpired)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", url, err)
		}
		sum := sha256.Sum256(data)
		src = Source{
			Suite:      suite,
			Codename:   r.codename,
			Date:       r.date,
			ValidUntil: r.validUntil,
			Expired:    r.expired(now),
			SHA256:     hex.EncodeToString(sum[:]),
			Signer:     r.signer,
		}
		return nil
	})
	return r, src, err
}

// fetchIndex brings the package index of one component into the cache.
func (a *Archive) fetchIndex(ctx context.Context, r release, suite, component, arch string) (name string, file indexFile, err error) {
	name, file, err = r.index(component, arch)
	if err != nil {
		return "", indexFile{}, fmt.Errorf("suite %s: %w", suite, err)
	}
	where := name
	if r.byHash {
		// By its hash an index is served even while the mirror changes.
		where = path.Join(path.Dir(name), "by-hash", "SHA256", file.sha256)
	}
	var urls []string
	for _, base := range a.mirrors().bases(suite) {
		urls = append(urls, base+"/dists/"+suite+"/"+where)
	}
	if err := a.fetchBlob(ctx, suite+" index", urls, file); err != nil {
		return "", indexFile{}, fmt.Errorf("fetch the index of %s: %w", suite, err)
	}
	return name, file, nil
}

// openIndex gives the uncompressed index, which fetchIndex has verified.
func (a *Archive) openIndex(name string, file indexFile) (io.ReadCloser, error) {
	f, err := os.Open(a.cache().blob(file.sha256))
	if err != nil {
		return nil, err
	}
	r, err := decompress(strings.TrimPrefix(path.Ext(name), "."), f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return readCloser{r, f}, nil
}

type readCloser struct {
	io.Reader
	io.Closer
}

func (a *Archive) check() error {
	if a.Cache == "" {
		return errors.New("debian: the archive has no cache folder")
	}
	return nil
}

func (a *Archive) cache() cache     { return cache(a.Cache) }
func (a *Archive) mirrors() Mirrors { return a.Mirrors.WithDefaults() }

func (a *Archive) now() time.Time {
	if a.Now != nil {
		return a.Now()
	}
	return time.Now()
}

// workers is how many packages are unpacked at once.
func workers() int { return max(1, runtime.GOMAXPROCS(0)) }

// tryEach calls try with each address until one succeeds. It is errNotServed
// only if every address says so.
func tryEach(urls []string, try func(url string) error) error {
	var failures []error
	for _, url := range urls {
		err := try(url)
		if err == nil {
			return nil
		}
		failures = append(failures, err)
	}
	if i := slices.IndexFunc(failures, func(err error) bool { return !errors.Is(err, errNotServed) }); i >= 0 {
		return failures[i]
	}
	return failures[0]
}

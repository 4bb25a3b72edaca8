// Package builder turns a recipe into an image.
//
// A recipe lists parts, each from one source, and the configuration of the
// image's containers. A part gives a layer, or several, each a canonical tar
// (package layer), compressed and kept (package cache) under a key of all that
// went in. A frame is the image without its layers, as a commit through the
// buildah library makes it: the base, the configuration, the history. To link is
// to put the layers into the frame; the digest of the manifest that comes of it
// is the image's identity. From the cache an image can be put into the local
// store, which it then shares with Podman and Buildah.
//
// The store can only be opened inside a user namespace. A small part of this
// program runs there, in a process of its own (see Init); all the rest stays
// outside of it.
//
// This package is the only one that imports buildah and containers/storage.
package builder

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/singleflight"

	"bareboat/builder/cache"
	"bareboat/builder/debian"
	"bareboat/builder/layer"
	"bareboat/internal/oci"
)

// Event tells how far a build is. It is meant for people.
type Event struct {
	Image string // name of the image, as the caller gave it
	Step  string // "layer app", "commit", "store"
	Note  string // what came of it: a size, a warning
	Warn  bool
}

// Builder builds images and knows the local store. The zero value works with
// the user's own cache and store.
type Builder struct {
	// Cache is the folder of what may be thrown away and made again: packages,
	// finished images. Default: bareboat in the user's cache folder.
	Cache string
	// Root and RunRoot choose another store, as in Podman and Buildah.
	Root, RunRoot string
	// Mirrors of the Debian archive; default: those of the host.
	Mirrors debian.Mirrors
	// Locked makes it an error when what a lock pins is no longer to be had.
	Locked bool
	// Platforms of the images; default the host's. Several give an index.
	Platforms []Platform
	// Compression of the layers, one of Compressions; default gzip.
	Compression string
	// Dry makes images without keeping anything: neither in the cache nor of
	// the lock. They last until Close.
	Dry bool
	// Epoch is the time of files and history, in seconds since 1970.
	Epoch int64
	// Notify, where set, is told how far a build is. It may be called from
	// several goroutines.
	Notify func(Event)

	mu     sync.Mutex
	opened *cache.Cache
	tried  string // folder of a dry build
	jobs   chan struct{}
	making singleflight.Group // parts that several images share, by key
}

// cached is the cache, opened with the first use.
func (b *Builder) cached() (*cache.Cache, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.opened != nil {
		return b.opened, nil
	}
	dir, err := b.CacheDir()
	if err != nil {
		return nil, err
	}
	c, err := cache.Open(dir)
	if err != nil {
		return nil, err
	}
	if b.Dry {
		if b.tried, err = b.workDir(dir); err == nil {
			c, err = cache.Over(filepath.Join(b.tried, "cache"), c)
		}
	}
	if err != nil {
		return nil, err
	}
	b.opened = c
	b.jobs = make(chan struct{}, runtime.GOMAXPROCS(0))
	return c, nil
}

// Close lets go of the cache, and removes what a dry build made.
func (b *Builder) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.opened == nil {
		return nil
	}
	err := b.opened.Close()
	if b.tried != "" {
		err = errors.Join(err, os.RemoveAll(b.tried))
	}
	b.opened = nil
	return err
}

// abandoned is the age at which a build's folder is taken for that of a build
// that was killed.
const abandoned = 24 * time.Hour

// workDir makes a folder for one build, and clears away what killed ones left.
func (b *Builder) workDir(cache string) (string, error) {
	all := mkdir(cache, "work")
	if err := forgetOld(all, time.Now().Add(-abandoned)); err != nil {
		return "", err
	}
	return os.MkdirTemp(all, "build-")
}

func forgetOld(dir string, before time.Time) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.ModTime().Before(before) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// tarFile is an assembled layer.
type tarFile struct {
	Path      string
	CreatedBy string
	DiffID    oci.Digest
	Size      int64 // bytes
}

func writeTar(path string, l layer.Layer, epoch int64) (t tarFile, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return tarFile{}, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	sum := digest.Canonical.Digester()
	if err := layer.WriteTar(io.MultiWriter(f, sum.Hash()), l.Files, timeOf(epoch)); err != nil {
		return tarFile{}, err
	}
	size, err := f.Seek(0, io.SeekCurrent)
	return tarFile{Path: path, CreatedBy: l.CreatedBy, DiffID: sum.Digest(), Size: size}, err
}

func (b *Builder) notify(e Event) {
	if b.Notify != nil {
		b.Notify(e)
	}
}

func (b *Builder) platforms() []Platform {
	if len(b.Platforms) == 0 {
		return []Platform{HostPlatform()}
	}
	return b.Platforms
}

// CacheDir is the folder of the cache, which it makes if need be.
func (b *Builder) CacheDir() (string, error) {
	if b.Cache != "" {
		return b.Cache, os.MkdirAll(b.Cache, 0o700)
	}
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache folder: %w", err)
	}
	dir := filepath.Join(base, "bareboat")
	return dir, os.MkdirAll(dir, 0o700)
}

// mkdir gives a folder below the cache. That it cannot be made shows when
// something is put into it.
func mkdir(cache, name string) string {
	dir := filepath.Join(cache, name)
	_ = os.Mkdir(dir, 0o700)
	return dir
}

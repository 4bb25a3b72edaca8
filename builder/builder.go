// Package builder turns a recipe into an image.
//
// A recipe lists layers, each from one source, and the configuration of the
// image's containers. Each layer is assembled as a canonical tar by package
// layer; one commit through the buildah library joins them into an OCI image
// layout, whose manifest digest is the image's identity; from there it can be
// put into the local store, which it then shares with Podman and Buildah.
//
// The store can only be opened inside a user namespace. A small part of this
// program runs there, in a process of its own (see Init); all the rest stays
// outside of it.
//
// This package is the only one that imports buildah and containers/storage.
package builder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

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
	// Platform of the images; default the host's.
	Platform Platform
	// Epoch is the time of files and history, in seconds since 1970.
	Epoch int64
	// Notify, where set, is told how far a build is. It may be called from
	// several goroutines.
	Notify func(Event)
}

// Build makes the image of a recipe and puts it into the user's cache as an
// OCI image layout. tree is the folder that the recipe's files may not leave,
// usually the project's. The result depends on recipe, lock, files, toolchain
// and Epoch alone. An interrupted build leaves nothing that a later one would
// take for finished.
func (b *Builder) Build(ctx context.Context, r *Recipe, tree string, name oci.Reference) (oci.Image, error) {
	cache, err := b.CacheDir()
	if err != nil {
		return oci.Image{}, err
	}
	work, err := b.workDir(cache)
	if err != nil {
		return oci.Image{}, fmt.Errorf("build %s: %w", name, err)
	}
	defer os.RemoveAll(work)
	img, err := b.build(ctx, r, tree, name, work)
	if err != nil {
		return oci.Image{}, fmt.Errorf("build %s: %w", name, err)
	}
	return img, nil
}

func (b *Builder) build(ctx context.Context, r *Recipe, tree string, name oci.Reference, work string) (oci.Image, error) {
	say := func(warn bool) teller {
		return func(step, format string, args ...any) {
			b.notify(Event{Image: name.Name(), Step: step, Note: fmt.Sprintf(format, args...), Warn: warn})
		}
	}
	tell := say(false)
	layers, err := b.layers(ctx, r, tree, work, tell, say(true))
	if err != nil {
		return oci.Image{}, err
	}
	req := commitRequest{
		Base: r.Base, Config: r.Config, Platform: b.platform(), Epoch: b.Epoch,
		Layout: filepath.Join(work, "layout"),
	}
	for i, l := range layers {
		t, err := writeTar(filepath.Join(work, fmt.Sprintf("layer-%03d.tar", i)), l, b.Epoch)
		if err != nil {
			return oci.Image{}, fmt.Errorf("layer %s: %w", l.Name, err)
		}
		tell("layer "+l.Name, "%s", humanize.Bytes(uint64(t.Size)))
		req.Layers = append(req.Layers, t)
	}
	var done commitResult
	if err := b.inStore(ctx, "commit", req, &done); err != nil {
		return oci.Image{}, err
	}
	layout, err := b.keep(req.Layout, done.Digest)
	if err != nil {
		return oci.Image{}, err
	}
	tell("commit", "%s", done.Digest)
	return oci.Image{Name: name, Layout: layout, Digest: done.Digest}, nil
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

// keep moves a finished layout to where it is found by its digest. One that is
// there already should be the same, but a crash of the machine may have spoilt
// it: the two change places, and the old one goes with the work folder.
func (b *Builder) keep(layout string, d oci.Digest) (string, error) {
	cache, err := b.CacheDir()
	if err != nil {
		return "", err
	}
	dest := filepath.Join(mkdir(cache, "images"), d.Encoded())
	err = os.Rename(layout, dest)
	if errors.Is(err, fs.ErrExist) || errors.Is(err, unix.ENOTEMPTY) {
		err = unix.Renameat2(unix.AT_FDCWD, layout, unix.AT_FDCWD, dest, unix.RENAME_EXCHANGE)
	}
	if err != nil {
		return "", fmt.Errorf("keep the image: %w", err)
	}
	now := time.Now()
	if err := os.Chtimes(dest, now, now); err != nil {
		return "", err
	}
	return dest, forgetOld(filepath.Dir(dest), now.Add(-keepLayouts))
}

// keepLayouts is how long a finished layout that nobody asks for is kept.
const keepLayouts = 7 * 24 * time.Hour

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
	if err := layer.WriteTar(io.MultiWriter(f, sum.Hash()), l.Files, time.Unix(epoch, 0).UTC()); err != nil {
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

func (b *Builder) platform() Platform {
	if b.Platform == (Platform{}) {
		return HostPlatform()
	}
	return b.Platform
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

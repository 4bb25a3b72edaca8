package cache

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrInUse says that another process works with the cache.
var ErrInUse = errors.New("another command is using the cache")

func share(f *os.File) error { return flock(f, unix.LOCK_SH) }

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// replaceDir puts the folder fresh in the place of dir, if there is one; then
// the old one is where fresh was.
func replaceDir(fresh, dir string) error {
	err := os.Rename(fresh, dir)
	if errors.Is(err, fs.ErrExist) || errors.Is(err, unix.ENOTEMPTY) {
		err = unix.Renameat2(unix.AT_FDCWD, fresh, unix.AT_FDCWD, dir, unix.RENAME_EXCHANGE)
	}
	return err
}

// Usage is what some part of a cache takes.
type Usage struct {
	What  string `json:"what"` // "blobs", "records", "images"
	Files int    `json:"files"`
	Bytes int64  `json:"bytes"`
}

// Usage says what the cache holds, and what others keep beside it in the named
// folders.
func (c *Cache) Usage(others ...string) ([]Usage, error) {
	var out []Usage
	for _, part := range append([]string{blobsDir, recordsDir, imagesDir}, others...) {
		u := Usage{What: part}
		err := filepath.WalkDir(filepath.Join(c.dir, part), func(_ string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return ignoreMissing(err)
			}
			info, err := d.Info()
			if err != nil {
				return ignoreMissing(err)
			}
			u.Files++
			u.Bytes += info.Size()
			return nil
		})
		if err != nil {
			return nil, err
		}
		out = append(out, u)
	}
	return out, nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Pruned is what Prune removed, or would.
type Pruned struct {
	Files int   `json:"files"`
	Bytes int64 `json:"bytes"`
}

// Prune removes the records that nobody has used since a time, and the blobs
// and images likewise that no other record names, and all that lies in the folders of
// others. It wants the cache for itself: while another process has it open the
// error is ErrInUse. With dry nothing is removed.
func (c *Cache) Prune(unused time.Time, dry bool, others ...string) (Pruned, error) {
	if err := flock(c.lock, unix.LOCK_EX|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		// A failed conversion may have let go of the lock.
		return Pruned{}, errors.Join(ErrInUse, share(c.lock))
	} else if err != nil {
		return Pruned{}, fmt.Errorf("lock the cache: %w", err)
	}
	p := pruning{dry: dry}
	err := p.run(c.dir, unused)
	for _, dir := range others {
		if err == nil {
			err = p.empty(filepath.Join(c.dir, dir))
		}
	}
	if err != nil {
		err = fmt.Errorf("prune the cache: %w", err)
	}
	return p.Pruned, errors.Join(err, share(c.lock))
}

// lastPrune is a file whose time is that of the last Tidy.
const lastPrune = "pruned"

// Tidy prunes what has not been used for a long time, when that was not done for
// an interval, and when nobody else is using the cache.
func (c *Cache) Tidy(unused, interval time.Duration) error {
	path := filepath.Join(c.dir, lastPrune)
	if info, err := os.Stat(path); err == nil && time.Since(info.ModTime()) < interval {
		return nil
	}
	if _, err := c.Prune(time.Now().Add(-unused), false); errors.Is(err, ErrInUse) {
		return nil
	} else if err != nil {
		return err
	}
	return os.WriteFile(path, nil, 0o600)
}

type pruning struct {
	Pruned
	dry bool
}

var hexDigest = regexp.MustCompile(`[0-9a-f]{64}`)

func (p *pruning) run(dir string, unused time.Time) error {
	named := map[string]bool{}
	err := p.each(filepath.Join(dir, recordsDir), func(path string, info fs.FileInfo) error {
		if info.ModTime().Before(unused) || strings.HasPrefix(info.Name(), partial) {
			return p.remove(path, info)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		_, text, _ := bytes.Cut(content, []byte("\n"))
		for _, d := range hexDigest.FindAll(text, -1) {
			named[string(d)] = true
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, sub := range []string{filepath.Join(blobsDir, "sha256"), blobsDir, imagesDir} {
		err := p.each(filepath.Join(dir, sub), func(path string, info fs.FileInfo) error {
			// What is young may belong to a record that is about to be written.
			if named[info.Name()] || info.Name() == "sha256" || !info.ModTime().Before(unused) {
				return nil
			}
			return p.remove(path, info)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// empty removes all files below a folder.
func (p *pruning) empty(dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return ignoreMissing(err)
		}
		info, err := d.Info()
		if err != nil {
			return ignoreMissing(err)
		}
		return p.remove(path, info)
	})
}

func (p *pruning) each(dir string, do func(string, fs.FileInfo) error) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err == nil {
			err = do(filepath.Join(dir, e.Name()), info)
		}
		if err := ignoreMissing(err); err != nil {
			return err
		}
	}
	return nil
}

func (p *pruning) remove(path string, info fs.FileInfo) error {
	p.Files++
	if info.Mode().IsRegular() {
		p.Bytes += info.Size()
	}
	if p.dry {
		return nil
	}
	return os.RemoveAll(path)
}

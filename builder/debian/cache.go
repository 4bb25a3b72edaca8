package debian

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// cache is a folder of files addressed by their SHA-256. A file appears in it
// whole or not at all, so that several processes may share it.
type cache string

// blob is the path of the file with the given SHA-256.
func (c cache) blob(sum string) string {
	return filepath.Join(string(c), "sha256", sum)
}

// has tells whether the cache holds the file, after reading all of it: what a
// crash or a bad disk left behind is thrown away.
func (c cache) has(sum string, size int64) (bool, error) {
	f, err := os.Open(c.blob(sum))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	} else if err != nil {
		return false, err
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return false, err
	}
	if n == size && hexSum(h) == sum {
		return true, nil
	}
	if err := os.Remove(f.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	return false, nil
}

// put stores what r gives, which must have the given digest and size.
func (c cache) put(sum string, size int64, r io.Reader) error {
	return c.create(func(f *os.File) (string, error) {
		h := sha256.New()
		n, err := io.Copy(io.MultiWriter(f, h), io.LimitReader(r, size+1))
		switch got := hexSum(h); {
		case err != nil:
			return "", err
		case n > size:
			return "", fmt.Errorf("longer than the %d bytes expected", size)
		case n < size:
			return "", fmt.Errorf("ends after %d of %d bytes: %w", n, size, io.ErrUnexpectedEOF)
		case got != sum:
			return "", fmt.Errorf("%w: SHA-256 is %s, expected %s", errChanged, got, sum)
		}
		return c.blob(sum), nil
	})
}

// errChanged is content that is not what its digest says.
var errChanged = errors.New("changed")

// create writes a temporary file in the cache and moves it to the path that
// write gives.
func (c cache) create(write func(*os.File) (string, error)) error {
	if err := os.MkdirAll(filepath.Join(string(c), "sha256"), 0o755); err != nil {
		return err
	}
	return writeWhole(string(c), write)
}

// writeWhole makes a file appear whole or not at all: it is written under
// another name in dir, and moved to the path that write gives.
func writeWhole(dir string, write func(*os.File) (string, error)) (err error) {
	f, err := os.CreateTemp(dir, "part-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}()
	target, err := write(f)
	if err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), target); err != nil {
		return err
	}
	return f.Close()
}

func hexSum(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)) }

// contextReader ends with the context's error once that is done.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

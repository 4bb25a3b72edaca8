// Package cache keeps what a build made, so that the next one need not make it
// again.
//
// An input is something that a result depends on: a file, a flag, the version
// of a compiler. A key is the digest of all inputs of one result. A record says
// what came of a key; a blob is a file that stands under its own digest. So a
// record is found by what goes in, and a blob by what comes out.
//
// Nothing here is trusted for being there. A record carries a digest of itself,
// and a blob is held against its descriptor before it is used (Check): what a
// crash, a bad disk or a curious hand left behind is made anew. Files appear
// whole or not at all, so that any number of processes may share a cache; they
// hold its lock together, and pruning wants it alone.
package cache

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"bareboat/internal/oci"
)

// ErrNone says that there is no record of a key.
var ErrNone = errors.New("no record")

// CorruptError says that a record or a blob is not what it was when it was
// written.
type CorruptError struct {
	Path string
	Err  error
}

func (e *CorruptError) Error() string { return fmt.Sprintf("%s: %v", e.Path, e.Err) }
func (e *CorruptError) Unwrap() error { return e.Err }

// Cache is a folder of blobs and records. It may be used by several goroutines
// and processes at once.
type Cache struct {
	dir   string
	lock  *os.File
	below *Cache // is read where this one has nothing; nil: none
}

// The parts of a cache.
const (
	lockName   = "lock"
	blobsDir   = "blobs" // as an OCI image layout has it
	recordsDir = "records"
	imagesDir  = "images" // image layouts, each a view of one image
	partial    = ".part-" // begins the names of files that are being written
)

// Open opens the cache in dir, which it creates with mode 0700 if need be, and
// holds its lock, together with others, until Close or the end of the process.
func Open(dir string) (*Cache, error) {
	for _, d := range []string{filepath.Join(blobsDir, digest.Canonical.String()), recordsDir, imagesDir} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return nil, fmt.Errorf("open the cache: %w", err)
		}
	}
	f, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the cache: %w", err)
	}
	if err := share(f); err != nil {
		return nil, errors.Join(fmt.Errorf("lock the cache %s: %w", dir, err), f.Close())
	}
	return &Cache{dir: dir, lock: f}, nil
}

// Over opens a cache in dir that reads from below what it has not itself. What
// is made in it is gone with dir: so a build can be tried.
func Over(dir string, below *Cache) (*Cache, error) {
	c, err := Open(dir)
	if err != nil {
		return nil, err
	}
	c.below = below
	return c, nil
}

// Close lets go of the cache.
func (c *Cache) Close() error { return c.lock.Close() }

// Dir is the cache's folder.
func (c *Cache) Dir() string { return c.dir }

func (c *Cache) blob(d oci.Digest) string {
	return filepath.Join(c.dir, blobsDir, d.Algorithm().String(), d.Encoded())
}

// Blob is the path of a blob. That it is there and whole is for Check to say.
func (c *Cache) Blob(d oci.Digest) string {
	own := c.blob(d)
	if c.below == nil {
		return own
	}
	if _, err := os.Stat(own); err == nil {
		return own
	}
	return c.below.Blob(d)
}

// Check reads a blob and holds it against its descriptor. One that is not what
// it should be is removed, and the error is a *CorruptError; one that is not
// there gives fs.ErrNotExist.
func (c *Cache) Check(d oci.Descriptor) error {
	path := c.Blob(d.Digest)
	err := check(path, d)
	var corrupt *CorruptError
	switch {
	case err == nil:
		return c.touch(path)
	case errors.As(err, &corrupt):
		return errors.Join(err, remove(path))
	}
	return err
}

// check holds a file against a descriptor.
func check(path string, d oci.Descriptor) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := d.Digest.Algorithm().Digester()
	n, err := io.Copy(sum.Hash(), f)
	switch {
	case err != nil:
	case n != d.Size:
		err = fmt.Errorf("it has %d bytes, not %d", n, d.Size)
	case sum.Digest() != d.Digest:
		err = errors.New("its content is not what its name says")
	default:
		return nil
	}
	return &CorruptError{Path: path, Err: err}
}

// Read gives the content of a small blob that fits its digest.
func (c *Cache) Read(d oci.Digest) ([]byte, error) {
	path := c.Blob(d)
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if d.Algorithm().FromBytes(content) != d {
		return nil, errors.Join(&CorruptError{Path: path, Err: errors.New("its content is not what its name says")}, remove(path))
	}
	return content, nil
}

// Put stores what write writes as a blob, and gives its digest and size in
// bytes.
func (c *Cache) Put(write func(io.Writer) error) (oci.Descriptor, error) {
	sum := digest.Canonical.Digester()
	var size int64
	err := whole(filepath.Join(c.dir, blobsDir), func(f *os.File) (string, error) {
		if err := write(io.MultiWriter(f, sum.Hash())); err != nil {
			return "", err
		}
		var err error
		size, err = f.Seek(0, io.SeekCurrent)
		return c.blob(sum.Digest()), err
	})
	return oci.Descriptor{Digest: sum.Digest(), Size: size}, err
}

// PutBytes stores content as a blob of a media type.
func (c *Cache) PutBytes(mediaType string, content []byte) (oci.Descriptor, error) {
	d, err := c.Put(func(w io.Writer) error {
		_, err := w.Write(content)
		return err
	})
	d.MediaType = mediaType
	return d, err
}

// Adopt moves a file into the cache as the blob d, which it has to be.
func (c *Cache) Adopt(path string, d oci.Descriptor) error {
	if err := d.Digest.Validate(); err != nil {
		return err
	}
	if err := check(path, d); err != nil {
		return err
	}
	return os.Rename(path, c.blob(d.Digest))
}

// whole makes a file appear whole or not at all: it is written under another
// name in dir, and moved to the path that write gives. It need not outlive a
// crash of the machine: what it holds is checked before it is used.
func whole(dir string, write func(*os.File) (string, error)) (err error) {
	f, err := os.CreateTemp(dir, partial)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, remove(f.Name()))
		}
	}()
	path, err := write(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// touch notes that something is used, for Prune. A cache that cannot be written
// to is no reason not to read it.
func (c *Cache) touch(path string) error {
	now := time.Now()
	if err := os.Chtimes(path, now, now); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil
}

func (c *Cache) record(kind string, key oci.Digest) string {
	return filepath.Join(c.dir, recordsDir, kind+"-"+key.Encoded()+".json")
}

// Load reads the record of a key into value. Where there is none the error is
// ErrNone; a record that is not what was written is removed, and the error is a
// *CorruptError.
func (c *Cache) Load(kind string, key oci.Digest, value any) error {
	path := c.record(kind, key)
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && c.below != nil {
		return c.below.Load(kind, key, value)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNone
	}
	if err != nil {
		return err
	}
	if err := DecodeRecord(content, key, value); err != nil {
		return errors.Join(&CorruptError{Path: path, Err: err}, remove(path))
	}
	return c.touch(path)
}

// Save keeps a record of a key, in the place of an older one.
func (c *Cache) Save(kind string, key oci.Digest, value any) error {
	content, err := encodeRecord(key, value)
	if err != nil {
		return err
	}
	return whole(filepath.Join(c.dir, recordsDir), func(f *os.File) (string, error) {
		_, err := f.Write(content)
		return c.record(kind, key), err
	})
}

// recordFormat is the first word of a record, and changes with its format.
const recordFormat = "bareboat-record-1"

// encodeRecord puts a line in front of the value that tells of which key it is
// and what it holds: "bareboat-record-1 KEY DIGEST".
func encodeRecord(key oci.Digest, value any) ([]byte, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return nil, err
	}
	return append(fmt.Appendf(nil, "%s %s %s\n", recordFormat, key, digest.FromBytes(text)), text...), nil
}

// DecodeRecord reads a record into value. It is an error if the record is not
// whole, or another key's.
func DecodeRecord(content []byte, key oci.Digest, value any) error {
	head, text, ok := bytes.Cut(content, []byte("\n"))
	words := strings.Fields(string(head))
	switch {
	case !ok || len(words) != 3 || words[0] != recordFormat:
		return errors.New("it is not a record")
	case words[1] != key.String():
		return errors.New("it is another key's record")
	case words[2] != digest.FromBytes(text).String():
		return errors.New("its content is not what was written")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	return d.Decode(value)
}

// View gives an OCI image layout of the manifest m, all of whose blobs are in
// the cache: a folder with an index of its own over the cache's blobs.
func (c *Cache) View(m oci.Descriptor) (string, error) {
	dir := filepath.Join(c.dir, imagesDir, m.Digest.Encoded())
	index, err := json.Marshal(oci.Index{
		Versioned: versioned, MediaType: v1.MediaTypeImageIndex, Manifests: []oci.Descriptor{m},
	})
	if err != nil {
		return "", err
	}
	if have, err := os.ReadFile(filepath.Join(dir, v1.ImageIndexFile)); err == nil && bytes.Equal(have, index) {
		return dir, c.touch(dir)
	}
	fresh, err := os.MkdirTemp(filepath.Join(c.dir, imagesDir), partial)
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(fresh)
	err = errors.Join(
		os.WriteFile(filepath.Join(fresh, v1.ImageLayoutFile), layoutFile, 0o600),
		os.WriteFile(filepath.Join(fresh, v1.ImageIndexFile), index, 0o600),
		os.Symlink(filepath.Join("..", "..", blobsDir), filepath.Join(fresh, v1.ImageBlobsDir)),
	)
	if err != nil {
		return "", err
	}
	return dir, replaceDir(fresh, dir)
}

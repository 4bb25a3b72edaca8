package registry

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"bareboat/internal/oci"
)

// layout is the folder of an OCI image layout.
type layout string

// path is where a blob stands. The digest has to be a valid one.
func (l layout) path(d oci.Digest) string {
	return filepath.Join(string(l), v1.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

// manifest reads a manifest's bytes.
func (l layout) manifest(d oci.Digest) ([]byte, error) {
	if err := d.Validate(); err != nil {
		return nil, fmt.Errorf("digest %q: %w", d, err)
	}
	f, err := os.Open(l.path(d))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, manifestLimit+1))
}

// has tells whether a blob is there. Blobs are put in place whole, so that the
// size is enough to know.
func (l layout) has(b oci.Descriptor) bool {
	info, err := os.Stat(l.path(b.Digest))
	return err == nil && info.Mode().IsRegular() && info.Size() == b.Size
}

// put writes a blob, and puts it in place when from has ended without an error.
func (l layout) put(b oci.Descriptor, from io.Reader) error {
	return replace(l.path(b.Digest), from)
}

// add names m in index.json, under its tag if it has one. A tag that named
// another manifest moves.
func (l layout) add(m oci.Descriptor, tag string) error {
	path := filepath.Join(string(l), v1.ImageIndexFile)
	index := oci.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex}
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, &index)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if tag != "" {
		m.Annotations = map[string]string{v1.AnnotationRefName: tag}
	}
	index.Manifests = slices.DeleteFunc(index.Manifests, func(other oci.Descriptor) bool {
		name := other.Annotations[v1.AnnotationRefName]
		return name == tag && (tag != "" || other.Digest == m.Digest)
	})
	index.Manifests = append(index.Manifests, m)
	if err := l.writeJSON(v1.ImageLayoutFile, v1.ImageLayout{Version: v1.ImageLayoutVersion}); err != nil {
		return err
	}
	return l.writeJSON(v1.ImageIndexFile, index)
}

func (l layout) writeJSON(name string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	return replace(filepath.Join(string(l), name), bytes.NewReader(text))
}

// replace writes a file beside path and renames it to path once it is whole
// and on disk.
func replace(path string, content io.Reader) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	if _, err = io.Copy(f, content); err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// verifier reads a blob and fails with the read that shows that it is not what
// its descriptor says; so its last bytes are never passed on.
type verifier struct {
	from  io.Reader
	blob  oci.Descriptor
	hash  hash.Hash
	done  int64
	moved func(done int64)
}

func newVerifier(from io.Reader, blob oci.Descriptor, moved func(done int64)) *verifier {
	return &verifier{from: from, blob: blob, hash: blob.Digest.Algorithm().Hash(), moved: moved}
}

func (v *verifier) Read(p []byte) (int, error) {
	n, err := v.from.Read(p)
	v.hash.Write(p[:n])
	v.done += int64(n)
	switch {
	case v.done > v.blob.Size:
		return 0, fmt.Errorf("%w: blob %s has more than %d bytes", errContent, v.blob.Digest, v.blob.Size)
	case errors.Is(err, io.EOF) && v.done < v.blob.Size:
		return 0, fmt.Errorf("%w: blob %s has %d bytes, not %d", errContent, v.blob.Digest, v.done, v.blob.Size)
	case v.done == v.blob.Size && oci.Digest(fmt.Sprintf("%s:%x", v.blob.Digest.Algorithm(), v.hash.Sum(nil))) != v.blob.Digest:
		return 0, fmt.Errorf("%w: blob is not %s", errContent, v.blob.Digest)
	}
	v.moved(v.done)
	return n, err
}

package sbom

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha1"
	"crypto/sha256"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/klauspost/compress/zstd"

	"bareboat/internal/oci"
)

// textLimit bounds the files whose text is kept: lists of packages, licences.
const textLimit = 64 << 20

// file is one regular file of the image.
type file struct {
	layer        oci.Digest // the one that it comes from
	sha1, sha256 string
	text         []byte               // of those that are read for what they say
	program      *buildinfo.BuildInfo // of programs written in Go
}

// scan is what an image's layers hold, one over the other.
type scan struct {
	files map[string]*file  // by path, without the leading slash
	links map[string]string // symbolic links, path to what they say
	spool *os.File          // a program, for its reader wants to seek
}

func newScan() *scan { return &scan{files: map[string]*file{}, links: map[string]string{}} }

func (s *scan) close() {
	if s.spool != nil {
		s.spool.Close()
		os.Remove(s.spool.Name())
	}
}

// layer reads one layer over those before.
func (s *scan) layer(name string, d oci.Descriptor) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	verified := d.Digest.Verifier()
	raw := io.TeeReader(f, verified)
	plain, err := decompress(raw)
	if err != nil {
		return err
	}
	defer plain.Close()
	hidden, added := []string{}, newScan()
	for r := tar.NewReader(plain); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		where := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
		if base := path.Base(where); strings.HasPrefix(base, whiteout) {
			hidden = append(hidden, path.Join(path.Dir(where), strings.TrimPrefix(base, whiteout)))
			continue
		}
		if err := s.entry(added, where, h, r, d.Digest); err != nil {
			return fmt.Errorf("%s: %w", where, err)
		}
	}
	if _, err := io.Copy(io.Discard, raw); err != nil {
		return err
	}
	if !verified.Verified() {
		return errors.New("its bytes are not what its digest says")
	}
	for _, h := range hidden {
		s.remove(h)
	}
	for where, f := range added.files {
		delete(s.links, where)
		s.files[where] = f
	}
	for where, to := range added.links {
		delete(s.files, where)
		s.links[where] = to
	}
	return nil
}

// whiteout begins the names of entries that hide what lies in the layers below
// (https://github.com/opencontainers/image-spec/blob/main/layer.md#whiteouts);
// the name opaque, what is in their folder.
const (
	whiteout = ".wh."
	opaque   = ".wh..opq" // what is left of .wh..wh..opq
)

// remove takes a path away and what lies below it.
func (s *scan) remove(where string) {
	if path.Base(where) == opaque {
		where = path.Dir(where)
	}
	inside := func(name string) bool {
		return where == "." || name == where || strings.HasPrefix(name, where+"/")
	}
	for name := range s.files {
		if inside(name) {
			delete(s.files, name)
		}
	}
	for name := range s.links {
		if inside(name) {
			delete(s.links, name)
		}
	}
}

func (s *scan) entry(to *scan, where string, h *tar.Header, r io.Reader, layer oci.Digest) error {
	switch h.Typeflag {
	case tar.TypeSymlink:
		to.links[where] = h.Linkname
	case tar.TypeLink:
		target := strings.TrimPrefix(path.Clean("/"+h.Linkname), "/")
		original := to.files[target]
		if original == nil {
			original = s.files[target]
		}
		if original == nil {
			return fmt.Errorf("is a link to %q, which is not there", h.Linkname)
		}
		same := *original
		same.layer = layer
		to.files[where] = &same
	case tar.TypeReg:
		f, err := s.regular(where, r)
		if err != nil {
			return err
		}
		f.layer = layer
		to.files[where] = f
	}
	return nil
}

// regular reads a file: its sums, and what it says if that tells of packages.
func (s *scan) regular(where string, r io.Reader) (*file, error) {
	one, two := sha1.New(), sha256.New()
	content := bufio.NewReader(io.TeeReader(r, io.MultiWriter(one, two)))
	f := &file{}
	magic, _ := content.Peek(4) // a shorter file is no program
	var err error
	switch {
	case isTold(where):
		f.text, err = io.ReadAll(io.LimitReader(content, textLimit))
	case bytes.Equal(magic, []byte("\x7fELF")):
		f.program, err = s.goProgram(content)
	}
	if err == nil {
		_, err = io.Copy(io.Discard, content)
	}
	f.sha1, f.sha256 = fmt.Sprintf("%x", one.Sum(nil)), fmt.Sprintf("%x", two.Sum(nil))
	return f, err
}

// goProgram reads the build information that Go links into programs; nil, where
// there is none.
func (s *scan) goProgram(content io.Reader) (*buildinfo.BuildInfo, error) {
	if s.spool == nil {
		f, err := os.CreateTemp("", "bareboat-sbom-*")
		if err != nil {
			return nil, err
		}
		s.spool = f
	}
	if _, err := s.spool.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	size, err := io.Copy(s.spool, content)
	if err != nil {
		return nil, err
	}
	info, err := buildinfo.Read(io.NewSectionReader(s.spool, 0, size))
	if err != nil {
		return nil, nil // a program, but none of Go's
	}
	return info, nil
}

// decompress opens a layer of any of the kinds that images have, told by how it
// begins.
func decompress(r io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReader(r)
	magic, err := b.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		return gzip.NewReader(b)
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}
	return io.NopCloser(b), nil
}

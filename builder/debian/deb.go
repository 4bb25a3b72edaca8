package debian

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

const (
	maxControl = 16 << 20 // the control member, unpacked
	maxData    = 8 << 30  // the data member, unpacked
	maxMemory  = 256 << 20
)

// deb is an open package: its control files, and its data as an uncompressed
// tar in the cache.
type deb struct {
	Package
	control  stanza
	text     []byte            // the control file
	scripts  map[string]string // preinst, postinst, prerm, postrm, config
	md5sums  string
	dataPath string
}

var scriptNames = []string{"config", "preinst", "postinst", "prerm", "postrm"}

// openDeb reads the control files of a cached package and unpacks its data
// into the cache, if that was not done before.
func (c cache) openDeb(p Package) (*deb, error) {
	f, err := os.Open(c.blob(p.SHA256))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	members, err := readAr(f, p.Size)
	if err != nil {
		return nil, err
	}
	if len(members) < 3 || members[0].name != "debian-binary" {
		return nil, errors.New("not a Debian package")
	}
	d := &deb{Package: p}
	for _, m := range members[1:] {
		format := strings.TrimPrefix(filepath.Ext(m.name), ".")
		switch {
		case strings.HasPrefix(m.name, "control.tar"):
			err = d.readControl(format, m)
		case strings.HasPrefix(m.name, "data.tar"):
			d.dataPath, err = c.unpack(p.SHA256, format, m)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.name, err)
		}
	}
	if d.control == nil || d.dataPath == "" {
		return nil, errors.New("not a Debian package: a member is missing")
	}
	if name, version := d.control.get("Package"), d.control.get("Version"); name != p.Name || version != p.Version {
		return nil, fmt.Errorf("it says that it is %s %s", name, version)
	}
	return d, nil
}

// decompress reads what the suffix of a member's name says; "tar" and "" are
// not compressed.
func decompress(format string, r io.Reader) (io.Reader, error) {
	switch format {
	case "xz":
		// The decoder asks for one byte at a time.
		return xz.NewReader(bufio.NewReaderSize(r, 1<<16))
	case "gz":
		return gzip.NewReader(r)
	case "zst":
		return zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxMemory))
	case "tar", "":
		return r, nil
	}
	return nil, fmt.Errorf("compression %q is not known", format)
}

func (d *deb) readControl(format string, r io.Reader) error {
	plain, err := decompress(format, r)
	if err != nil {
		return err
	}
	d.scripts = map[string]string{}
	files := tar.NewReader(io.LimitReader(plain, maxControl))
	for {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		text, err := io.ReadAll(files)
		if err != nil {
			return err
		}
		switch name := strings.TrimPrefix(h.Name, "./"); name {
		case "control":
			d.text = text
		case "md5sums":
			d.md5sums = string(text)
		default:
			d.keepScript(name, text)
		}
	}
	d.control, err = newStanzaReader(strings.NewReader(string(d.text))).next()
	return err
}

func (d *deb) keepScript(name string, text []byte) {
	for _, s := range scriptNames {
		if s == name {
			d.scripts[name] = string(text)
		}
	}
}

// unpack writes the data member to the cache as a plain tar, from which files
// are read again and again without being held in memory. The tar's own digest
// is part of its name, so that a damaged one is found and made anew.
func (c cache) unpack(deb, format string, r io.Reader) (string, error) {
	folder := filepath.Join(string(c), "unpacked")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return "", err
	}
	found, err := filepath.Glob(filepath.Join(folder, deb+"-*.tar"))
	if err != nil {
		return "", err
	}
	for _, name := range found {
		if sum, err := fileSum(name); err == nil && filepath.Base(name) == deb+"-"+sum+".tar" {
			return name, nil
		}
		if err := os.Remove(name); err != nil {
			return "", err
		}
	}
	plain, err := decompress(format, r)
	if err != nil {
		return "", err
	}
	var target string
	err = c.create(func(f *os.File) (string, error) {
		h := sha256.New()
		n, err := io.Copy(io.MultiWriter(f, h), io.LimitReader(plain, maxData+1))
		if err == nil && n > maxData {
			err = fmt.Errorf("more than %d bytes unpacked", int64(maxData))
		}
		target = filepath.Join(folder, deb+"-"+hexSum(h)+".tar")
		return target, err
	})
	return target, err
}

func fileSum(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return hexSum(h), err
}

// blob is the place of a file's content in a plain tar.
type blob struct {
	path         string
	offset, size int64
}

// open gives the content; what it gives is an io.ReaderAt too.
func (b blob) open() (io.ReadCloser, error) {
	f, err := os.Open(b.path)
	if err != nil {
		return nil, err
	}
	return section{io.NewSectionReader(f, b.offset, b.size), f}, nil
}

type section struct {
	*io.SectionReader
	io.Closer
}

// walk calls visit with each entry of the data, and where its content lies.
func (d *deb) walk(visit func(h *tar.Header, content blob) error) error {
	f, err := os.Open(d.dataPath)
	if err != nil {
		return err
	}
	defer f.Close()
	entries := tar.NewReader(f)
	for {
		h, err := entries.Next()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("data: %w", err)
		}
		// The reader takes whole blocks and no more, so the file stands
		// where the content begins.
		offset, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		if err := visit(h, blob{path: d.dataPath, offset: offset, size: h.Size}); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
}

package debian

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
)

// Stanzas reads a control file into maps.
func Stanzas(text string, want ...string) ([]map[string]string, error) {
	r := newStanzaReader(bytes.NewReader([]byte(text)), want...)
	var out []map[string]string
	for {
		s, err := r.next()
		if errors.Is(err, io.EOF) {
			return out, nil
		} else if err != nil {
			return nil, err
		}
		m := map[string]string{}
		for _, f := range s {
			m[f.name] = f.value
		}
		out = append(out, m)
	}
}

// ArMembers gives the content of each member of an ar archive.
func ArMembers(data []byte) (map[string][]byte, error) {
	members, err := readAr(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	for _, m := range members {
		if out[m.name], err = io.ReadAll(m); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// CountIndex reads an index and gives the number of its packages.
func CountIndex(text []byte) (int, error) {
	list, err := readIndex(bytes.NewReader(text), "trixie")
	return len(list), err
}

// BuiltinExcludes is the list of dependencies that only scripts need.
var BuiltinExcludes = builtinExcludes

// IndexFile is an index that a suite lists.
type IndexFile struct {
	SHA256 string
	Size   int64
}

// ReadRelease verifies and reads an InRelease, and gives the suite's codename
// and its indices.
func ReadRelease(data []byte, keys openpgp.EntityList, now time.Time) (codename string, files map[string]IndexFile, err error) {
	r, err := readRelease(data, keys, now)
	files = map[string]IndexFile{}
	for name, f := range r.files {
		files[name] = IndexFile{SHA256: f.sha256, Size: f.size}
	}
	return r.codename, files, err
}

// DebFiles opens a package that lies in a cache folder and gives the paths in it
// with their content.
func DebFiles(dir string, p Package, data []byte) (map[string][]byte, error) {
	c := cache(dir)
	if err := os.MkdirAll(filepath.Dir(c.blob(p.SHA256)), 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(c.blob(p.SHA256), data, 0o644); err != nil {
		return nil, err
	}
	d, err := c.openDeb(p)
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	return out, d.walk(func(h *tar.Header, content blob) error {
		if h.Typeflag != tar.TypeReg {
			return nil
		}
		f, err := content.open()
		if err != nil {
			return err
		}
		defer f.Close()
		out[h.Name], err = io.ReadAll(f)
		return err
	})
}

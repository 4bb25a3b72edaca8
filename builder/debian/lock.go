package debian

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// lockVersion is the version of the format that this program reads and writes.
const lockVersion = 1

// about stands at the head of a lock file for whoever opens it.
const about = "Debian packages pinned by bareboat. Written by `bareboat lock`; commit it, do not edit it."

// LockFile is an image.lock: one lock for each request and architecture of an
// image.
type LockFile struct {
	About   string `json:"about"`
	Version int    `json:"version"`
	Locks   []Lock `json:"locks"`
}

// Lock pins what one request resolved to.
type Lock struct {
	Request      string     `json:"request"` // Request.Hash
	Suite        string     `json:"suite"`
	Architecture string     `json:"architecture"`
	Sources      []Source   `json:"sources"`
	Packages     []Package  `json:"packages"` // what a package depends on stands before it
	Excluded     []Excluded `json:"excluded,omitempty"`
}

// Source is a suite as it was when the lock was made.
type Source struct {
	Suite      string    `json:"suite"`
	Codename   string    `json:"codename"`
	Date       time.Time `json:"date"`
	ValidUntil time.Time `json:"validUntil,omitzero"`
	Expired    bool      `json:"expired,omitempty"` // it was past ValidUntil, and that was allowed
	SHA256     string    `json:"inRelease"`         // of InRelease
	Signer     string    `json:"signer"`            // fingerprint of the primary key
}

// Package is one pinned package.
type Package struct {
	Name          string   `json:"name"`
	Version       string   `json:"version"`
	Architecture  string   `json:"architecture"`
	Source        string   `json:"source"`                  // source package
	SourceVersion string   `json:"sourceVersion,omitempty"` // if not Version
	Suite         string   `json:"suite"`
	Path          string   `json:"path"` // below the mirror's base
	SHA256        string   `json:"sha256"`
	Size          int64    `json:"size"`
	Depends       []string `json:"depends,omitempty"` // packages of this lock
}

// Excluded is a dependency that was left out.
type Excluded struct {
	Name     string   `json:"name"`
	WantedBy []string `json:"wantedBy"`
}

// Find gives the lock of a request for an architecture.
func (f LockFile) Find(request, architecture string) (Lock, bool) {
	for _, l := range f.Locks {
		if l.Request == request && l.Architecture == architecture {
			return l, true
		}
	}
	return Lock{}, false
}

// With is f with l in place of the lock of the same request and architecture.
func (f LockFile) With(l Lock) LockFile {
	locks := slices.DeleteFunc(slices.Clone(f.Locks), func(o Lock) bool {
		return o.Request == l.Request && o.Architecture == l.Architecture
	})
	f.Locks = append(locks, l)
	return f
}

// ReadLock reads a lock file. One that does not exist gives fs.ErrNotExist.
func ReadLock(name string) (LockFile, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return LockFile{}, err
	}
	f, err := ParseLock(data)
	if err != nil {
		return LockFile{}, fmt.Errorf("%s: %w", name, err)
	}
	return f, nil
}

// ParseLock decodes a lock file strictly: what it pins decides what an image
// contains.
func ParseLock(data []byte) (LockFile, error) {
	var f LockFile
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return LockFile{}, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return LockFile{}, errors.New("text stands after the lock")
	}
	if f.Version != lockVersion {
		return LockFile{}, fmt.Errorf("version %d is not known, only %d: write it anew with this program", f.Version, lockVersion)
	}
	for _, l := range f.Locks {
		if err := l.validate(); err != nil {
			return LockFile{}, err
		}
	}
	return f, nil
}

// Bytes encodes a lock file, the same for the same locks.
func (f LockFile) Bytes() ([]byte, error) {
	f.About, f.Version = about, lockVersion
	f.Locks = slices.SortedFunc(slices.Values(f.Locks), func(a, b Lock) int {
		return strings.Compare(a.Request+a.Architecture, b.Request+b.Architecture)
	})
	if f.Locks == nil {
		f.Locks = []Lock{}
	}
	var buf bytes.Buffer
	e := json.NewEncoder(&buf)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(f)
	return buf.Bytes(), err
}

// WriteLock writes a lock file whole or not at all.
func WriteLock(name string, f LockFile) error {
	data, err := f.Bytes()
	if err != nil {
		return err
	}
	return writeWhole(filepath.Dir(name), func(w *os.File) (string, error) {
		_, err := w.Write(data)
		return name, err
	})
}

func (l Lock) validate() error {
	if _, ok := triplets[l.Architecture]; !ok {
		return fmt.Errorf("lock: architecture %q is not known", l.Architecture)
	}
	if len(l.Packages) == 0 {
		return errors.New("lock: it has no packages")
	}
	seen := map[string]bool{}
	for _, p := range l.Packages {
		if err := p.validate(); err != nil {
			return fmt.Errorf("lock: package %q: %w", p.Name, err)
		}
		if seen[p.Name] {
			return fmt.Errorf("lock: package %q is given twice", p.Name)
		}
		seen[p.Name] = true
	}
	return nil
}

// maxPackage bounds one .deb; Debian's largest has about 2 GB.
const maxPackage = 4 << 30

func (p Package) validate() error {
	if err := checkName(p.Name); err != nil {
		return err
	}
	if err := checkName(p.Suite); err != nil {
		return fmt.Errorf("suite: %w", err)
	}
	if err := checkVersion(p.Version); err != nil {
		return err
	}
	switch {
	case !isSHA256(p.SHA256):
		return fmt.Errorf("%q is not a SHA-256", p.SHA256)
	case p.Size <= 0 || p.Size > maxPackage:
		return fmt.Errorf("%d bytes cannot be the size of a package", p.Size)
	case !fs.ValidPath(p.Path) || p.Path == "." || strings.ContainsAny(p.Path, "?#\\\x00"):
		return fmt.Errorf("%q is not a path below a mirror", p.Path)
	}
	return nil
}

// Change is one difference between two locks. Old or New is empty for a
// package that only one of them has.
type Change struct {
	Package, Old, New string
}

// String tells the change: "nginx 1.26.3-3 → 1.26.3-4".
func (c Change) String() string {
	switch {
	case c.Old == "":
		return c.Package + " " + c.New + " is new"
	case c.New == "":
		return c.Package + " " + c.Old + " is gone"
	case c.Old == c.New:
		return c.Package + " " + c.New + " was built anew"
	}
	return c.Package + " " + c.Old + " → " + c.New
}

// Diff tells what changed between two locks, by package name.
func Diff(earlier, later Lock) []Change {
	before := byName(earlier.Packages)
	after := byName(later.Packages)
	var out []Change
	for name, o := range before {
		if n := after[name]; n.SHA256 != o.SHA256 {
			out = append(out, Change{Package: name, Old: o.Version, New: n.Version})
		}
	}
	for name, n := range after {
		if _, ok := before[name]; !ok {
			out = append(out, Change{Package: name, New: n.Version})
		}
	}
	slices.SortFunc(out, func(a, b Change) int { return strings.Compare(a.Package, b.Package) })
	return out
}

func byName(list []Package) map[string]Package {
	out := make(map[string]Package, len(list))
	for _, p := range list {
		out[p.Name] = p
	}
	return out
}

// checkNewer refuses sources that are older than those of an earlier lock: a
// mirror that plays back an old state hides security updates, and the main
// suites carry no Valid-Until that would tell.
func checkNewer(earlier, later []Source) error {
	for _, n := range later {
		for _, o := range earlier {
			if o.Suite == n.Suite && n.Date.Before(o.Date) {
				return fmt.Errorf("suite %s is dated %s at the mirror, but the lock was made from one of %s: the mirror is out of date",
					n.Suite, n.Date.Format(time.RFC3339), o.Date.Format(time.RFC3339))
			}
		}
	}
	return nil
}

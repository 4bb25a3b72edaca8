package debian

import (
	"archive/tar"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"bareboat/builder/layer"
)

// checkEntry refuses what no package may ship.
func checkEntry(h *tar.Header) error {
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeDir, tar.TypeSymlink, tar.TypeLink:
	default:
		return fmt.Errorf("an entry of type %q is not supported", h.Typeflag)
	}
	if slices.Contains(strings.Split(h.Name, "/"), "..") {
		return errors.New("leads out of the package")
	}
	return nil
}

func newNode(owner string, h *tar.Header, content blob, regular map[string]*node) (*node, error) {
	n := &node{owner: owner, File: layer.File{Mode: fileMode(h), UID: h.Uid, GID: h.Gid}}
	switch h.Typeflag {
	case tar.TypeSymlink:
		n.Link = h.Linkname
		if n.Link == "" {
			return nil, errors.New("a link to nothing")
		}
	case tar.TypeLink:
		target := strings.TrimPrefix(path.Clean("/"+h.Linkname), "/")
		to := regular[target]
		if to == nil {
			return nil, fmt.Errorf("a hard link to %q, which is no file before it", h.Linkname)
		}
		n.Mode, n.UID, n.GID = to.Mode, to.UID, to.GID
		n.Hard, n.Link, n.blob = true, target, to.blob
	case tar.TypeReg:
		n.blob = content
	}
	if n.Mode.IsRegular() {
		n.Size, n.Open = n.blob.size, n.blob.open
	}
	return n, nil
}

func fileMode(h *tar.Header) fs.FileMode {
	switch h.Typeflag {
	case tar.TypeDir:
		return fs.ModeDir | permissions(h.Mode)
	case tar.TypeSymlink:
		return fs.ModeSymlink | 0o777
	}
	return permissions(h.Mode)
}

// permissions turns the bits of chmod(2) into Go's.
func permissions(bits int64) fs.FileMode {
	m := fs.FileMode(bits & 0o777)
	for unix, bit := range map[int64]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if bits&unix != 0 {
			m |= bit
		}
	}
	return m
}

// Package layer turns a source of files into a reproducible layer tar.
//
// A file is one entry of a layer: a path, a type, a mode, an owner, and bytes
// or a link. A source gives files. A layer is a named list of files; its tar
// depends on nothing but them and one modification time, so the same files give
// the same DiffID (the SHA-256 of the uncompressed tar) on any machine, as any
// user, under any umask.
package layer

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// File is one entry of a layer.
type File struct {
	Path string      // slash-separated, relative to the root, clean: "usr/bin/chatd"
	Mode fs.FileMode // type bits and permissions; setuid, setgid and sticky as Go has them
	UID  int
	GID  int
	Link string // target of a symlink (Mode has fs.ModeSymlink), or of a hard link (Hard)
	Hard bool   // a hard link to Link, a path of the same layer
	Size int64  // bytes that Open gives; regular files only
	// Open gives the content of a regular file. It may be called more than
	// once and gives the same bytes each time.
	Open func() (io.ReadCloser, error)
}

// Source gives the files of one layer. Folders above a file need not be given:
// a layer adds them, owned by root, mode 0755.
type Source interface {
	Files(ctx context.Context) ([]File, error)
}

// Layer is a named list of files, as a history entry of the image tells it.
type Layer struct {
	Name      string // short: "app", "debian:nginx"
	CreatedBy string // what the image's history says of it
	Files     []File
}

// Bytes is a regular file with the given content.
func Bytes(name string, mode fs.FileMode, content []byte) File {
	return File{
		Path: name,
		Mode: mode.Perm(),
		Size: int64(len(content)),
		Open: func() (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(string(content))), nil
		},
	}
}

// Dir is a folder.
func Dir(name string, mode fs.FileMode) File {
	return File{Path: name, Mode: fs.ModeDir | mode&^fs.ModeType}
}

// Symlink is a symbolic link.
func Symlink(name, target string) File {
	return File{Path: name, Mode: fs.ModeSymlink | 0o777, Link: target}
}

// Owned is f with another owner.
func (f File) Owned(uid, gid int) File {
	f.UID, f.GID = uid, gid
	return f
}

// Normalize sorts files by path, adds the folders above each that are not
// given, and checks that the list can be a layer: paths clean and inside the
// root, no path twice, nothing below a path that is not a folder.
//
// Folders are repeated in every layer because extraction gives a missing one a
// default mode, which would spoil a 1777 /tmp of a layer below.
func Normalize(files []File) ([]File, error) {
	byPath := make(map[string]File, len(files))
	for _, f := range files {
		if err := checkPath(f.Path); err != nil {
			return nil, err
		}
		if prev, ok := byPath[f.Path]; ok && !(prev.Mode.IsDir() && f.Mode.IsDir() && sameMeta(prev, f)) {
			return nil, fmt.Errorf("%s: given twice", f.Path)
		}
		byPath[f.Path] = f
	}
	for _, f := range files {
		for dir := path.Dir(f.Path); dir != "."; dir = path.Dir(dir) {
			parent, ok := byPath[dir]
			if !ok {
				byPath[dir] = Dir(dir, 0o755)
			} else if !parent.Mode.IsDir() {
				return nil, fmt.Errorf("%s: lies below %s, which is not a folder", f.Path, dir)
			}
		}
	}
	out := make([]File, 0, len(byPath))
	for _, f := range byPath {
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b File) int { return compare(a, b) })
	return out, nil
}

// compare orders hard links after everything else, so that a link's target
// always stands before it in the tar; else by path.
func compare(a, b File) int {
	switch {
	case a.Hard && !b.Hard:
		return 1
	case b.Hard && !a.Hard:
		return -1
	}
	return strings.Compare(a.Path, b.Path)
}

func sameMeta(a, b File) bool {
	return a.Mode == b.Mode && a.UID == b.UID && a.GID == b.GID
}

func checkPath(p string) error {
	if !fs.ValidPath(p) || p == "." || strings.ContainsRune(p, 0) {
		return fmt.Errorf("%q: not a clean path below the root", p)
	}
	return nil
}

package layer

import (
	"archive/tar"
	"fmt"
	"io"
	"io/fs"
	"time"
)

// WriteTar writes the layer's files as a canonical tar: sorted, with every
// folder, numeric owners, one modification time for all, no extended
// attributes. The header format is left to archive/tar, which picks USTAR or
// PAX entry by entry and the same each time: USTAR alone cannot hold every
// name.
func WriteTar(w io.Writer, files []File, mtime time.Time) error {
	files, err := Normalize(files)
	if err != nil {
		return err
	}
	tw := tar.NewWriter(w)
	for _, f := range files {
		if err := writeEntry(tw, f, mtime); err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
	}
	return tw.Close()
}

func writeEntry(tw *tar.Writer, f File, mtime time.Time) error {
	h := &tar.Header{
		Name:    f.Path,
		Mode:    unixMode(f.Mode),
		Uid:     f.UID,
		Gid:     f.GID,
		ModTime: mtime.Truncate(time.Second),
	}
	switch {
	case f.Hard:
		h.Typeflag, h.Linkname = tar.TypeLink, f.Link
	case f.Mode.IsDir():
		h.Typeflag, h.Name = tar.TypeDir, f.Path+"/"
	case f.Mode&fs.ModeSymlink != 0:
		h.Typeflag, h.Linkname = tar.TypeSymlink, f.Link
	case f.Mode.IsRegular():
		h.Typeflag, h.Size = tar.TypeReg, f.Size
	default:
		return fmt.Errorf("a %s cannot be part of a layer", f.Mode.Type())
	}
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeReg || f.Size == 0 {
		return nil
	}
	return copyContent(tw, f)
}

func copyContent(w io.Writer, f File) error {
	r, err := f.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	n, err := io.Copy(w, r)
	if err == nil && n != f.Size {
		err = fmt.Errorf("changed while it was read: %d bytes, expected %d", n, f.Size)
	}
	return err
}

func unixMode(m fs.FileMode) int64 {
	mode := int64(m.Perm())
	for bit, unix := range map[fs.FileMode]int64{fs.ModeSetuid: 0o4000, fs.ModeSetgid: 0o2000, fs.ModeSticky: 0o1000} {
		if m&bit != 0 {
			mode |= unix
		}
	}
	return mode
}

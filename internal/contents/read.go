package contents

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"debug/buildinfo"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
)

const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
	// mostFiles bounds an image: a few bytes of a compressed layer can stand for
	// any number of entries.
	mostFiles = 4 << 20
	// mostText is how much of a package's control file is read.
	mostText = 4 << 20
	// mostProgram is how large a program may be to be asked for its modules.
	mostProgram = 1 << 30
)

// Read reads all layers: files, waste, packages and modules. Each layer is held
// against its DiffID.
func (i *Image) Read(ctx context.Context) error {
	i.Files, i.Packages, i.Modules = map[string]File{}, map[string]string{}, map[string]string{}
	facts := map[string]facts{}
	for n := range i.Layers {
		if err := i.readLayer(ctx, n, facts); err != nil {
			return fmt.Errorf("layer %s: %w", i.Layers[n].Digest, err)
		}
	}
	for _, l := range i.Layers {
		i.Wasted += l.Wasted
	}
	for _, f := range facts { // of files that no layer hides
		for name, version := range f.packages {
			i.Packages[name] = version
		}
		for name, version := range f.modules {
			i.Modules[name] = joined(i.Modules[name], version)
		}
	}
	return nil
}

// joined notes that programs of one image have a module in several versions.
func joined(known, version string) string {
	if known == "" || known == version {
		return version
	}
	for v := range strings.SplitSeq(known, ", ") {
		if v == version {
			return known
		}
	}
	if known > version {
		known, version = version, known
	}
	return known + ", " + version
}

// facts are what a file says about the image.
type facts struct{ packages, modules map[string]string }

func (i *Image) readLayer(ctx context.Context, n int, all map[string]facts) error {
	f, err := os.Open(i.path(i.Layers[n].Digest))
	if err != nil {
		return err
	}
	defer f.Close()
	plain, err := decompress(f)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrImage, err)
	}
	defer plain.Close()
	sum := digest.Canonical.Digester()
	from := io.TeeReader(plain, sum.Hash())
	upper, err := readTar(ctx, from)
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, from); err != nil { // what pads the archive's end
		return fmt.Errorf("%w: %w", ErrImage, err)
	}
	if sum.Digest() != i.Layers[n].DiffID {
		return fmt.Errorf("%w: its content is not that of %s", ErrImage, i.Layers[n].DiffID)
	}
	i.lay(n, upper, all)
	return nil
}

// decompress gives the plain bytes of a layer, whatever it is compressed with.
func decompress(r io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReader(r)
	head, _ := b.Peek(4) // a shorter one is none of these
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return gzip.NewReader(b)
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}), bytes.HasPrefix(head, []byte{0x50, 0x2a, 0x4d, 0x18}):
		z, err := zstd.NewReader(b, zstd.WithDecoderMaxMemory(1<<30))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}
	return io.NopCloser(b), nil
}

// entries are what one layer has.
type entries struct {
	files   map[string]File
	facts   map[string]facts
	gone    []string // paths that it takes away from the layers below
	emptied []string // folders whose content it takes away
}

func readTar(ctx context.Context, r io.Reader) (entries, error) {
	e := entries{files: map[string]File{}, facts: map[string]facts{}}
	for t := tar.NewReader(r); ; {
		if err := ctx.Err(); err != nil {
			return e, err
		}
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return e, nil
		}
		if err != nil {
			return e, fmt.Errorf("%w: %w", ErrImage, err)
		}
		name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
		switch dir, base := path.Split(name); {
		case name == "":
			continue
		case base == opaque:
			e.emptied = append(e.emptied, strings.TrimSuffix(dir, "/"))
			continue
		case strings.HasPrefix(base, whiteout):
			e.gone = append(e.gone, dir+strings.TrimPrefix(base, whiteout))
			continue
		}
		if len(e.files) >= mostFiles {
			return e, fmt.Errorf("%w: it has more than %d files", ErrImage, mostFiles)
		}
		if e.files[name], err = e.entry(name, h, t); err != nil {
			return e, fmt.Errorf("%w: %s: %w", ErrImage, name, err)
		}
	}
}

func (e *entries) entry(name string, h *tar.Header, content io.Reader) (File, error) {
	f := File{Mode: h.FileInfo().Mode(), UID: h.Uid, GID: h.Gid, Link: h.Linkname}
	if h.Typeflag != tar.TypeReg {
		return f, nil
	}
	f.Size = h.Size
	sum := digest.Canonical.Digester()
	from := io.TeeReader(content, sum.Hash())
	told, err := ask(name, f, from)
	if err != nil {
		return f, err
	}
	if told != nil {
		e.facts[name] = *told
	}
	_, err = io.Copy(io.Discard, from)
	f.Digest = sum.Digest()
	return f, err
}

// ask reads of a file what it says about the image, if it is of that kind.
func ask(name string, f File, content io.Reader) (*facts, error) {
	dir, base := path.Split(name)
	switch {
	case f.Size <= mostText && (name == "var/lib/dpkg/status" || dir == "var/lib/dpkg/status.d/" && !strings.HasSuffix(base, ".md5sums")):
		text, err := io.ReadAll(content)
		return &facts{packages: packagesIn(string(text))}, err
	case f.Mode&0o111 != 0 && f.Size > 64 && f.Size <= mostProgram:
		return askProgram(content)
	}
	return nil, nil
}

// packagesIn reads names and versions from control files.
func packagesIn(text string) map[string]string {
	out := map[string]string{}
	name := ""
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimRight(line, "\n"), ":")
		switch key {
		case "Package":
			name = strings.TrimSpace(value)
		case "Version":
			out[name] = strings.TrimSpace(value)
		}
	}
	delete(out, "")
	return out
}

// askProgram reads the modules that a Go program is made of. Programs of other
// languages say nothing.
func askProgram(content io.Reader) (*facts, error) {
	head := make([]byte, 4)
	if _, err := io.ReadFull(content, head); err != nil {
		return nil, err
	}
	if string(head) != "\x7fELF" {
		return nil, nil
	}
	f, err := os.CreateTemp("", "bareboat-program-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := io.Copy(f, io.MultiReader(bytes.NewReader(head), content)); err != nil {
		return nil, err
	}
	info, err := buildinfo.Read(f)
	if err != nil {
		return nil, nil
	}
	out := facts{modules: map[string]string{"Go": info.GoVersion}}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		out.modules[m.Path] = m.Version
	}
	return &out, nil
}

// lay puts a layer upon those below.
func (i *Image) lay(n int, upper entries, all map[string]facts) {
	hide := func(p string) {
		if old, ok := i.Files[p]; ok {
			i.Layers[old.Layer].Wasted += old.Size
			delete(i.Files, p)
			delete(all, p)
		}
	}
	below := func(dir string) {
		for p := range i.Files {
			if dir == "" || strings.HasPrefix(p, dir+"/") {
				hide(p)
			}
		}
	}
	folders := map[string]bool{} // also those that no layer has an entry for
	for p := range i.Files {
		for dir := path.Dir(p); dir != "." && !folders[dir]; dir = path.Dir(dir) {
			folders[dir] = true
		}
	}
	for _, dir := range upper.emptied {
		below(dir)
	}
	for _, p := range upper.gone {
		hide(p)
		below(p)
	}
	for p, f := range upper.files {
		if folders[p] && !f.Mode.IsDir() {
			below(p)
		}
		hide(p)
		f.Layer = n
		i.Files[p] = f
		i.Layers[n].Files++
		i.Layers[n].Unpacked += f.Size
	}
	for p, f := range upper.facts {
		all[p] = f
	}
}

package builder

import (
	"archive/tar"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	dockerarchive "go.podman.io/image/v5/docker/archive"
	"go.podman.io/image/v5/docker/reference"
	"go.podman.io/image/v5/oci/layout"
	"go.podman.io/image/v5/types"
	"go.podman.io/storage/pkg/archive"

	"bareboat/builder/cache"
	"bareboat/internal/oci"
)

// Formats are those of saved images. In docker-archive the layers are unpacked
// and the manifest is lost, and with it the digest; the others keep it.
var Formats = []string{"docker-archive", "oci-archive", "oci-dir"}

// ErrFormat says that a format is not one of Formats, or cannot hold what it
// should.
var ErrFormat = errors.New("format")

// ErrArchive says that a file holds no images in a format that is known.
var ErrArchive = errors.New("neither an OCI archive, a Docker archive nor an OCI layout")

// Save writes images of the local store to path in one of Formats. Several
// images go into a docker-archive only. The same images give the same bytes. The
// path appears when all is written; oci-dir wants it not to be there.
func (b *Builder) Save(ctx context.Context, names []string, format, path string) error {
	if err := b.save(ctx, names, format, path); err != nil {
		return fmt.Errorf("save %s: %w", strings.Join(names, ", "), err)
	}
	return nil
}

func (b *Builder) save(ctx context.Context, names []string, format, path string) (err error) {
	switch {
	case !slices.Contains(Formats, format):
		return fmt.Errorf("%w %q is not one of %s", ErrFormat, format, strings.Join(Formats, ", "))
	case format != Formats[0] && len(names) > 1:
		return fmt.Errorf("%w %s holds one image: several go into a %s", ErrFormat, format, Formats[0])
	}
	var images []oci.Image
	for _, name := range names {
		img, err := b.Export(ctx, name)
		if err != nil {
			return err
		}
		images = append(images, img)
	}
	fresh, err := os.MkdirTemp(filepath.Dir(path), ".bareboat-save-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(fresh)) }()
	to := filepath.Join(fresh, "image")
	switch format {
	case "docker-archive":
		err = writeDockerArchive(ctx, images, to, fresh)
	case "oci-archive":
		err = writeOCIArchive(ctx, images[0], to)
	case "oci-dir":
		if _, err := os.Lstat(path); err == nil {
			return fmt.Errorf("%s: %w", path, fs.ErrExist)
		}
		err = writeOCIDir(ctx, images[0], to)
	}
	if err != nil {
		return err
	}
	return os.Rename(to, path)
}

// writeDockerArchive writes the format of `docker save`. The library gives all
// entries the same time.
func writeDockerArchive(ctx context.Context, images []oci.Image, to, work string) (err error) {
	sys, err := systemContext(work)
	if err != nil {
		return err
	}
	w, err := dockerarchive.NewWriter(sys, to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	all, err := sameImages(images)
	if err != nil {
		return err
	}
	for _, same := range all {
		src, err := layout.NewReference(same.layout, "")
		if err != nil {
			return err
		}
		dest, err := w.NewReference(nil)
		if err != nil {
			return err
		}
		sys.DockerArchiveAdditionalTags = same.names
		if err := convert(ctx, dest, src, sys); err != nil {
			return err
		}
	}
	return nil
}

// sameImage is an image and all the names that it is saved under.
type sameImage struct {
	config oci.Digest // the image's ID
	layout string
	names  []reference.NamedTagged
}

// sameImages joins those that are one image, of which an archive tells once.
func sameImages(images []oci.Image) ([]sameImage, error) {
	var out []sameImage
	for _, img := range images {
		var m oci.Manifest
		if err := readJSON(blobOf(img.Layout, img.Digest), &m); err != nil {
			return nil, err
		}
		named, err := namedTagged(img.Name)
		if err != nil {
			return nil, err
		}
		at := slices.IndexFunc(out, func(s sameImage) bool { return s.config == m.Config.Digest })
		if at < 0 {
			at = len(out)
			out = append(out, sameImage{config: m.Config.Digest, layout: img.Layout})
		}
		if named != nil {
			out[at].names = append(out[at].names, named)
		}
	}
	return out, nil
}

// namedTagged is nil for an image that has no name.
func namedTagged(ref oci.Reference) (reference.NamedTagged, error) {
	if ref.Repository == "" || ref.Tag == "" {
		return nil, nil
	}
	named, err := reference.ParseNormalizedNamed(ref.Name())
	if err != nil {
		return nil, err
	}
	return reference.WithTag(named, ref.Tag)
}

// savedFile is a file of an image's layout: its name there, and its path or content.
type savedFile struct {
	name    string
	path    string
	content []byte
}

func savedFiles(img oci.Image) ([]savedFile, error) {
	var index oci.Index
	if err := readJSON(filepath.Join(img.Layout, v1.ImageIndexFile), &index); err != nil {
		return nil, err
	}
	if len(index.Manifests) != 1 {
		return nil, fmt.Errorf("its layout lists %d images", len(index.Manifests))
	}
	if img.Name.Repository != "" {
		index.Manifests[0].Annotations = map[string]string{v1.AnnotationRefName: img.Name.String()}
	}
	text, err := json.Marshal(index)
	if err != nil {
		return nil, err
	}
	files := []savedFile{
		{name: v1.ImageLayoutFile, content: []byte(`{"imageLayoutVersion":"` + v1.ImageLayoutVersion + `"}`)},
		{name: v1.ImageIndexFile, content: text},
	}
	blobs, err := blobsOf(img.Layout, index.Manifests[0])
	if err != nil {
		return nil, err
	}
	seen := map[oci.Digest]bool{}
	for _, d := range blobs {
		if !seen[d.Digest] {
			seen[d.Digest] = true
			files = append(files, savedFile{name: path.Join(v1.ImageBlobsDir, d.Digest.Algorithm().String(), d.Digest.Encoded()), path: blobOf(img.Layout, d.Digest)})
		}
	}
	slices.SortFunc(files, func(a, b savedFile) int { return strings.Compare(a.name, b.name) })
	return files, nil
}

// blobsOf are a manifest, its config and its layers. Of an index they are those
// of all the images that lie there: one may be without some.
func blobsOf(dir string, m oci.Descriptor) ([]oci.Descriptor, error) {
	var parsed struct {
		Config            *oci.Descriptor
		Layers, Manifests []oci.Descriptor
	}
	if err := readManifest(dir, m.Digest, &parsed); err != nil {
		return nil, fmt.Errorf("manifest %q: %w", m.Digest, err)
	}
	out := []oci.Descriptor{m}
	if parsed.Config != nil {
		out = append(append(out, *parsed.Config), parsed.Layers...)
		return out, checkDigests(out)
	}
	if err := checkDigests(parsed.Manifests); err != nil {
		return nil, err
	}
	for _, d := range parsed.Manifests {
		if _, err := os.Stat(blobOf(dir, d.Digest)); err != nil {
			continue
		}
		more, err := blobsOf(dir, d)
		if err != nil {
			return nil, err
		}
		out = append(out, more...)
	}
	if len(out) == 1 {
		return nil, fmt.Errorf("%s is no image's manifest", m.Digest)
	}
	return out, nil
}

// checkDigests refuses what is no digest, before a path is made of it: an archive
// may come from anybody.
func checkDigests(all []oci.Descriptor) error {
	for _, d := range all {
		if err := d.Digest.Validate(); err != nil {
			return fmt.Errorf("digest %q: %w", d.Digest, err)
		}
	}
	return nil
}

// ErrSpoilt says that a blob is not what its digest says.
var ErrSpoilt = errors.New("its content does not fit its digest")

// readManifest reads a manifest or an index of a layout that may be anybody's.
func readManifest(dir string, d oci.Digest, value any) error {
	if err := d.Validate(); err != nil {
		return err
	}
	text, err := os.ReadFile(blobOf(dir, d))
	if err != nil {
		return err
	}
	if d.Algorithm().FromBytes(text) != d {
		return ErrSpoilt
	}
	return json.Unmarshal(text, value)
}

// open gives the file's content and its size in bytes.
func (f savedFile) open() (io.ReadCloser, int64, error) {
	if f.path == "" {
		return io.NopCloser(strings.NewReader(string(f.content))), int64(len(f.content)), nil
	}
	in, err := os.Open(f.path)
	if err != nil {
		return nil, 0, err
	}
	info, err := in.Stat()
	if err != nil {
		return nil, 0, errors.Join(err, in.Close())
	}
	return in, info.Size(), nil
}

func writeOCIArchive(ctx context.Context, img oci.Image, to string) (err error) {
	files, err := savedFiles(img)
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	w := tar.NewWriter(out)
	for _, dir := range []string{"blobs/", "blobs/sha256/"} {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, ModTime: time.Unix(0, 0)}); err != nil {
			return err
		}
	}
	for _, f := range files {
		if err := errors.Join(ctx.Err(), f.writeTo(w)); err != nil {
			return err
		}
	}
	return w.Close()
}

func (f savedFile) writeTo(w *tar.Writer) error {
	in, size, err := f.open()
	if err != nil {
		return err
	}
	defer in.Close()
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: 0o644, Size: size, ModTime: time.Unix(0, 0)}); err != nil {
		return err
	}
	_, err = io.Copy(w, in)
	return err
}

func writeOCIDir(ctx context.Context, img oci.Image, to string) error {
	files, err := savedFiles(img)
	if err != nil {
		return err
	}
	for _, f := range files {
		if err := errors.Join(ctx.Err(), f.writeBelow(to)); err != nil {
			return err
		}
	}
	return nil
}

func (f savedFile) writeBelow(dir string) error {
	to := filepath.Join(dir, f.name)
	if err := os.MkdirAll(filepath.Dir(to), 0o777); err != nil {
		return err
	}
	in, _, err := f.open()
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// Load puts all images of an archive or an OCI layout into the local store,
// under the names that they have in it, and gives them as they are stored: an
// image without a name has none. See Import for what can be read.
func (b *Builder) Load(ctx context.Context, path string) ([]oci.Image, error) {
	c, err := b.cached()
	if err != nil {
		return nil, err
	}
	work, err := b.workDir(c.Dir())
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	images, err := b.Import(ctx, path, work)
	if err != nil {
		return nil, err
	}
	for i := range images {
		if images[i], err = b.adopt(ctx, c, images[i], work); err != nil {
			return nil, fmt.Errorf("load %s: %w", path, err)
		}
	}
	return images, nil
}

// adopt moves an image into the cache, where what its layers were compressed to
// is kept, and from there into the store.
func (b *Builder) adopt(ctx context.Context, c *cache.Cache, img oci.Image, work string) (oci.Image, error) {
	var index oci.Index
	if err := readJSON(filepath.Join(img.Layout, v1.ImageIndexFile), &index); err != nil {
		return oci.Image{}, err
	}
	at := slices.IndexFunc(index.Manifests, func(d oci.Descriptor) bool { return d.Digest == img.Digest })
	if at < 0 {
		return oci.Image{}, fmt.Errorf("its index does not list %s", img.Digest)
	}
	m := index.Manifests[at]
	m.Annotations = nil
	blobs, err := blobsOf(img.Layout, m)
	if err != nil {
		return oci.Image{}, err
	}
	for _, d := range blobs {
		if c.Check(d) == nil {
			continue
		}
		from := blobOf(img.Layout, d.Digest)
		if !strings.HasPrefix(from, work) { // a layout of the user's stays as it is
			if from, err = copied(from, work); err != nil {
				return oci.Image{}, err
			}
		}
		if err := c.Adopt(from, d); err != nil {
			return oci.Image{}, err
		}
	}
	if err := c.Save(kindLocal, m.Digest, localRecord{Manifest: m, Blobs: blobs}); err != nil {
		return oci.Image{}, err
	}
	if img.Layout, err = c.View(m); err != nil {
		return oci.Image{}, err
	}
	_, err = b.Add(ctx, img)
	return img, err
}

func copied(from, work string) (to string, err error) {
	in, err := os.Open(from)
	if err != nil {
		return "", err
	}
	defer in.Close()
	out, err := os.CreateTemp(work, "blob-")
	if err != nil {
		return "", err
	}
	_, err = io.Copy(out, in)
	return out.Name(), errors.Join(err, out.Close())
}

// Import reads the images of an OCI archive, a Docker archive (both may be
// compressed) or the folder of an OCI layout. Each is given as a layout, below
// dir where it had to be unpacked, with the name that it has there, if it has
// one. What cannot be read as any of these gives ErrArchive.
func (b *Builder) Import(ctx context.Context, path, dir string) ([]oci.Image, error) {
	images, err := importAny(ctx, path, dir)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return images, nil
}

func importAny(ctx context.Context, path, dir string) ([]oci.Image, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, errors.Unwrap(err)
	}
	if info.IsDir() {
		return listLayout(path)
	}
	unpacked, err := os.MkdirTemp(dir, "oci-")
	if err != nil {
		return nil, err
	}
	isOCI, err := holds(path, v1.ImageLayoutFile)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrArchive, err)
	}
	if !isOCI {
		return importDocker(ctx, path, unpacked)
	}
	if err := untar(path, unpacked); err != nil {
		return nil, err
	}
	return listLayout(unpacked)
}

// holds tells whether a tar, which may be compressed, has a file at its top.
func holds(path, name string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	plain, err := archive.DecompressStream(f)
	if err != nil {
		return false, err
	}
	defer plain.Close()
	for r := tar.NewReader(plain); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		if filepath.Clean(h.Name) == name {
			return true, nil
		}
	}
}

// untar unpacks the plain files of an OCI archive, and none beside dir.
func untar(path, dir string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	plain, err := archive.DecompressStream(f)
	if err != nil {
		return err
	}
	defer plain.Close()
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	for r := tar.NewReader(plain); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w: %w", ErrArchive, err)
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		if err := writeIn(root, filepath.Clean(h.Name), r); err != nil {
			return err
		}
	}
}

func writeIn(root *os.Root, name string, in io.Reader) error {
	if err := root.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	out, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// listLayout gives the images that a layout's index names.
func listLayout(dir string) ([]oci.Image, error) {
	var index oci.Index
	if err := readJSON(filepath.Join(dir, v1.ImageIndexFile), &index); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrArchive, err)
	}
	if err := checkDigests(index.Manifests); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrArchive, err)
	}
	var out []oci.Image
	for _, m := range index.Manifests {
		img := oci.Image{Layout: dir, Digest: m.Digest}
		if name := m.Annotations[v1.AnnotationRefName]; name != "" {
			img.Name = archiveName(name)
		}
		out = append(out, img)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%w: its index names no image", ErrArchive)
	}
	return out, nil
}

// archiveName is the name of an image in an archive. Some tools write a tag
// alone, which names nothing.
func archiveName(s string) oci.Reference {
	if !strings.ContainsAny(s, ":/") {
		return oci.Reference{}
	}
	ref, err := oci.ParseReference(s)
	if err != nil {
		return oci.Reference{}
	}
	return tagged(ref)
}

// importDocker copies the images of a Docker archive to layouts below dir.
func importDocker(ctx context.Context, path, dir string) (images []oci.Image, err error) {
	sys, err := systemContext(dir)
	if err != nil {
		return nil, err
	}
	r, err := dockerarchive.NewReader(sys, path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrArchive, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	all, err := r.List()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrArchive, err)
	}
	for i, refs := range all {
		to := filepath.Join(dir, fmt.Sprintf("image-%d", i))
		d, err := convertTo(ctx, to, refs[0], sys)
		if err != nil {
			return nil, err
		}
		for _, ref := range refs {
			img := oci.Image{Layout: to, Digest: d}
			if named := ref.DockerReference(); named != nil {
				img.Name = archiveName(named.String())
			}
			images = append(images, img)
		}
	}
	return images, nil
}

// convertTo copies an image into a layout of its own, and gives its manifest's
// digest there.
func convertTo(ctx context.Context, dir string, src types.ImageReference, sys *types.SystemContext) (oci.Digest, error) {
	dest, err := layout.NewReference(dir, "")
	if err != nil {
		return "", err
	}
	if err := convert(ctx, dest, src, sys); err != nil {
		return "", err
	}
	var index oci.Index
	if err := readJSON(filepath.Join(dir, v1.ImageIndexFile), &index); err != nil {
		return "", err
	}
	return index.Manifests[0].Digest, nil
}

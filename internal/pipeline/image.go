package pipeline

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"bareboat/builder"
	"bareboat/internal/contents"
	"bareboat/internal/oci"
	"bareboat/pods"
	"bareboat/registry"
)

// Sources are the prefixes that say where an image is, as skopeo has them.
const Sources = "docker://REF, containers-storage:NAME, oci:FOLDER, oci-archive:FILE, docker-archive:FILE, release:SERVICE"

// ErrNoRelease says that no pod of a service runs.
var ErrNoRelease = errors.New("no pod of it is there")

// ReadImage opens the image that a name means: with a prefix (see Sources), a
// service, an image of the local store, a file or folder, or else one at a
// registry. With all its layers are read, else manifest and config alone, which
// is all that is fetched then. close removes what was fetched.
func (p *Pipeline) ReadImage(ctx context.Context, name, platform string, all bool) (img *contents.Image, close func(), err error) {
	dir, err := os.MkdirTemp("", "bareboat-image-")
	if err != nil {
		return nil, nil, err
	}
	close = func() { _ = os.RemoveAll(dir) }
	found, err := p.locate(ctx, name, dir, registry.Selection{Platform: platform, ConfigOnly: !all})
	if err != nil {
		close()
		return nil, nil, err
	}
	if img, err = contents.Open(found.Layout, found.Digest, platform); err == nil && all {
		err = img.Read(ctx)
	}
	if err != nil {
		close()
		return nil, nil, fmt.Errorf("read image %s: %w", name, err)
	}
	return img, close, nil
}

// locate gives a layout that has the image, in dir where it has to be made.
func (p *Pipeline) locate(ctx context.Context, name, dir string, some registry.Selection) (oci.Image, error) {
	kind, rest, ok := strings.Cut(name, ":")
	switch {
	case ok && kind == "docker":
		return p.fetch(ctx, strings.TrimPrefix(rest, "//"), dir, some)
	case ok && kind == "containers-storage":
		return p.Builder.Export(ctx, rest)
	case ok && (kind == "oci" || kind == "oci-archive" || kind == "docker-archive"):
		return p.archive(ctx, rest, dir)
	case ok && kind == "release":
		return p.released(ctx, rest)
	}
	if strings.HasPrefix(name, ".") || strings.HasPrefix(name, "/") {
		return p.archive(ctx, name, dir)
	}
	asked := name
	if p.Project != nil {
		if s, ok := p.Project.Service(name); ok {
			name = s.Image.String()
		}
	}
	img, err := p.Builder.Export(ctx, name)
	if !errors.Is(err, builder.ErrNoImage) {
		return img, err
	}
	if _, statErr := os.Stat(asked); statErr == nil {
		return p.archive(ctx, asked, dir)
	}
	if ref, parseErr := oci.ParseLocal(name); parseErr == nil && ref.IsLocal() {
		return oci.Image{}, err
	}
	return p.fetch(ctx, name, dir, some)
}

func (p *Pipeline) fetch(ctx context.Context, name, dir string, some registry.Selection) (oci.Image, error) {
	ref, err := oci.ParseReference(name)
	if err != nil {
		return oci.Image{}, err
	}
	d, err := registry.New(registry.Options{Insecure: p.Insecure}).PullSome(ctx, ref, filepath.Join(dir, "pulled"), some, nil)
	return oci.Image{Name: ref, Layout: filepath.Join(dir, "pulled"), Digest: d.Digest}, err
}

// archive opens a file or folder that holds one image.
func (p *Pipeline) archive(ctx context.Context, path, dir string) (oci.Image, error) {
	images, err := p.Builder.Import(ctx, path, dir)
	switch {
	case err != nil:
		return oci.Image{}, err
	case len(images) != 1:
		return oci.Image{}, fmt.Errorf("%s holds %d images", path, len(images))
	}
	return images[0], nil
}

// released is the image that runs in a service's pod: SERVICE, or SERVICE/3 for
// that of release 3.
func (p *Pipeline) released(ctx context.Context, name string) (img oci.Image, err error) {
	service, number, _ := strings.Cut(name, "/")
	if p.Project == nil {
		return oci.Image{}, fmt.Errorf("release %s: there is no Compose file here", name)
	}
	id := ""
	err = p.withPodman(ctx, func(podman *pods.Podman) error {
		all, err := podman.Pods(ctx, map[string]string{pods.LabelProject: p.Project.Name, pods.LabelService: service})
		latest := 0
		for _, pod := range all {
			n, convErr := strconv.Atoi(pod.Labels[pods.LabelRelease])
			if convErr != nil || len(pod.Containers) == 0 || number != "" && number != strconv.Itoa(n) || n < latest {
				continue
			}
			latest, id = n, pod.Containers[0].ImageID
		}
		return err
	})
	if err == nil && id == "" {
		err = fmt.Errorf("release %s: %w", name, ErrNoRelease)
	}
	if err != nil {
		return oci.Image{}, err
	}
	return p.Builder.Export(ctx, strings.TrimPrefix(id, "sha256:"))
}

// Rebuilt is what VerifyRebuild found of one image.
type Rebuilt struct {
	Service string     `json:"service"`
	Image   string     `json:"image"`
	Built   oci.Digest `json:"built"` // with this machine's cache and store
	Rebuilt oci.Digest `json:"rebuilt"`
	// Difference says how they differ, where they do.
	Difference *contents.Difference `json:"difference,omitempty"`
}

// Same tells whether both builds gave one digest.
func (r Rebuilt) Same() bool { return r.Built == r.Rebuilt }

// VerifyRebuild builds the images of services, builds them again with an empty
// cache and another store, and compares.
func (p *Pipeline) VerifyRebuild(ctx context.Context, services []string) (out []Rebuilt, err error) {
	sources, err := p.sources(services)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "bareboat-rebuild-")
	if err != nil {
		return nil, err
	}
	second := &builder.Builder{
		Cache: filepath.Join(dir, "cache"), Root: filepath.Join(dir, "store"), RunRoot: filepath.Join(dir, "run"),
		Mirrors: p.Builder.Mirrors, Locked: true, Platforms: p.Builder.Platforms,
		Compression: p.Builder.Compression, Epoch: p.Builder.Epoch, Notify: p.Builder.Notify,
	}
	defer func() { err = errors.Join(err, second.Close(), builder.RemoveStore(dir)) }()
	elsewhere := *p
	elsewhere.Builder = second
	for _, s := range sources {
		first, err := p.make(ctx, s)
		if err != nil {
			return nil, err
		}
		again, err := elsewhere.make(ctx, s)
		if err != nil {
			return nil, err
		}
		r := Rebuilt{Service: s.service.Name, Image: s.service.Image.String(), Built: first.Image.Digest, Rebuilt: again.Image.Digest}
		if !r.Same() {
			if r.Difference, err = difference(ctx, first.Image, again.Image, builder.HostPlatform().String()); err != nil {
				return nil, err
			}
		}
		out = append(out, r)
	}
	return out, nil
}

func difference(ctx context.Context, x, y oci.Image, platform string) (*contents.Difference, error) {
	a, err := contents.Open(x.Layout, x.Digest, platform)
	if err != nil {
		return nil, err
	}
	b, err := contents.Open(y.Layout, y.Digest, platform)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(a.Read(ctx), b.Read(ctx)); err != nil {
		return nil, err
	}
	d := contents.Compare(a, b)
	return &d, nil
}

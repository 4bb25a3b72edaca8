package pods

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/containers/podman/v5/pkg/bindings/images"
)

// Image is an image in the store of the service.
type Image struct {
	ID      string // of the configuration, hex without algorithm
	Names   []string
	Digests []string // NAME@sha256:… of the manifest
	Size    int64    // bytes in the store, uncompressed
	Created time.Time
	Labels  map[string]string
}

// Pull brings the image into the store and gives its ID. A reference with a
// digest that the store has already is not asked for again. Credentials come
// from the containers auth file. An insecure registry speaks plain HTTP, or TLS
// with a certificate that nobody vouches for. What Podman says meanwhile goes
// to progress, which may be nil.
func (p *Podman) Pull(ctx context.Context, ref string, insecure bool, progress io.Writer) (string, error) {
	doing := "pull " + ref
	if progress == nil {
		progress = io.Discard
	}
	policy := "always"
	if strings.Contains(ref, "@") {
		policy = "missing"
	}
	options := new(images.PullOptions).WithPolicy(policy).WithProgressWriter(progress)
	if insecure {
		options = options.WithSkipTLSVerify(true)
	}
	ids, err := images.Pull(p.call(ctx), ref, options)
	if err != nil {
		return "", fail(doing, err)
	}
	if err := ctx.Err(); err != nil {
		return "", fmt.Errorf("%s: %w", doing, err)
	}
	if len(ids) == 0 {
		return "", fmt.Errorf("%s: podman names no image", doing)
	}
	return ids[0], nil
}

// Load brings the images of an archive (Docker's or OCI's, as `podman save`
// writes them) into the store and gives their names.
func (p *Podman) Load(ctx context.Context, archive io.Reader) ([]string, error) {
	report, err := images.Load(p.call(ctx), archive)
	if err != nil {
		return nil, fail("load images", err)
	}
	return report.Names, nil
}

// Tag gives the image another name, REPOSITORY:TAG.
func (p *Podman) Tag(ctx context.Context, id, name string) error {
	repo, tag := splitTag(name)
	return fail("tag "+id+" as "+name, images.Tag(p.call(ctx), id, tag, repo, nil))
}

// Untag takes a name away from the image that has it. The image stays. That
// nothing has the name is no error.
func (p *Podman) Untag(ctx context.Context, name string) error {
	repo, tag := splitTag(name)
	err := images.Untag(p.call(ctx), name, tag, repo, nil)
	if status(err) == http.StatusNotFound {
		return nil
	}
	return fail("untag "+name, err)
}

// splitTag parts REPOSITORY:TAG; a colon before a slash belongs to a port.
func splitTag(name string) (repo, tag string) {
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		return name[:i], name[i+1:]
	}
	return name, "latest"
}

// ImageID is the ID of the image that the store has by that name, digest or ID.
func (p *Podman) ImageID(ctx context.Context, ref string) (id string, ok bool, err error) {
	report, err := images.GetImage(p.call(ctx), ref, nil)
	if status(err) == http.StatusNotFound {
		return "", false, nil
	}
	if err != nil {
		return "", false, fail("look for image "+ref, err)
	}
	return report.ID, true, nil
}

// RemoveImage removes the image with all its names. That it is not there is no
// error; that a container uses it is.
func (p *Podman) RemoveImage(ctx context.Context, ref string) error {
	id, ok, err := p.ImageID(ctx, ref)
	if err != nil || !ok {
		return err
	}
	_, errs := images.Remove(p.call(ctx), []string{id}, nil)
	for _, err := range errs {
		if status(err) != http.StatusNotFound {
			return fail("remove image "+ref, err)
		}
	}
	return nil
}

// Images lists what the store has, without intermediate images, by ID.
func (p *Podman) Images(ctx context.Context) ([]Image, error) {
	list, err := images.List(p.call(ctx), nil)
	if err != nil {
		return nil, fail("list images", err)
	}
	var out []Image
	for _, i := range list {
		names := i.Names
		if names == nil {
			names = i.RepoTags
		}
		out = append(out, Image{
			ID: i.ID, Names: names, Digests: i.RepoDigests, Size: i.Size,
			Created: time.Unix(i.Created, 0), Labels: i.Labels,
		})
	}
	sortBy(out, func(i Image) string { return i.ID })
	return out, nil
}

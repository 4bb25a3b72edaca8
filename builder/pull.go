package builder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/oci/layout"
	"go.podman.io/image/v5/signature"
	"go.podman.io/image/v5/types"

	"bareboat/internal/oci"
)

// PullRequest says which image is pulled, and how.
type PullRequest struct {
	Ref      oci.Reference
	Platform Platform // the zero value is the host's
	// Insecure allows plain HTTP and certificates that cannot be verified.
	// Registries of this machine need no leave.
	Insecure bool
}

// Pull brings an image from its registry into the local store, under its name.
// Credentials and mirrors are those of Podman's files
// (containers-auth.json(5), containers-registries.conf(5)), and so is the
// signature policy where there is one (containers-policy.json(5)).
func (b *Builder) Pull(ctx context.Context, r PullRequest) (oci.Image, error) {
	img, err := b.pull(ctx, r)
	if err != nil {
		return oci.Image{}, fmt.Errorf("pull %s: %w", r.Ref, err)
	}
	return img, nil
}

func (b *Builder) pull(ctx context.Context, r PullRequest) (oci.Image, error) {
	c, err := b.cached()
	if err != nil {
		return oci.Image{}, err
	}
	work, err := b.workDir(c.Dir())
	if err != nil {
		return oci.Image{}, err
	}
	defer os.RemoveAll(work)
	sys, err := pullContext(work, r)
	if err != nil {
		return oci.Image{}, err
	}
	ref := tagged(r.Ref)
	at := ref
	if ref.Digest != "" {
		at = ref.WithDigest(ref.Digest) // the library takes a tag or a digest
	}
	src, err := docker.ParseReference("//" + at.String())
	if err != nil {
		return oci.Image{}, err
	}
	img := oci.Image{Name: ref, Layout: filepath.Join(work, "layout")}
	dest, err := layout.NewReference(img.Layout, "")
	if err != nil {
		return oci.Image{}, err
	}
	b.notify(Event{Image: ref.Name(), Step: "pull", Note: ref.String()})
	text, err := copyImage(ctx, dest, src, sys, sys)
	if err != nil {
		return oci.Image{}, err
	}
	img.Digest = descriptor("", text).Digest
	return b.adopt(ctx, c, img, work)
}

// pullContext is for a registry, which the user's signature policy is about.
func pullContext(dir string, r PullRequest) (*types.SystemContext, error) {
	sys, err := systemContext(dir)
	if err != nil {
		return nil, err
	}
	if _, err := signature.DefaultPolicy(nil); err == nil {
		sys.SignaturePolicyPath = ""
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if r.Insecure || onLoopback(r.Ref.String()) {
		sys.DockerInsecureSkipTLSVerify = types.OptionalBoolTrue
	}
	p := r.Platform
	if p == (Platform{}) {
		p = HostPlatform()
	}
	sys.OSChoice, sys.ArchitectureChoice = p.OS, p.Arch
	return sys, nil
}

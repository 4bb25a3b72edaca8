package builder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/containers/buildah"
	"github.com/containers/buildah/define"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"go.podman.io/image/v5/copy"
	"go.podman.io/image/v5/docker"
	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/oci/layout"
	"go.podman.io/image/v5/signature"
	is "go.podman.io/image/v5/storage"
	"go.podman.io/image/v5/types"
	"go.podman.io/storage"
	"go.podman.io/storage/pkg/archive"
	"go.podman.io/storage/pkg/stringid"

	"bareboat/internal/oci"
)

// What is in this file runs in the store's process, see store.go.

type commitRequest struct {
	Base     string
	Layers   []tarFile
	Config   Config
	Platform Platform
	Epoch    int64
	Layout   string // where to write the image
	// Compress compresses the layers; else they are as their tars.
	Compress bool
	// BaseLayout is where to write the base as its registry has it.
	BaseLayout string
}

type commitResult struct {
	Digest oci.Digest
	Base   oci.Digest // the base's manifest for the platform
}

// scratch is the base that has nothing.
const scratch = "scratch"

// commit joins the layers in one step. No working container is mounted and
// nothing is added through buildah, which would let the host's umask in; the
// tars go in as they are, so that DiffIDs are the digests of our own bytes.
// OCI layout is the destination, since the store keeps layers uncompressed and
// would so give the image another digest than a registry.
func commit(ctx context.Context, store storage.Store, r commitRequest) (commitResult, error) {
	sys, err := systemContext(filepath.Dir(r.Layout))
	if err != nil {
		return commitResult{}, err
	}
	if err := forgetContainers(store, time.Now().Add(-abandoned)); err != nil {
		return commitResult{}, err
	}
	from, result := r.Base, commitResult{}
	if from != scratch {
		if from, result.Base, err = fetchBase(ctx, store, r, sys); err != nil {
			return commitResult{}, fmt.Errorf("start from %s: %w", r.Base, err)
		}
	}
	b, err := buildah.NewBuilder(ctx, store, buildah.BuilderOptions{
		Container:     containerPrefix + stringid.GenerateRandomID(),
		FromImage:     from,
		PullPolicy:    define.PullNever,
		SystemContext: sys,
		Format:        define.OCIv1ImageManifest,
		Isolation:     define.IsolationChroot,
	})
	if err != nil {
		return commitResult{}, fmt.Errorf("start from %s: %w", r.Base, err)
	}
	defer func() { _ = b.Delete() }()
	configure(b, r.Config, r.Platform)
	dest, err := layout.NewReference(r.Layout, "")
	if err != nil {
		return commitResult{}, err
	}
	if _, _, result.Digest, err = b.Commit(ctx, dest, commitOptions(r, sys)); err != nil {
		return commitResult{}, fmt.Errorf("commit: %w", err)
	}
	return result, nil
}

// fetchBase copies the base, for the platform, from its registry to BaseLayout
// as it is there, and from that into the store, where buildah looks for it. It
// gives the name that the image has in the store.
func fetchBase(ctx context.Context, store storage.Store, r commitRequest, sys *types.SystemContext) (name string, d oci.Digest, err error) {
	ref, err := oci.ParseReference(r.Base)
	if err != nil {
		return "", "", err
	}
	src, err := docker.ParseReference("//" + ref.WithDigest(ref.Digest).String())
	if err != nil {
		return "", "", err
	}
	dest, err := layout.NewReference(r.BaseLayout, "")
	if err != nil {
		return "", "", err
	}
	from := *sys
	from.DockerInsecureSkipTLSVerify = types.NewOptionalBool(onLoopback(r.Base))
	from.OSChoice, from.ArchitectureChoice = r.Platform.OS, r.Platform.Arch
	text, err := copyImage(ctx, dest, src, sys, &from)
	if err != nil {
		return "", "", err
	}
	if d, err = manifest.Digest(text); err != nil {
		return "", "", err
	}
	name = ref.WithDigest(d).String()
	stored, err := is.Transport.ParseStoreReference(store, name)
	if err != nil {
		return "", "", err
	}
	_, err = copyImage(ctx, stored, dest, sys, sys)
	return name, d, err
}

// copyImage copies one image as it is and gives its manifest.
func copyImage(ctx context.Context, dest, src types.ImageReference, to, from *types.SystemContext) ([]byte, error) {
	return copyWith(ctx, dest, src, to, &copy.Options{SourceCtx: from, DestinationCtx: to, PreserveDigests: true})
}

// convert copies one image into the format of its destination.
func convert(ctx context.Context, dest, src types.ImageReference, sys *types.SystemContext) error {
	_, err := copyWith(ctx, dest, src, sys, &copy.Options{SourceCtx: sys, DestinationCtx: sys})
	return err
}

func copyWith(ctx context.Context, dest, src types.ImageReference, sys *types.SystemContext, opts *copy.Options) ([]byte, error) {
	policy, err := signature.DefaultPolicy(sys)
	if err != nil {
		return nil, err
	}
	pc, err := signature.NewPolicyContext(policy)
	if err != nil {
		return nil, err
	}
	defer func() { _ = pc.Destroy() }()
	return copy.Image(ctx, pc, dest, src, opts)
}

// containerPrefix names the working containers of this package.
const containerPrefix = "bareboat-build-"

// forgetContainers removes the working containers of builds that were killed.
func forgetContainers(store storage.Store, before time.Time) error {
	all, err := store.Containers()
	if err != nil {
		return err
	}
	for _, c := range all {
		if len(c.Names) > 0 && strings.HasPrefix(c.Names[0], containerPrefix) && c.Created.Before(before) {
			if err := store.DeleteContainer(c.ID); err != nil && !errors.Is(err, storage.ErrContainerUnknown) {
				return err
			}
		}
	}
	return nil
}

// onLoopback tells whether an image lies at a registry of this machine, which
// may speak plain HTTP.
func onLoopback(name string) bool {
	ref, err := oci.ParseReference(name)
	if err != nil {
		return false
	}
	host, _, err := net.SplitHostPort(ref.Registry)
	return err == nil && (host == "localhost" || net.ParseIP(host).IsLoopback())
}

// commitOptions fills in buildah's options; it is the only place that does.
func commitOptions(r commitRequest, sys *types.SystemContext) buildah.CommitOptions {
	epoch := time.Unix(r.Epoch, 0).UTC()
	opts := buildah.CommitOptions{
		PreferredManifestType: define.OCIv1ImageManifest,
		Compression:           archive.Uncompressed,
		SystemContext:         sys,
		SignaturePolicyPath:   sys.SignaturePolicyPath,
		SourceDateEpoch:       &epoch,
		OmitLayerHistoryEntry: true,
		CreatedAnnotation:     types.OptionalBoolFalse,
		UnsetAnnotations:      []string{v1.AnnotationBaseImageName, v1.AnnotationBaseImageDigest},
	}
	if r.Compress {
		opts.Compression = archive.Gzip
	}
	for _, l := range r.Layers {
		opts.AppendedLinkedLayers = append(opts.AppendedLinkedLayers, buildah.LinkedLayer{
			History:  v1.History{Created: &epoch, CreatedBy: l.CreatedBy},
			BlobPath: l.Path,
		})
	}
	return opts
}

func configure(b *buildah.Builder, c Config, p Platform) {
	b.SetOS(p.OS)
	b.SetArchitecture(p.Arch)
	b.UnsetLabel(buildah.BuilderIdentityAnnotation)
	if c.Entrypoint != nil {
		b.SetEntrypoint(c.Entrypoint)
		b.SetCmd(nil)
	}
	if c.Cmd != nil {
		b.SetCmd(c.Cmd)
	}
	for _, k := range slices.Sorted(maps.Keys(c.Env)) {
		b.SetEnv(k, c.Env[k])
	}
	if c.User != "" {
		b.SetUser(c.User)
	}
	for _, port := range c.Ports {
		if !strings.Contains(port, "/") {
			port += "/tcp"
		}
		b.SetPort(port)
	}
	for _, v := range c.Volumes {
		b.AddVolume(v)
	}
	if c.WorkDir != "" {
		b.SetWorkDir(c.WorkDir)
	}
	if c.StopSignal != "" {
		b.SetStopSignal(c.StopSignal)
	}
	for _, k := range slices.Sorted(maps.Keys(c.Labels)) {
		b.SetLabel(k, c.Labels[k])
	}
	for _, k := range slices.Sorted(maps.Keys(c.Annotations)) {
		b.SetAnnotation(k, c.Annotations[k])
	}
}

type addRequest struct{ Layout, Name string }

// add copies the only image of a layout into the store. One without a name is
// known by its ID alone, which is the digest of its config.
func add(ctx context.Context, store storage.Store, r addRequest) (string, error) {
	dir, err := os.MkdirTemp("", "bareboat-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	sys, err := systemContext(dir)
	if err != nil {
		return "", err
	}
	src, err := layout.ParseReference(r.Layout)
	if err != nil {
		return "", err
	}
	dest, err := destination(ctx, store, src, r.Name)
	if err != nil {
		return "", err
	}
	if _, err := copyImage(ctx, dest, src, sys, sys); err != nil {
		return "", err
	}
	_, img, err := is.ResolveReference(dest)
	if err != nil {
		return "", err
	}
	return img.ID, nil
}

func list(ctx context.Context, store storage.Store) ([]Stored, error) {
	all, err := store.Images()
	if err != nil {
		return nil, err
	}
	inner := innerImages(store, all)
	out := make([]Stored, 0, len(all))
	for _, img := range all {
		size, err := store.ImageSize(img.ID)
		if err != nil {
			return nil, fmt.Errorf("size of %s: %w", img.ID, err)
		}
		out = append(out, Stored{ID: img.ID, Names: img.Names, Digest: img.Digest, Created: img.Created, Size: size,
			Intermediate: inner[img.ID]})
	}
	slices.SortStableFunc(out, func(a, b Stored) int { return b.Created.Compare(a.Created) })
	return out, nil
}

// inspect gives nil where there is no such image.
func inspect(ctx context.Context, store storage.Store, name string) (*Stored, error) {
	img, err := find(store, name)
	if err != nil || img == nil {
		return nil, err
	}
	size, err := store.ImageSize(img.ID)
	if err != nil {
		return nil, err
	}
	ref, err := is.Transport.NewStoreReference(store, nil, img.ID)
	if err != nil {
		return nil, err
	}
	sys := &types.SystemContext{}
	src, err := ref.NewImageSource(ctx, sys)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	parsed, err := image.FromUnparsedImage(ctx, sys, image.UnparsedInstance(src, nil))
	if err != nil {
		return nil, err
	}
	config, err := parsed.OCIConfig(ctx)
	if err != nil {
		return nil, err
	}
	s := &Stored{ID: img.ID, Names: img.Names, Digest: img.Digest, Created: img.Created, Size: size, Config: config}
	for _, l := range parsed.LayerInfos() {
		s.Layers = append(s.Layers, oci.Descriptor{MediaType: l.MediaType, Digest: l.Digest, Size: l.Size})
	}
	return s, nil
}

// find looks a name up as people give it: an ID or its beginning, a reference
// with tag or digest, or a short name of an image that was built here.
func find(store storage.Store, name string) (*storage.Image, error) {
	candidates := []string{name}
	for _, parse := range []func(string) (oci.Reference, error){oci.ParseLocal, oci.ParseReference} {
		ref, err := parse(name)
		switch {
		case err != nil:
		case ref.Digest != "":
			img, err := findDigest(store, ref)
			if img != nil || err != nil {
				return img, err
			}
		case ref.Tag == "":
			candidates = append(candidates, ref.WithTag("latest").String())
		default:
			candidates = append(candidates, ref.String())
		}
	}
	for _, c := range candidates {
		img, err := store.Image(c)
		if err == nil {
			return img, nil
		}
		if !errors.Is(err, storage.ErrImageUnknown) {
			return nil, err
		}
	}
	return nil, nil
}

// findDigest gives the image of that digest and repository, if there is one.
func findDigest(store storage.Store, ref oci.Reference) (*storage.Image, error) {
	images, err := store.ImagesByDigest(ref.Digest)
	if errors.Is(err, storage.ErrImageUnknown) {
		return nil, nil
	}
	for _, img := range images {
		for _, name := range img.Names {
			if strings.HasPrefix(name, ref.Name()+":") || strings.HasPrefix(name, ref.Name()+"@") {
				return img, nil
			}
		}
	}
	return nil, err
}

// systemContext has a signature policy of its own in dir: what is written here
// was made here, and a machine without Podman has no policy file.
func systemContext(dir string) (*types.SystemContext, error) {
	text, err := json.Marshal(map[string]any{"default": []any{map[string]string{"type": "insecureAcceptAnything"}}})
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "policy.json")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return nil, err
	}
	return &types.SystemContext{SignaturePolicyPath: path, BigFilesTemporaryDir: dir}, nil
}

func withSignals() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
}

package builder

import (
	"context"
	"os"
	"strings"
	"syscall"

	"github.com/containers/buildah"
	"github.com/containers/buildah/define"
	"github.com/containers/buildah/imagebuildah"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/sirupsen/logrus"
	"go.podman.io/image/v5/types"
	"go.podman.io/storage"
	"go.podman.io/storage/pkg/archive"
)

// What is in this file runs in the store's process, see store.go.

type containerfileCall struct {
	Containerfile string // absolute path
	Context       string // with nothing in it that is not to be seen
	Dir           string // for what is needed meanwhile
	Args          map[string]string
	Secrets       []string
	Target        string
	Platform      Platform
	Epoch         int64
	NoCache       bool
	Insecure      bool
}

// buildContainerfile gives the ID of the image, which has no name in the store.
func buildContainerfile(ctx context.Context, store storage.Store, r containerfileCall) (string, error) {
	syscall.Umask(0o022) // a container inherits it
	logrus.SetLevel(logrus.WarnLevel)
	sys, err := pullContext(r.Dir, PullRequest{Platform: r.Platform, Insecure: r.Insecure})
	if err != nil {
		return "", err
	}
	id, _, err := imagebuildah.BuildDockerfiles(ctx, store, r.options(sys), r.Containerfile)
	return id, err
}

// options fills in buildah's options. Isolation by chroot asks nothing of the
// machine but the user namespace that this process is in: no container runtime,
// no cgroup and no network of its own.
func (r containerfileCall) options(sys *types.SystemContext) define.BuildOptions {
	epoch := timeOf(r.Epoch)
	return define.BuildOptions{
		ContextDirectory: r.Context,
		Args:             r.Args,
		Target:           r.Target,
		Platforms:        []struct{ OS, Arch, Variant string }{{OS: r.Platform.OS, Arch: r.Platform.Arch}},
		PullPolicy:       define.PullIfMissing,
		SystemContext:    sys,
		Isolation:        define.IsolationChroot,
		CommonBuildOpts: &define.CommonBuildOptions{
			HTTPProxy:     true,
			IdentityLabel: types.OptionalBoolFalse,
			Secrets:       r.Secrets,
		},
		OutputFormat:            define.OCIv1ImageManifest,
		Compression:             archive.Uncompressed,
		Layers:                  true,
		NoCache:                 r.NoCache,
		RemoveIntermediateCtrs:  true,
		ForceRmIntermediateCtrs: true,
		SourceDateEpoch:         &epoch,
		RewriteTimestamp:        true,
		CreatedAnnotation:       types.OptionalBoolFalse,
		UnsetLabels:             []string{buildah.BuilderIdentityAnnotation},
		UnsetAnnotations:        []string{v1.AnnotationBaseImageName, v1.AnnotationBaseImageDigest},
		SignaturePolicyPath:     sys.SignaturePolicyPath,
		In:                      strings.NewReader(""),
		Out:                     os.Stderr,
		Err:                     os.Stderr,
		ReportWriter:            os.Stderr,
	}
}

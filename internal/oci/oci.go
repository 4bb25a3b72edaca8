// Package oci holds the words that every stage shares.
//
// A reference names an image: registry/repository with a tag, a digest or
// both. A digest is the SHA-256 of some bytes and so pins them. A descriptor is
// a digest with a size and a media type. A manifest lists an image's config and
// layers by descriptor; an index lists manifests by platform. The formats are
// those of the OCI image specification v1.1
// (https://github.com/opencontainers/image-spec).
package oci

import (
	"errors"
	"fmt"
	"strings"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
)

// The specification's own types, under the names that Bareboat uses.
type (
	// Digest is an algorithm and a hash, "sha256:…".
	Digest = digest.Digest
	// Descriptor points at bytes: media type, digest, size in bytes.
	Descriptor = v1.Descriptor
	// Manifest is an image manifest.
	Manifest = v1.Manifest
	// Index is a list of manifests.
	Index = v1.Index
	// ImageConfig is the config blob of an image, with its history and DiffIDs.
	ImageConfig = v1.Image
)

// LocalRegistry is the registry part of an image that only a local store
// knows. Podman and Buildah put it in front of names that have none.
const LocalRegistry = "localhost"

// ErrReference is what every parse error of this package wraps.
var ErrReference = errors.New("invalid reference")

// Reference names an image. Registry and Repository are never empty in a
// parsed reference; Tag and Digest may be.
type Reference struct {
	Registry   string // host, with a port where it has one
	Repository string // path below the registry
	Tag        string
	Digest     Digest
}

// ParseReference reads a name as Docker and Podman do: a name without a host
// is of Docker Hub ("nginx" is docker.io/library/nginx). It fills in no tag.
func ParseReference(s string) (Reference, error) {
	named, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return Reference{}, fmt.Errorf("%w %q: %w", ErrReference, s, err)
	}
	r := Reference{Registry: reference.Domain(named), Repository: reference.Path(named)}
	if t, ok := named.(reference.Tagged); ok {
		r.Tag = t.Tag()
	}
	if d, ok := named.(reference.Digested); ok {
		r.Digest = d.Digest()
	}
	return r, nil
}

// ParseLocal reads the name of an image that is built here: a name without a
// host is localhost/NAME, as `podman build --tag NAME` has it.
func ParseLocal(s string) (Reference, error) {
	host, _, slash := strings.Cut(s, "/")
	if !slash || !strings.ContainsAny(host, ".:") && host != LocalRegistry {
		s = LocalRegistry + "/" + s
	}
	return ParseReference(s)
}

// IsLocal tells that no registry stands behind the reference.
func (r Reference) IsLocal() bool { return r.Registry == LocalRegistry }

// Name is the reference without tag and digest: registry/repository.
func (r Reference) Name() string { return r.Registry + "/" + r.Repository }

// String is the whole reference; it parses back to the same value.
func (r Reference) String() string {
	s := r.Name()
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest.String()
	}
	return s
}

// WithDigest is the reference pinned to d, without its tag.
func (r Reference) WithDigest(d Digest) Reference {
	r.Tag, r.Digest = "", d
	return r
}

// WithTag is the reference with another tag and no digest.
func (r Reference) WithTag(tag string) Reference {
	r.Tag, r.Digest = tag, ""
	return r
}

// At is the same repository and tag below another registry prefix, HOST or
// HOST/PATH: "localhost/team/chat:1" at "nexus:8082/docker" is
// "nexus:8082/docker/team/chat:1".
func (r Reference) At(prefix string) (Reference, error) {
	prefix = strings.TrimSuffix(prefix, "/")
	host, _, _ := strings.Cut(prefix, "/")
	if host == "" || !strings.ContainsAny(host, ".:") && host != LocalRegistry {
		return Reference{}, fmt.Errorf("%w: registry %q is not HOST[:PORT][/PATH]", ErrReference, prefix)
	}
	name := prefix + "/" + r.Repository
	if r.Tag != "" {
		name += ":" + r.Tag
	}
	if r.Digest != "" {
		name += "@" + r.Digest.String()
	}
	return ParseReference(name)
}

// Image is what the builder hands on and the registry takes: an OCI image
// layout on disk and the manifest in it that is meant.
type Image struct {
	Name   Reference // as the Compose file names it
	Layout string    // folder of the OCI image layout
	Digest Digest    // digest of the manifest
}

// Pinned is the image's name with its digest, as `build` and `push` print it.
func (i Image) Pinned() string { return i.Name.WithDigest(i.Digest).String() }

package registry

import (
	_ "crypto/sha256" // the digests' algorithms
	_ "crypto/sha512"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-containerregistry/pkg/v1/types"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"bareboat/internal/oci"
)

const (
	// manifestLimit is what the protocol asks a registry to take at least.
	manifestLimit = 4 << 20
	// deepest is how many indexes may stand within each other.
	deepest = 4
)

// errContent is what errors wrap that say that bytes are not what they should be.
var errContent = errors.New("wrong content")

// manifest is an image manifest or an index, as it stands in the registry.
type manifest struct {
	oci.Descriptor
	raw      []byte
	children []oci.Descriptor // an index's manifests
	blobs    []oci.Descriptor // an image's config and layers
}

// parseManifest reads an image manifest or an index, in OCI's or in Docker's
// form, whose digest has to be d.
func parseManifest(raw []byte, d oci.Digest) (manifest, error) {
	if err := d.Validate(); err != nil {
		return manifest{}, fmt.Errorf("%w: digest %q: %w", errContent, d, err)
	}
	if len(raw) > manifestLimit {
		return manifest{}, fmt.Errorf("%w: manifest %s has more than %d bytes", errContent, d, manifestLimit)
	}
	if d.Algorithm().FromBytes(raw) != d {
		return manifest{}, fmt.Errorf("%w: manifest is not %s", errContent, d)
	}
	var content struct {
		MediaType string           `json:"mediaType"`
		Config    *oci.Descriptor  `json:"config"`
		Layers    []oci.Descriptor `json:"layers"`
		Manifests []oci.Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(raw, &content); err != nil {
		return manifest{}, fmt.Errorf("%w: manifest %s: %w", errContent, d, err)
	}
	kind := content.MediaType
	if kind == "" { // OCI leaves it out where the descriptor has it
		kind = v1.MediaTypeImageManifest
		if content.Manifests != nil {
			kind = v1.MediaTypeImageIndex
		}
	}
	m := manifest{Descriptor: oci.Descriptor{MediaType: kind, Digest: d, Size: int64(len(raw))}, raw: raw}
	switch types.MediaType(kind) {
	case types.OCIImageIndex, types.DockerManifestList:
		m.children = content.Manifests
	case types.OCIManifestSchema1, types.DockerManifestSchema2:
		if content.Config == nil {
			return manifest{}, fmt.Errorf("%w: manifest %s has no config", errContent, d)
		}
		m.blobs = slices.DeleteFunc(append(content.Layers, *content.Config), isForeign)
	default:
		return manifest{}, fmt.Errorf("%w: manifest %s is of type %q, not an image", errContent, d, kind)
	}
	return m, checkDescriptors(d, slices.Concat(m.children, m.blobs))
}

// isForeign tells of layers that the specification keeps out of registries.
func isForeign(b oci.Descriptor) bool {
	return !types.MediaType(b.MediaType).IsDistributable()
}

func checkDescriptors(in oci.Digest, all []oci.Descriptor) error {
	for _, d := range all {
		if err := d.Digest.Validate(); err != nil {
			return fmt.Errorf("%w: manifest %s names digest %q: %w", errContent, in, d.Digest, err)
		}
		if d.Size < 0 {
			return fmt.Errorf("%w: manifest %s gives %s %d bytes", errContent, in, d.Digest, d.Size)
		}
	}
	return nil
}

// image is all of what a manifest reaches.
type image struct {
	manifests []manifest // those that others name before those that name them; the last is the image's own
	blobs     []oci.Descriptor
}

// collect reads the manifest with digest d and what it names, by means of get.
func collect(d oci.Digest, get func(oci.Digest) ([]byte, error)) (image, error) {
	var all image
	seen, named := map[oci.Digest]bool{}, map[oci.Digest]bool{}
	var visit func(oci.Digest, int) error
	visit = func(d oci.Digest, depth int) error {
		if seen[d] {
			return nil
		}
		seen[d] = true
		if depth > deepest {
			return fmt.Errorf("%w: index %s is nested too deeply", errContent, d)
		}
		raw, err := get(d)
		if err != nil {
			return err
		}
		m, err := parseManifest(raw, d)
		if err != nil {
			return err
		}
		for _, child := range m.children {
			if err := visit(child.Digest, depth+1); err != nil {
				return err
			}
		}
		for _, blob := range m.blobs {
			if !named[blob.Digest] {
				named[blob.Digest] = true
				all.blobs = append(all.blobs, blob)
			}
		}
		all.manifests = append(all.manifests, m)
		return nil
	}
	return all, visit(d, 1)
}

// root is the image's own manifest.
func (i image) root() manifest { return i.manifests[len(i.manifests)-1] }

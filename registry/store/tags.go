package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"bareboat/internal/oci"
)

// Repositories is the folder of a store that the registry keeps its
// repositories in, each an OCI image layout. The lock and the owner's note stand
// beside it: a repository may have any name.
const Repositories = "repositories"

// Tagged gives the manifest that a tag of a repository names, empty where there
// is none. It holds the store's lock while it looks; when another process has
// that the error is a *LockedError.
func Tagged(dir, repository, tag string) (d oci.Digest, err error) {
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	lock, err := Acquire(dir)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, lock.Release()) }()
	layout := filepath.Join(dir, Repositories, filepath.FromSlash(repository))
	text, err := os.ReadFile(filepath.Join(layout, v1.ImageIndexFile))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	var index oci.Index
	if err := json.Unmarshal(text, &index); err != nil {
		return "", fmt.Errorf("read repository %s of %s: %w", repository, dir, err)
	}
	for _, m := range index.Manifests {
		if m.Annotations[v1.AnnotationRefName] == tag {
			return present(layout, m)
		}
	}
	return "", nil
}

// present gives the digest of a manifest that is whole.
func present(layout string, m oci.Descriptor) (oci.Digest, error) {
	if err := m.Digest.Validate(); err != nil {
		return "", err
	}
	content, err := os.ReadFile(filepath.Join(layout, v1.ImageBlobsDir, m.Digest.Algorithm().String(), m.Digest.Encoded()))
	if err != nil || m.Digest.Algorithm().FromBytes(content) != m.Digest {
		return "", nil // to the registry it is not there
	}
	return m.Digest, nil
}

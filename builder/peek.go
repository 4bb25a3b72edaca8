package builder

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"

	"go.podman.io/storage"

	"bareboat/internal/oci"
)

// Stores tells whether the local store has the image d under a name. It looks
// at the store's list of images, without opening the store or entering a user
// namespace, so that a build with nothing to do need not. Where it cannot tell,
// the answer is no.
func (b *Builder) Stores(name oci.Reference, d oci.Digest) bool {
	path := b.imageList()
	text, err := os.ReadFile(path)
	if path == "" || err != nil {
		return false
	}
	var images []struct {
		Names   []string     `json:"names"`
		Digest  oci.Digest   `json:"digest"`
		Digests []oci.Digest `json:"digests"`
	}
	if err := json.Unmarshal(text, &images); err != nil {
		return false
	}
	for _, i := range images {
		if slices.Contains(i.Names, name.String()) {
			return i.Digest == d || slices.Contains(i.Digests, d)
		}
	}
	return false
}

// imageList is the file in which containers/storage lists its images; empty
// where it is not clear which of several.
func (b *Builder) imageList() string {
	opts, err := storage.DefaultStoreOptions()
	if err != nil {
		return ""
	}
	root, driver := opts.GraphRoot, opts.GraphDriverName
	if b.Root != "" {
		root = b.Root
	}
	if env := os.Getenv("STORAGE_DRIVER"); env != "" {
		driver = env
	}
	if driver == "" {
		driver = "*"
	}
	found, err := filepath.Glob(filepath.Join(root, driver+"-images", "images.json"))
	if err != nil || len(found) != 1 {
		return ""
	}
	return found[0]
}

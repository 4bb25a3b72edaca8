// Package contents reads what images hold, and says how two of them differ.
//
// An image's layers lie one upon the other: what an upper one has in the same
// place hides what a lower one has, and a whiteout (a file named .wh.NAME) takes
// it away. What is hidden still has to be stored and sent: it is waste. The
// formats are those of the OCI image specification v1.1
// (https://github.com/opencontainers/image-spec/blob/v1.1.0/layer.md).
package contents

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"bareboat/internal/oci"
)

// ErrImage says that something is no image that can be read.
var ErrImage = errors.New("not an image that can be read")

// Image is an image of one platform.
type Image struct {
	Digest   oci.Digest      `json:"digest"`          // of the manifest
	Index    oci.Digest      `json:"index,omitempty"` // that it was chosen from
	Offers   []string        `json:"platforms,omitempty"`
	Platform string          `json:"platform"`
	Size     int64           `json:"size"` // bytes, compressed, with config and manifest
	Config   oci.ImageConfig `json:"config"`
	Manifest oci.Manifest    `json:"-"`
	Layers   []Layer         `json:"layers"` // from the bottom up

	// What Read fills in.
	Files    map[string]File   `json:"-"` // by path, without a slash in front
	Packages map[string]string `json:"-"` // Debian packages: name → version
	Modules  map[string]string `json:"-"` // Go modules of its programs: path → version
	Wasted   int64             `json:"wasted"`

	layout string
}

// Layer is one layer.
type Layer struct {
	Digest    oci.Digest `json:"digest"`
	DiffID    oci.Digest `json:"diffID"`
	MediaType string     `json:"mediaType"`
	CreatedBy string     `json:"createdBy,omitempty"`
	Size      int64      `json:"size"` // bytes, compressed

	// What Read fills in.
	Unpacked int64 `json:"unpacked,omitempty"` // bytes of files
	Files    int   `json:"files,omitempty"`
	Wasted   int64 `json:"wasted,omitempty"` // bytes of files that upper layers hide
}

// File is what an image has at a path.
type File struct {
	Mode     fs.FileMode
	UID, GID int
	Size     int64
	Digest   oci.Digest // of a regular file's content
	Link     string     // where a link leads
	Layer    int        // that it comes from
}

// Open reads manifest and config of the image d in an OCI image layout; of an
// index it takes the platform's, given as "linux/amd64".
func Open(layout string, d oci.Digest, platform string) (*Image, error) {
	i := &Image{Platform: platform, layout: layout}
	if err := i.choose(d, 0); err != nil {
		return nil, err
	}
	content, err := i.blob(i.Manifest.Config)
	if err != nil {
		return nil, fmt.Errorf("read its config: %w", err)
	}
	if err := json.Unmarshal(content, &i.Config); err != nil {
		return nil, fmt.Errorf("%w: config %s: %w", ErrImage, i.Manifest.Config.Digest, err)
	}
	if i.Config.OS != "" {
		i.Platform = i.Config.OS + "/" + i.Config.Architecture
	}
	return i, i.listLayers()
}

// deepest is how many indexes may stand within each other.
const deepest = 4

func (i *Image) choose(d oci.Digest, depth int) error {
	content, err := i.read(d, manifestLimit)
	if err != nil {
		return fmt.Errorf("read manifest %s: %w", d, err)
	}
	var both struct {
		oci.Manifest
		Manifests []oci.Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(content, &both); err != nil {
		return fmt.Errorf("%w: manifest %s: %w", ErrImage, d, err)
	}
	if both.Manifests == nil {
		i.Digest, i.Manifest, i.Size = d, both.Manifest, int64(len(content))+both.Config.Size
		return nil
	}
	if depth == 0 {
		i.Index = d
	}
	var found *oci.Descriptor
	for n, m := range both.Manifests {
		if m.Platform == nil || m.Platform.OS == "unknown" {
			continue
		}
		name := m.Platform.OS + "/" + m.Platform.Architecture
		i.Offers = append(i.Offers, name)
		if name == i.Platform && found == nil {
			found = &both.Manifests[n]
		}
	}
	if found == nil || depth >= deepest {
		return fmt.Errorf("%w: index %s has nothing for %s (it has %v)", ErrImage, d, i.Platform, i.Offers)
	}
	return i.choose(found.Digest, depth+1)
}

func (i *Image) listLayers() error {
	var by []string
	for _, h := range i.Config.History {
		if !h.EmptyLayer {
			by = append(by, h.CreatedBy)
		}
	}
	if len(i.Config.RootFS.DiffIDs) != len(i.Manifest.Layers) {
		return fmt.Errorf("%w: %s has %d layers, and its config %d", ErrImage, i.Digest, len(i.Manifest.Layers), len(i.Config.RootFS.DiffIDs))
	}
	for n, l := range i.Manifest.Layers {
		layer := Layer{Digest: l.Digest, MediaType: l.MediaType, Size: l.Size, DiffID: i.Config.RootFS.DiffIDs[n]}
		if n < len(by) {
			layer.CreatedBy = by[n]
		}
		i.Size += l.Size
		i.Layers = append(i.Layers, layer)
	}
	return nil
}

// manifestLimit is the size that registries take manifests of, at least.
const manifestLimit = 4 << 20

// blob gives the content of a small blob.
func (i *Image) blob(d oci.Descriptor) ([]byte, error) {
	return i.read(d.Digest, 64<<20)
}

func (i *Image) read(d oci.Digest, limit int64) ([]byte, error) {
	if err := d.Validate(); err != nil {
		return nil, fmt.Errorf("%w: digest %q: %w", ErrImage, d, err)
	}
	path := i.path(d)
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > limit {
		return nil, fmt.Errorf("%w: %s has %d bytes", ErrImage, d, info.Size())
	}
	content, err := os.ReadFile(path)
	if err == nil && d.Algorithm().FromBytes(content) != d {
		err = fmt.Errorf("%w: the content of %s is another", ErrImage, d)
	}
	return content, err
}

func (i *Image) path(d oci.Digest) string {
	return filepath.Join(i.layout, v1.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

// Paths are those of the image's files, sorted.
func (i *Image) Paths() []string {
	out := make([]string, 0, len(i.Files))
	for p := range i.Files {
		out = append(out, p)
	}
	slices.Sort(out)
	return out
}

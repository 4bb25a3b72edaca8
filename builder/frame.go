package builder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"bareboat/builder/cache"
	"bareboat/internal/oci"
)

// frame is an image without its layers: what a commit through buildah makes of
// the base and the configuration, with one stand-in where the layers belong.
//
// The commit wants the user namespace and the store opened, and costs more than
// all the rest of a small edit. It depends on the configuration alone, so it is
// done beside the compiling, and its result is kept.
type frame struct {
	Config   oci.ImageConfig  `json:"config"`
	Manifest oci.Manifest     `json:"manifest"`
	Base     []oci.Descriptor `json:"base"` // the base's own layers, compressed as it has them
}

// standIn takes the place of the layers in a frame.
const standIn = "bareboat layers"

func (j *job) frameKey(p Platform) oci.Digest {
	config, err := json.Marshal(j.recipe.Config)
	if err != nil {
		panic(err) // strings, numbers, and maps of them
	}
	var in cache.Inputs
	in.Add("bareboat", "%s", self())
	in.Add("base", "%s", j.recipe.Base)
	in.Add("config", "%s", config)
	in.Add("platform", "%s", p)
	in.Add("time", "%d", j.Epoch)
	return in.Key()
}

// frame gives the frame for a platform, from the cache if it is there.
func (j *job) frame(ctx context.Context, p Platform, work string) (frame, error) {
	key := j.frameKey(p)
	var f frame
	err := j.cache.Load(kindFrame, key, &f)
	for _, d := range f.Base {
		if err == nil {
			err = j.cache.Check(d)
		}
	}
	if err == nil {
		return f, nil
	}
	var corrupt *cache.CorruptError
	if errors.As(err, &corrupt) {
		j.warn("frame", "the cache is damaged (%v): made anew", err)
	}
	dir, err := os.MkdirTemp(work, "frame-")
	if err != nil {
		return frame{}, err
	}
	defer os.RemoveAll(dir)
	if f, err = j.commitFrame(ctx, p, dir); err != nil {
		return frame{}, err
	}
	return f, j.cache.Save(kindFrame, key, f)
}

func (j *job) commitFrame(ctx context.Context, p Platform, dir string) (frame, error) {
	tar := filepath.Join(dir, "standin.tar")
	if err := os.WriteFile(tar, make([]byte, 1024), 0o600); err != nil { // the end of an archive, and nothing before it
		return frame{}, err
	}
	req := commitRequest{
		Base: j.recipe.Base, Config: j.recipe.Config, Platform: p, Epoch: j.Epoch,
		Layers: []tarFile{{Path: tar, CreatedBy: standIn}}, Layout: filepath.Join(dir, "layout"),
	}
	if j.recipe.Base != scratch {
		req.BaseLayout = filepath.Join(dir, "base")
	}
	var done commitResult
	if err := j.inStore(ctx, "commit", req, &done); err != nil {
		return frame{}, err
	}
	f := frame{}
	if err := readImage(req.Layout, done.Digest, &f.Manifest, &f.Config); err != nil {
		return frame{}, fmt.Errorf("read what was committed: %w", err)
	}
	if req.BaseLayout == "" {
		return f, nil
	}
	var base oci.Manifest
	var config oci.ImageConfig
	if err := readImage(req.BaseLayout, done.Base, &base, &config); err != nil {
		return frame{}, fmt.Errorf("read the base %s: %w", j.recipe.Base, err)
	}
	if ours := f.Config.RootFS.DiffIDs; !slices.Equal(ours[:len(ours)-1], config.RootFS.DiffIDs) || len(base.Layers) != len(config.RootFS.DiffIDs) {
		return frame{}, fmt.Errorf("the base %s: its config and its manifest differ about its layers", j.recipe.Base)
	}
	for _, d := range base.Layers {
		if err := j.cache.Adopt(blobOf(req.BaseLayout, d.Digest), d); err != nil {
			return frame{}, fmt.Errorf("keep the base %s: %w", j.recipe.Base, err)
		}
	}
	f.Base = base.Layers
	return f, nil
}

func blobOf(layout string, d oci.Digest) string {
	return filepath.Join(layout, v1.ImageBlobsDir, d.Algorithm().String(), d.Encoded())
}

// readImage reads manifest and config of an image in a layout.
func readImage(layout string, d oci.Digest, m *oci.Manifest, c *oci.ImageConfig) error {
	if err := readJSON(blobOf(layout, d), m); err != nil {
		return err
	}
	return readJSON(blobOf(layout, m.Config.Digest), c)
}

func readJSON(path string, value any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, value)
}

// link puts layers into a frame, and config and manifest into the cache.
func (j *job) link(f frame, p Platform, layers []Made) (imageRecord, error) {
	config, manifest := f.Config, f.Manifest
	last := len(config.History) - 1
	if last < 0 || config.History[last].CreatedBy != standIn {
		return imageRecord{}, errors.New("the frame has no place for layers")
	}
	place := config.History[last]
	config.History = slices.Clone(config.History[:last])
	config.RootFS.DiffIDs = slices.Clone(config.RootFS.DiffIDs[:len(config.RootFS.DiffIDs)-1])
	manifest.Layers = slices.Clone(f.Base)
	var r imageRecord
	for _, l := range layers {
		place.CreatedBy = l.CreatedBy
		config.History = append(config.History, place)
		place.Comment = "" // it says which base it was, once
		config.RootFS.DiffIDs = append(config.RootFS.DiffIDs, l.DiffID)
		manifest.Layers = append(manifest.Layers, l.Blob)
	}
	for _, d := range manifest.Layers {
		r.Size += d.Size
	}
	text, err := json.Marshal(config)
	if err != nil {
		return imageRecord{}, err
	}
	if r.Config, err = j.cache.PutBytes(v1.MediaTypeImageConfig, text); err != nil {
		return imageRecord{}, err
	}
	manifest.Config = r.Config
	if text, err = json.Marshal(manifest); err != nil {
		return imageRecord{}, err
	}
	if r.Manifest, err = j.cache.PutBytes(v1.MediaTypeImageManifest, text); err != nil {
		return imageRecord{}, err
	}
	r.Manifest.Platform = &v1.Platform{OS: p.OS, Architecture: p.Arch}
	r.Size += r.Config.Size + r.Manifest.Size
	return r, nil
}

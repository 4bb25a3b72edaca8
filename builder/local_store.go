package builder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"

	"github.com/opencontainers/go-digest"
	"go.podman.io/image/v5/image"
	"go.podman.io/image/v5/manifest"
	"go.podman.io/image/v5/pkg/blobinfocache/none"
	is "go.podman.io/image/v5/storage"
	"go.podman.io/image/v5/types"
	"go.podman.io/storage"

	"bareboat/internal/oci"
)

// What is in this file runs in the store's process, see store.go.

// serveLocal does what the commands for local images ask for.
func serveLocal(ctx context.Context, store storage.Store, call storeCall) (any, error) {
	switch call.Op {
	case "tag":
		return decoded(call.Request, func(r renameRequest) (bool, error) { return rename(store, r, store.AddNames) })
	case "untag":
		return decoded(call.Request, func(r renameRequest) (bool, error) { return rename(store, r, store.RemoveNames) })
	case "remove":
		return decoded(call.Request, func(r removeRequest) (removeResult, error) { return remove(store, r) })
	case "export":
		return decoded(call.Request, func(name string) (exported, error) { return export(ctx, store, name) })
	case "containerfile":
		return decoded(call.Request, func(r containerfileCall) (string, error) { return buildContainerfile(ctx, store, r) })
	case "layer":
		return decoded(call.Request, func(r layerRequest) (bool, error) { return true, writeLayer(ctx, store, r) })
	}
	return nil, fmt.Errorf("unknown operation %q", call.Op)
}

// destination is a place in the store for an image. One without a name is known
// by its ID, which is the digest of its config.
//
// The store calls an image by the digest that it had first. One that was built
// in the store had its layers uncompressed then: where it has no name yet, it
// gives way to what it was exported as.
func destination(ctx context.Context, store storage.Store, from types.ImageReference, name string) (types.ImageReference, error) {
	img, err := from.NewImage(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer img.Close()
	id := img.ConfigInfo().Digest.Encoded()
	text, _, err := img.Manifest(ctx)
	if err != nil {
		return nil, err
	}
	there, err := store.Image(id)
	if err == nil && len(there.Names) == 0 && there.Digest != digest.FromBytes(text) {
		err = deleteUnused(store, id)
	}
	if err != nil && !errors.Is(err, storage.ErrImageUnknown) {
		return nil, err
	}
	if name == "" {
		return is.Transport.NewStoreReference(store, nil, id)
	}
	return is.Transport.ParseStoreReference(store, name)
}

func deleteUnused(store storage.Store, id string) error {
	used, err := containersOf(store, id)
	if err != nil || len(used) > 0 {
		return err
	}
	_, err = store.DeleteImage(id, true)
	return err
}

// containersOf are the containers that are made of an image.
func containersOf(store storage.Store, id string) ([]string, error) {
	all, err := store.Containers()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, c := range all {
		if c.ImageID == id {
			out = append(out, c.ID)
		}
	}
	return out, nil
}

// innerImages are those without a name that others are built on, by ID: another
// begins with their layers and history, and goes on.
func innerImages(store storage.Store, all []storage.Image) map[string]bool {
	configs := map[string]oci.ImageConfig{}
	for _, img := range all {
		configs[img.ID] = configOf(store, img.ID)
	}
	inner := map[string]bool{}
	for _, img := range all {
		own := configs[img.ID]
		inner[img.ID] = len(img.Names) == 0 && len(own.History) > 0 && slices.ContainsFunc(all, func(other storage.Image) bool {
			return goesOn(own, configs[other.ID])
		})
	}
	return inner
}

// goesOn tells whether an image begins as another and has more.
func goesOn(from, to oci.ImageConfig) bool {
	layers, steps := len(from.RootFS.DiffIDs), len(from.History)
	return len(to.RootFS.DiffIDs) >= layers && len(to.History) > steps &&
		slices.Equal(to.RootFS.DiffIDs[:layers], from.RootFS.DiffIDs) &&
		reflect.DeepEqual(to.History[:steps], from.History)
}

// configOf is empty for an image whose config is not of OCI or Docker.
func configOf(store storage.Store, id string) (c oci.ImageConfig) {
	text, err := store.ImageBigData(id, digest.NewDigestFromEncoded(digest.Canonical, id).String())
	if err != nil || json.Unmarshal(text, &c) != nil {
		return oci.ImageConfig{}
	}
	return c
}

type renameRequest struct {
	Name  string
	Names []string // none: all that the image has
}

// rename calls change with an image's ID and names. It gives false where there
// is no such image.
func rename(store storage.Store, r renameRequest, change func(id string, names []string) error) (bool, error) {
	img, err := find(store, r.Name)
	if err != nil || img == nil {
		return false, err
	}
	names := r.Names
	if len(names) == 0 {
		names = img.Names
	}
	return true, change(img.ID, names)
}

type removeRequest struct {
	Name  string
	Force bool
}

type removeResult struct {
	Found   bool
	InUse   []string // containers that are in the way
	Removed Removed
}

func remove(store storage.Store, r removeRequest) (removeResult, error) {
	img, err := find(store, r.Name)
	if err != nil || img == nil {
		return removeResult{}, err
	}
	out := removeResult{Found: true}
	given := chosenOf(img.Names, r.Name)
	if given != "" && len(img.Names) > 1 {
		out.Removed.Untagged = []string{given}
		return out, store.RemoveNames(img.ID, []string{given})
	}
	if given == "" && len(img.Names) > 1 && !r.Force {
		return out, fmt.Errorf("the image has several names (%v): name one, or force it", img.Names)
	}
	if out.InUse, err = containersOf(store, img.ID); err != nil || len(out.InUse) > 0 {
		return out, err
	}
	out.Removed = Removed{Untagged: img.Names, Deleted: img.ID}
	_, err = store.DeleteImage(img.ID, true)
	return out, err
}

// chosenOf is the one of an image's names that was asked for; empty where it
// was found by something else.
func chosenOf(names []string, asked string) string {
	for _, parse := range []func(string) (oci.Reference, error){oci.ParseLocal, oci.ParseReference} {
		if ref, err := parse(asked); err == nil && slices.Contains(names, tagged(ref).String()) {
			return tagged(ref).String()
		}
	}
	return ""
}

// exported is an image as the store has it.
type exported struct {
	Found       bool
	ID          string
	Names       []string
	MediaType   string // of the manifest
	Manifest    []byte
	Annotations map[string]string
	Config      []byte
	Layers      []oci.Descriptor // as the manifest names them
}

func export(ctx context.Context, store storage.Store, name string) (out exported, err error) {
	img, err := find(store, name)
	if err != nil || img == nil {
		return exported{}, err
	}
	src, err := open(ctx, store, img.ID)
	if err != nil {
		return exported{}, err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	out = exported{Found: true, ID: img.ID, Names: img.Names}
	if out.Manifest, out.MediaType, err = src.GetManifest(ctx, nil); err != nil {
		return exported{}, err
	}
	if manifest.MIMETypeIsMultiImage(out.MediaType) {
		return exported{}, errors.New("it is a list of images, not an image")
	}
	parsed, err := image.FromUnparsedImage(ctx, nil, image.UnparsedInstance(src, nil))
	if err != nil {
		return exported{}, err
	}
	if out.Config, err = parsed.ConfigBlob(ctx); err != nil {
		return exported{}, err
	}
	for _, l := range parsed.LayerInfos() {
		out.Layers = append(out.Layers, oci.Descriptor{MediaType: l.MediaType, Digest: l.Digest, Size: l.Size, Annotations: l.Annotations})
	}
	var annotated struct{ Annotations map[string]string }
	err = json.Unmarshal(out.Manifest, &annotated)
	out.Annotations = annotated.Annotations
	return out, err
}

func open(ctx context.Context, store storage.Store, id string) (types.ImageSource, error) {
	ref, err := is.Transport.NewStoreReference(store, nil, id)
	if err != nil {
		return nil, err
	}
	return ref.NewImageSource(ctx, nil)
}

// layerRequest asks for a layer's tar.
type layerRequest struct {
	ID    string // of the image
	Index int    // among its layers
	Path  string // of the tar
}

func writeLayer(ctx context.Context, store storage.Store, r layerRequest) (err error) {
	src, err := open(ctx, store, r.ID)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	layers, err := src.LayerInfosForCopy(ctx, nil)
	if err != nil {
		return err
	}
	if r.Index >= len(layers) {
		return fmt.Errorf("the store has %d of its layers", len(layers))
	}
	in, _, err := src.GetBlob(ctx, layers[r.Index], none.NoCache)
	if err != nil {
		return err
	}
	defer in.Close()
	f, err := os.OpenFile(r.Path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, in)
	return errors.Join(err, f.Close())
}

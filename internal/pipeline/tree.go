package pipeline

import (
	"context"
	"encoding/json"
	"errors"

	"bareboat/internal/oci"
	"bareboat/registry/cosign"
)

// Tree is what hangs on a manifest at a registry.
type Tree struct {
	Name         string     `json:"name,omitempty"` // of the whole
	Digest       oci.Digest `json:"digest"`
	MediaType    string     `json:"mediaType"`
	Platform     string     `json:"platform,omitempty"`
	Layers       int        `json:"layers,omitempty"`
	Size         int64      `json:"size"` // of the layers, or of an artifact's blobs
	ArtifactType string     `json:"artifactType,omitempty"`
	About        string     `json:"predicateType,omitempty"` // what an attestation tells
	Signatures   int        `json:"signatures,omitempty"`
	Attestations []string   `json:"attestations,omitempty"` // their predicates' types, under cosign's tag
	Referrers    []Tree     `json:"referrers,omitempty"`
	Images       []Tree     `json:"images,omitempty"` // of an index
}

// Tree looks at an image, a service's or one that is named by a reference, and
// at all that refers to it.
func (p *Pipeline) Tree(ctx context.Context, image string) (t Tree, err error) {
	d := p.openRegistry(ctx)
	defer func() { err = errors.Join(err, d.close()) }()
	at, name, err := p.find(ctx, d, image)
	if err != nil {
		return Tree{}, err
	}
	if t, err = d.tree(ctx, at); err != nil {
		return Tree{}, err
	}
	t.Name = name.WithDigest(at.Digest).String()
	return t, nil
}

func (d *destination) tree(ctx context.Context, at oci.Reference) (Tree, error) {
	t, children, err := d.node(ctx, at)
	if err != nil {
		return Tree{}, err
	}
	signatures, err := cosign.Signatures(ctx, d.client, at)
	if err != nil {
		return Tree{}, err
	}
	t.Signatures = len(signatures)
	attestations, err := cosign.Attestations(ctx, d.client, at)
	if err != nil {
		return Tree{}, err
	}
	for _, a := range attestations {
		t.Attestations = append(t.Attestations, a.Annotations["predicateType"])
	}
	referrers, err := d.client.Referrers(ctx, at)
	if err != nil {
		return Tree{}, err
	}
	for _, r := range referrers {
		n, _, err := d.node(ctx, at.WithDigest(r.Digest))
		if err != nil {
			return Tree{}, err
		}
		n.ArtifactType, n.About = r.ArtifactType, r.Annotations["predicateType"]
		t.Referrers = append(t.Referrers, n)
	}
	for _, c := range children {
		n, err := d.tree(ctx, at.WithDigest(c.Digest))
		if err != nil {
			return Tree{}, err
		}
		n.Platform = platformName(c.Platform)
		t.Images = append(t.Images, n)
	}
	return t, nil
}

// node is a manifest alone, with those that it lists.
func (d *destination) node(ctx context.Context, at oci.Reference) (Tree, []oci.Descriptor, error) {
	m, raw, err := d.client.FetchManifest(ctx, at)
	if err != nil {
		return Tree{}, nil, err
	}
	var content struct {
		Layers    []oci.Descriptor `json:"layers"`
		Manifests []oci.Descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(raw, &content); err != nil {
		return Tree{}, nil, err
	}
	t := Tree{Digest: m.Digest, MediaType: m.MediaType, Layers: len(content.Layers)}
	for _, l := range content.Layers {
		t.Size += l.Size
	}
	return t, content.Manifests, nil
}

package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"bareboat/internal/oci"
)

const (
	// artifactLimit bounds the blobs of one artifact: they are kept in memory.
	artifactLimit = 256 << 20
	// rounds is how often a tag that several writers change is written anew.
	rounds = 20
	// pagesLimit bounds the pages of one list of referrers.
	pagesLimit = 1000
)

// Artifact is what is kept beside an image: an image manifest whose blobs are
// no layers of files, as the image specification has it under "Guidelines for
// Artifact Usage".
type Artifact struct {
	Type        string            // artifactType; may be empty where Config tells it
	Annotations map[string]string // of the manifest
	Config      *Blob             // nil: the empty one
	Blobs       []Blob
}

// Blob is a blob of an artifact.
type Blob struct {
	MediaType   string
	Annotations map[string]string
	Data        []byte
}

// Descriptor is the blob's, annotations included.
func (b Blob) Descriptor() oci.Descriptor {
	return oci.Descriptor{
		MediaType: b.MediaType, Digest: digest.FromBytes(b.Data), Size: int64(len(b.Data)), Annotations: b.Annotations,
	}
}

// manifest is the artifact's own, the same bytes for the same content.
func (a Artifact) manifest(subject *oci.Descriptor) (manifest, error) {
	content := oci.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageManifest,
		ArtifactType: a.Type, Config: a.config().Descriptor(), Layers: []oci.Descriptor{},
		Subject: subject, Annotations: a.Annotations,
	}
	for _, b := range a.Blobs {
		content.Layers = append(content.Layers, b.Descriptor())
	}
	raw, err := json.Marshal(content)
	if err != nil {
		return manifest{}, err
	}
	return parseManifest(raw, digest.FromBytes(raw))
}

func (a Artifact) config() Blob {
	if a.Config != nil {
		return *a.Config
	}
	return Blob{MediaType: v1.MediaTypeEmptyJSON, Data: []byte("{}")}
}

// Attach pushes an artifact that refers to subject, a reference with a digest,
// and returns its descriptor. Attaching the same again changes nothing.
//
// A registry that does not list referrers by itself gets them listed under the
// tag that the distribution specification names ("Referrers Tag Schema").
// Several writers may attach to one subject at once.
func (c *Client) Attach(ctx context.Context, subject oci.Reference, a Artifact) (oci.Descriptor, error) {
	s, err := c.open(ctx, "attach to", subject, transport.PushScope)
	if err != nil {
		return oci.Descriptor{}, err
	}
	d, err := s.attach(ctx, a)
	if err != nil {
		return oci.Descriptor{}, s.fail(ctx, err)
	}
	return d, nil
}

func (s *session) attach(ctx context.Context, a Artifact) (oci.Descriptor, error) {
	if s.ref.Digest == "" {
		return oci.Descriptor{}, errNoDigest
	}
	puller, err := remote.NewPuller(s.options...)
	if err != nil {
		return oci.Descriptor{}, err
	}
	to, err := fetch(ctx, puller, s.target())
	if err != nil {
		return oci.Descriptor{}, err
	}
	m, err := a.manifest(&oci.Descriptor{MediaType: to.Descriptor.MediaType, Digest: to.Digest, Size: to.Size})
	if err != nil {
		return oci.Descriptor{}, err
	}
	d := m.Descriptor
	d.ArtifactType, d.Annotations = a.Type, a.Annotations
	if a.Type == "" {
		d.ArtifactType = a.config().MediaType
	}
	if err := s.uploadBlobs(ctx, a); err != nil {
		return oci.Descriptor{}, err
	}
	answer, err := s.putManifest(ctx, m.Digest.String(), m)
	if err != nil {
		return oci.Descriptor{}, err
	}
	if answer.Get("OCI-Subject") != "" {
		return d, nil
	}
	return d, s.list(ctx, d)
}

// list adds d to the subject's referrers under the fallback tag. The protocol
// cannot write on a condition; so what was written is read again, and written
// again where another writer has overwritten it.
func (s *session) list(ctx context.Context, d oci.Descriptor) error {
	tag := referrersTag(s.ref.Digest)
	listed := func(all []oci.Descriptor) bool {
		return slices.ContainsFunc(all, func(o oci.Descriptor) bool { return o.Digest == d.Digest })
	}
	return s.settle(ctx, func() (bool, error) {
		index, err := s.taggedIndex(ctx, tag)
		if err != nil || listed(index.Manifests) {
			return err == nil, err
		}
		index.Manifests = append(index.Manifests, d)
		slices.SortFunc(index.Manifests, func(a, b oci.Descriptor) int { return strings.Compare(a.Digest.String(), b.Digest.String()) })
		raw, err := json.Marshal(index)
		if err != nil {
			return false, err
		}
		m, err := parseManifest(raw, digest.FromBytes(raw))
		if err != nil {
			return false, err
		}
		_, err = s.putManifest(ctx, tag, m)
		return false, err
	})
}

// settle calls write until it finds twice in a row that nothing is left to do:
// each write is followed by a look whether it lasted, and by another after some
// times what reading and writing take, since a writer that read before may still
// write. The protocol has no more to offer; writers of one client take turns
// besides. Some registries answer with 500 while another moves the tag.
func (s *session) settle(ctx context.Context, write func() (done bool, err error)) error {
	s.client.tagging.Lock()
	defer s.client.tagging.Unlock()
	last := errContended
	wrote := false
	for round := range rounds {
		begin := time.Now()
		done, err := write()
		var answer *transport.Error
		switch {
		case err != nil && (!errors.As(err, &answer) || answer.StatusCode != http.StatusInternalServerError):
			return err
		case err != nil:
			last = err
		case done && (!wrote || last == nil):
			return nil
		case done:
			last = nil
		default:
			wrote, last = true, errContended
		}
		if err := part(ctx, time.Duration(round+1)*time.Since(begin)); err != nil {
			return err
		}
	}
	return last
}

// part waits for about d, so that writers that meet part.
func part(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d + rand.N(d+time.Millisecond)):
		return nil
	}
}

// Referrers lists what refers to subject, a reference with a digest: by the
// registry's API, or under the tag that stands in for it. No subject, or one
// that nothing refers to, gives none.
func (c *Client) Referrers(ctx context.Context, subject oci.Reference) ([]oci.Descriptor, error) {
	s, err := c.open(ctx, "list referrers of", subject, transport.PullScope)
	if err != nil {
		return nil, err
	}
	all, err := s.referrers(ctx)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return all, nil
}

func (s *session) referrers(ctx context.Context) ([]oci.Descriptor, error) {
	if s.ref.Digest == "" {
		return nil, errNoDigest
	}
	at := s.url("referrers", s.ref.Digest.String())
	var all []oci.Descriptor
	for range pagesLimit {
		page, next, err := s.referrersPage(ctx, at)
		if classify(err) == NotFound && len(all) == 0 {
			index, err := s.taggedIndex(ctx, referrersTag(s.ref.Digest))
			return index.Manifests, err
		}
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		if next == nil {
			return all, nil
		}
		at = next
	}
	return nil, fmt.Errorf("%w: the list of referrers has more than %d pages", errContent, pagesLimit)
}

func (s *session) referrersPage(ctx context.Context, at *url.URL) ([]oci.Descriptor, *url.URL, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, nil, err
	}
	r.Header.Set("Accept", v1.MediaTypeImageIndex)
	answer, err := (&http.Client{Transport: s.transport}).Do(r)
	if err != nil {
		return nil, nil, err
	}
	defer answer.Body.Close()
	if err := transport.CheckError(answer, http.StatusOK); err != nil {
		return nil, nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(answer.Body, manifestLimit+1))
	if err != nil {
		return nil, nil, err
	}
	index, err := parseIndex(raw)
	if err != nil {
		return nil, nil, err
	}
	next, err := nextPage(at, answer.Header.Values("Link"))
	return index.Manifests, next, err
}

// nextPage reads the Link header of a page (RFC 8288). Lists stay at their host:
// the credentials would else go where a registry sends them.
func nextPage(at *url.URL, links []string) (*url.URL, error) {
	for _, link := range links {
		target, parameters, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(link), "<"), ">")
		if !ok || !strings.Contains(strings.ReplaceAll(parameters, `"`, ""), "rel=next") {
			continue
		}
		next, err := at.Parse(target)
		if err != nil || next.Host != at.Host || next.Scheme != at.Scheme {
			return nil, fmt.Errorf("%w: the list of referrers goes on at another place", errContent)
		}
		return next, nil
	}
	return nil, nil
}

// referrersTag is the tag that lists referrers where no API does.
func referrersTag(subject oci.Digest) string {
	return subject.Algorithm().String() + "-" + subject.Encoded()
}

// taggedIndex is the index that a tag names; an empty one if there is none.
func (s *session) taggedIndex(ctx context.Context, tag string) (oci.Index, error) {
	puller, err := remote.NewPuller(s.options...)
	if err != nil {
		return oci.Index{}, err
	}
	m, err := fetch(ctx, puller, s.repository.Tag(tag))
	if classify(err) == NotFound {
		return oci.Index{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: v1.MediaTypeImageIndex, Manifests: []oci.Descriptor{}}, nil
	}
	if err != nil {
		return oci.Index{}, err
	}
	return parseIndex(m.raw)
}

func parseIndex(raw []byte) (oci.Index, error) {
	m, err := parseManifest(raw, digest.FromBytes(raw))
	if err != nil {
		return oci.Index{}, err
	}
	if m.Descriptor.MediaType != v1.MediaTypeImageIndex {
		return oci.Index{}, fmt.Errorf("%w: the list of referrers is no index", errContent)
	}
	var index oci.Index
	if err := json.Unmarshal(raw, &index); err != nil {
		return oci.Index{}, fmt.Errorf("%w: list of referrers: %w", errContent, err)
	}
	return index, nil
}

// FetchManifest gets the manifest or index that ref names.
func (c *Client) FetchManifest(ctx context.Context, ref oci.Reference) (oci.Descriptor, []byte, error) {
	s, err := c.open(ctx, "fetch", ref, transport.PullScope)
	if err != nil {
		return oci.Descriptor{}, nil, err
	}
	puller, err := remote.NewPuller(s.options...)
	if err != nil {
		return oci.Descriptor{}, nil, s.fail(ctx, err)
	}
	m, err := fetch(ctx, puller, s.target())
	if err != nil {
		return oci.Descriptor{}, nil, s.fail(ctx, err)
	}
	return m.Descriptor, m.raw, nil
}

// FetchArtifact gets the artifact that ref names, by tag or digest, with its
// blobs, each verified by its digest. One of more than 256 MiB is refused.
func (c *Client) FetchArtifact(ctx context.Context, ref oci.Reference) (Artifact, error) {
	s, err := c.open(ctx, "fetch", ref, transport.PullScope)
	if err != nil {
		return Artifact{}, err
	}
	a, _, err := s.artifact(ctx, s.target())
	if err != nil {
		return Artifact{}, s.fail(ctx, err)
	}
	return a, nil
}

func (s *session) artifact(ctx context.Context, ref name.Reference) (Artifact, oci.Digest, error) {
	puller, err := remote.NewPuller(s.options...)
	if err != nil {
		return Artifact{}, "", err
	}
	m, err := fetch(ctx, puller, ref)
	if err != nil {
		return Artifact{}, "", err
	}
	var content oci.Manifest
	if err := json.Unmarshal(m.raw, &content); err != nil || len(m.children) > 0 {
		return Artifact{}, "", fmt.Errorf("%w: %s is an index, not an artifact", errContent, m.Digest)
	}
	left := int64(artifactLimit)
	read := func(d oci.Descriptor) (Blob, error) {
		if left -= d.Size; left < 0 {
			return Blob{}, fmt.Errorf("%w: artifact %s has more than %d bytes", errContent, m.Digest, artifactLimit)
		}
		data, err := s.blob(ctx, puller, d)
		return Blob{MediaType: d.MediaType, Annotations: d.Annotations, Data: data}, err
	}
	config, err := read(content.Config)
	if err != nil {
		return Artifact{}, "", err
	}
	a := Artifact{Type: content.ArtifactType, Annotations: content.Annotations, Config: &config}
	for _, d := range content.Layers {
		b, err := read(d)
		if err != nil {
			return Artifact{}, "", err
		}
		a.Blobs = append(a.Blobs, b)
	}
	return a, m.Digest, nil
}

func (s *session) blob(ctx context.Context, puller *remote.Puller, d oci.Descriptor) ([]byte, error) {
	l, err := puller.Layer(ctx, s.byDigest(d.Digest))
	if err != nil {
		return nil, err
	}
	body, err := l.Compressed()
	if err != nil {
		return nil, asContent(err)
	}
	defer body.Close()
	data, err := io.ReadAll(newVerifier(body, d, func(int64) {}))
	if err != nil {
		return nil, asContent(err)
	}
	return data, nil
}

// UpdateArtifact replaces the artifact that ref's tag names by what change
// makes of it, an empty one if there is none yet. Where change returns false,
// nothing is written. When another writer comes between, change is called again.
func (c *Client) UpdateArtifact(ctx context.Context, ref oci.Reference, change func(*Artifact) (changed bool, err error)) error {
	s, err := c.open(ctx, "update", ref, transport.PushScope)
	if err != nil {
		return err
	}
	var own error
	err = s.settle(ctx, func() (bool, error) {
		a, _, err := s.artifact(ctx, s.target())
		if err != nil && classify(err) != NotFound {
			return false, err
		}
		changed, err := change(&a)
		if err != nil {
			own = err
			return true, nil
		}
		if !changed {
			return true, nil
		}
		m, err := a.manifest(nil)
		if err != nil {
			return false, err
		}
		if err := s.uploadBlobs(ctx, a); err != nil {
			return false, err
		}
		_, err = s.putManifest(ctx, s.target().Identifier(), m)
		return false, err
	})
	if err != nil {
		return s.fail(ctx, err)
	}
	return own
}

func (s *session) uploadBlobs(ctx context.Context, a Artifact) error {
	pusher, err := remote.NewPusher(s.options...)
	if err != nil {
		return err
	}
	for _, b := range append([]Blob{a.config()}, a.Blobs...) {
		if err := s.uploadBlob(ctx, pusher, b); err != nil {
			return err
		}
	}
	return nil
}

// uploadBlob sends one blob. Most artifacts have the same empty config:
// docker-registry 2.8 trips over one blob that is sent twice at a time.
func (s *session) uploadBlob(ctx context.Context, pusher *remote.Pusher, b Blob) error {
	l := static.NewLayer(b.Data, types.MediaType(b.MediaType))
	d, err := l.Digest()
	if err != nil {
		return err
	}
	release, err := s.client.busy.lock(ctx, s.host.RegistryStr()+" "+d.String())
	if err != nil {
		return err
	}
	defer release()
	return pusher.Upload(ctx, s.repository, l)
}

// putManifest writes a manifest and gives the headers of the answer, which tell
// whether the registry has seen the subject. The library would keep them, and
// write the fallback tag without a look at other writers.
func (s *session) putManifest(ctx context.Context, as string, m manifest) (http.Header, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPut, s.url("manifests", as).String(), bytes.NewReader(m.raw))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", m.Descriptor.MediaType)
	answer, err := (&http.Client{Transport: s.transport}).Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	return answer.Header, transport.CheckError(answer, http.StatusOK, http.StatusCreated, http.StatusAccepted)
}

var (
	errNoDigest  = errors.New("the reference has no digest")
	errContended = errors.New("other writers kept changing the same tag; try again")
)

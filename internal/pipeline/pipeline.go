// Package pipeline joins the stages: it builds the images of a project, pushes
// them, and releases them as pods. The stages know nothing of each other; what
// passes between them are values, pinned by digest.
package pipeline

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"bareboat/builder"
	"bareboat/internal/config"
	"bareboat/internal/oci"
)

// Pipeline is one project and what is needed to build, push and run it.
type Pipeline struct {
	Project  *config.Project
	Builder  *builder.Builder
	Registry string // HOST[:PORT][/PATH]; empty: the project's, else see Target
	Host     string // Podman service, empty for the user's own
	// Insecure allows registries without TLS or with certificates that cannot
	// be verified. Those of this machine need no leave.
	Insecure bool
	// Notify is told how far things are. It may be called from several
	// goroutines.
	Notify func(Event)
}

// Event tells people how far something is.
type Event struct {
	Subject     string // a service, "registry", "release"
	Text        string // what happens, or came of it
	Done, Total int64  // bytes, where Total is not zero
	Warn        bool
}

func (p *Pipeline) notify(e Event) {
	if p.Notify != nil {
		p.Notify(e)
	}
}

// Image is an image of one service, pinned where it can be had.
type Image struct {
	Service string        `json:"service"`
	Ref     oci.Reference `json:"-"`
	Pinned  string        `json:"image"` // NAME@sha256:…
	Digest  oci.Digest    `json:"digest"`
	// Insecure allows Podman to pull it without TLS that can be verified.
	Insecure bool `json:"-"`
}

// ErrNoService says that the Compose file has no such service.
var ErrNoService = errors.New("no such service")

// ErrNoRecipe says that nothing tells how to build a service's image.
var ErrNoRecipe = errors.New("not given: nothing says how the image is built")

// Services are those named, or all.
func (p *Pipeline) Services(names []string) ([]config.Service, error) {
	if len(names) == 0 {
		return p.Project.Services, nil
	}
	var out []config.Service
	for _, name := range names {
		s, ok := p.Project.Service(name)
		if !ok {
			return nil, p.fault(name, "", fmt.Errorf("%w (there are: %s)", ErrNoService, p.serviceNames()))
		}
		out = append(out, s)
	}
	return out, nil
}

// fault is an error about the Compose file.
func (p *Pipeline) fault(service, key string, err error) error {
	return &config.Error{File: filepath.Base(p.Project.Files[0]), Service: service, Key: key, Err: err}
}

func (p *Pipeline) serviceNames() string {
	var names []string
	for _, s := range p.Project.Services {
		names = append(names, s.Name)
	}
	return strings.Join(names, ", ")
}

// buildable are those of the services that have a recipe; one that was asked
// for by name has to.
func (p *Pipeline) buildable(names []string) ([]config.Service, error) {
	all, err := p.Services(names)
	if err != nil {
		return nil, err
	}
	var out []config.Service
	for _, s := range all {
		switch {
		case s.Recipe != "":
			out = append(out, s)
		case len(names) > 0:
			return nil, p.fault(s.Name, "x-bareboat.recipe", ErrNoRecipe)
		}
	}
	if len(out) == 0 {
		return nil, p.fault("", "x-bareboat.recipe", errors.New("no service has one: nothing to build"))
	}
	return out, nil
}

// Build builds the images of services and puts them into the local store.
func (p *Pipeline) Build(ctx context.Context, services []string) ([]Image, error) {
	built, err := p.images(ctx, services)
	if err != nil {
		return nil, err
	}
	var out []Image
	for _, b := range built {
		if _, err := p.Builder.Add(ctx, b.image); err != nil {
			return nil, err
		}
		out = append(out, pinned(b.service.Name, b.image.Name, b.image.Digest))
	}
	return out, nil
}

func pinned(service string, ref oci.Reference, d oci.Digest) Image {
	ref = ref.WithDigest(d)
	return Image{Service: service, Ref: ref, Pinned: ref.String(), Digest: d}
}

// builtImage is a service and its image in the cache.
type builtImage struct {
	service config.Service
	image   oci.Image
}

// images builds the images of services, into the cache alone.
func (p *Pipeline) images(ctx context.Context, services []string) ([]builtImage, error) {
	chosen, err := p.buildable(services)
	if err != nil {
		return nil, err
	}
	var out []builtImage
	for _, s := range chosen {
		r, tree, err := p.recipe(s)
		if err != nil {
			return nil, err
		}
		p.listen(s.Name)
		img, err := p.Builder.Build(ctx, r, tree, s.Image)
		if err != nil {
			return nil, err
		}
		out = append(out, builtImage{service: s, image: img})
	}
	return out, nil
}

// listen passes on what the builder tells while it works for a service.
func (p *Pipeline) listen(service string) {
	p.Builder.Notify = func(e builder.Event) {
		p.notify(Event{Subject: service, Text: strings.TrimSuffix(e.Step+": "+e.Note, ": "), Warn: e.Warn})
	}
}

// Lock resolves the Debian packages of services' recipes anew, writes the locks
// and says what changed, a line each.
func (p *Pipeline) Lock(ctx context.Context, services []string) ([]string, error) {
	chosen, err := p.buildable(services)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, s := range chosen {
		r, _, err := p.recipe(s)
		if err != nil {
			return nil, err
		}
		p.listen(s.Name)
		changes, err := p.Builder.Lock(ctx, r)
		if err != nil {
			return nil, err
		}
		for _, c := range changes {
			out = append(out, s.Name+": "+c)
		}
	}
	return out, nil
}

// PlanBuild says what Build would do.
func (p *Pipeline) PlanBuild(services []string) ([]string, error) {
	chosen, err := p.buildable(services)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, s := range chosen {
		if _, _, err := p.recipe(s); err != nil {
			return nil, err
		}
		out = append(out, fmt.Sprintf("build %s from %s", s.Image, s.Recipe))
	}
	return out, nil
}

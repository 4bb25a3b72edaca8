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

	"golang.org/x/sync/errgroup"

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
	// Explain tells why layers are made, before they are.
	Explain bool
	// Attest is what is told of images beside them, when they are pushed.
	Attest Attest
	// Versions are those of this program and its parts, for the provenance.
	Versions map[string]string
}

// Event tells people how far something is.
type Event struct {
	Subject     string // a service, "registry", "release"
	Text        string // what happens, or came of it
	Done, Total int64  // bytes, where Total is not zero
	Warn        bool
	Lasting     bool // it stays to be read when other things happen

	// Of a step of a release: what it is, how far, and how long it took.
	Step    string
	State   string // begun, done, failed, taken back
	Release int
	Seconds float64
	Err     error
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
	// Platforms says what it is made of, one for each; empty for an image that
	// was not built here.
	Platforms []builder.Built `json:"platforms,omitempty"`
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
		case s.Built():
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

// Build builds the images of services and puts them into the local store. What
// is there as it would be built is left alone.
func (p *Pipeline) Build(ctx context.Context, services []string) ([]Image, error) {
	return p.each(ctx, services, func(ctx context.Context, s source) (Image, error) {
		look, err := p.look(ctx, s)
		if err != nil {
			return Image{}, err
		}
		if look.Known() && p.Builder.Stores(s.service.Image, look.Image.Digest) {
			p.notify(Event{Subject: s.service.Name, Text: "nothing to do: the store has it"})
			return s.made(pinned(s.service.Name, s.service.Image, look.Image.Digest), look), nil
		}
		made, err := p.make(ctx, s)
		if err != nil {
			return Image{}, err
		}
		if _, err := p.Builder.Add(ctx, made.Image); err != nil {
			return Image{}, err
		}
		return s.made(pinned(s.service.Name, made.Image.Name, made.Image.Digest), made), nil
	})
}

func pinned(service string, ref oci.Reference, d oci.Digest) Image {
	ref = ref.WithDigest(d)
	return Image{Service: service, Ref: ref, Pinned: ref.String(), Digest: d}
}

// source is a service and what its image is made from.
type source struct {
	service config.Service
	recipe  *builder.Recipe // nil for one that is built of a Containerfile
	tree    string
}

// made adds to an image what it is made of.
func (s source) made(i Image, o builder.Outcome) Image {
	i.Platforms = o.Images
	return i
}

// each calls do for the services that have a recipe, side by side, and gives
// the results in the services' order.
func (p *Pipeline) each(ctx context.Context, services []string, do func(context.Context, source) (Image, error)) ([]Image, error) {
	sources, err := p.sources(services)
	if err != nil {
		return nil, err
	}
	out := make([]Image, len(sources))
	group, ctx := errgroup.WithContext(ctx)
	for i, s := range sources {
		group.Go(func() (err error) {
			out[i], err = do(ctx, s)
			return err
		})
	}
	return out, group.Wait()
}

// sources loads the recipes of services.
func (p *Pipeline) sources(services []string) ([]source, error) {
	chosen, err := p.buildable(services)
	if err != nil {
		return nil, err
	}
	var out []source
	for _, s := range chosen {
		if s.Build != nil {
			out = append(out, source{service: s})
			continue
		}
		r, tree, err := p.recipe(s)
		if err != nil {
			return nil, err
		}
		out = append(out, source{service: s, recipe: r, tree: tree})
	}
	p.listen(out)
	return out, nil
}

// look says what making the image of a service would be, and, where that is
// wanted, why.
func (p *Pipeline) look(ctx context.Context, s source) (builder.Outcome, error) {
	if s.recipe == nil {
		return builder.Outcome{Image: oci.Image{Name: s.service.Image}}, nil
	}
	out, err := p.Builder.Look(ctx, s.recipe, s.tree, s.service.Image)
	if err == nil && p.Explain {
		for _, line := range or(out.Explain(), "nothing changed") {
			p.notify(Event{Subject: s.service.Name, Text: line, Lasting: true})
		}
	}
	return out, err
}

func or(lines []string, otherwise string) []string {
	if len(lines) == 0 {
		return []string{otherwise}
	}
	return lines
}

func (p *Pipeline) make(ctx context.Context, s source) (builder.Outcome, error) {
	if s.recipe == nil {
		return p.containerfile(ctx, s)
	}
	return p.Builder.Make(ctx, s.recipe, s.tree, s.service.Image)
}

// listen passes on what the builder tells of the services' images.
func (p *Pipeline) listen(sources []source) {
	services := map[string]string{}
	for _, s := range sources {
		services[s.service.Image.Name()] = s.service.Name
		if s.recipe != nil {
			services[s.recipe.Path()] = s.service.Name
		}
	}
	p.Builder.Notify = func(e builder.Event) {
		p.notify(Event{Subject: services[e.Image], Text: strings.TrimSuffix(e.Step+": "+e.Note, ": "), Warn: e.Warn})
	}
}

// Lock resolves the Debian packages of services' recipes anew, writes the locks
// and says what changed, a line each.
func (p *Pipeline) Lock(ctx context.Context, services []string) ([]string, error) {
	sources, err := p.sources(services)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, s := range sources {
		if s.recipe == nil {
			continue
		}
		changes, err := p.Builder.Lock(ctx, s.recipe)
		if err != nil {
			return nil, err
		}
		for _, c := range changes {
			out = append(out, s.service.Name+": "+c)
		}
	}
	return out, nil
}

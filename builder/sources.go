package builder

import (
	"context"
	"fmt"
	"strings"

	"bareboat/builder/debian"
	"bareboat/builder/layer"
)

// CertificatesSource is the bundle of certificate authorities that Debian
// trusts, as /etc/ssl/certs/ca-certificates.crt.
type CertificatesSource struct {
	Suite string `yaml:"suite"` // default: Debian's current stable release
}

// TimezonesSource is the time zone database, as /usr/share/zoneinfo.
type TimezonesSource struct {
	Suite string `yaml:"suite"`
}

type teller func(step, format string, args ...any)

// layers gives the files of all the recipe's layers, from the bottom up.
func (b *Builder) layers(ctx context.Context, r *Recipe, tree, work string, tell, warn teller) ([]layer.Layer, error) {
	packages, err := b.packages(ctx, r, tell, warn)
	if err != nil {
		return nil, err
	}
	var out []layer.Layer
	for i, spec := range r.Layers {
		got, err := b.source(ctx, r, spec, tree, fmt.Sprintf("%s/%d", work, i), packages, tell)
		if err != nil {
			return nil, err
		}
		out = append(out, got...)
	}
	return out, nil
}

func (b *Builder) source(ctx context.Context, r *Recipe, s LayerSpec, tree, work string, packages *packages, tell teller) ([]layer.Layer, error) {
	switch {
	case s.Go != nil:
		tell("compile", "%s", s.Go.Package)
		l, err := s.Go.compile(ctx, r.Dir(), b.platform(), work)
		return []layer.Layer{l}, err
	case s.Files != nil:
		files, err := collect(s.Files, r.Dir(), tree)
		if err != nil {
			err = &FilesError{Recipe: r.Path(), Err: err}
		}
		return []layer.Layer{{Name: "files", CreatedBy: "bareboat files " + entryNames(s.Files), Files: files}}, err
	case s.Accounts != nil:
		return []layer.Layer{s.Accounts.layer()}, nil
	}
	request, _ := s.request()
	if s.Debian != nil {
		return packages.layers(ctx, request)
	}
	layers, _, err := packages.unpack(ctx, request)
	return []layer.Layer{s.part(layers)}, err
}

func entryNames(entries []FileEntry) string {
	var names []string
	for _, e := range entries {
		names = append(names, or(e.From, or(e.Dir, e.Link)))
	}
	return strings.Join(names, " ")
}

// request is what a layer wants of Debian, if anything. Certificates and time
// zones are data that Debian keeps up to date: their packages are taken alone.
func (s LayerSpec) request() (debian.Request, bool) {
	switch {
	case s.Debian != nil:
		return *s.Debian, true
	case s.Certificates != nil:
		return debian.Request{Suite: s.Certificates.Suite, Packages: []string{"ca-certificates"}}, true
	case s.Timezones != nil:
		return debian.Request{Suite: s.Timezones.Suite, Packages: []string{"tzdata"}}, true
	}
	return debian.Request{}, false
}

// part is one layer with the files that a certificates or timezones layer
// is about, and what tells scanners where they come from.
func (s LayerSpec) part(layers []layer.Layer) layer.Layer {
	name, prefixes := "certificates", []string{"etc/ssl/certs/ca-certificates.crt", "usr/share/doc/ca-certificates", "var/lib/dpkg/status.d/ca-certificates"}
	if s.Timezones != nil {
		name, prefixes = "timezones", []string{"usr/share/zoneinfo", "usr/share/doc/tzdata", "var/lib/dpkg/status.d/tzdata"}
	}
	out := layer.Layer{Name: name}
	for _, l := range layers {
		for _, f := range l.Files {
			if below(f.Path, prefixes) {
				out.Files = append(out.Files, f)
				out.CreatedBy = "bareboat " + name + " from " + l.Name
			}
		}
	}
	return out
}

func below(path string, prefixes []string) bool {
	for _, p := range prefixes {
		if path == p || strings.HasPrefix(path, p+"/") || strings.HasPrefix(path, p+".") {
			return true
		}
	}
	return false
}

package builder

import (
	"context"
	"path"
	"path/filepath"
	"strings"

	"github.com/opencontainers/go-digest"

	"bareboat/builder/cache"
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

// parts are the entries of a recipe for one platform, from the bottom up.
func (b *Builder) parts(c *cache.Cache, r *Recipe, tree string, platform Platform, packages *packages, tell teller) ([]part, error) {
	var out []part
	names := namer{}
	for _, s := range r.Layers {
		p, err := s.part(c, r, tree, platform, packages, tell)
		if err != nil {
			return nil, err
		}
		p.name, p.platform = names.name(p.name), platform
		out = append(out, p)
	}
	return out, nil
}

func (s LayerSpec) part(c *cache.Cache, r *Recipe, tree string, platform Platform, packages *packages, tell teller) (part, error) {
	switch {
	case s.Go != nil:
		return s.Go.part(c, r.Dir(), platform, tell), nil
	case s.Files != nil:
		return filesPart(s.Files, r, tree), nil
	case s.Accounts != nil:
		return s.Accounts.part(), nil
	}
	return s.debianPart(platform, packages)
}

func (g *GoSource) part(c *cache.Cache, dir string, p Platform, tell teller) part {
	return part{
		name:   g.name(dir),
		inputs: func(ctx context.Context) (cache.Inputs, error) { return g.inputs(ctx, c, dir, p) },
		layers: func(ctx context.Context, work string) ([]layer.Layer, error) {
			tell("compile", "%s", g.Package)
			l, err := g.compile(ctx, dir, p, work)
			return []layer.Layer{l}, err
		},
	}
}

// name is what people know the program by.
func (g *GoSource) name(dir string) string {
	pkg, _, _ := strings.Cut(g.Package, "@")
	pkg = path.Clean(or(g.Path, pkg))
	if base := path.Base(pkg); base == "." || base == ".." {
		// It is named by its import path, as the binary is.
		mod := goMod(dir)
		if rel, err := filepath.Rel(filepath.Dir(mod), filepath.Join(dir, pkg)); mod != "" && err == nil {
			pkg = path.Join(modulePath(mod), filepath.ToSlash(rel))
		}
	}
	return "go:" + path.Base(majorless(pkg))
}

func filesPart(entries []FileEntry, r *Recipe, tree string) part {
	files := func() ([]layer.File, error) {
		files, err := collect(entries, r.Dir(), tree)
		if err == nil {
			files, err = layer.Normalize(files)
		}
		if err != nil {
			return nil, &FilesError{Recipe: r.Path(), Err: err}
		}
		return files, nil
	}
	by := "bareboat files " + entryNames(entries)
	return part{
		name: "files",
		inputs: func(context.Context) (cache.Inputs, error) {
			files, err := files()
			if err != nil {
				return nil, err
			}
			return fileInputs(by, files)
		},
		layers: func(context.Context, string) ([]layer.Layer, error) {
			files, err := files()
			return []layer.Layer{{Name: "files", CreatedBy: by, Files: files}}, err
		},
	}
}

func (a *Accounts) part() part {
	l := a.layer()
	return part{
		name:   l.Name,
		inputs: func(context.Context) (cache.Inputs, error) { return fileInputs(l.CreatedBy, l.Files) },
		layers: func(context.Context, string) ([]layer.Layer, error) { return []layer.Layer{l}, nil },
	}
}

// fileInputs are what a layer of files depends on: the files.
func fileInputs(createdBy string, files []layer.File) (cache.Inputs, error) {
	var in cache.Inputs
	in.Add("bareboat", "%s", self())
	in.Add("history", "%s", createdBy)
	for _, f := range files {
		content := f.Link
		if f.Open != nil {
			var err error
			if content, err = contentDigest(f); err != nil {
				return nil, err
			}
		}
		in.Add("/"+f.Path, "%v %d:%d %t %s", f.Mode, f.UID, f.GID, f.Hard, content)
	}
	return in, nil
}

func contentDigest(f layer.File) (string, error) {
	r, err := f.Open()
	if err != nil {
		return "", err
	}
	defer r.Close()
	d, err := digest.FromReader(r)
	return d.String(), err
}

// debianPart is a layer, or several, of Debian packages.
func (s LayerSpec) debianPart(platform Platform, packages *packages) (part, error) {
	request, _ := s.request()
	arch, err := debian.Architecture(platform.Arch)
	if err != nil {
		return part{}, err
	}
	p := part{
		name:   "debian",
		inputs: func(context.Context) (cache.Inputs, error) { return packages.inputs(request, arch) },
		layers: func(ctx context.Context, _ string) ([]layer.Layer, error) { return packages.layers(ctx, request, arch) },
	}
	if s.Debian != nil {
		return p, nil
	}
	name, prefixes := s.data()
	p.name = name
	p.layers = func(ctx context.Context, _ string) ([]layer.Layer, error) {
		layers, _, err := packages.unpack(ctx, request, arch)
		return []layer.Layer{only(name, prefixes, layers)}, err
	}
	return p, nil
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

// data says what a certificates or timezones layer is called, and takes of its
// package: the data, and what tells scanners where they come from.
func (s LayerSpec) data() (name string, prefixes []string) {
	if s.Timezones != nil {
		return "timezones", []string{"usr/share/zoneinfo", "usr/share/doc/tzdata", "var/lib/dpkg/status.d/tzdata"}
	}
	return "certificates", []string{"etc/ssl/certs/ca-certificates.crt", "usr/share/doc/ca-certificates", "var/lib/dpkg/status.d/ca-certificates"}
}

// only is one layer with the files below some paths.
func only(name string, prefixes []string, layers []layer.Layer) layer.Layer {
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

package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"bareboat/builder"
	"bareboat/builder/debian"
	"bareboat/builder/provenance"
	"bareboat/internal/config"
)

// facts are what is known of the build of a service's image for some platforms
// (OS/ARCHITECTURE), but for when it ran and by which version.
func (p *Pipeline) facts(ctx context.Context, s config.Service, platforms []string) (provenance.Facts, error) {
	source, err := provenance.GitSource(ctx, p.Project.Dir)
	if err != nil {
		return provenance.Facts{}, err
	}
	if s.Build != nil {
		below, err := filepath.Rel(p.Project.Dir, s.Build.Context)
		if err != nil {
			return provenance.Facts{}, err
		}
		return provenance.Facts{
			Recipe: path.Join(source.Prefix, filepath.ToSlash(below)), Service: s.Name, Platforms: platforms,
			Source: source, Invocation: invocation(os.Getenv),
		}, nil
	}
	recipe, tree, err := p.recipe(s)
	if err != nil {
		return provenance.Facts{}, err
	}
	f := provenance.Facts{
		Recipe: s.Recipe, Service: s.Name, Platforms: platforms, Source: source, Invocation: invocation(os.Getenv),
	}
	if recipe.Base != "scratch" {
		f.Base = recipe.Base
	}
	dir := tree // of a recipe that the program brings along
	if !strings.HasPrefix(s.Recipe, config.BuiltinRecipe) {
		below, err := filepath.Rel(p.Project.Dir, s.Recipe)
		if err != nil {
			return provenance.Facts{}, err
		}
		f.Recipe = path.Join(source.Prefix, filepath.ToSlash(below))
		if dir = s.Recipe; !isDir(dir) {
			dir = filepath.Dir(dir)
		}
	}
	if f.Packages, err = pinnedPackages(filepath.Join(dir, builder.LockName), platforms); err != nil {
		return provenance.Facts{}, err
	}
	if slices.ContainsFunc(recipe.Layers, func(l builder.LayerSpec) bool { return l.Go != nil }) {
		f.Toolchain, err = toolchain(ctx, tree)
	}
	return f, err
}

func isDir(name string) bool {
	info, err := os.Stat(name)
	return err == nil && info.IsDir()
}

// pinnedPackages are those of a lock that went into images for the platforms.
func pinnedPackages(lock string, platforms []string) ([]provenance.Package, error) {
	file, err := debian.ReadLock(lock)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []provenance.Package
	for _, l := range file.Locks {
		if !slices.ContainsFunc(platforms, func(p string) bool { return strings.Split(p+"/", "/")[1] == l.Architecture }) {
			continue
		}
		for _, k := range l.Packages {
			out = append(out, provenance.Package{Name: k.Name, Version: k.Version, Architecture: k.Architecture, SHA256: k.SHA256})
		}
	}
	return out, nil
}

// toolchain is the version of Go that compiles what lies in dir.
func toolchain(ctx context.Context, dir string) (string, error) {
	c := exec.CommandContext(ctx, "go", "env", "GOVERSION")
	c.Dir = dir
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("ask for Go's version: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// invocation names this run where a CI service keeps a log of it.
func invocation(env func(string) string) string {
	if env("GITHUB_RUN_ID") != "" {
		return fmt.Sprintf("%s/%s/actions/runs/%s/attempts/%s",
			env("GITHUB_SERVER_URL"), env("GITHUB_REPOSITORY"), env("GITHUB_RUN_ID"), env("GITHUB_RUN_ATTEMPT"))
	}
	return env("CI_JOB_URL") // of GitLab
}

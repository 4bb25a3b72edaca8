package pipeline

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"bareboat/builder"
	"bareboat/internal/config"
	"bareboat/pods/proxy"
)

// builtins are the recipes that Bareboat brings along.
func builtins() map[string]embed.FS { return map[string]embed.FS{"proxy": proxy.Image} }

// recipe loads the recipe of a service, and gives the folder that its files may
// not leave.
func (p *Pipeline) recipe(s config.Service) (r *builder.Recipe, tree string, err error) {
	name, ok := strings.CutPrefix(s.Recipe, config.BuiltinRecipe)
	if !ok {
		r, err = builder.LoadRecipe(s.Recipe)
		return r, p.Project.Dir, err
	}
	files, ok := builtins()[name]
	if !ok {
		return nil, "", p.fault(s.Name, "x-bareboat.recipe", fmt.Errorf("%s: no such recipe (there are: %s)", s.Recipe,
			config.BuiltinRecipe+strings.Join(slices.Sorted(maps.Keys(builtins())), ", "+config.BuiltinRecipe)))
	}
	dir, err := p.unpack(name, files)
	if err != nil {
		return nil, "", fmt.Errorf("unpack the recipe %s: %w", s.Recipe, err)
	}
	r, err = builder.LoadRecipe(dir)
	return r, dir, err
}

// unpack writes the files of a recipe below the cache, in a folder named by
// their content. A lock that was written anew there since stays.
func (p *Pipeline) unpack(name string, files embed.FS) (string, error) {
	sum, err := contentSum(files)
	if err != nil {
		return "", err
	}
	cache, err := p.Builder.CacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "recipes", name+"-"+sum[:12])
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return "", err
	}
	fresh, err := os.MkdirTemp(filepath.Dir(dir), ".new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(fresh)
	if err := os.CopyFS(fresh, files); err != nil {
		return "", err
	}
	if err := os.Rename(fresh, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	return dir, nil
}

func contentSum(files embed.FS) (string, error) {
	h := sha256.New()
	err := fs.WalkDir(files, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := files.ReadFile(path)
		fmt.Fprintf(h, "%s %d\n%s", path, len(content), content)
		return err
	})
	return hex.EncodeToString(h.Sum(nil)), err
}

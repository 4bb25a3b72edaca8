package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/compose-spec/compose-go/v2/types"
)

// secretsDir is where Compose puts a secret that names no target.
const secretsDir = "/run/secrets"

// Kinds of what is given to services in files.
const (
	KindSecret = "secret"
	KindConfig = "config"
)

// Source is a secret or config of the project: where its content comes from.
type Source struct {
	Kind     string
	Key      string // in the Compose file
	External string // name in Podman, whose it is; empty for one of the project's
	File     string // absolute; or
	Variable string // of the environment, whose value Content is; or
	Content  string `json:"-"`
}

// FileMount gives a secret or a config to a service, in a file.
type FileMount struct {
	Kind   string
	Key    string // in the Compose file
	Target string // absolute path in the container
	UID    uint32
	GID    uint32
	Mode   uint32 // zero is 0444
}

// sources are the secrets and configs that a service uses.
func sources(p *types.Project, services []Service) ([]Source, error) {
	used := map[string]bool{}
	for _, s := range services {
		for _, f := range s.Files {
			used[f.Kind+" "+f.Key] = true
		}
	}
	var out []Source
	add := func(kind, key string, o types.FileObjectConfig) error {
		if !used[kind+" "+key] {
			return nil
		}
		s := Source{Kind: kind, Key: key, File: o.File, Variable: o.Environment, Content: o.Content}
		if o.External {
			s.External = o.Name
		}
		if s.File != "" && !filepath.IsAbs(s.File) {
			s.File = filepath.Join(p.WorkingDir, s.File)
		}
		if s.External == "" && s.File == "" && s.Variable == "" && s.Content == "" {
			return &keyError{kind + "s." + key, errors.New("has no content: it needs one of file, environment, content, external")}
		}
		out = append(out, s)
		return nil
	}
	for _, key := range slices.Sorted(maps.Keys(p.Secrets)) {
		if err := add(KindSecret, key, types.FileObjectConfig(p.Secrets[key])); err != nil {
			return nil, err
		}
	}
	for _, key := range slices.Sorted(maps.Keys(p.Configs)) {
		if err := add(KindConfig, key, types.FileObjectConfig(p.Configs[key])); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// files are the secrets and configs that a service is given.
func files(in types.ServiceConfig) ([]FileMount, error) {
	var out []FileMount
	add := func(kind, dir string, r types.FileReferenceConfig) error {
		f := FileMount{Kind: kind, Key: r.Source, Target: cmp.Or(r.Target, r.Source)}
		if !path.IsAbs(f.Target) {
			f.Target = path.Join(dir, f.Target)
		}
		key := kind + "s." + r.Source
		if f.Target != path.Clean(f.Target) || f.Target == "/" {
			return &keyError{key + ".target", fmt.Errorf("%q is not a file's path", r.Target)}
		}
		for _, id := range []struct {
			name, text string
			to         *uint32
		}{{"uid", r.UID, &f.UID}, {"gid", r.GID, &f.GID}} {
			if id.text == "" {
				continue
			}
			n, err := strconv.ParseUint(id.text, 10, 32)
			if err != nil {
				return &keyError{key + "." + id.name, fmt.Errorf("%q is not a number", id.text)}
			}
			*id.to = uint32(n)
		}
		if r.Mode != nil {
			if *r.Mode < 0 || *r.Mode > 0o777 {
				return &keyError{key + ".mode", fmt.Errorf("%o is not a file's mode (0 to 0777)", int64(*r.Mode))}
			}
			f.Mode = uint32(*r.Mode)
		}
		for _, other := range out {
			if other.Target == f.Target {
				return &keyError{key + ".target", fmt.Errorf("%s is at %s already", other.Key, f.Target)}
			}
		}
		out = append(out, f)
		return nil
	}
	for _, r := range in.Secrets {
		if err := add(KindSecret, secretsDir, types.FileReferenceConfig(r)); err != nil {
			return nil, err
		}
	}
	for _, r := range in.Configs {
		if err := add(KindConfig, "/", types.FileReferenceConfig(r)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
)

// Build says how an image is built of a Containerfile.
type Build struct {
	Context       string // absolute path of a folder
	Containerfile string // absolute path; empty: looked for in Context
	Args          map[string]string
	Target        string
	Secrets       []BuildSecret
	NoCache       bool
}

// BuildSecret is for RUN --mount=type=secret. It is a file, or a variable.
type BuildSecret struct{ ID, File, Env string }

// Built tells that the image of the service is built here.
func (s Service) Built() bool { return s.Recipe != "" || s.Build != nil }

// build is nil for a service that is not built of a Containerfile: one with a
// recipe is built of that, and its build is for other tools.
func build(p *types.Project, in *types.BuildConfig, recipe string) (*Build, error) {
	if in == nil || recipe != "" {
		return nil, nil
	}
	if in.DockerfileInline != "" {
		return nil, &keyError{"build.dockerfile_inline", errors.New("is not supported: write it to a file")}
	}
	if strings.Contains(in.Context, "://") {
		return nil, &keyError{"build.context", fmt.Errorf("%q is not a folder of this machine", in.Context)}
	}
	b := &Build{Context: in.Context, Args: environment(in.Args), Target: in.Target, NoCache: in.NoCache}
	if !filepath.IsAbs(b.Context) {
		b.Context = filepath.Join(p.WorkingDir, b.Context)
	}
	b.Containerfile = containerfile(b.Context, in.Dockerfile)
	for _, s := range in.Secrets {
		defined, ok := p.Secrets[s.Source]
		id := s.Target
		if id == "" {
			id = s.Source
		}
		if !ok || defined.File == "" && defined.Environment == "" {
			return nil, &keyError{"build.secrets", fmt.Errorf("%s: secrets has neither a file nor an environment for it", s.Source)}
		}
		b.Secrets = append(b.Secrets, BuildSecret{ID: id, File: defined.File, Env: defined.Environment})
	}
	return b, nil
}

// containerfile is the path that the file means. The library fills in
// "Dockerfile" where it says nothing; a Containerfile may lie there instead.
func containerfile(context, name string) string {
	path := name
	if !filepath.IsAbs(path) {
		path = filepath.Join(context, name)
	}
	if _, err := os.Stat(path); name == "" || err != nil && filepath.Base(name) == "Dockerfile" {
		return ""
	}
	return path
}

package config

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/template"
	"github.com/compose-spec/compose-go/v2/types"
)

// Options says which Compose file is read, and how.
type Options struct {
	Files       []string // as -f names them, later ones override; empty: found from Dir upwards
	Dir         string   // where names of files start; empty is the working folder
	ProjectName string   // as -p names it; empty: COMPOSE_PROJECT_NAME, the file's name key, its folder
	Env         []string // KEY=VALUE for interpolation; a .env file beside the Compose file adds to it
	Profiles    []string // as --profile names them; empty: COMPOSE_PROFILES
}

// Error is configuration that cannot be used: where it stands and why.
type Error struct {
	File    string // as the person named it
	Service string // empty outside services
	Key     string // dotted, below the service where there is one; may be empty
	Err     error
}

// Error is one line.
func (e *Error) Error() string {
	var b strings.Builder
	for _, part := range []string{e.File, e.where(), e.Key} {
		if part != "" {
			b.WriteString(part + ": ")
		}
	}
	b.WriteString(oneLine(e.Err.Error()))
	return b.String()
}

func (e *Error) where() string {
	if e.Service == "" {
		return ""
	}
	return "service " + e.Service
}

// Unwrap is the cause.
func (e *Error) Unwrap() error { return e.Err }

// FileNames are the names under which a Compose file is found, the preferred
// first: the specification's, then podman-compose's.
func FileNames() []string {
	return append(slices.Clone(cli.DefaultFileNames), "podman-compose.yml", "podman-compose.yaml")
}

// Load reads the Compose file and validates it. Its errors are *Error, but
// for those of ctx.
func Load(ctx context.Context, o Options) (*Project, error) {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("find the working folder: %w", err)
	}
	files, err := composeFiles(dir, o)
	if err != nil {
		return nil, err
	}
	r := &reader{file: displayName(dir, files)}
	model, err := r.read(ctx, files, o)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, &Error{File: r.file, Err: plain(err, files)}
	}
	return r.project(model)
}

// composeFiles are the files to read, absolute.
func composeFiles(dir string, o Options) ([]string, error) {
	named := o.Files
	if len(named) == 0 {
		named = filesOfEnv(o.Env)
	}
	if len(named) == 0 {
		return find(dir)
	}
	files := make([]string, 0, len(named))
	for _, f := range named {
		if f == "-" {
			files = append(files, f)
			continue
		}
		path := f
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		if err := isFile(path); err != nil {
			return nil, &Error{File: f, Err: err}
		}
		files = append(files, path)
	}
	return files, nil
}

func isFile(path string) error {
	info, err := os.Stat(path)
	var pe *fs.PathError
	switch {
	case errors.As(err, &pe):
		return pe.Err
	case err != nil:
		return err
	case info.IsDir():
		return errors.New("is a folder, not a Compose file")
	}
	return nil
}

// filesOfEnv are the files that COMPOSE_FILE names.
func filesOfEnv(env []string) []string {
	list, sep := "", string(os.PathListSeparator)
	for _, kv := range env {
		switch k, v, _ := strings.Cut(kv, "="); {
		case k == "COMPOSE_FILE":
			list = v
		case k == "COMPOSE_PATH_SEPARATOR" && v != "":
			sep = v
		}
	}
	if list == "" {
		return nil
	}
	return strings.Split(list, sep)
}

// find looks for a Compose file in dir and its parents, and for an override
// beside it.
func find(dir string) ([]string, error) {
	for at := dir; ; at = filepath.Dir(at) {
		for _, name := range FileNames() {
			path := filepath.Join(at, name)
			if isFile(path) == nil {
				return append([]string{path}, overrides(at)...), nil
			}
		}
		if at == filepath.Dir(at) {
			return nil, &Error{File: dir, Err: fmt.Errorf("no Compose file here or above (%s)", strings.Join(FileNames(), ", "))}
		}
	}
}

func overrides(dir string) []string {
	for _, name := range cli.DefaultOverrideFileNames {
		path := filepath.Join(dir, name)
		if isFile(path) == nil {
			return []string{path}
		}
	}
	return nil
}

// displayName names the files as a person standing in dir would.
func displayName(dir string, files []string) string {
	names := make([]string, len(files))
	for i, f := range files {
		names[i] = f
		if rel, err := filepath.Rel(dir, f); err == nil && filepath.IsLocal(rel) {
			names[i] = rel
		}
	}
	return strings.Join(names, ", ")
}

// reader carries what one Load collects on its way.
type reader struct {
	file     string
	warnings []string
	ignored  []loader.UnsupportedAttribute

	saysReadOnly map[string]bool // by service: the file has read_only
}

func (r *reader) warn(format string, args ...any) {
	w := r.file + ": " + fmt.Sprintf(format, args...)
	if !slices.Contains(r.warnings, w) {
		r.warnings = append(r.warnings, w)
	}
}

// read has the Compose library load, interpolate, merge and check the files.
func (r *reader) read(ctx context.Context, files []string, o Options) (*types.Project, error) {
	options, err := cli.NewProjectOptions(files,
		cli.WithEnv(o.Env),
		cli.WithEnvFiles(),
		cli.WithDotEnv,
		cli.WithDefaultProfiles(o.Profiles...),
		cli.WithName(o.ProjectName),
		cli.WithLoadOptions(r.interpolation, r.unhonoured()),
	)
	if err != nil {
		return nil, err
	}
	if err := r.explicit(ctx, options); err != nil {
		return nil, err
	}
	return options.LoadProject(ctx)
}

// explicit notes which services say whether their root is read-only: the library's
// project cannot tell no from nothing.
func (r *reader) explicit(ctx context.Context, options *cli.ProjectOptions) error {
	model, err := options.LoadModel(ctx)
	if err != nil {
		return err
	}
	r.saysReadOnly = map[string]bool{}
	services, _ := model["services"].(map[string]any)
	for name, service := range services {
		keys, _ := service.(map[string]any)
		_, r.saysReadOnly[name] = keys["read_only"]
	}
	r.warnings, r.ignored = nil, nil // they come again
	return nil
}

// interpolation is Compose's, but an unset variable becomes a warning of ours
// where the library would write to standard error.
func (r *reader) interpolation(o *loader.Options) {
	if o.Interpolate == nil {
		return // the library's first pass over the options only finds the files
	}
	o.Interpolate.Substitute = func(text string, lookup template.Mapping) (string, error) {
		return template.SubstituteWithOptions(text, lookup, template.WithoutLogging,
			template.WithReplacementFunction(func(variable string, lookup template.Mapping, c *template.Config) (string, error) {
				value, set, err := template.DefaultReplacementAppliedFunc(variable, lookup, c)
				if err == nil && !set {
					r.warn("variable %s is not set, an empty string stands for it", variable)
				}
				return value, err
			}))
	}
}

// The library's two words for a key that the specification does not have.
var (
	unknownKey  = regexp.MustCompile(`^(\S*) ?additional properties (.+) not allowed$`)
	unknownPath = regexp.MustCompile(`^(\S+) false schema$`)
)

// plain gives the library's error without what the reader knows already, in
// one line.
func plain(err error, files []string) error {
	text := err.Error()
	for _, f := range files {
		for _, prefix := range []string{"validating " + f + ": ", "failed to parse " + f + ": ", f + ": "} {
			text = strings.TrimPrefix(text, prefix)
		}
	}
	text = unknownPath.ReplaceAllString(oneLine(text), "$1: unknown key")
	text = strings.TrimPrefix(unknownKey.ReplaceAllString(text, "$1: unknown key $2"), ": ")
	return &libraryError{text: text, err: err}
}

// libraryError keeps the library's error to look into, with a text for people.
type libraryError struct {
	text string
	err  error
}

func (e *libraryError) Error() string { return e.text }
func (e *libraryError) Unwrap() error { return e.err }

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

package scaffold

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Error says why nothing can be written for a folder.
type Error struct {
	Dir  string
	Err  error
	hint string
}

func (e *Error) Error() string { return fmt.Sprintf("look at %s: %v", e.Dir, e.Err) }
func (e *Error) Unwrap() error { return e.Err }

// Hint tells how to go on, if there is something to tell.
func (e *Error) Hint() string { return e.hint }

// Module is a Go module, as far as images are made of it.
type Module struct {
	Path     string
	Dir      string // that was looked at, absolute
	Programs []Program
}

// Program is a main package and what was found about it.
type Program struct {
	Name    string // of the binary, the service and the image
	Package string // import path
	Dir     string // below Module.Dir, with slashes; "." for Module.Dir itself

	Listens  *Listener // nil where it serves nothing
	Health   []string  // arguments of its own check, if it has one
	Endpoint *Finding  // a path that tells of its health
	Roots    *Finding  // it speaks TLS to others
	Zones    *Finding  // it asks for time zones by name
	Signals  *Finding  // it takes SIGTERM
	Embeds   []string  // patterns of embedded files
	Env      []string  // names of the variables that it reads
}

// Finding is a piece of source that tells something.
type Finding struct {
	What  string
	Where string // FILE:LINE
}

// goPackage is what `go list` says of a package.
type goPackage struct {
	ImportPath, Name, Dir string
	Standard, DepOnly     bool
	GoFiles, CgoFiles     []string
	EmbedPatterns         []string
	Imports, Deps         []string
	Module                *struct{ Path, Dir string }
	Error                 *struct{ Err string }
}

// Inspect looks at the module that a folder lies in. Only main packages in that
// folder and below become programs; where mains are given, only those, as paths
// relative to the folder. Its errors are *Error, but for those of ctx.
func Inspect(ctx context.Context, dir string, mains ...string) (*Module, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	fail := func(err error, hint string) error { return &Error{Dir: dir, Err: err, hint: hint} }
	if info, err := os.Stat(abs); err != nil || !info.IsDir() {
		return nil, fail(errors.New("no such folder"), "")
	}
	packages, err := list(ctx, abs)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, fail(err, "a module is begun by: go mod init NAME")
	}
	m := &Module{Dir: abs}
	all := map[string]*goPackage{}
	for _, p := range packages {
		all[p.ImportPath] = p
	}
	for _, p := range packages {
		if p.Name != "main" || p.DepOnly {
			continue
		}
		below, err := filepath.Rel(abs, p.Dir)
		if err != nil {
			return nil, err
		}
		below = filepath.ToSlash(below)
		if !wanted(below, mains) {
			continue
		}
		if p.Error != nil {
			return nil, fail(fmt.Errorf("package %s: %s", p.ImportPath, oneLine(p.Error.Err)), "it has to compile first: go build ./...")
		}
		if user := usesCgo(p, all); user != nil {
			return nil, fail(fmt.Errorf("%s: %s uses cgo (%s), and a recipe's program is static, without a C library", p.ImportPath, user.ImportPath, user.CgoFiles[0]),
				"use a package in pure Go in its place, choose other programs by --main, or build from a Containerfile")
		}
		m.Path = p.Module.Path
		m.Programs = append(m.Programs, Program{Package: p.ImportPath, Dir: below, Name: binaryName(p.ImportPath)})
	}
	for _, name := range mains {
		if !slices.ContainsFunc(m.Programs, func(p Program) bool { return wanted(p.Dir, []string{name}) }) {
			return nil, fail(fmt.Errorf("%s is no main package", name), "--main takes paths such as ./cmd/app")
		}
	}
	if len(m.Programs) == 0 {
		return nil, fail(errors.New("no main package here or below"), "name the folder of a program")
	}
	slices.SortFunc(m.Programs, func(a, b Program) int { return strings.Compare(a.Dir, b.Dir) })
	for i := range m.Programs {
		if err := m.Programs[i].look(m, all); err != nil {
			return nil, fail(err, "")
		}
	}
	m.nameApart()
	return m, nil
}

// list asks the go command for the packages below a folder and all they import.
func list(ctx context.Context, dir string) ([]*goPackage, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-e", "-deps",
		"-json=ImportPath,Name,Dir,Standard,DepOnly,GoFiles,CgoFiles,EmbedPatterns,Imports,Deps,Module,Error", "./...")
	cmd.Dir = dir
	// With cgo, so that what needs it is seen; for Linux, since images are.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=1", "GOOS=linux", "GOWORK=off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if errors.Is(err, exec.ErrNotFound) {
		return nil, errors.New("the go command is not in PATH")
	}
	if err != nil {
		return nil, errors.New(oneLine(strings.TrimPrefix(stderr.String(), "go: ")))
	}
	var all []*goPackage
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		p := &goPackage{}
		if err := d.Decode(p); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, fmt.Errorf("go list: unexpected answer: %w", err)
		}
		if p.Module == nil && !p.Standard {
			return nil, errors.New("it is in no Go module")
		}
		all = append(all, p)
	}
}

func wanted(dir string, mains []string) bool {
	return len(mains) == 0 || slices.ContainsFunc(mains, func(m string) bool { return path.Clean(filepath.ToSlash(m)) == dir })
}

// usesCgo gives a package that a program needs and that needs a C compiler. The
// standard library does without one where there is none.
func usesCgo(p *goPackage, all map[string]*goPackage) *goPackage {
	for _, name := range append([]string{p.ImportPath}, p.Deps...) {
		if d := all[name]; d != nil && !d.Standard && len(d.CgoFiles) > 0 {
			return d
		}
	}
	return nil
}

var (
	majorVersion = regexp.MustCompile(`/v[0-9]+$`)
	notInNames   = regexp.MustCompile(`[^a-z0-9_-]+`)
)

// binaryName is the last element of an import path that is not a major version,
// in the letters that names of services and users take.
func binaryName(importPath string) string {
	base := strings.ToLower(path.Base(majorVersion.ReplaceAllString(importPath, "")))
	name := strings.Trim(notInNames.ReplaceAllString(base, "-"), "-_")
	if name == "" || name[0] >= '0' && name[0] <= '9' {
		name = strings.TrimSuffix("app-"+name, "-")
	}
	return name[:min(len(name), 32)]
}

// nameApart gives programs of one name different ones: their folders tell.
func (m *Module) nameApart() {
	seen := map[string]int{}
	for i := range m.Programs {
		p := &m.Programs[i]
		seen[p.Name]++
		if n := seen[p.Name]; n > 1 {
			p.Name = fmt.Sprintf("%s-%d", p.Name[:min(len(p.Name), 28)], n)
		}
	}
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

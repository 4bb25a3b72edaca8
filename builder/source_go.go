package builder

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
	"strings"

	"golang.org/x/mod/module"

	"bareboat/builder/layer"
)

// GoSource is a main package, compiled to one static binary.
type GoSource struct {
	// Package is a path relative to the recipe ("../cmd/chatd"), an import
	// path of the module that the recipe lies in, or PACKAGE@VERSION of
	// another one.
	Package string   `yaml:"package"`
	Path    string   `yaml:"path"` // of the binary in the image; default usr/bin/NAME
	Tags    []string `yaml:"tags"`
	Ldflags string   `yaml:"ldflags"` // beside -s -w -buildid=
}

// CompileError is what the Go compiler said of a package.
type CompileError struct {
	Package string
	Dir     string // that the compiler ran in; names of files start there
	Output  string // what the go command printed
	Err     error
}

func (e *CompileError) Error() string {
	first, _, _ := strings.Cut(strings.TrimSpace(skipPackageLine(e.Output)), "\n")
	if first == "" {
		first = e.Err.Error()
	}
	return fmt.Sprintf("compile %s: %s", e.Package, first)
}

func (e *CompileError) Unwrap() error { return e.Err }

// Hint is what the compiler said beyond the first line.
func (e *CompileError) Hint() string {
	_, rest, _ := strings.Cut(strings.TrimSpace(skipPackageLine(e.Output)), "\n")
	return rest
}

// ErrNoGo says that the host has no Go toolchain to compile with.
var ErrNoGo = errors.New("the go command is not in PATH")

// skipPackageLine leaves out the lines "# PACKAGE" that go build puts first.
func skipPackageLine(s string) string {
	var out []string
	for line := range strings.Lines(s) {
		if !strings.HasPrefix(line, "# ") && !strings.HasPrefix(line, "go: downloading") {
			out = append(out, line)
		}
	}
	return strings.Join(out, "")
}

func (g *GoSource) validate() error {
	if g.Package == "" {
		return errors.New("go.package: not given")
	}
	if strings.HasPrefix(g.Package, "-") {
		return fmt.Errorf("go.package: %q is not a package", g.Package)
	}
	if pkg, version, ok := strings.Cut(g.Package, "@"); ok && (pkg == "" || module.CanonicalVersion(version) != version || version == "") {
		return fmt.Errorf("go.package: %q is not PACKAGE@VERSION with an exact version such as v1.2.3 (an image is a function of its content: a branch, or latest, means another one tomorrow)", g.Package)
	}
	return nil
}

// destination is the binary's path in the image. A package given as "." is
// named by its import path, not by the folder that it was checked out into.
func (g *GoSource) destination(ctx context.Context, dir string, env []string) (string, error) {
	if g.Path != "" {
		return cleanPath(g.Path), nil
	}
	pkg, _, _ := strings.Cut(g.Package, "@")
	name := path.Base(majorless(path.Clean(pkg)))
	if name == "." || name == ".." {
		said, err := goOutput(ctx, dir, env, "list", "-f", "{{.ImportPath}}", pkg)
		if err != nil {
			return "", err
		}
		name = path.Base(majorless(strings.TrimSpace(said)))
	}
	return "usr/bin/" + name, nil
}

// compile builds the package for a platform and gives the layer. The binary is
// written below work. Nothing of the caller's environment that could change it
// is passed on, and neither the checkout's path nor its revision goes in: the
// same source and toolchain give the same bytes anywhere.
func (g *GoSource) compile(ctx context.Context, dir string, p Platform, work string) (layer.Layer, error) {
	out := filepath.Join(work, "bin")
	if err := os.MkdirAll(out, 0o755); err != nil {
		return layer.Layer{}, err
	}
	env, err := goEnv(ctx, dir, p)
	if err != nil {
		return layer.Layer{}, err
	}
	dest, err := g.destination(ctx, dir, env)
	if err != nil {
		return layer.Layer{}, err
	}
	binary, err := g.run(ctx, dir, p, env, out)
	if err != nil {
		return layer.Layer{}, err
	}
	info, err := os.Stat(binary)
	if err != nil {
		return layer.Layer{}, fmt.Errorf("compile %s: it is not a main package: %w", g.Package, err)
	}
	return layer.Layer{
		Name:      "go:" + path.Base(dest),
		CreatedBy: "bareboat go " + g.Package,
		Files: []layer.File{{
			Path: dest, Mode: 0o755, Size: info.Size(),
			Open: func() (io.ReadCloser, error) { return os.Open(binary) },
		}},
	}, nil
}

// run calls the go command and gives the path of the binary.
func (g *GoSource) run(ctx context.Context, dir string, p Platform, env []string, out string) (string, error) {
	flags := []string{"-buildmode=exe", "-trimpath", "-buildvcs=false", "-ldflags=" + strings.TrimSpace("-s -w -buildid= "+g.Ldflags)}
	if len(g.Tags) > 0 {
		flags = append(flags, "-tags="+strings.Join(g.Tags, ","))
	}
	pkg, version, remote := strings.Cut(g.Package, "@")
	var args []string
	binary := filepath.Join(out, "program")
	if remote {
		// `go build` takes no version, and `go install` no place to put the
		// result but GOPATH.
		args = append(append([]string{"install"}, flags...), pkg+"@"+version)
		env = append(env, "GOPATH="+out)
		binary = filepath.Join(out, "bin", path.Base(majorless(pkg)))
	} else {
		args = append(append([]string{"build"}, flags...), "-o", binary, pkg)
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Env = dir, env
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return "", &CompileError{Package: g.Package, Dir: dir, Output: said.String(), Err: err}
	}
	if remote {
		return installed(binary, p)
	}
	return binary, nil
}

// installed finds what `go install` made: for another platform it lies one
// folder deeper.
func installed(binary string, p Platform) (string, error) {
	if _, err := os.Stat(binary); err == nil {
		return binary, nil
	}
	return filepath.Join(filepath.Dir(binary), p.OS+"_"+p.Arch, filepath.Base(binary)), nil
}

var majorSuffix = regexp.MustCompile(`/v[0-9]+$`)

// majorless is an import path without its major version, as `go install`
// names the binary.
func majorless(pkg string) string { return majorSuffix.ReplaceAllString(pkg, "") }

// passedOn are the settings of the go command that say where things come from
// and are kept. They may stand in the user's go/env file, which is not read
// beyond them: anything else in it could change the binary.
var passedOn = []string{
	"GOCACHE", "GOMODCACHE", "GOPROXY", "GONOPROXY", "GOPRIVATE", "GOSUMDB", "GONOSUMDB", "GOINSECURE", "GOVCS", "GOAUTH",
}

// goEnv is the environment of the go command: where its caches and proxies
// are, and fixed values for all that could change the result.
func goEnv(ctx context.Context, dir string, p Platform) ([]string, error) {
	var env []string
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if !changesResult(name) {
			env = append(env, kv)
		}
	}
	env = append(env, "GOWORK=off")
	said, err := goOutput(ctx, dir, append(env, "GOTOOLCHAIN=local"), append([]string{"env", "-json", "GOMOD", "GOVERSION"}, passedOn...)...)
	if err != nil {
		return nil, err
	}
	var facts map[string]string
	if err := json.Unmarshal([]byte(said), &facts); err != nil {
		return nil, fmt.Errorf("run go env: unexpected answer: %w", err)
	}
	for _, name := range passedOn {
		env = append(env, name+"="+facts[name])
	}
	env = append(env, "GOENV=off", "GOOS="+p.OS, "GOARCH="+p.Arch, "CGO_ENABLED=0", "GOAMD64=v1", "GOARM64=v8.0")
	wanted, have := toolchain(facts["GOMOD"]), facts["GOVERSION"]
	if wanted == "" || wanted == have {
		return append(env, "GOTOOLCHAIN=local"), nil
	}
	env = append(env, "GOTOOLCHAIN="+wanted)
	if _, err := goOutput(ctx, dir, env, "version"); err != nil {
		return nil, &ToolchainError{Wanted: wanted, Have: have, Mod: facts["GOMOD"], Err: err}
	}
	return env, nil
}

// ToolchainError says that the toolchain that go.mod names is not to be had.
type ToolchainError struct {
	Wanted, Have string // "go1.26.8"
	Mod          string // path of go.mod
	Err          error
}

func (e *ToolchainError) Error() string {
	return fmt.Sprintf("compile with %s, which %s names: %v", e.Wanted, e.Mod, e.Err)
}

func (e *ToolchainError) Unwrap() error { return e.Err }

// Hint tells how to go on.
func (e *ToolchainError) Hint() string {
	return fmt.Sprintf("install %s, let the go command fetch it (GOPROXY), or accept another digest: go mod edit -toolchain=%s", e.Wanted, e.Have)
}

func goOutput(ctx context.Context, dir string, env []string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Env = dir, env
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	said, err := cmd.Output()
	switch {
	case err == nil:
		return string(said), nil
	case ctx.Err() != nil:
		return "", ctx.Err()
	case errors.Is(err, exec.ErrNotFound):
		return "", fmt.Errorf("run go %s: %w", args[0], ErrNoGo)
	}
	first, _, _ := strings.Cut(strings.TrimSpace(stderr.String()), "\n")
	return "", fmt.Errorf("run go %s: %w: %s", args[0], err, first)
}

// changesResult names the variables that are not passed on: those that would
// change the binary, or where it is put.
func changesResult(name string) bool {
	switch name {
	case "GOFLAGS", "GOOS", "GOARCH", "GOAMD64", "GOARM64", "GOARM", "GO386", "GOEXPERIMENT", "GODEBUG",
		"GOWORK", "GOTOOLCHAIN", "GOFIPS140", "GOBIN":
		return true
	}
	return strings.HasPrefix(name, "CGO_")
}

var (
	toolchainLine = regexp.MustCompile(`(?m)^toolchain\s+(go\S+)`)
	moduleLine    = regexp.MustCompile(`(?m)^module\s+"?([^\s"]+)`)
)

// toolchain is the one that the go.mod file names. The compiler is part of
// what a binary is made of, so exactly that one is used; where the file names
// none, it is the one at hand.
func toolchain(gomod string) string { return goModLine(gomod, toolchainLine) }

func modulePath(gomod string) string { return goModLine(gomod, moduleLine) }

func goModLine(gomod string, line *regexp.Regexp) string {
	text, err := os.ReadFile(gomod)
	if err != nil {
		return ""
	}
	if m := line.FindSubmatch(text); m != nil {
		return string(m[1])
	}
	return ""
}

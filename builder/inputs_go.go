package builder

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"bareboat/builder/cache"
	"bareboat/internal/oci"
)

// goSeen is what `go list` said of a package when it was asked last, and what
// it had looked at. While all of that is as it was, it would say the same.
type goSeen struct {
	Folders []cache.Input `json:"folders"` // path → digest of the names that matter
	Trees   []cache.Input `json:"trees"`   // likewise, of all names below: what embed patterns look at
	Files   []cache.Input `json:"files"`   // path → digest
	Inputs  cache.Inputs  `json:"inputs"`  // what the binary depends on
}

// inputs are what the binary depends on: the files of its packages, the
// versions of modules with their sums, the toolchain, the flags, the target.
func (g *GoSource) inputs(ctx context.Context, c *cache.Cache, dir string, p Platform) (cache.Inputs, error) {
	gomod := goMod(dir)
	compiler, err := goVersion(ctx, dir, gomod)
	if err != nil {
		return nil, err
	}
	var in cache.Inputs
	in.Add("bareboat", "%s", self())
	in.Add("toolchain", "%s", compiler)
	in.Add("platform", "%s", p)
	in.Add("package", "%s", g.Package)
	in.Add("path", "%s", g.Path)
	in.Add("tags", "%q", g.Tags)
	in.Add("ldflags", "%s", g.Ldflags)
	if g.remote() {
		return in, nil
	}
	asked := slices.Clone(in)
	asked.Add("folder", "%s", dir)
	seen, err := g.seen(ctx, c, asked.Key(), dir, gomod, p)
	if err != nil {
		return nil, err
	}
	return append(in, seen.Inputs...), nil
}

func (g *GoSource) remote() bool { return strings.Contains(g.Package, "@") }

// seen asks `go list`, if anything of what it looked at has changed.
func (g *GoSource) seen(ctx context.Context, c *cache.Cache, key oci.Digest, dir, gomod string, p Platform) (goSeen, error) {
	var seen goSeen
	if err := c.Load(kindGo, key, &seen); err == nil && seen.still() {
		return seen, nil
	}
	env, err := goEnv(ctx, dir, p)
	if err != nil {
		return goSeen{}, err
	}
	packages, err := g.list(ctx, dir, env)
	if err != nil {
		return goSeen{}, err
	}
	if seen, err = look(packages, dir, gomod, variable(env, "GOMODCACHE")); err != nil {
		return goSeen{}, fmt.Errorf("read the source of %s: %w", g.Package, err)
	}
	return seen, c.Save(kindGo, key, seen)
}

// goPackage is what `go list` says of one package.
type goPackage struct {
	Dir           string
	Standard      bool
	Module        *goModule
	EmbedPatterns []string
	// Files that the compiler reads, and files that build constraints keep
	// from it: a change may lift those.
	GoFiles, SFiles, HFiles, SysoFiles, EmbedFiles []string
	IgnoredGoFiles, IgnoredOtherFiles              []string
}

type goModule struct {
	Path, Version, Dir, GoMod string
	Main                      bool
	Replace                   *goModule
}

func (g *GoSource) list(ctx context.Context, dir string, env []string) ([]goPackage, error) {
	args := []string{"list", "-deps", "-json=Dir,Standard,Module,EmbedPatterns,GoFiles,SFiles,HFiles,SysoFiles,EmbedFiles,IgnoredGoFiles,IgnoredOtherFiles"}
	if len(g.Tags) > 0 {
		args = append(args, "-tags="+strings.Join(g.Tags, ","))
	}
	cmd := exec.CommandContext(ctx, "go", append(args, g.Package)...)
	cmd.Dir, cmd.Env = dir, env
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, &CompileError{Package: g.Package, Dir: dir, Output: stderr.String(), Err: err}
	}
	var all []goPackage
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, fmt.Errorf("run go list: unexpected answer: %w", err)
		}
		all = append(all, p)
	}
}

// look notes what the packages are made of. Those of the standard library are
// known by the toolchain, and those of downloaded modules by their sums, which
// the go command holds to be unchanging as well.
func look(packages []goPackage, dir, gomod, modCache string) (goSeen, error) {
	top := filepath.Dir(gomod)
	if gomod == "" { // files that are in no module
		var err error
		if top, err = filepath.Abs(dir); err != nil {
			return goSeen{}, err
		}
	}
	l := looker{top: top, folders: map[string]bool{}, trees: map[string]bool{}, files: map[string]bool{}}
	sums, err := goSums(filepath.Join(l.top, "go.sum"))
	if err != nil {
		return goSeen{}, err
	}
	modules := map[string]string{}
	for _, p := range packages {
		switch {
		case p.Standard:
		case p.Module != nil && p.Module.downloaded(modCache):
			m := p.Module.source()
			modules[p.Module.Path] = m.Path + "@" + m.Version + " " + sums[m.Path+" "+m.Version]
		default:
			l.local(p)
		}
	}
	for name, sum := range modules {
		l.seen.Inputs.Add("module "+name, "%s", sum)
	}
	if gomod != "" {
		l.files[gomod] = true
	}
	for _, name := range []string{filepath.Join(l.top, "go.sum"), filepath.Join(l.top, "vendor", "modules.txt")} {
		l.files[name] = false
	}
	return l.read()
}

// source is where a module's files come from.
func (m *goModule) source() *goModule {
	if m.Replace != nil {
		return m.Replace
	}
	return m
}

func (m *goModule) downloaded(modCache string) bool {
	s := m.source()
	return s.Version != "" && s.Dir != "" && within(s.Dir, modCache)
}

func within(name, dir string) bool {
	return name == dir || strings.HasPrefix(name, strings.TrimSuffix(dir, "/")+"/")
}

// looker gathers what local packages are made of.
type looker struct {
	top            string // folder of the main module
	folders, trees map[string]bool
	files          map[string]bool // true: the binary depends on it
	seen           goSeen
}

func (l *looker) local(p goPackage) {
	top := l.top
	if p.Module != nil && p.Module.source().Dir != "" {
		top = p.Module.source().Dir
		if p.Module.GoMod != "" {
			l.files[p.Module.GoMod] = true
		}
	}
	// A go.mod in a folder above would take the package out of its module.
	for dir := p.Dir; within(dir, top); dir = filepath.Dir(dir) {
		l.folders[dir] = true
		if dir == top {
			break
		}
	}
	for _, names := range [][]string{p.GoFiles, p.SFiles, p.HFiles, p.SysoFiles, p.EmbedFiles} {
		for _, name := range names {
			l.files[filepath.Join(p.Dir, name)] = true
		}
	}
	for _, name := range slices.Concat(p.IgnoredGoFiles, p.IgnoredOtherFiles) {
		l.files[filepath.Join(p.Dir, name)] = false
	}
	for _, pattern := range p.EmbedPatterns {
		l.trees[filepath.Join(p.Dir, embedRoot(pattern))] = true
	}
}

// embedRoot is the folder, or file, below which an embed pattern looks.
func embedRoot(pattern string) string {
	var fixed []string
	for _, element := range strings.Split(strings.TrimPrefix(pattern, "all:"), "/") {
		if strings.ContainsAny(element, `*?[\`) {
			break
		}
		fixed = append(fixed, element)
	}
	return path.Join(fixed...)
}

func (l *looker) read() (goSeen, error) {
	for dir := range l.folders {
		d, err := folderDigest(dir)
		if err != nil {
			return goSeen{}, err
		}
		l.seen.Folders = append(l.seen.Folders, cache.Input{Name: dir, Value: d})
	}
	for dir := range l.trees {
		d, err := treeDigest(dir)
		if err != nil {
			return goSeen{}, err
		}
		l.seen.Trees = append(l.seen.Trees, cache.Input{Name: dir, Value: d})
	}
	for name, matters := range l.files {
		d, err := fileDigest(name)
		if err != nil {
			return goSeen{}, err
		}
		l.seen.Files = append(l.seen.Files, cache.Input{Name: name, Value: d})
		if matters {
			rel, err := filepath.Rel(l.top, name)
			if err != nil {
				return goSeen{}, err
			}
			l.seen.Inputs.Add(filepath.ToSlash(rel), "%s", d)
		}
	}
	return l.seen, nil
}

// still tells whether all that was looked at is as it was.
func (s goSeen) still() bool {
	for _, c := range []struct {
		were   []cache.Input
		digest func(string) (string, error)
	}{{s.Folders, folderDigest}, {s.Trees, treeDigest}, {s.Files, fileDigest}} {
		for _, was := range c.were {
			if is, err := c.digest(was.Name); err != nil || is != was.Value {
				return false
			}
		}
	}
	return len(s.Files) > 0
}

// fileDigest is that of a file's content, empty for a file that is not there.
func fileDigest(name string) (string, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	d, err := digest.FromReader(f)
	return d.String(), err
}

// folderDigest is that of the names in a folder by which the go command
// chooses what to compile.
func folderDigest(dir string) (string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	sum := digest.Canonical.Digester()
	for _, e := range entries {
		if name := e.Name(); goChooses(name) {
			fmt.Fprintf(sum.Hash(), "%q %v\n", name, e.Type())
		}
	}
	return sum.Digest().String(), nil
}

func goChooses(name string) bool {
	switch path.Ext(name) {
	case ".go":
		return !strings.HasSuffix(name, "_test.go")
	case ".s", ".S", ".sx", ".h", ".hh", ".hpp", ".hxx", ".c", ".cc", ".cpp", ".cxx", ".m", ".f", ".F", ".for", ".f90", ".swig", ".swigcxx", ".syso":
		return true
	}
	return name == "go.mod" || name == "vendor"
}

// treeDigest is that of all names below a folder, without their content.
func treeDigest(dir string) (string, error) {
	sum := digest.Canonical.Digester()
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(sum.Hash(), "%q %v\n", name, d.Type())
		return err
	})
	return sum.Digest().String(), err
}

// goSums reads go.sum: "MODULE VERSION" → sum.
func goSums(name string) (map[string]string, error) {
	text, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	sums := map[string]string{}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 3 {
			sums[f[0]+" "+f[1]] = f[2]
		}
	}
	return sums, nil
}

// goMod is the go.mod file of the module that a folder lies in, as the go
// command finds it; empty where there is none.
func goMod(dir string) string {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return ""
	}
	for {
		name := filepath.Join(dir, "go.mod")
		if info, err := os.Stat(name); err == nil && !info.IsDir() {
			return name
		}
		if dir == filepath.Dir(dir) {
			return ""
		}
		dir = filepath.Dir(dir)
	}
}

// goVersion is the version of the compiler that goEnv will choose. Starting the
// go command just to ask would cost more than all the rest of a build with
// nothing to do, so the file is read from which it would answer.
func goVersion(ctx context.Context, dir, gomod string) (string, error) {
	if wanted := toolchain(gomod); wanted != "" {
		return wanted, nil
	}
	root := os.Getenv("GOROOT")
	if root == "" {
		program, err := exec.LookPath("go")
		if err != nil {
			return "", fmt.Errorf("run go: %w", ErrNoGo)
		}
		if program, err = filepath.EvalSymlinks(program); err != nil {
			return "", err
		}
		root = filepath.Dir(filepath.Dir(program))
	}
	if text, err := os.ReadFile(filepath.Join(root, "VERSION")); err == nil {
		return string(text), nil
	}
	return goOutput(ctx, dir, append(os.Environ(), "GOTOOLCHAIN=local"), "env", "GOVERSION")
}

func variable(env []string, name string) string {
	for _, kv := range slices.Backward(env) {
		if value, ok := strings.CutPrefix(kv, name+"="); ok {
			return value
		}
	}
	return ""
}

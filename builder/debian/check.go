package debian

import (
	"bufio"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

// platform is what the loader of an architecture goes by.
type platform struct {
	triplet string // the folder of libraries below usr/lib
	machine elf.Machine
}

var triplets = map[string]platform{
	"amd64":   {"x86_64-linux-gnu", elf.EM_X86_64},
	"arm64":   {"aarch64-linux-gnu", elf.EM_AARCH64},
	"armhf":   {"arm-linux-gnueabihf", elf.EM_ARM},
	"i386":    {"i386-linux-gnu", elf.EM_386},
	"ppc64el": {"powerpc64le-linux-gnu", elf.EM_PPC64},
	"riscv64": {"riscv64-linux-gnu", elf.EM_RISCV},
	"s390x":   {"s390x-linux-gnu", elf.EM_S390},
}

// defaultDirs is where glibc looks without a cache.
func (p platform) defaultDirs() []string {
	return []string{"lib/" + p.triplet, "usr/lib/" + p.triplet, "lib", "usr/lib", "lib64", "usr/lib64"}
}

// object is a program or library of the plan.
type object struct {
	*node
	interp string
	needed []string
	dirs   []string // RUNPATH or RPATH, as paths below the root
}

// checkLibraries proves that every program and library finds the libraries
// that it names, and its loader. What is loaded with dlopen is not seen.
func checkLibraries(t *tree, arch string) error {
	p := triplets[arch]
	var objects []object
	var named []string // folders that some object's RUNPATH names
	for _, name := range sortedKeys(t.nodes) {
		n := t.nodes[name]
		if !n.Mode.IsRegular() || n.Hard || n.blob.size < 64 {
			continue
		}
		o, err := readObject(n, p.machine)
		if err != nil {
			return fmt.Errorf("%s of %s: %w", name, n.owner, err)
		}
		if o != nil {
			objects = append(objects, *o)
			named = append(named, o.dirs...)
		}
	}
	var missing []error
	for _, o := range objects {
		missing = append(missing, o.check(t, p, named)...)
	}
	if len(missing) > 0 {
		return several(missing)
	}
	return nil
}

// readObject gives nil for what is no ELF object of the architecture.
func readObject(n *node, machine elf.Machine) (*object, error) {
	r, err := n.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	at, ok := r.(io.ReaderAt)
	if !ok {
		return nil, nil
	}
	var magic [4]byte
	if _, err := at.ReadAt(magic[:], 0); err != nil || string(magic[:]) != elf.ELFMAG {
		return nil, nil
	}
	f, err := elf.NewFile(at)
	if err != nil {
		return nil, err
	}
	if f.Machine != machine || f.Type != elf.ET_EXEC && f.Type != elf.ET_DYN || f.SectionByType(elf.SHT_DYNAMIC) == nil {
		return nil, nil
	}
	o := &object{node: n}
	if o.needed, err = f.ImportedLibraries(); err != nil {
		return nil, err
	}
	if o.interp, err = interpreter(f); err != nil {
		return nil, err
	}
	o.dirs, err = runPath(f, parent(n.Path))
	return o, err
}

func interpreter(f *elf.File) (string, error) {
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			text, err := io.ReadAll(io.LimitReader(p.Open(), 4096))
			return strings.TrimRight(string(text), "\x00"), err
		}
	}
	return "", nil
}

func runPath(f *elf.File, origin string) ([]string, error) {
	for _, tag := range []elf.DynTag{elf.DT_RUNPATH, elf.DT_RPATH} {
		values, err := f.DynString(tag)
		if err != nil {
			return nil, err
		}
		var out []string
		for dir := range strings.SplitSeq(strings.Join(values, ":"), ":") {
			dir = strings.NewReplacer("$ORIGIN", "/"+origin, "${ORIGIN}", "/"+origin).Replace(dir)
			if path.IsAbs(dir) {
				out = append(out, dir)
			}
		}
		if len(out) > 0 {
			return out, nil
		}
	}
	return nil, nil
}

// check lists what an object does not find. A library may count on what the
// program that loads it has loaded already, so for it every folder that some
// RUNPATH names will do.
func (o object) check(t *tree, p platform, named []string) []error {
	dirs := append(slices.Clone(o.dirs), p.defaultDirs()...)
	if o.interp == "" {
		dirs = append(dirs, named...)
	}
	var missing []error
	if o.interp != "" && !t.has(o.interp) {
		missing = append(missing, fmt.Errorf("%s of %s: its loader %s is missing", o.Path, o.owner, o.interp))
	}
	for _, lib := range o.needed {
		found := strings.Contains(lib, "/") && t.has(lib)
		for i := 0; i < len(dirs) && !found; i++ {
			found = t.has(path.Join(dirs[i], lib))
		}
		if !found {
			missing = append(missing, fmt.Errorf("%s of %s: library %s is missing", o.Path, o.owner, lib))
		}
	}
	return missing
}

// has tells whether a path leads to a file.
func (t *tree) has(p string) bool {
	p, err := t.follow(p)
	return err == nil && t.nodes[p] != nil && t.nodes[p].Mode.IsRegular()
}

// checkShebangs gives the scripts whose interpreter is missing. Most packages
// bring some that nobody calls, so that this is no error.
func checkShebangs(t *tree) ([]string, error) {
	var out []string
	for _, name := range sortedKeys(t.nodes) {
		n := t.nodes[name]
		if !n.Mode.IsRegular() || n.Mode&0o111 == 0 {
			continue
		}
		interp, err := shebang(n)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if interp != "" && !t.hasProgram(interp) {
			out = append(out, fmt.Sprintf("%s of %s: its interpreter %s is missing", name, n.owner, interp))
		}
	}
	return out, nil
}

// shebang gives the interpreter of a script; for env, what env would look for.
func shebang(n *node) (string, error) {
	r, err := n.Open()
	if err != nil {
		return "", err
	}
	defer r.Close()
	line, err := bufio.NewReader(io.LimitReader(r, 256)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	rest, ok := strings.CutPrefix(line, "#!")
	words := strings.Fields(rest)
	if !ok || len(words) == 0 {
		return "", nil
	}
	if path.Base(words[0]) != "env" {
		return words[0], nil
	}
	for _, w := range words[1:] {
		if !strings.HasPrefix(w, "-") && !strings.Contains(w, "=") {
			return w, nil
		}
	}
	return words[0], nil
}

func (t *tree) hasProgram(p string) bool {
	if strings.Contains(p, "/") {
		return t.has(p)
	}
	return slices.ContainsFunc([]string{"usr/local/bin", "usr/bin", "usr/sbin"}, func(dir string) bool {
		return t.has(path.Join(dir, p))
	})
}

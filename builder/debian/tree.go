package debian

import (
	"archive/tar"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"bareboat/builder/layer"
)

// node is a file of the planned file system.
type node struct {
	layer.File
	owner string // package that it is of; "" for the layer of folders and links
	blob  blob   // content of a file or hard link that a package ships
}

// tree is the planned file system: what each path will be once all layers lie
// on one another.
type tree struct {
	nodes map[string]*node
	// sharers lists the packages that ship a folder, which is then in the
	// layer of each.
	sharers map[string][]string
	exclude []string
	setuid  []string
}

func newTree(exclude []string) *tree {
	return &tree{nodes: map[string]*node{}, sharers: map[string][]string{}, exclude: exclude}
}

// documentation is what an image does without.
var documentation = []string{
	"usr/share/man", "usr/share/locale", "usr/share/info",
	"usr/share/doc-base", "usr/share/lintian", "usr/share/bug",
}

// dropped tells whether a path is left out. Of the documentation, copyright
// files stay, and links to the folder of another package that has them.
func (t *tree) dropped(p string, mode fs.FileMode) bool {
	for _, d := range documentation {
		if p == d || strings.HasPrefix(p, d+"/") {
			return true
		}
	}
	if rest, ok := strings.CutPrefix(p, "usr/share/doc/"); ok {
		_, file, below := strings.Cut(rest, "/")
		return below && file != "copyright" || !below && !mode.IsDir() && mode&fs.ModeSymlink == 0
	}
	return slices.ContainsFunc(t.exclude, func(glob string) bool { return within(glob, p) })
}

// within tells whether a glob matches a path or a folder above it.
func within(glob, p string) bool {
	parts := strings.Split(p, "/")
	n := strings.Count(glob, "/") + 1
	if n > len(parts) {
		return false
	}
	ok, err := path.Match(glob, strings.Join(parts[:n], "/"))
	return ok && err == nil
}

// maxLinks bounds the links followed on the way to one path, as the kernel does.
const maxLinks = 40

// follow gives the path that p leads to once every link on the way, and p
// itself, is followed. What does not exist leads to itself.
func (t *tree) follow(p string) (string, error) {
	done, todo := "", strings.Split(p, "/")
	for links := 0; len(todo) > 0; {
		part := todo[0]
		todo = todo[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			done = parent(done)
			continue
		}
		next := path.Join(done, part)
		n := t.nodes[next]
		if n == nil || n.Mode&fs.ModeSymlink == 0 {
			done = next
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("%s: too many links", p)
		}
		if strings.HasPrefix(n.Link, "/") {
			done = ""
		}
		todo = append(strings.Split(n.Link, "/"), todo...)
	}
	return done, nil
}

// parent is the folder of a path; that of a path at the root, and of the root,
// is "".
func parent(p string) string {
	if dir := path.Dir(p); dir != "." {
		return dir
	}
	return ""
}

// place gives where a package's path comes to lie: below the links of its
// folders, such as that of the merged /usr.
func (t *tree) place(p string) (string, error) {
	dir, err := t.follow(parent(p))
	return path.Join(dir, path.Base(p)), err
}

// add puts a package's entries into the tree.
func (t *tree) add(d *deb) error {
	regular := map[string]*node{} // by the name in the package, for hard links
	return d.walk(func(h *tar.Header, content blob) error {
		name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
		if name == "" {
			return nil
		}
		if err := checkEntry(h); err != nil {
			return err
		}
		n, err := newNode(d.Name, h, content, regular)
		if err != nil {
			return err
		}
		if h.Typeflag == tar.TypeReg {
			regular[name] = n
		}
		if n.Path, err = t.place(name); err != nil {
			return err
		}
		if n.Hard {
			if n.Link, err = t.place(n.Link); err != nil {
				return err
			}
		}
		if n.Mode&fs.ModeSymlink != 0 {
			if n.Link, err = t.relink(name, n.Path, n.Link); err != nil || n.Link == "" {
				return err
			}
		}
		if t.dropped(n.Path, n.Mode) || t.dropped(name, n.Mode) {
			return nil
		}
		return t.insert(d, n)
	})
}

// relink gives the target of a symbolic link that moved from one folder to
// another, such that it leads where it was meant to. A link that would lead to
// itself, as one between the two halves of /usr does after their merge, is "".
func (t *tree) relink(from, to, target string) (string, error) {
	absolute := strings.HasPrefix(target, "/")
	aim := target
	if !absolute {
		aim = path.Join("/", path.Dir(from), target)
	}
	meant, err := t.place(aim)
	if err != nil {
		return "", err
	}
	if meant == to {
		return "", nil
	}
	if absolute || from == to {
		return target, nil
	}
	now, err := t.place(path.Join("/", path.Dir(to), target))
	if err != nil || now == meant {
		return target, err
	}
	return "/" + meant, nil
}

// insert puts one entry where another may be, by dpkg's rules: a folder that
// is there stays as it is, a link to a folder stands for that folder, and a
// file is another package's only if that one replaces it.
func (t *tree) insert(d *deb, n *node) error {
	if n.Mode.IsRegular() && n.Mode&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
		n.Mode &^= fs.ModeSetuid | fs.ModeSetgid
		t.setuid = append(t.setuid, n.Path)
	}
	prev := t.nodes[n.Path]
	switch {
	case prev == nil:
	case n.Mode.IsDir() && prev.Mode&fs.ModeSymlink != 0:
		return nil
	case n.Mode.IsDir() && prev.Mode.IsDir():
		t.share(n)
		return nil
	case prev.Mode.IsDir() && n.Mode&fs.ModeSymlink != 0:
		return nil
	case prev.owner == "" && n.Mode&fs.ModeSymlink != 0:
		return nil // one of our own links, which the package may spell differently
	case n.Mode&fs.ModeSymlink != 0 && prev.Mode&fs.ModeSymlink != 0 && n.Link == prev.Link:
		return nil
	case prev.Mode.IsDir() || n.Mode.IsDir() || !replaces(d.control, prev.owner):
		return fmt.Errorf("package %s ships it too", prev.owner)
	}
	t.nodes[n.Path] = n
	if n.Mode.IsDir() {
		t.share(n)
	}
	return nil
}

func (t *tree) share(n *node) {
	t.sharers[n.Path] = append(t.sharers[n.Path], n.owner)
}

// replaces tells whether a package may overwrite files of another.
func replaces(control stanza, other string) bool {
	deps, err := ParseDependencies(control.get("Replaces"))
	if err != nil {
		return false
	}
	return slices.ContainsFunc(deps, func(d Dependency) bool { return d[0].Name == other })
}

// set puts a generated file into the tree, with the folders above it.
func (t *tree) set(owner string, f layer.File) error {
	p, err := t.place(f.Path)
	if err != nil {
		return err
	}
	f.Path = p
	t.nodes[p] = &node{File: f, owner: owner}
	return nil
}

// glob gives the paths below the root that match, in order.
func (t *tree) glob(pattern string) []string {
	var out []string
	for p := range t.nodes {
		if ok, err := path.Match(pattern, p); ok && err == nil {
			out = append(out, p)
		}
	}
	slices.Sort(out)
	return out
}

// finish adds the folders that nobody ships, removes those of documentation
// that nothing is left in, and makes files of hard links whose target went to
// another package.
func (t *tree) finish() error {
	for _, p := range sortedKeys(t.nodes) {
		n := t.nodes[p]
		for dir := parent(p); dir != ""; dir = parent(dir) {
			if up := t.nodes[dir]; up == nil {
				t.nodes[dir] = &node{File: layer.Dir(dir, 0o755)}
			} else if !up.Mode.IsDir() {
				return fmt.Errorf("%s of %s: lies below %s of %s, which is not a folder", p, n.owner, dir, up.owner)
			}
		}
		if n.Hard {
			if to := t.nodes[n.Link]; to == nil || to.owner != n.owner || to.blob != n.blob {
				n.Hard, n.Link = false, ""
			}
		}
	}
	t.pruneDoc()
	return nil
}

func (t *tree) pruneDoc() {
	used := map[string]bool{}
	for p := range t.nodes {
		used[parent(p)] = true
	}
	for p, n := range t.nodes {
		if n.Mode.IsDir() && strings.HasPrefix(p, "usr/share/doc/") && !used[p] {
			delete(t.nodes, p)
			delete(t.sharers, p)
		}
	}
}

package builder

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"bareboat/builder/layer"
)

// FileEntry puts something into the image; exactly one of From, Dir and Link
// is set.
type FileEntry struct {
	// From is a file, a folder (its content is taken) or a glob with * and **,
	// relative to the recipe.
	From string `yaml:"from"`
	// To is where it goes: the file's path, or with a slash at its end, and
	// for folders and globs always, the folder it goes into.
	To string `yaml:"to"`
	// Exclude are globs of what is left out, relative to From's folder.
	Exclude []string `yaml:"exclude"`

	Dir    string `yaml:"dir"`    // makes a folder
	Link   string `yaml:"link"`   // makes a symbolic link …
	Target string `yaml:"target"` // … that leads here

	Owner string `yaml:"owner"` // UID or UID:GID; default 0:0
	Mode  string `yaml:"mode"`  // octal; default 0644, 0755 where the owner may execute, folders 0755

	line int // of the recipe
}

// FilesError says that what a recipe's files entry names is not there, or may not
// be taken. It is an ErrRecipe.
type FilesError struct {
	Recipe string // path of the recipe
	Err    error
}

func (e *FilesError) Error() string { return fmt.Sprintf("%v %s: %v", ErrRecipe, e.Recipe, e.Err) }

// Unwrap gives ErrRecipe and the cause.
func (e *FilesError) Unwrap() []error { return []error{ErrRecipe, e.Err} }

// Hint tells where files may be.
func (e *FilesError) Hint() string {
	return "paths are relative to " + filepath.Dir(e.Recipe) + ", and may not lead out of the project"
}

func validateEntries(entries []FileEntry) error {
	for i, e := range entries {
		if err := e.validate(); err != nil {
			return at(fmt.Errorf("files[%d]: %w", i, err), "files", i)
		}
	}
	return nil
}

func (e FileEntry) validate() error {
	set := 0
	for _, s := range []string{e.From, e.Dir, e.Link} {
		if s != "" {
			set++
		}
	}
	switch {
	case set != 1:
		return errors.New("wants one of from, dir, link")
	case e.From != "" && e.To == "":
		return fmt.Errorf("from %s: wants to", e.From)
	case e.Link != "" && e.Target == "":
		return fmt.Errorf("link %s: wants target", e.Link)
	case e.From != "" && !doublestar.ValidatePattern(filepath.ToSlash(e.From)):
		return fmt.Errorf("from %s: not a valid glob", e.From)
	}
	for _, x := range e.Exclude {
		if !doublestar.ValidatePattern(x) {
			return fmt.Errorf("exclude %s: not a valid glob", x)
		}
	}
	if _, _, err := e.owner(); err != nil {
		return err
	}
	_, err := e.mode(0)
	return err
}

func (e FileEntry) owner() (uid, gid int, err error) {
	if e.Owner == "" {
		return 0, 0, nil
	}
	user, group, both := strings.Cut(e.Owner, ":")
	if uid, err = strconv.Atoi(user); err == nil && uid >= 0 {
		gid = uid
		if both {
			gid, err = strconv.Atoi(group)
		}
	}
	if err != nil || uid < 0 || gid < 0 {
		return 0, 0, fmt.Errorf("owner %q is not UID or UID:GID", e.Owner)
	}
	return uid, gid, nil
}

// mode is the one given, else def.
func (e FileEntry) mode(def fs.FileMode) (fs.FileMode, error) {
	if e.Mode == "" {
		return def, nil
	}
	bits, err := strconv.ParseUint(e.Mode, 8, 32)
	if err != nil || bits > 0o7777 {
		return 0, fmt.Errorf("mode %q is not an octal mode such as \"0644\"", e.Mode)
	}
	m := fs.FileMode(bits & 0o777)
	for bit, flag := range map[uint64]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if bits&bit != 0 {
			m |= flag
		}
	}
	return m, nil
}

// collect gives the files that the entries name. dir is the recipe's folder;
// nothing outside of tree, which contains it, is read, not even through a
// symbolic link.
func collect(entries []FileEntry, dir, tree string) ([]layer.File, error) {
	var files []layer.File
	for _, e := range entries {
		got, err := e.files(dir, tree)
		if err != nil {
			return nil, &LineError{Line: e.line, Err: err}
		}
		files = append(files, got...)
	}
	return files, nil
}

func (e FileEntry) files(dir, tree string) ([]layer.File, error) {
	uid, gid, err := e.owner()
	if err != nil {
		return nil, err
	}
	switch {
	case e.Dir != "":
		mode, err := e.mode(0o755)
		return []layer.File{layer.Dir(cleanPath(e.Dir), mode).Owned(uid, gid)}, err
	case e.Link != "":
		return []layer.File{layer.Symlink(cleanPath(e.Link), e.Target).Owned(uid, gid)}, nil
	}
	found, err := e.find(dir, tree)
	if err != nil {
		return nil, err
	}
	for i := range found {
		found[i] = found[i].Owned(uid, gid)
	}
	return found, nil
}

// find walks what From names.
func (e FileEntry) find(dir, tree string) ([]layer.File, error) {
	base, pattern := doublestar.SplitPattern(filepath.ToSlash(e.From))
	if !strings.ContainsAny(pattern, "*?[{") {
		base, pattern = filepath.ToSlash(e.From), ""
	}
	root := filepath.Join(dir, filepath.FromSlash(base))
	if err := insideTree(root, tree); err != nil {
		return nil, fmt.Errorf("from %s: %w", e.From, err)
	}
	info, err := os.Lstat(root)
	if err != nil {
		return nil, fmt.Errorf("from %s: %w", e.From, err)
	}
	if !info.IsDir() {
		to := cleanPath(e.To)
		if strings.HasSuffix(e.To, "/") {
			to = path.Join(to, path.Base(base))
		}
		f, err := e.file(root, to, tree)
		return []layer.File{f}, err
	}
	files, err := e.walk(root, pattern, tree)
	if err == nil && len(files) == 0 {
		err = errors.New("no file matches")
	}
	if err != nil {
		return nil, fmt.Errorf("from %s: %w", e.From, err)
	}
	return files, nil
}

func (e FileEntry) walk(root, pattern, tree string) ([]layer.File, error) {
	var files []layer.File
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil || rel == "." {
			return err
		}
		rel = filepath.ToSlash(rel)
		for _, x := range e.Exclude {
			if !doublestar.MatchUnvalidated(x, rel) {
				continue
			}
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if ok := pattern == "" || doublestar.MatchUnvalidated(pattern, rel); !ok {
			return nil
		}
		to := path.Join(cleanPath(e.To), rel)
		if d.IsDir() {
			if pattern == "" {
				files = append(files, layer.Dir(to, 0o755))
			}
			return nil
		}
		f, err := e.file(p, to, tree)
		files = append(files, f)
		return err
	})
	return files, err
}

// file is one file or symbolic link of the disk. Of its mode only the owner's
// right to execute counts: the rest is the umask of whoever checked it out.
func (e FileEntry) file(from, to, tree string) (layer.File, error) {
	info, err := os.Lstat(from)
	if err != nil {
		return layer.File{}, err
	}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(from)
		if err != nil {
			return layer.File{}, err
		}
		if filepath.IsAbs(target) {
			return layer.File{}, fmt.Errorf("%s: a symbolic link to the absolute path %s", from, target)
		}
		if err := insideTree(filepath.Join(filepath.Dir(from), target), tree); err != nil {
			return layer.File{}, fmt.Errorf("%s: symbolic link: %w", from, err)
		}
		return layer.Symlink(to, filepath.ToSlash(target)), nil
	case !info.Mode().IsRegular():
		return layer.File{}, fmt.Errorf("%s: a %s cannot be part of an image", from, info.Mode().Type())
	}
	def := fs.FileMode(0o644)
	if info.Mode()&0o100 != 0 {
		def = 0o755
	}
	mode, err := e.mode(def)
	return layer.File{
		Path: to, Mode: mode, Size: info.Size(),
		Open: func() (io.ReadCloser, error) { return os.Open(from) },
	}, err
}

// insideTree checks that p, with every symbolic link on its way followed, lies
// in the tree.
func insideTree(p, tree string) error {
	followed, err := filepath.EvalSymlinks(p)
	if err != nil {
		return err
	}
	top, err := filepath.EvalSymlinks(tree)
	if err != nil {
		return err
	}
	rel, err := filepath.Rel(top, followed)
	if err != nil || rel == ".." || strings.HasPrefix(rel, ".."+string(filepath.Separator)) {
		return fmt.Errorf("%s leads out of %s", p, tree)
	}
	return nil
}

// cleanPath is a path of the image as a layer has it: no slash in front.
func cleanPath(p string) string { return strings.TrimPrefix(path.Clean("/"+p), "/") }

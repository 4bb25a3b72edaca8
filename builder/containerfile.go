package builder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/containers/buildah/pkg/parse"
	"github.com/moby/patternmatcher"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"

	"bareboat/internal/oci"
)

// ErrContainerfile says that a request to build a Containerfile makes no sense.
var ErrContainerfile = errors.New("containerfile")

// ContainerfileRequest asks for the image of a Containerfile
// (containerfile(5), or Dockerfile).
type ContainerfileRequest struct {
	Name oci.Reference // of the image
	// Path of the Containerfile; default: Containerfile, else Dockerfile, in
	// Context.
	Path    string
	Context string            // folder that COPY and ADD read
	Args    map[string]string // of ARG
	Secrets []Secret          // for RUN --mount=type=secret
	Target  string            // stage to build; default the last
	NoCache bool              // make every layer anew
	// Insecure allows base images from registries without TLS that can be
	// verified.
	Insecure bool
}

// Secret is known to a RUN instruction while it runs, and is in no layer.
type Secret struct {
	ID   string
	File string // where its content is, or
	Env  string // the variable of this process that has it
}

// ParseSecret reads id=ID,src=FILE or id=ID,env=NAME, as Podman and Docker have
// it. A secret with an ID alone is the variable of that name, if there is one,
// else the file.
func ParseSecret(s string) (Secret, error) {
	var out Secret
	for field := range strings.SplitSeq(s, ",") {
		key, value, ok := strings.Cut(field, "=")
		switch {
		case !ok || value == "":
			return Secret{}, fmt.Errorf("%w: secret: wants id=ID,src=FILE or id=ID,env=NAME", ErrContainerfile)
		case key == "id":
			out.ID = value
		case key == "src" || key == "source":
			out.File = value
		case key == "env":
			out.Env = value
		case key == "type" && (value == "file" || value == "env"):
		default:
			return Secret{}, fmt.Errorf("%w: secret: %q is not one of id, src, env", ErrContainerfile, key)
		}
	}
	switch {
	case out.ID == "":
		return Secret{}, fmt.Errorf("%w: secret: has no id", ErrContainerfile)
	case out.File != "" && out.Env != "":
		return Secret{}, fmt.Errorf("%w: secret %s: has both src and env", ErrContainerfile, out.ID)
	case out.File == "" && out.Env == "":
		if _, ok := os.LookupEnv(out.ID); ok {
			out.Env = out.ID
		} else {
			out.File = out.ID
		}
	}
	return out, nil
}

// option is the secret as the library takes it.
func (s Secret) option() (string, error) {
	if s.Env != "" {
		if _, ok := os.LookupEnv(s.Env); !ok {
			return "", fmt.Errorf("%w: secret %s: the variable %s is not set", ErrContainerfile, s.ID, s.Env)
		}
		return "id=" + s.ID + ",env=" + s.Env, nil
	}
	path, err := filepath.Abs(s.File)
	if err != nil {
		return "", err
	}
	if strings.Contains(path, ",") {
		return "", fmt.Errorf("%w: secret %s: the path %s has a comma", ErrContainerfile, s.ID, path)
	}
	if info, err := os.Stat(path); err != nil || !info.Mode().IsRegular() {
		return "", fmt.Errorf("%w: secret %s: %s is not a file that can be read", ErrContainerfile, s.ID, s.File)
	}
	return "id=" + s.ID + ",src=" + path, nil
}

// ContainerfileError says that an instruction failed.
type ContainerfileError struct {
	Path   string
	Err    error
	Output string // the last lines of what was said before
}

func (e *ContainerfileError) Error() string { return fmt.Sprintf("%s: %v", e.Path, e.Err) }
func (e *ContainerfileError) Unwrap() error { return e.Err }

// Hint is what the instruction said.
func (e *ContainerfileError) Hint() string { return e.Output }

// BuildContainerfile builds the image of a Containerfile and gives it as Build
// does, in the cache; what each instruction made is kept in the store, for the
// next build. All times are the Epoch or before it, files of the context have
// the mode 0644 or 0755, and the host's umask, name and paths do not go in: as
// far as the instructions do the same each time, the image is the same. RUN
// needs no root, and has the host's network.
func (b *Builder) BuildContainerfile(ctx context.Context, r ContainerfileRequest) (oci.Image, error) {
	img, err := b.buildContainerfile(ctx, r)
	if err != nil {
		return oci.Image{}, fmt.Errorf("build %s: %w", r.Name, err)
	}
	return img, nil
}

func (b *Builder) buildContainerfile(ctx context.Context, r ContainerfileRequest) (oci.Image, error) {
	call, err := r.call()
	if err != nil {
		return oci.Image{}, err
	}
	c, err := b.cached()
	if err != nil {
		return oci.Image{}, err
	}
	if call.Dir, err = b.workDir(c.Dir()); err != nil {
		return oci.Image{}, err
	}
	defer os.RemoveAll(call.Dir)
	call.Epoch = b.Epoch
	call.Context = filepath.Join(call.Dir, "context")
	if err := copyContext(ctx, r.Context, call.Context, call.Containerfile, c.Dir(), call.Epoch); err != nil {
		return oci.Image{}, err
	}
	var manifests []oci.Descriptor
	for _, call.Platform = range b.platforms() {
		m, err := b.containerfile(ctx, r, call)
		if err != nil {
			return oci.Image{}, err
		}
		manifests = append(manifests, m)
	}
	root, content, err := index(manifests)
	if err != nil {
		return oci.Image{}, err
	}
	if content != nil {
		if _, err := c.PutBytes(root.MediaType, content); err != nil {
			return oci.Image{}, err
		}
		if err := c.Save(kindLocal, root.Digest, localRecord{Manifest: root, Blobs: manifests}); err != nil {
			return oci.Image{}, err
		}
	}
	layout, err := c.View(root)
	return oci.Image{Name: r.Name, Layout: layout, Digest: root.Digest}, err
}

// containerfile builds for one platform and gives the image's manifest.
func (b *Builder) containerfile(ctx context.Context, r ContainerfileRequest, call containerfileCall) (oci.Descriptor, error) {
	log := &buildLog{tell: func(line string) { b.notify(Event{Image: r.Name.Name(), Step: "containerfile", Note: line}) }}
	var id string
	if err := b.inStoreTelling(ctx, log, "containerfile", call, &id); err != nil {
		if ctx.Err() != nil {
			return oci.Descriptor{}, ctx.Err()
		}
		return oci.Descriptor{}, &ContainerfileError{Path: call.Containerfile, Err: err, Output: log.last()}
	}
	img, err := b.export(ctx, id)
	if err != nil {
		return oci.Descriptor{}, err
	}
	var listed oci.Index
	if err := readJSON(filepath.Join(img.Layout, v1.ImageIndexFile), &listed); err != nil {
		return oci.Descriptor{}, err
	}
	m := listed.Manifests[0]
	m.Platform = &v1.Platform{OS: call.Platform.OS, Architecture: call.Platform.Arch}
	b.notify(Event{Image: r.Name.Name(), Step: "image", Note: m.Digest.String()})
	return m, nil
}

// call checks the request, before anything is done.
func (r ContainerfileRequest) call() (containerfileCall, error) {
	c := containerfileCall{Args: r.Args, Target: r.Target, NoCache: r.NoCache, Insecure: r.Insecure}
	if info, err := os.Stat(r.Context); err != nil || !info.IsDir() {
		return c, fmt.Errorf("%w: the context %s is not a folder", ErrContainerfile, r.Context)
	}
	path, err := r.find()
	if err != nil {
		return c, err
	}
	if c.Containerfile, err = filepath.Abs(path); err != nil {
		return c, err
	}
	for _, s := range r.Secrets {
		option, err := s.option()
		if err != nil {
			return c, err
		}
		c.Secrets = append(c.Secrets, option)
	}
	return c, nil
}

func (r ContainerfileRequest) find() (string, error) {
	candidates := []string{r.Path}
	if r.Path == "" {
		candidates = []string{filepath.Join(r.Context, "Containerfile"), filepath.Join(r.Context, "Dockerfile")}
	}
	for _, path := range candidates {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", fmt.Errorf("%w: there is no file %s", ErrContainerfile, strings.Join(candidates, " or "))
}

// copyContext copies what .containerignore leaves of a context, with modes that
// no umask has touched: of them only the right to execute counts, as in Git. The
// cache, into which it copies, is left out.
func copyContext(ctx context.Context, from, to, containerfile, cache string, epoch int64) error {
	own, err := os.Stat(cache)
	if err != nil {
		return err
	}
	ignored, _, err := parse.ContainerIgnoreFile(from, "", []string{containerfile})
	if err != nil {
		return fmt.Errorf("read the context's ignore file: %w", err)
	}
	matcher, err := patternmatcher.New(ignored)
	if err != nil {
		return fmt.Errorf("%w: ignore file: %w", ErrContainerfile, err)
	}
	dirs := map[string]bool{}
	err = filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err := errors.Join(err, ctx.Err()); err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if name != "." {
			skip, err := matcher.MatchesOrParentMatches(name)
			if err != nil {
				return err
			}
			if skip && d.IsDir() && !matcher.Exclusions() {
				return fs.SkipDir
			}
			if skip {
				return nil
			}
		}
		if d.IsDir() {
			info, err := d.Info()
			if err != nil {
				return err
			}
			if os.SameFile(info, own) {
				return fs.SkipDir
			}
			dirs[name] = true
		}
		return copyEntry(path, filepath.Join(to, name), d, epoch)
	})
	if err != nil {
		return fmt.Errorf("read the context: %w", err)
	}
	// A folder's time is set when all is in it.
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(dirs))) {
		if err := os.Chtimes(filepath.Join(to, name), timeOf(epoch), timeOf(epoch)); err != nil {
			return err
		}
	}
	return nil
}

func copyEntry(from, to string, d fs.DirEntry, epoch int64) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	switch d.Type() {
	case fs.ModeDir:
		return errors.Join(os.MkdirAll(to, 0o755), os.Chmod(to, 0o755))
	case fs.ModeSymlink:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	case 0:
		return copyFile(from, to, epoch)
	}
	return nil // a socket or a pipe holds nothing that could be copied
}

func copyFile(from, to string, epoch int64) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	mode := fs.FileMode(0o644)
	if info.Mode()&0o100 != 0 {
		mode = 0o755
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Chmod(mode), out.Close(), os.Chtimes(to, timeOf(epoch), timeOf(epoch)))
}

// buildLog passes on lines and keeps the last of them.
type buildLog struct {
	tell func(line string)

	mu    sync.Mutex
	rest  []byte
	lines []string
}

// keptLines is how many lines of a build's output an error shows.
const keptLines = 12

func (l *buildLog) Write(text []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = append(l.rest, text...)
	for {
		line, rest, ok := bytes.Cut(l.rest, []byte("\n"))
		if !ok {
			return len(text), nil
		}
		l.rest = rest
		if s := strings.TrimRight(string(line), "\r "); s != "" {
			l.tell(s)
			l.lines = append(l.lines, s)
			l.lines = l.lines[max(0, len(l.lines)-keptLines):]
		}
	}
}

func (l *buildLog) last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(append(l.lines, strings.TrimSpace(string(l.rest))), "\n")
}

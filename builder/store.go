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
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/containers/buildah"
	"go.podman.io/storage"
	"go.podman.io/storage/pkg/reexec"
	"go.podman.io/storage/pkg/unshare"

	"bareboat/internal/oci"
)

// The names under which this program calls itself to work on the store: first
// by us, then, inside the user namespace, by package unshare.
const (
	storeProcess       = "bareboat-store"
	storeProcessInside = storeProcess + "-in-a-user-namespace"
)

// Init must be the first call of main, and of a TestMain that builds. In the
// processes that this program starts of itself for the store it does their work
// and tells the caller, by true, to return at once.
func Init() bool {
	reexec.Register(storeProcess, storeMain)
	reexec.Register(storeProcessInside, storeMain)
	return buildah.InitReexec()
}

// ErrNoSubIDs says that the user has no range of subordinate ids.
var ErrNoSubIDs = errors.New("no subordinate ids")

// storeCall is what the store's process reads from its standard input.
type storeCall struct {
	Op            string
	Root, RunRoot string
	Request       json.RawMessage
}

// storeAnswer is what it writes to its standard output.
type storeAnswer struct {
	Err    string
	Result json.RawMessage
}

// inStore runs an operation in a process of its own, inside a user namespace
// where the user is not root. Ending ctx ends the process; it dies with this
// one in any case.
func (b *Builder) inStore(ctx context.Context, op string, request, result any) error {
	return b.inStoreTelling(ctx, io.Discard, op, request, result)
}

// inStoreTelling is inStore, and passes on what the process says meanwhile.
func (b *Builder) inStoreTelling(ctx context.Context, log io.Writer, op string, request, result any) error {
	if err := checkSubIDs(); err != nil {
		return err
	}
	text, err := json.Marshal(request)
	if err != nil {
		return err
	}
	call, err := json.Marshal(storeCall{Op: op, Root: b.Root, RunRoot: b.RunRoot, Request: text})
	if err != nil {
		return err
	}
	cmd := reexec.CommandContext(ctx, storeProcess)
	cmd.Env = append(os.Environ(), b.driver(ctx)...)
	cmd.Stdin = bytes.NewReader(call)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, io.MultiWriter(&stderr, log)
	// A terminal's Ctrl-C reaches the whole group: it is this process that
	// decides, so that an image is either there or not.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	runErr := cmd.Run()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var answer storeAnswer
	if err := json.Unmarshal(stdout.Bytes(), &answer); err != nil {
		if runErr != nil {
			err = runErr
		}
		return fmt.Errorf("work on the image store: %w: %s", err, oneLine(stderr.String()))
	}
	if answer.Err != "" {
		return errors.New(answer.Err)
	}
	return json.Unmarshal(answer.Result, result)
}

// driver names the storage driver that Podman uses for the user's own store,
// where no file says which: on a new store Podman and this library, of other
// versions, may choose differently, and would then not see each other's images.
func (b *Builder) driver(ctx context.Context) []string {
	const variable = "STORAGE_DRIVER"
	if b.Root != "" || os.Getenv(variable) != "" || configured() {
		return nil
	}
	out, err := exec.CommandContext(ctx, "podman", "info", "--format", "{{.Store.GraphDriverName}}").Output()
	name := strings.TrimSpace(string(out))
	if err != nil || name == "" {
		return nil // without Podman there is nobody to agree with
	}
	return []string{variable + "=" + name}
}

// configured tells whether a storage.conf says how the store is kept.
func configured() bool {
	conf, err := os.UserConfigDir()
	for _, path := range []string{
		os.Getenv("CONTAINERS_STORAGE_CONF"), filepath.Join(conf, "containers", "storage.conf"),
		"/etc/containers/storage.conf", "/usr/share/containers/storage.conf",
	} {
		if _, statErr := os.Stat(path); err == nil && path != "" && statErr == nil {
			return true
		}
	}
	return false
}

// checkSubIDs says plainly what newuidmap would say in riddles.
func checkSubIDs() error {
	if os.Geteuid() == 0 || !unshare.IsRootless() {
		return nil
	}
	me, err := user.Current()
	if err != nil {
		return fmt.Errorf("find out who runs this: %w", err)
	}
	uids, gids, err := unshare.GetSubIDMappings(me.Username, me.Username)
	if err != nil || len(uids) == 0 || len(gids) == 0 {
		return fmt.Errorf("%w for user %s in /etc/subuid and /etc/subgid", ErrNoSubIDs, me.Username)
	}
	return nil
}

// storeMain is the store's process.
func storeMain() {
	unshare.MaybeReexecUsingUserNamespace(false)
	ctx, stop := withSignals()
	defer stop()
	result, err := serveStore(ctx, os.Stdin)
	var answer storeAnswer
	if err == nil {
		answer.Result, err = json.Marshal(result)
	}
	if err != nil {
		answer.Err = err.Error()
	}
	if err := json.NewEncoder(os.Stdout).Encode(answer); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serveStore(ctx context.Context, in io.Reader) (any, error) {
	var call storeCall
	if err := json.NewDecoder(in).Decode(&call); err != nil {
		return nil, fmt.Errorf("read the call: %w", err)
	}
	store, err := openStore(call.Root, call.RunRoot)
	if err != nil {
		return nil, fmt.Errorf("open the image store: %w", err)
	}
	defer func() { _, _ = store.Shutdown(false) }()
	switch call.Op {
	case "commit":
		return decoded(call.Request, func(r commitRequest) (commitResult, error) { return commit(ctx, store, r) })
	case "add":
		return decoded(call.Request, func(r addRequest) (string, error) { return add(ctx, store, r) })
	case "list":
		return list(ctx, store)
	case "inspect":
		return decoded(call.Request, func(name string) (*Stored, error) { return inspect(ctx, store, name) })
	}
	return serveLocal(ctx, store, call)
}

// decoded calls do with the request as what it is.
func decoded[Request, Result any](text json.RawMessage, do func(Request) (Result, error)) (any, error) {
	var r Request
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, err
	}
	return do(r)
}

func openStore(root, runRoot string) (storage.Store, error) {
	opts, err := storage.DefaultStoreOptions()
	if err != nil {
		return nil, err
	}
	if root != "" {
		opts.GraphRoot = root
	}
	if runRoot != "" {
		opts.RunRoot = runRoot
	}
	return storage.GetStore(opts)
}

// Add puts a built image into the local store under its name, where Podman and
// Buildah see it too, and gives its ID.
func (b *Builder) Add(ctx context.Context, img oci.Image) (id string, err error) {
	err = b.inStore(ctx, "add", addRequest{Layout: img.Layout, Name: img.Name.String()}, &id)
	if err != nil {
		return "", fmt.Errorf("put %s into the store: %w", img.Name, err)
	}
	b.notify(Event{Image: img.Name.Name(), Step: "store", Note: id[:min(12, len(id))]})
	return id, nil
}

// Stored is an image of the local store.
type Stored struct {
	ID      string     `json:"id"`
	Names   []string   `json:"names"`
	Digest  oci.Digest `json:"digest"`
	Created time.Time  `json:"created"`
	Size    int64      `json:"size"` // bytes, unpacked
	// Intermediate tells that it has no name and others are built on it.
	Intermediate bool             `json:"intermediate,omitempty"`
	Config       *oci.ImageConfig `json:"config,omitempty"`
	Layers       []oci.Descriptor `json:"layers,omitempty"`
}

// Images lists the local store, newest first. It needs no service.
func (b *Builder) Images(ctx context.Context) ([]Stored, error) {
	var images []Stored
	if err := b.inStore(ctx, "list", struct{}{}, &images); err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	return images, nil
}

// ErrNoImage says that the local store has no image of that name.
var ErrNoImage = errors.New("no such image")

// Inspect gives an image of the local store with config and layers, by name,
// digest or ID.
func (b *Builder) Inspect(ctx context.Context, name string) (*Stored, error) {
	var s *Stored
	if err := b.inStore(ctx, "inspect", name, &s); err != nil {
		return nil, fmt.Errorf("inspect %s: %w", name, err)
	}
	if s == nil {
		return nil, fmt.Errorf("inspect %s: %w", name, ErrNoImage)
	}
	return s, nil
}

// RemoveStore removes a folder that has a store in it, also what the user
// namespace has made unreadable, such as overlay's work folders.
func RemoveStore(dir string) error {
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, _ error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(p, 0o700) // what cannot be opened cannot be removed, which is told below
		}
		return nil
	})
	return os.RemoveAll(dir)
}

package main_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"bareboat/registry/embedded"
)

// hanging is a server that takes requests and never answers those that match.
type hanging struct {
	*httptest.Server
	hit chan struct{} // gets something when such a request has come
	end chan struct{} // closed when the test is over
}

func newHanging(t *testing.T, matches func(*http.Request) bool, others http.Handler) *hanging {
	t.Helper()
	h := &hanging{hit: make(chan struct{}, 100), end: make(chan struct{})}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !matches(r) {
			others.ServeHTTP(w, r)
			return
		}
		h.hit <- struct{}{}
		select {
		case <-r.Context().Done():
		case <-h.end:
		}
	}))
	t.Cleanup(func() {
		close(h.end)
		h.Close()
	})
	return h
}

func all(*http.Request) bool { return true }

var mirrors = []string{"BAREBOAT_DEBIAN_MIRROR=http://%s", "BAREBOAT_DEBIAN_SECURITY_MIRROR=http://%s"}

// with puts an address where %s stands.
func with(address string, texts []string) []string {
	var out []string
	for _, t := range texts {
		out = append(out, strings.ReplaceAll(t, "%s", address))
	}
	return out
}

func upload(r *http.Request) bool { return r.Method == http.MethodPatch || r.Method == http.MethodPut }

// interruption is a project and a command in it that hangs until it is told to
// end.
type interruption struct {
	t    *testing.T
	home string
	dir  string
	env  []string
}

func newInterruption(t *testing.T, recipe string, env ...string) *interruption {
	t.Helper()
	i := &interruption{t: t, home: t.TempDir(), dir: t.TempDir()}
	if err := os.CopyFS(i.dir, os.DirFS(mustAbs("../../docs/examples/hello"))); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"compose.yaml": "services: {hello: {image: localhost/hello, x-bareboat: {recipe: image.yaml}}}\n",
		"image.yaml":   "layers:\n  - " + recipe + "\n",
	} {
		if err := os.WriteFile(filepath.Join(i.dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	i.env = append(append(os.Environ(), goCaches(t)...), "XDG_CACHE_HOME="+i.home, "XDG_DATA_HOME="+i.home)
	i.env = append(i.env, env...)
	t.Cleanup(func() { makeRemovable(i.home) })
	return i
}

func (i *interruption) command(ctx context.Context, args ...string) *exec.Cmd {
	store := filepath.Join(i.home, "store")
	cmd := exec.CommandContext(ctx, bareboat(i.t), append([]string{"--root=" + store, "--runroot=" + store + "-run"}, args...)...)
	cmd.Dir, cmd.Env, cmd.WaitDelay = i.dir, i.env, 10*time.Second
	return cmd
}

// files are the paths in a folder, with the sizes of files.
func (i *interruption) files(dir string) string {
	i.t.Helper()
	var out strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintln(&out, path, info.Size())
		return nil
	})
	if err != nil {
		i.t.Fatal(err)
	}
	return out.String()
}

// unfinished are the files of the cache that a command was at work on.
func (i *interruption) unfinished() []string {
	i.t.Helper()
	var out []string
	for line := range strings.Lines(i.files(filepath.Join(i.home, "bareboat"))) {
		path := strings.Fields(line)[0]
		download := strings.Contains(path, "/part-") && !strings.Contains(path, "/records/")
		if download || strings.Contains(path, "/work/") || strings.Contains(path, "/.new-") {
			out = append(out, path)
		}
	}
	return out
}

// Whatever is under way, Ctrl-C and SIGTERM end it: one line, exit code 1, and
// neither the project nor the cache holds anything half-written.
func TestInterruptedAnywhere(t *testing.T) {
	store, err := embedded.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	for name, c := range map[string]struct {
		recipe string
		hangs  func(*http.Request) bool
		env    []string // %s is the server's address
		args   []string
	}{
		"build asking a mirror": {"certificates: {}", all, mirrors, []string{"build"}},
		"lock asking a mirror":  {"certificates: {}", all, mirrors, []string{"lock"}},
		"build fetching a module": {"go: {package: example.invalid/ahoy@v1.0.0}", all,
			[]string{"GOPROXY=http://%s", "GONOSUMDB=*", "GOFLAGS=-modcacherw"}, []string{"build", "--metadata-file", "made.json"}},
		"push sending": {"go: {package: .}", upload, nil, []string{"push", "--registry", "%s"}},
	} {
		for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
			t.Run(name+" "+signal.String(), func(t *testing.T) {
				server := newHanging(t, c.hangs, store)
				address := strings.TrimPrefix(server.URL, "http://")
				i := newInterruption(t, c.recipe, with(address, c.env)...)
				before := i.files(i.dir)
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				cmd := i.command(ctx, with(address, c.args)...)
				var stdout, stderr bytes.Buffer
				cmd.Stdout, cmd.Stderr = &stdout, &stderr
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				ended := make(chan error, 1)
				go func() { ended <- cmd.Wait() }()
				select {
				case <-server.hit:
				case err := <-ended:
					t.Fatalf("ended before it was interrupted: %v\n%s", err, stderr.String())
				}
				if err := cmd.Process.Signal(signal); err != nil {
					t.Fatal(err)
				}
				if err := <-ended; code(err) != 1 {
					t.Errorf("ends with %v", err)
				}
				if !strings.HasSuffix("\n"+stderr.String(), "\nerror: interrupted\n") || stdout.Len() > 0 {
					t.Errorf("prints %q, tells %q", stdout.String(), stderr.String())
				}
				if after := i.files(i.dir); after != before {
					t.Errorf("the project was\n%sand is\n%s", before, after)
				}
				if left := i.unfinished(); len(left) > 0 {
					t.Errorf("left behind: %q", left)
				}
			})
		}
	}
}

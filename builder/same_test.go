package builder_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"bareboat/builder"
	"bareboat/internal/oci"
	"bareboat/registry"
	"bareboat/registry/embedded"
)

// buildEnv makes this test program build, in a process of its own.
const buildEnv = "BAREBOAT_TEST_BUILD"

// buildCall is what that process is asked for.
type buildCall struct {
	Project, Cache, Store string
	Umask                 int
	Push                  string // also put it into the store, and push it here
}

// buildMain is that process: it prints the image's digest.
func buildMain(text string) int {
	var call buildCall
	if err := json.Unmarshal([]byte(text), &call); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	syscall.Umask(call.Umask)
	b := &builder.Builder{Cache: call.Cache, Root: filepath.Join(call.Store, "root"), RunRoot: filepath.Join(call.Store, "run")}
	r, err := builder.LoadRecipe(filepath.Join(call.Project, "image"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	img, err := b.Build(context.Background(), r, call.Project, helloName)
	if err == nil && call.Push != "" {
		_, err = b.Add(context.Background(), img)
		to, parseErr := oci.ParseReference(call.Push)
		if err = errors.Join(err, parseErr); err == nil {
			_, err = registry.New(registry.Options{}).Push(context.Background(), img.Layout, img.Digest, to, nil)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(img.Digest)
	return 0
}

func buildProcess(t *testing.T, call buildCall, env []string, before ...string) *exec.Cmd {
	t.Helper()
	text, err := json.Marshal(call)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	args := append(before, self)
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Env = append(append(os.Environ(), buildEnv+"="+string(text)), env...)
	cmd.Stderr = &bytes.Buffer{}
	return cmd
}

func git(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "git", append([]string{"-c", "user.name=x", "-c", "user.email=x@example.org", "-C", dir}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// One source gives one digest, whoever builds it, where and how: twenty builds,
// each with an empty cache and an empty store, that differ in user, umask,
// store driver, time zone, locale, place of the checkout, depth of the clone,
// Go's variables and parallelism. Some are of a commit that touches only docs.
func TestOneSourceOneDigestEverywhere(t *testing.T) {
	origin := project(t, merged(hello, map[string]string{"docs/index.md": "# Docs\n"}))
	git(t, origin, "init", "-q")
	git(t, origin, "add", "-A")
	git(t, origin, "commit", "-qm", "one")
	write(t, "# More docs\n", origin, "docs", "index.md")
	git(t, origin, "commit", "-qam", "two: docs alone")
	write(t, "# Even more docs\n", origin, "docs", "index.md")
	git(t, origin, "commit", "-qam", "three: docs alone")

	pick := func(i int, of ...string) string { return of[i%len(of)] }
	want := ""
	for i := range 20 {
		base := t.TempDir()
		t.Cleanup(func() { removeStore(t, base) })
		dir := filepath.Join(base, pick(i, "a", "a much longer/place with spaces", "ü"), "checkout")
		if i%2 == 0 {
			git(t, origin, "clone", "-q", "--depth=1", "file://"+origin, dir)
		} else {
			git(t, origin, "clone", "-q", origin, dir)
			git(t, dir, "checkout", "-q", pick(i, "HEAD", "HEAD~1", "HEAD~2"))
		}
		env := []string{
			"TZ=" + pick(i, "UTC", "Pacific/Apia", "America/St_Johns"),
			"LC_ALL=" + pick(i, "C", "C.UTF-8", "tr_TR.UTF-8"),
			"GOFLAGS=" + pick(i, "", "-buildvcs=true", "-ldflags=-w -p=1", "-mod=mod"),
			"GOAMD64=" + pick(i, "v1", "v3"),
			"CGO_ENABLED=" + pick(i, "0", "1"),
			"GOMAXPROCS=" + pick(i, "1", "2", "7"),
			"STORAGE_DRIVER=" + pick(i, "overlay", "vfs"),
			"SOURCE_DATE_EPOCH=", "HOSTNAME=" + pick(i, "one", "two"),
		}
		var before []string
		if i%5 == 4 {
			// Another user: root, in a user namespace of its own.
			before = []string{"podman", "unshare"}
		}
		cmd := buildProcess(t, buildCall{
			Project: dir, Cache: filepath.Join(base, "cache"), Store: filepath.Join(base, "store"),
			Umask: []int{0o022, 0o077, 0}[i%3],
		}, env, before...)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("build %d: %v: %s", i, err, cmd.Stderr)
		}
		got := strings.TrimSpace(string(out))
		if want == "" {
			want = got
		}
		if got != want || got == "" {
			t.Errorf("build %d gives %q, the first gave %q (%q)", i, got, want, env)
		}
	}
}

// A hundred builds and pushes that are killed at any moment leave a cache, a
// store and a registry with which the next is right.
func TestKilledBuilds(t *testing.T) {
	base := t.TempDir()
	remote, err := embedded.Open(filepath.Join(base, "registry"))
	if err != nil {
		t.Fatal(err)
	}
	defer remote.Close()
	server := httptest.NewServer(remote)
	defer server.Close()
	t.Cleanup(func() { removeStore(t, base) })
	dir := project(t, hello)
	want := build(t, newBuilder(t), dir).Digest
	call := buildCall{Project: dir, Cache: filepath.Join(base, "cache"), Store: filepath.Join(base, "store"), Umask: 0o022, Push: strings.TrimPrefix(server.URL, "http://") + "/team/hello:1"}
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	whole := 500 * time.Millisecond // what a build takes; measured below
	for i := range 100 {
		if i%10 == 0 { // begin with nothing
			if err := os.RemoveAll(call.Cache); err != nil {
				t.Fatal(err)
			}
		}
		write(t, fmt.Sprintf("<p>%d</p>\n", i), dir, "www", "index.html") // there is always something to make
		cmd := buildProcess(t, call, nil)
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		begun := time.Now()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		kill := time.AfterFunc(time.Duration(random.Int64N(int64(whole))), func() {
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		})
		if err := cmd.Wait(); err == nil {
			whole = time.Since(begun)
		} else if strings.Contains(fmt.Sprint(cmd.Stderr), "error") {
			t.Fatalf("seed %d, build %d: %v: %s", seed, i, err, cmd.Stderr)
		}
		kill.Stop()
	}
	write(t, hello["www/index.html"], dir, "www", "index.html")
	cmd := buildProcess(t, call, nil)
	out, err := cmd.Output()
	if err != nil || strings.TrimSpace(string(out)) != want.String() {
		t.Fatalf("seed %d: %s, %v; want %s: %s", seed, out, err, want, cmd.Stderr)
	}
	b := &builder.Builder{Cache: call.Cache, Root: filepath.Join(call.Store, "root"), RunRoot: filepath.Join(call.Store, "run")}
	if !b.Stores(helloName, oci.Digest(want)) {
		t.Errorf("seed %d: the store does not have it", seed)
	}
	files(t, build(t, b, dir))
	to, err := oci.ParseReference(call.Push)
	if err != nil {
		t.Fatal(err)
	}
	pulled := oci.Image{Layout: filepath.Join(base, "pulled"), Digest: want}
	if got, err := registry.New(registry.Options{}).Pull(t.Context(), to, pulled.Layout, nil); err != nil || got.Digest != want {
		t.Errorf("seed %d: the registry has %s, %v", seed, got.Digest, err)
	}
	files(t, pulled)
}

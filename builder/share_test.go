package builder_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"bareboat/builder"
)

// A user whose store no file describes: what is built is what Podman sees,
// whichever driver its version chooses.
func TestStoreIsPodmans(t *testing.T) {
	caches := goCaches(t)
	home, err := os.MkdirTemp("", "home") // not below t.TempDir: its sockets' names would be too long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeStore(t, home) })
	run := filepath.Join(home, "run")
	if err := os.Mkdir(run, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", home)
	t.Setenv("XDG_RUNTIME_DIR", run)
	t.Setenv("XDG_DATA_HOME", "")
	t.Setenv("XDG_CONFIG_HOME", "")
	for name, value := range caches {
		t.Setenv(name, value)
	}
	podman := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("podman", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("podman %s: %v: %s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	t.Cleanup(func() {
		podman("rmi", "--all", "--force")
		endPause(t, filepath.Join(run, "libpod", "tmp", "pause.pid"))
	})

	b := &builder.Builder{Cache: filepath.Join(home, "cache")}
	img := build(t, b, project(t, hello))
	id, err := b.Add(t.Context(), img)
	if err != nil {
		t.Fatal(err)
	}
	if got := podman("image", "ls", "--no-trunc", "--format", "{{.Repository}} {{.ID}}"); !strings.Contains(got, "localhost/hello sha256:"+id) {
		t.Errorf("podman sees %q, not %s", got, id)
	}
}

// endPause ends the process that Podman leaves running for this home.
func endPause(t *testing.T, pidFile string) {
	t.Helper()
	text, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid < 2 {
		t.Fatalf("%s holds %q", pidFile, text)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
}

// goCaches are those of the go command, which a new home would lose.
func goCaches(t *testing.T) map[string]string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "env", "GOCACHE", "GOMODCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	dirs := strings.Split(strings.TrimSpace(string(out)), "\n")
	return map[string]string{"GOCACHE": dirs[0], "GOMODCACHE": dirs[1]}
}

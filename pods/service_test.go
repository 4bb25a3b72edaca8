package pods_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"bareboat/pods"
)

// runHelper is the main of processes that tests start.
func runHelper(name string) int {
	helpers := map[string]func() error{"exec": helpExec, "connect": helpConnect}
	if err := helpers[name](); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// podman runs the podman command, to do what this package does not.
func podman(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "podman", args...).CombinedOutput(); err != nil {
		t.Fatalf("podman %v: %v: %s", args, err, out)
	}
}

// newUser gives the environment of a user who never ran Podman and has no
// service: it has to make its namespaces and store first.
func newUser(t *testing.T) []string {
	t.Helper()
	home, err := os.MkdirTemp("", "home")
	if err != nil {
		t.Fatal(err)
	}
	run := filepath.Join(home, "run")
	conf := filepath.Join(home, ".config", "containers")
	for _, dir := range []string{run, conf} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(conf, "storage.conf"), []byte("[storage]\ndriver = \"overlay\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// Podman leaves a process that keeps the user's namespaces.
		if text, err := os.ReadFile(filepath.Join(run, "libpod", "tmp", "pause.pid")); err == nil {
			if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
				syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		if out, err := exec.Command("podman", "unshare", "rm", "-rf", home).CombinedOutput(); err != nil {
			t.Errorf("remove %s: %v: %s", home, err, out)
		}
	})
	return []string{"HOME=" + home, "XDG_RUNTIME_DIR=" + run, "CONTAINER_HOST="}
}

// helpConnect connects, tells where, and closes when its input ends.
func helpConnect() error {
	ctx := context.Background()
	p, err := pods.Connect(ctx, "")
	if err != nil {
		return err
	}
	version, err := p.Version(ctx)
	if err != nil {
		return err
	}
	fmt.Println(version, strings.TrimPrefix(p.Host(), "unix://"))
	bufio.NewReader(os.Stdin).ReadString('\n')
	return p.Close()
}

// connected is a process that started a service.
type connected struct {
	*exec.Cmd
	socket string
	stdin  interface{ Close() error }
}

func connectAs(t *testing.T, env []string) connected {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), env...), "BAREBOAT_PODS_HELPER=connect")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		cmd.Wait()
		t.Fatalf("%v: %s\n%s", err, stderr.String(), hint)
	}
	_, socket, _ := strings.Cut(strings.TrimSpace(line), " ")
	if !strings.Contains(socket, "bareboat-podman-") {
		t.Fatalf("connected to %q", socket)
	}
	if dir, err := os.Stat(filepath.Dir(socket)); err != nil || dir.Mode().Perm() != 0o700 {
		t.Fatalf("the socket's folder: %v, %v", dir, err)
	}
	if len(processes(t, socket)) == 0 {
		t.Fatal("no process serves the socket")
	}
	return connected{Cmd: cmd, socket: socket, stdin: stdin}
}

// processes lists those that have the text in their arguments.
func processes(t *testing.T, text string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, f := range files {
		args, err := os.ReadFile(f)
		if err == nil && bytes.Contains(args, []byte(text)) {
			found = append(found, filepath.Base(filepath.Dir(f)))
		}
	}
	return found
}

func TestServiceEndsWithClose(t *testing.T) {
	t.Parallel()
	use(t)
	c := connectAs(t, newUser(t))
	c.stdin.Close()
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
	if left := processes(t, c.socket); len(left) > 0 {
		t.Errorf("processes are left: %v", left)
	}
	if _, err := os.Stat(filepath.Dir(c.socket)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder is left: %v", err)
	}
}

func TestServiceEndsWithAKilledProcess(t *testing.T) {
	t.Parallel()
	use(t)
	env := newUser(t)
	for range 2 { // the second time Podman joins namespaces instead of making them
		c := connectAs(t, env)
		if err := c.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		c.Wait()
		until(t, "the service's end", func() bool { return len(processes(t, c.socket)) == 0 })
	}
}

func TestServiceRemovesWhatKilledProcessesLeft(t *testing.T) {
	t.Parallel()
	use(t)
	env := newUser(t)
	run := strings.TrimPrefix(env[1], "XDG_RUNTIME_DIR=")
	stale, young := filepath.Join(run, "bareboat-podman-1"), filepath.Join(run, "bareboat-podman-2")
	for _, dir := range []string{stale, young} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	hourAgo := time.Now().Add(-time.Hour)
	first := connectAs(t, env)
	for _, dir := range []string{stale, filepath.Dir(first.socket)} {
		if err := os.Chtimes(dir, hourAgo, hourAgo); err != nil {
			t.Fatal(err)
		}
	}
	second := connectAs(t, env)
	for dir, want := range map[string]bool{stale: false, young: true, filepath.Dir(first.socket): true} {
		if _, err := os.Stat(dir); (err == nil) != want {
			t.Errorf("%s: there should be %t: %v", dir, want, err)
		}
	}
	for _, c := range []connected{first, second} {
		c.stdin.Close()
		if err := c.Wait(); err != nil {
			t.Error(err)
		}
	}
}

func TestServiceOutlivesAnInterruptOfTheTerminal(t *testing.T) {
	t.Parallel()
	use(t)
	c := connectAs(t, newUser(t))
	for _, pid := range processes(t, c.socket) {
		n, err := strconv.Atoi(pid)
		if err != nil {
			t.Fatal(err)
		}
		group, err := syscall.Getpgid(n)
		if err != nil {
			t.Fatal(err)
		}
		if group == syscall.Getpgrp() {
			t.Errorf("process %s is in the group that an interrupt goes to", pid)
		}
	}
	c.stdin.Close()
	if err := c.Wait(); err != nil {
		t.Fatal(err)
	}
}

func TestPodmanMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	t.Setenv("CONTAINER_HOST", "")
	_, err := pods.Connect(t.Context(), "")
	var hinted *pods.HintError
	if !errors.Is(err, pods.ErrNoPodman) || !errors.As(err, &hinted) || !strings.Contains(hinted.Hint, "apt-get install podman") {
		t.Errorf("error is %v", err)
	}
	left, err := os.ReadDir(os.Getenv("XDG_RUNTIME_DIR"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestServiceThatCannotStart(t *testing.T) {
	bin := t.TempDir()
	script := "#!/bin/sh\necho 'Error: cannot find mappings for user' >&2\nexit 125\n"
	if err := os.WriteFile(filepath.Join(bin, "podman"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	t.Setenv("XDG_RUNTIME_DIR", t.TempDir())
	t.Setenv("CONTAINER_HOST", "")
	_, err := pods.Connect(t.Context(), "")
	var hinted *pods.HintError
	if !errors.As(err, &hinted) || !strings.Contains(err.Error(), "cannot find mappings for user") || strings.Contains(err.Error(), "\n") {
		t.Errorf("error is %v", err)
	}
	left, err := os.ReadDir(os.Getenv("XDG_RUNTIME_DIR"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestNothingListensAtTheHost(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "none.sock")
	_, err := pods.Connect(t.Context(), "unix://"+socket)
	var hinted *pods.HintError
	if !errors.As(err, &hinted) || !strings.Contains(err.Error(), socket) {
		t.Errorf("error is %v", err)
	}
}

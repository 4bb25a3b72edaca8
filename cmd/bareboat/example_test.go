package main_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// The README's program of one's own, and what can befall its releases.

// example is a copy of docs/examples/hello that a test may change.
type example struct {
	*deployment
	dir string
}

func newExample(t *testing.T) *example {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(mustAbs("../../docs/examples/hello"))); err != nil {
		t.Fatal(err)
	}
	return &example{newDeployment(t, filepath.Join(dir, "compose.yaml")), dir}
}

// change replaces a part of the program.
func (e *example) change(old, new string) {
	e.t.Helper()
	path := filepath.Join(e.dir, "main.go")
	text, err := os.ReadFile(path)
	if err != nil {
		e.t.Fatal(err)
	}
	if !strings.Contains(string(text), old) {
		e.t.Fatalf("main.go has no %q", old)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(text), old, new, 1)), 0o644); err != nil {
		e.t.Fatal(err)
	}
}

func (e *example) says(want string) {
	e.t.Helper()
	resp, err := http.Get(e.url("/"))
	if err != nil {
		e.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || string(body) != want+"\n" {
		e.t.Errorf("the site says %q (%s), %v; want %q", body, resp.Status, err, want)
	}
}

// pods are the names of the project's pods that run. Those of earlier releases are
// kept, stopped.
func (e *example) pods() string {
	e.t.Helper()
	return podman(e.t, "pod", "ps", "--filter", "label=bareboat.project="+e.name, "--filter", "status=running", "--sort", "name", "--format", "{{.Name}}")
}

func (e *example) hasPods(services ...string) {
	e.t.Helper()
	for i, s := range services {
		services[i] = e.name + "-" + s
	}
	if got, want := e.pods(), strings.Join(services, "\n"); got != want {
		e.t.Errorf("pods:\n%s\nwant\n%s", got, want)
	}
}

func TestExample(t *testing.T) {
	e := newExample(t)
	stdout, _ := e.run("up")
	if stdout != e.url("/")+"\n" {
		t.Fatalf("up prints %q", stdout)
	}
	e.says("Ahoy from release 1")

	// A change is a new release; the proxy stays.
	e.change(`"Ahoy"`, `"Hello"`)
	e.run("up")
	e.says("Hello from release 2")
	e.hasPods("hello-r2", "proxy-r1")

	// One that is never healthy: 5, the log's end is shown, the old one serves.
	e.change("return 0", "return 1")
	_, stderr, err := e.try("up")
	if code(err) != 5 || !strings.Contains(stderr, "is unhealthy; release 2 still serves") || !strings.Contains(stderr, "hint: ") {
		t.Errorf("an unhealthy release: %v, %s", err, stderr)
	}
	e.says("Hello from release 2")
	e.hasPods("hello-r2", "proxy-r1")

	// One that ends at once.
	e.change("func main() {", "func main() {\n\tlog.Fatal(\"no rum\")")
	_, stderr, err = e.try("up")
	if code(err) != 5 || !strings.Contains(stderr, "no rum") {
		t.Errorf("a release that ends at once: %v, %s", err, stderr)
	}
	e.says("Hello from release 2")
	e.hasPods("hello-r2", "proxy-r1")

	e.stopStartExec()
}

// Requests that are under way when a release takes over are finished by the one
// before it.
func TestExampleFinishesItsRequests(t *testing.T) {
	e := newExample(t)
	e.change("_ *http.Request) {", "r *http.Request) {\n\t\tif r.URL.Path == \"/slow\" {\n\t\t\ttime.Sleep(2 * time.Second)\n\t\t}")
	e.run("up")
	ctx, stop := context.WithCancel(t.Context())
	var people sync.WaitGroup
	for range 4 {
		people.Go(func() {
			for ctx.Err() == nil {
				resp, err := http.Get(e.url("/slow"))
				if err != nil {
					t.Error(err)
					return
				}
				resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					t.Error(resp.Status)
				}
			}
		})
	}
	e.change(`"Ahoy"`, `"Hello"`)
	e.run("up")
	stop()
	people.Wait()
	e.says("Hello from release 2")
}

// The edge's port is taken: said before anything is made.
func TestPortInUse(t *testing.T) {
	e := newExample(t)
	l, err := net.Listen("tcp", "127.0.0.1:"+e.port)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, stderr, err := e.try("up")
	if code(err) != 1 || !strings.Contains(stderr, "error: plan service proxy: port "+e.port+" is in use by another program\n  hint: ") {
		t.Errorf("%v, %s", err, stderr)
	}
	if left := e.pods(); left != "" {
		t.Errorf("left behind: %s", left)
	}
}

// stopStartExec tries the commands for what runs.
func (e *example) stopStartExec() {
	t := e.t
	t.Helper()
	e.run("stop", "hello")
	if resp, err := http.Get(e.url("/")); err != nil || resp.StatusCode != http.StatusBadGateway {
		t.Errorf("with hello stopped: %v, %v", resp, err)
	}
	e.run("start", "hello")
	e.says("Hello from release 2")
	if _, stderr, err := e.try("exec", "hello", "/usr/bin/hello", "health"); err != nil {
		t.Errorf("exec: %v, %s", err, stderr)
	}
	if _, _, err := e.try("exec", "-e", "HELLO_LISTEN=:1", "hello", "/usr/bin/hello", "health"); code(err) != 1 {
		t.Errorf("exec of a command that fails: %v", err)
	}
	ps, _ := e.run("ps")
	if !strings.Contains(ps, e.name+"-hello-r2") || strings.Count(ps, "running") != 2 {
		t.Errorf("ps prints %s", ps)
	}
	inspected, _ := e.run("inspect", "hello")
	if !strings.Contains(inspected, e.name+"-hello-r2-hello") {
		t.Errorf("inspect prints %s", inspected)
	}
}

func code(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	return 0
}

// awaitStep starts `up` and returns when it tells of a step. finish waits for
// the end and gives the rest of what it tells.
func (e *example) awaitStep(step string) (up *os.Process, finish func() (string, error)) {
	e.t.Helper()
	cmd := e.command(context.Background(), "up")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		e.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		e.t.Fatal(err)
	}
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		if strings.Contains(lines.Text(), step) {
			return cmd.Process, func() (string, error) {
				var rest strings.Builder
				for lines.Scan() {
					rest.WriteString(lines.Text() + "\n")
				}
				return rest.String(), cmd.Wait()
			}
		}
	}
	e.t.Fatalf("up ended before it came to %q", step)
	return nil, nil
}

// The new release does not become healthy soon; meanwhile `up` is interrupted,
// a second one tried, and one killed.
func TestInterruptedRelease(t *testing.T) {
	e := newExample(t)
	e.run("up")
	e.change("return 0", `if os.Getenv("BAREBOAT_RELEASE") != "1" {
		return 1
	}
	return 0`)
	compose := filepath.Join(e.dir, "compose.yaml")
	text, err := os.ReadFile(compose)
	if err != nil {
		t.Fatal(err)
	}
	slow := strings.Replace(string(text), "retries: 5", "retries: 500", 1)
	if err := os.WriteFile(compose, []byte(slow), 0o644); err != nil {
		t.Fatal(err)
	}
	const waiting = "start "

	up, finish := e.awaitStep(waiting)
	_, stderr, err := e.try("up")
	if code(err) != 6 || !strings.Contains(stderr, "bareboat up runs there (process") {
		t.Errorf("a second up: %v, %s", err, stderr)
	}
	if err := up.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	told, err := finish()
	if code(err) == 0 || !strings.Contains(told, "error: interrupted: release 1 of "+e.name+" still serves\n") {
		t.Errorf("an interrupted up: %v, %s", err, told)
	}
	e.says("Ahoy from release 1")
	e.hasPods("hello-r1", "proxy-r1")

	up, finish = e.awaitStep(waiting)
	if err := up.Kill(); err != nil {
		t.Fatal(err)
	}
	_, _ = finish()
	e.says("Ahoy from release 1")

	// The next one clears up.
	e.change(`!= "1"`, `== ""`)
	e.change(`"Ahoy"`, `"Hello"`)
	e.run("up")
	if got := e.pods(); strings.Count(got, "-hello-") != 1 {
		t.Errorf("pods:\n%s", got)
	}
	resp, err := http.Get(e.url("/"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, err := io.ReadAll(resp.Body); err != nil || !strings.HasPrefix(string(body), "Hello from release ") {
		t.Errorf("the site says %q, %v", body, err)
	}
}

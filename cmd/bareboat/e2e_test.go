package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The whole way, for real: the repository's own Compose file, rootless Podman,
// nginx, Chromium.

const patience = 60 * time.Second

// deployment is a Compose file, released under a name and at a port of its own.
type deployment struct {
	t    *testing.T
	file string
	name string
	port string
	env  []string
}

func newDeployment(t *testing.T, file string) *deployment {
	t.Helper()
	port := freePort(t)
	d := &deployment{t: t, file: file, name: "e2e" + port, port: port}
	d.env = append(os.Environ(), "PORT="+port)
	t.Cleanup(func() { d.run("down", "--volumes", "--yes") })
	return d
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// run calls bareboat and gives what it prints on standard output and error.
func (d *deployment) run(args ...string) (stdout, stderr string) {
	d.t.Helper()
	stdout, stderr, err := d.try(args...)
	if err != nil {
		d.t.Fatalf("bareboat %s: %v\n%s", strings.Join(args, " "), err, stderr)
	}
	return stdout, stderr
}

func (d *deployment) try(args ...string) (stdout, stderr string, err error) {
	// The context of a test ends before its clean-up begins.
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := d.command(ctx, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

func (d *deployment) command(ctx context.Context, args ...string) *exec.Cmd {
	args = append([]string{"-f", d.file, "-p", d.name}, args...)
	cmd := exec.CommandContext(ctx, bareboat(d.t), args...)
	cmd.Env = d.env
	return cmd
}

// bareboat is this test's own binary under the command's name, which TestMain
// takes for the command.
func bareboat(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("bareboat")
	if err == nil {
		return path
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path = filepath.Join(dir, "bareboat")
	if err := os.Symlink(self, path); err != nil {
		t.Fatal(err)
	}
	return path
}

func (d *deployment) url(path string) string { return "http://127.0.0.1:" + d.port + path }

func podman(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "podman", args...).Output()
	if err != nil {
		t.Fatalf("podman %s: %v", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out))
}

// killChat ends the chat's process as a crash would. `podman kill` would be
// taken for the user's wish that it stays down.
func (d *deployment) killChat(pod string) {
	d.t.Helper()
	container := pod + "-chat"
	pid := podman(d.t, "inspect", "--format", "{{.State.Pid}}", container)
	if n, err := strconv.Atoi(pid); err != nil || n < 2 {
		d.t.Fatalf("%s has process %q", container, pid)
	}
	podman(d.t, "unshare", "kill", "-9", pid)
}

func TestUpTalkAndDown(t *testing.T) {
	d := newDeployment(t, mustAbs("../../podman-compose.yml"))
	stdout, _ := d.run("up")
	if stdout != d.url("/")+"\n" {
		t.Fatalf("up prints %q", stdout)
	}
	d.checkPods()
	d.checkHeaders()

	browser := startBrowser(t)
	ann := open(t, browser, d.url("/r/harbour"), "Ann")
	bob := open(t, browser, d.url("/r/harbour"), "Bob")
	ann.say("Is anybody here?")
	bob.awaitText("Is anybody here?")
	bob.say("I am.")
	ann.awaitText("I am.")

	if err := bob.tab.Reload(); err != nil {
		t.Fatal(err)
	}
	bob.awaitTexts("Is anybody here?", "I am.")

	// Nothing changed: nothing is restarted.
	before := podman(t, "ps", "--filter", "name="+d.name, "--format", "{{.ID}}")
	stdout, stderr := d.run("up")
	if !strings.Contains(stderr, "nothing to do: release 1 is what is wanted") || stdout != d.url("/")+"\n" {
		t.Errorf("a second up prints %q and %q", stdout, stderr)
	}
	if after := podman(t, "ps", "--filter", "name="+d.name, "--format", "{{.ID}}"); after != before || before == "" {
		t.Errorf("a second up changed the containers:\n%s\n%s", before, after)
	}

	// The chat is killed while both write: nothing lost, nothing twice.
	want := []string{"Is anybody here?", "I am."}
	for i := range 6 {
		if i == 2 {
			d.killChat(d.name + "-chat-r1")
		}
		for _, p := range []*page{ann, bob} {
			text := fmt.Sprintf("%s says %d", p.name, i)
			p.say(text)
			want = append(want, text)
		}
	}
	ann.awaitCount(len(want))
	bob.awaitCount(len(want))
	got := ann.texts()
	if !slices.Equal(got, bob.texts()) {
		t.Errorf("the two differ:\n%q\n%q", got, bob.texts())
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}

	d.checkLogs()
	d.down(want)
}

// checkPods looks at the pods as their account sees them.
func (d *deployment) checkPods() {
	d.t.Helper()
	names := strings.Fields(podman(d.t, "pod", "ps", "--filter", "label=bareboat.project="+d.name, "--format", "{{.Name}} {{.Status}}"))
	slices.Sort(names)
	want := []string{"Running", "Running", d.name + "-chat-r1", d.name + "-proxy-r1"}
	if !slices.Equal(names, want) {
		d.t.Errorf("pods: %q, want %q", names, want)
	}
	for image, limit := range map[string]int{"chat": 25e6, "proxy": 60e6} {
		size, err := strconv.Atoi(podman(d.t, "image", "inspect", "--format", "{{.Size}}", "localhost/bareboat/"+image+":latest"))
		if err != nil || size > limit {
			d.t.Errorf("image %s has %d bytes, %v; at most %d", image, size, err, limit)
		}
	}
	// The chat has no network but a loopback of its own.
	var facts []struct {
		HostConfig struct {
			ReadonlyRootfs bool
			NetworkMode    string
		}
		EffectiveCaps []string
		Config        struct{ User string }
	}
	out := podman(d.t, "inspect", d.name+"-chat-r1-chat")
	if err := json.Unmarshal([]byte(out), &facts); err != nil || len(facts) != 1 {
		d.t.Fatalf("podman inspect: %v", err)
	}
	if f := facts[0]; !f.HostConfig.ReadonlyRootfs || len(f.EffectiveCaps) != 0 || f.Config.User != "65532:65532" {
		d.t.Errorf("the chat's container: %+v", f)
	}
}

func (d *deployment) checkHeaders() {
	d.t.Helper()
	resp, err := http.Get(d.url("/r/harbour"))
	if err != nil {
		d.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || !bytes.Contains(body, []byte("<title>Chat</title>")) {
		d.t.Errorf("GET /r/harbour: %s, %v", resp.Status, err)
	}
	if csp := resp.Header.Get("Content-Security-Policy"); strings.Contains(csp, "unsafe") || !strings.Contains(csp, "default-src 'none'") {
		d.t.Errorf("Content-Security-Policy: %q", csp)
	}
	if got := resp.Header.Get("X-Release"); got != "1" {
		d.t.Errorf("X-Release: %q", got)
	}
}

// checkLogs asks from another address of the loopback, and looks for it in the
// chat's own log: the edge must not stand in the client's place.
func (d *deployment) checkLogs() {
	d.t.Helper()
	const client = "127.0.0.9"
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(client)}}
	transport := &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}
	req, err := http.NewRequestWithContext(d.t.Context(), http.MethodGet, d.url("/ws"), nil)
	if err != nil {
		d.t.Fatal(err)
	}
	for k, v := range map[string]string{
		"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
		"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Protocol": "chat.v1",
		"Origin": strings.TrimSuffix(d.url(""), "/"), "X-Forwarded-For": "192.0.2.1", "X-Real-IP": "192.0.2.1",
	} {
		req.Header.Set(k, v)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		d.t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusSwitchingProtocols {
		d.t.Fatalf("WebSocket handshake through the edge: %s", resp.Status)
	}
	d.await("the client's address in the chat's log", func() bool {
		stdout, stderr := d.run("logs", "chat")
		return strings.Contains(stdout+stderr, client)
	})
	if stdout, stderr := d.run("logs", "--tail", "1", "proxy"); strings.Count(stdout+stderr, "\n") != 1 {
		d.t.Errorf("logs --tail 1 prints %q", stdout+stderr)
	}
}

func (d *deployment) await(what string, holds func() bool) {
	d.t.Helper()
	deadline := time.Now().Add(patience)
	for !holds() {
		if time.Now().After(deadline) {
			d.t.Fatalf("waited for %s", what)
		}
		time.Sleep(100 * time.Millisecond) // between two looks
	}
}

// down leaves the data; up finds it; down --volumes leaves nothing.
func (d *deployment) down(said []string) {
	t := d.t
	t.Helper()
	d.run("down")
	if left := podman(t, "pod", "ps", "--filter", "label=bareboat.project="+d.name, "--format", "{{.Name}}"); left != "" {
		t.Errorf("down leaves the pods %q", left)
	}
	if volumes := podman(t, "volume", "ls", "--filter", "label=bareboat.project="+d.name, "--format", "{{.Name}}"); !strings.Contains(volumes, d.name+"_data") {
		t.Errorf("down removes the data: volumes %q", volumes)
	}
	if _, stderr, err := d.try("down", "--volumes"); err == nil || !strings.Contains(stderr, "--yes") {
		t.Errorf("down --volumes does not ask: %v, %q", err, stderr)
	}

	d.run("up")
	again := open(t, startBrowser(t), d.url("/r/harbour"), "Cid")
	again.awaitCount(len(said))

	d.run("down", "--volumes", "--yes")
	for _, what := range []string{"pod", "volume", "network"} {
		args := []string{what, "ls", "--filter", "label=bareboat.project=" + d.name, "--format", "{{.Name}}"}
		if left := podman(t, args...); left != "" {
			t.Errorf("down --volumes leaves the %ss %q", what, left)
		}
	}
}

// The same file runs under podman-compose, with the images that bareboat built.
func TestPodmanCompose(t *testing.T) {
	d := newDeployment(t, mustAbs("../../podman-compose.yml"))
	d.run("build")
	compose := func(args ...string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, "podman-compose", append([]string{"-f", d.file, "-p", d.name}, args...)...)
		cmd.Env = d.env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("podman-compose %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	// podman-compose 1.0.3 leaves its networks behind; a later one may not.
	t.Cleanup(func() {
		for _, network := range []string{d.name + "_inside", d.name + "_outside"} {
			if exec.Command("podman", "network", "exists", network).Run() != nil {
				continue
			}
			if out, err := exec.Command("podman", "network", "rm", network).CombinedOutput(); err != nil {
				t.Errorf("remove %s: %v\n%s", network, err, out)
			}
		}
	})
	t.Cleanup(func() { compose("down", "-v") })
	compose("up", "-d")
	d.await("the chat behind podman-compose's proxy", func() bool {
		resp, err := http.Get(d.url("/r/harbour"))
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	b := startBrowser(t)
	ann, bob := open(t, b, d.url("/r/harbour"), "Ann"), open(t, b, d.url("/r/harbour"), "Bob")
	ann.say("Ahoy")
	bob.awaitText("Ahoy")
}

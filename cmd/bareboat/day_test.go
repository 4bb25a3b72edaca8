package main_test

import (
	"bufio"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// A day with the chat: hooks, secrets, what was released, what serves, a one-off, and
// a release by saving a file.
func TestADayWithAProject(t *testing.T) {
	c := newChanging(t)
	dir := t.TempDir()
	told := filepath.Join(dir, "told")
	text, err := os.ReadFile(c.override)
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, `
    secrets: [key]
    configs: [{source: greeting, target: /etc/greeting}]
  side:
    image: localhost/bareboat/side:latest
    network_mode: "service:chat"
    environment: {CHATD_LISTEN: "127.0.0.1:8099"}
    tmpfs: ["/data:mode=1777"]
    x-bareboat: {recipe: chat/image.yaml}
secrets: {key: {environment: KEY}}
configs: {greeting: {content: "ahoy"}}
x-bareboat:
  hooks:
    before_switch: echo "$$BAREBOAT_HOOK $$BAREBOAT_RELEASE from $${BAREBOAT_SERVING:-none}" >>`+told+`; test -z "$$REFUSE"
    after_release: echo "$$BAREBOAT_HOOK $$BAREBOAT_RELEASE at $$BAREBOAT_URL" >>`+told+`
    on_failure: echo "$$BAREBOAT_HOOK $$BAREBOAT_ERROR" >>`+told+`
`...)
	if err := os.WriteFile(c.override, text, 0o600); err != nil {
		t.Fatal(err)
	}
	const secret = "no-name-tells-this"
	env := []string{"KEY=" + secret}
	c.must(c.release(env, "up"))
	c.must(c.release(env, "deploy"))
	out, err := c.release(append(env, "REFUSE=1"), "deploy")
	if exitCode(err) != 5 || !strings.Contains(out, "hook before_switch: exit status 1; release 2 still serves") {
		t.Errorf("a hook that fails: exit code %d\n%s", exitCode(err), out)
	}
	if out := c.must(c.same(env, "--log", "json", "rollback")); !strings.Contains(out, `"step":"switch to release 1","state":"done"`) {
		t.Errorf("the log says\n%s", out)
	}
	said, err := os.ReadFile(told)
	want := []string{
		"before_switch 1 from none", "after_release 1 at " + c.url("/"), "before_switch 2 from 1", "after_release 2 at " + c.url("/"),
		"before_switch 3 from 2", "on_failure release 3 of " + c.name + " failed: run hook before the switch: hook before_switch: exit status 1; release 2 still serves",
		"before_switch 1 from 2", "after_release 1 at " + c.url("/"),
	}
	if got := strings.Split(strings.TrimSpace(string(said)), "\n"); err != nil || !slices.Equal(got, want) {
		t.Errorf("the hooks were told\n%q\nwant\n%q", got, want)
	}

	var releases []struct {
		Release        int
		State, Command string
	}
	stdout, _ := c.run("releases", "--json")
	if err := json.Unmarshal([]byte(stdout), &releases); err != nil {
		t.Fatal(err)
	}
	var states []string
	for _, r := range releases {
		states = append(states, r.Command+" "+r.State)
	}
	if want := []string{"bareboat rollback serving", "bareboat deploy failed", "bareboat deploy kept", "bareboat up gone"}; !slices.Equal(states, want) {
		t.Errorf("releases are %q, want %q", states, want)
	}
	if out := c.must(c.same(append(env, "MARK=1"), "status")); !strings.Contains(out, "release 1") || !strings.Contains(out, "answers") {
		t.Errorf("status prints\n%s", out)
	}

	stdout, _ = c.run("ps")
	everything, _ := c.run("ps", "--all")
	if strings.Contains(stdout, "-r2") || strings.Count(stdout, "\n") != 3 || !strings.Contains(strings.Join(strings.Fields(everything), " "), c.name+"-chat-r2 kept") {
		t.Errorf("ps prints\n%s\nand with --all\n%s", stdout, everything)
	}

	out, err = c.same(env, "run", "chat", "version")
	if err != nil || !strings.HasPrefix(out, "chatd ") {
		t.Errorf("run: %v\n%s", err, out)
	}
	if out, err := c.same(env, "run", "chat", "nonsense"); exitCode(err) != 2 {
		t.Errorf("run of nonsense: exit code %d\n%s", exitCode(err), out)
	}
	if left := podman(t, "pod", "ps", "--filter", "label=bareboat.project="+c.name, "--format", "{{.Name}}"); strings.Contains(left, "-run-") {
		t.Errorf("a one-off is left: %s", left)
	}
	c.run("restart", "chat")
	c.await("the chat after its restart", func() bool {
		out, err := c.same(append(env, "MARK=1"), "status")
		return err == nil && strings.Contains(out, "answers")
	})
	if out, _ := c.run("top", "chat"); !strings.Contains(out, "/usr/bin/chatd") {
		t.Errorf("top prints\n%s", out)
	}
	if out, _ := c.run("events", "--since", "5m", "--follow=false"); !strings.Contains(out, "container start "+c.name+"-chat-r1-chat") {
		t.Errorf("events prints\n%s", out)
	}

	if state := podman(t, "inspect", "--format", "{{.State.Status}}", c.name+"-chat-r1-side"); state != "running" {
		t.Errorf("the sidecar in the chat's pod is %s", state)
	}

	// What is secret is in a file of the container, and nowhere to be read.
	pid := podman(t, "inspect", "--format", "{{.State.Pid}}", c.name+"-chat-r1-chat")
	for file, want := range map[string]string{"run/secrets/key": secret, "etc/greeting": "ahoy"} {
		if got := podman(t, "unshare", "cat", "/proc/"+pid+"/root/"+file); got != want {
			t.Errorf("%s holds %q", file, got)
		}
	}
	state := filepath.Join(dataHome(t), "bareboat", "projects", c.name)
	for _, name := range []string{"releases.json", "journal.jsonl"} {
		if text, err := os.ReadFile(filepath.Join(state, name)); err != nil || strings.Contains(string(text), secret) {
			t.Errorf("%s: %v, or the secret is in it", name, err)
		}
	}
	if all := podman(t, "inspect", c.name+"-chat-r1-chat") + podman(t, "pod", "inspect", c.name+"-chat-r1") + podman(t, "secret", "ls"); strings.Contains(all, secret) {
		t.Error("Podman shows the secret")
	}
}

// A file that is saved is released.
func TestUpWatch(t *testing.T) {
	e := newExample(t)
	cmd := e.command(t.Context(), "up", "--watch")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := follow(stderr)
	wait := func(what string) {
		t.Helper()
		deadline := time.After(2 * patience)
		for {
			select {
			case line, open := <-lines:
				if !open {
					t.Fatalf("it ended before %q", what)
				}
				if strings.Contains(line, what) {
					return
				}
			case <-deadline:
				t.Fatalf("it never says %q", what)
			}
		}
	}
	wait("watching for changes")
	e.says("Ahoy from release 1")
	e.change(`"Ahoy"`, `"Hello"`)
	wait("changed: main.go")
	wait("watching for changes")
	e.says("Hello from release 2")
	e.change("func main() {", "func main() }")
	wait("error: ")
	wait("watching for changes")
	e.says("Hello from release 2")
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	for range lines { // so that it never waits for its reader
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("Ctrl-C: %v", err)
	}
}

// follow gives the lines of a stream until it ends.
func follow(r io.Reader) <-chan string {
	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(r); s.Scan(); {
			lines <- s.Text()
		}
	}()
	return lines
}

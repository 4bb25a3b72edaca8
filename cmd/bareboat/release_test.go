package main_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// changing is a deployment of the chat that a variable changes.
type changing struct {
	*deployment
	override string
	mark     int
}

func newChanging(t *testing.T) *changing {
	t.Helper()
	c := &changing{deployment: newDeployment(t, mustAbs("../../podman-compose.yml")), override: filepath.Join(t.TempDir(), "over.yml")}
	text := `services:
  chat:
    environment: {MARK: "${MARK}", CHATD_DRAIN: "${CHATD_DRAIN:-8s}"}
    healthcheck: {test: ["CMD", "${CHATD:-/usr/bin/chatd}", "health"], interval: 1s, retries: 2, start_period: 1s}
`
	if err := os.WriteFile(c.override, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

// release runs bareboat with what makes a new release, and more variables.
func (c *changing) release(env []string, args ...string) (stderr string, err error) {
	c.t.Helper()
	c.mark++
	return c.same(env, args...)
}

func (c *changing) same(env []string, args ...string) (string, error) {
	cmd := c.command(context.Background(), append([]string{"-f", c.override}, args...)...)
	cmd.Env = append(slices.Clone(c.env), append([]string{fmt.Sprint("MARK=", c.mark)}, env...)...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (c *changing) must(out string, err error) string {
	c.t.Helper()
	if err != nil {
		c.t.Fatalf("%v\n%s", err, out)
	}
	return out
}

func exitCode(err error) int {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		return -1
	}
	return 0
}

// watchState notes each state that the page shows.
func (p *page) watchState() {
	p.do(`() => {
		window.states = [];
		new MutationObserver(() => window.states.push(document.documentElement.dataset.state))
			.observe(document.documentElement, { attributes: true, attributeFilter: ["data-state"] });
	}`)
}

// People talk while the chat is released, goes back, and fails to be released:
// their pages never lose the connection, and show every message, in order, once.
func TestNobodyNoticesAReleaseOrTheWayBack(t *testing.T) {
	c := newChanging(t)
	c.must(c.release(nil, "up"))
	b := startBrowser(t)
	ann, bob := open(t, b, c.url("/r/harbour"), "Ann"), open(t, b, c.url("/r/harbour"), "Bob")
	for _, p := range []*page{ann, bob} {
		p.watchState()
	}
	var want []string
	talk := func(when string) {
		t.Helper()
		for _, p := range []*page{ann, bob} {
			text := p.name + " " + when
			p.say(text)
			want = append(want, text)
			ann.awaitText(text)
			bob.awaitText(text)
		}
	}
	talk("at first")
	c.must(c.release(nil, "deploy"))
	talk("after a release")
	began := time.Now()
	c.must(c.same(nil, "rollback"))
	t.Logf("rollback took %v", time.Since(began))
	talk("after going back")
	for _, broken := range []struct{ env, says string }{
		{"CHATD_DRAIN=nonsense", "CHATD_DRAIN=\"nonsense\""}, // it crashes at start
		{"CHATD=/nowhere", "is unhealthy"},                   // it is never healthy
	} {
		out, err := c.release([]string{broken.env}, "deploy")
		if exitCode(err) != 5 || !strings.Contains(out, broken.says) || !strings.Contains(out, "release 1 still serves") {
			t.Errorf("%s: exit code %d\n%s", broken.env, exitCode(err), out)
		}
		talk("after " + broken.env)
	}
	for _, p := range []*page{ann, bob} {
		if got := p.texts(); !slices.Equal(got, want) {
			t.Errorf("%s sees\n%q\nwant\n%q", p.name, got, want)
		}
		states, err := p.tab.Eval(`() => window.states.join()`)
		if err != nil {
			t.Fatal(err)
		}
		if s := states.Value.Str(); strings.Contains(s, "waiting") {
			t.Errorf("%s saw the states %s", p.name, s)
		}
	}
	c.checkClientAddress()
}

// checkClientAddress looks for the client's own address in the log of a chat that has
// no network interface but a loopback of its own.
func (c *changing) checkClientAddress() {
	c.t.Helper()
	c.checkLogs()
	pid := podman(c.t, "inspect", "--format", "{{.State.Pid}}", c.name+"-chat-r1-chat")
	interfaces := podman(c.t, "unshare", "cat", "/proc/"+pid+"/net/dev")
	if n := strings.Count(interfaces, ":"); n != 1 || !strings.Contains(interfaces, "lo:") {
		c.t.Errorf("the chat has other interfaces than a loopback:\n%s", interfaces)
	}
}

// The edge itself is replaced, again and again, and gone back to, while people ask and
// talk: nobody is refused, and nobody loses a message.
func TestTheEdgeIsReplaced(t *testing.T) {
	c := newChanging(t)
	text := "services:\n  proxy:\n    environment: {MARK: \"${MARK}\"}\n"
	if err := os.WriteFile(c.override, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c.must(c.release(nil, "up"))
	deploy := strings.Join(c.command(t.Context(), "-f", c.override).Args, " ")
	script := "for i in a b c; do MARK=$i " + deploy + " deploy || exit 1; done; " + deploy + " rollback"
	out, err := c.same(nil, "verify", "zero-downtime", "--url", strings.TrimSuffix(c.url(""), "/"), "--rate", "60", "--get", "/r/harbour",
		"--chat", "/ws", "--clients", "20", "--rooms", "2", "--messages", "40", "--", "sh", "-c", script)
	if err != nil {
		t.Errorf("people notice: %v\n%s", err, out)
	}
	for _, said := range []string{"close the doors of " + c.name + "-proxy-r3", "release 3 serves", "80 moves"} {
		if !strings.Contains(out, said) {
			t.Errorf("it does not say %q:\n%s", said, out)
		}
	}
	if running := podman(t, "pod", "ps", "--filter", "name="+c.name+"-proxy", "--filter", "status=running", "--format", "{{.Name}}"); running != c.name+"-proxy-r3" {
		t.Errorf("these edges run: %q", running)
	}
}

// Two deployers at the same moment: one waits its turn by ending with exit code 6,
// or comes after the other; what runs is of one of the two alone.
func TestTwoDeployers(t *testing.T) {
	c := newChanging(t)
	c.must(c.release(nil, "up"))
	var ends sync.WaitGroup
	codes := make([]int, 3)
	outs := make([]string, 3)
	for i := range codes {
		ends.Go(func() {
			var err error
			outs[i], err = c.same([]string{fmt.Sprint("MARK=two", i)}, "deploy")
			codes[i] = exitCode(err)
		})
	}
	ends.Wait()
	done := 0
	for i, code := range codes {
		switch code {
		case 0:
			done++
		case 6:
			if !strings.Contains(outs[i], "is locked: bareboat deploy runs there") {
				t.Errorf("it does not say who holds the lock:\n%s", outs[i])
			}
		default:
			t.Errorf("exit code %d\n%s", code, outs[i])
		}
	}
	if done == 0 {
		t.Error("nobody came through")
	}
	same := 0
	for i := range codes {
		if out := c.must(c.same([]string{fmt.Sprint("MARK=two", i)}, "deploy", "--dry-run")); strings.Contains(out, "nothing to do") {
			same++
		}
	}
	if same != 1 {
		t.Errorf("what runs is what %d of the deployers wanted", same)
	}
	c.checkTidy()
}

// checkTidy looks for what nothing needs.
func (c *changing) checkTidy() {
	c.t.Helper()
	var running, kept []string
	for line := range strings.Lines(podman(c.t, "pod", "ps", "--filter", "label=bareboat.project="+c.name, "--format", "{{.Name}} {{.Status}}")) {
		name, status, _ := strings.Cut(strings.TrimSpace(line), " ")
		if status == "Running" {
			running = append(running, name)
		} else {
			kept = append(kept, name)
		}
	}
	if len(running) != 2 {
		c.t.Errorf("these pods run: %q", running)
	}
	state := filepath.Join(dataHome(c.t), "bareboat", "projects", c.name)
	text, err := os.ReadFile(filepath.Join(state, "releases.json"))
	if err != nil {
		c.t.Fatal(err)
	}
	var records struct {
		List []struct{ Pods map[string][]string }
	}
	if err := json.Unmarshal(text, &records); err != nil {
		c.t.Fatal(err)
	}
	needed := map[string]bool{}
	for _, r := range records.List {
		for _, pods := range r.Pods {
			for _, name := range pods {
				needed[name] = true
			}
		}
	}
	for _, name := range append(running, kept...) {
		if !needed[name] {
			c.t.Errorf("pod %s is left, and nothing needs it", name)
		}
	}
	if len(records.List) > 4 {
		c.t.Errorf("%d releases are kept", len(records.List))
	}
	for _, what := range []string{"volume", "network", "secret"} {
		names := strings.Fields(podman(c.t, what, "ls", "--format", "{{.Name}}"))
		names = slices.DeleteFunc(names, func(n string) bool { return !strings.HasPrefix(n, c.name+"_") })
		want := map[string]int{"volume": 2}[what]
		if len(names) != want {
			c.t.Errorf("these %ss are there: %q", what, names)
		}
	}
}

func dataHome(t *testing.T) string {
	if dir := os.Getenv("XDG_DATA_HOME"); dir != "" {
		return dir
	}
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(home, ".local", "share")
}

// kills is how many releases are killed; BAREBOAT_KILLS says another number.
const kills = 8

// Releases are killed at any moment: bareboat itself, Podman's service under it,
// the new pod, or nginx. After each, one more deploy brings what is wanted, and the site
// answers throughout.
func TestKills(t *testing.T) {
	n := kills
	if text := os.Getenv("BAREBOAT_KILLS"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	c := newChanging(t)
	c.must(c.release(nil, "up"))
	ctx, stop := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	asked, failed := 0, map[string]int{}
	asking.Go(func() {
		client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
		for ctx.Err() == nil {
			asked++
			if why := ask(&client, c.url("/r/harbour")); why != "" {
				failed[why]++
			}
		}
	})
	victims := []struct {
		name string
		kill func(pid int)
	}{
		{"bareboat", func(pid int) { _ = syscall.Kill(pid, syscall.SIGKILL) }},
		{"bareboat and all below it", func(pid int) { _ = syscall.Kill(-pid, syscall.SIGKILL) }},
		{"Podman's service", c.killService},
		{"the new pod", c.killNew},
		{"nginx", c.killNginx},
	}
	for i := range n {
		victim := victims[i%len(victims)]
		after := time.Duration(rand.Int64N(int64(4 * time.Second)))
		c.mark++
		cmd := c.command(context.Background(), "-f", c.override, "deploy")
		cmd.Env = append(slices.Clone(c.env), fmt.Sprint("MARK=", c.mark))
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan struct{})
		go func() {
			_ = cmd.Wait() // how it ended does not matter
			close(ended)
		}()
		select {
		case <-time.After(after): // the moment of the kill
			victim.kill(cmd.Process.Pid)
		case <-ended:
		}
		<-ended
		if out, err := c.same(nil, "deploy"); err != nil {
			t.Fatalf("kill %d, of %s after %v: the next deploy ends with %d\n%s", i+1, victim.name, after, exitCode(err), out)
		}
		if out := c.must(c.same(nil, "deploy", "--dry-run")); strings.TrimSpace(out) != "nothing to do" {
			t.Errorf("kill %d, of %s after %v: still to do:\n%s", i+1, victim.name, after, out)
		}
		c.checkTidy()
		if t.Failed() {
			break
		}
	}
	stop()
	asking.Wait()
	if len(failed) > 0 {
		t.Errorf("of %d requests failed %v", asked, failed)
	}
	t.Logf("%d kills, %d requests, none failed", n, asked)
}

func ask(client *http.Client, url string) string {
	resp, err := client.Get(url)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err.Error()
	}
	if resp.StatusCode != http.StatusOK {
		return resp.Status
	}
	return ""
}

// killService kills the Podman service that bareboat started for itself.
func (c *changing) killService(pid int) {
	out, err := exec.Command("pgrep", "-P", strconv.Itoa(pid)).Output()
	if err != nil {
		return // it has none at this moment
	}
	for _, child := range strings.Fields(string(out)) {
		if n, err := strconv.Atoi(child); err == nil {
			_ = syscall.Kill(n, syscall.SIGKILL)
		}
	}
}

// killNew kills the program of the newest pod.
func (c *changing) killNew(int) {
	out, err := exec.Command("podman", "ps", "--filter", "label=bareboat.project="+c.name, "--filter", "label=bareboat.service=chat",
		"--sort", "created", "--format", "{{.Pid}} {{.Names}}").Output()
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if err != nil || len(lines) < 2 {
		return // there is only the one that serves
	}
	pid, _, _ := strings.Cut(lines[0], " ")
	_ = exec.Command("podman", "unshare", "kill", "-9", pid).Run() // it may be gone already
}

// killNginx kills the nginx of each edge that runs, below its first process.
func (c *changing) killNginx(int) {
	out, err := exec.Command("podman", "ps", "--filter", "label=bareboat.project="+c.name, "--filter", "label=bareboat.service=proxy", "--format", "{{.Pid}}").Output()
	if err != nil {
		return
	}
	for _, first := range strings.Fields(string(out)) {
		below, err := exec.Command("pgrep", "-P", first, "nginx").Output()
		if err != nil {
			continue
		}
		for _, pid := range strings.Fields(string(below)) {
			_ = exec.Command("podman", "unshare", "kill", "-9", pid).Run() // it may be gone already
		}
	}
}

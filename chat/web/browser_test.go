package web_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"bareboat/chat"

	"github.com/go-rod/rod"
	"github.com/go-rod/rod/lib/input"
	"github.com/go-rod/rod/lib/launcher"
	"github.com/go-rod/rod/lib/launcher/flags"
	"github.com/go-rod/rod/lib/proto"
)

const (
	chromium = "/usr/bin/chromium"
	patience = 30 * time.Second

	// commandEnv makes this test binary the chatd command.
	commandEnv = "CHATD_TEST_COMMAND"
)

func TestMain(m *testing.M) {
	if os.Getenv(commandEnv) != "" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		code := chat.Main(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
		stop()
		os.Exit(code)
	}
	os.Exit(m.Run())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// folder is outside t.TempDir, whose path may be too long for a socket, and
// whose removal fails while a browser still tidies up.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "page")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// daemon is a chatd process that can be killed and started again at the same
// address on the same data.
type daemon struct {
	cmd    *exec.Cmd
	listen string
	data   string
}

func startDaemon(t *testing.T) *daemon {
	t.Helper()
	d := &daemon{listen: "127.0.0.1:0", data: folder(t)}
	d.start(t)
	t.Cleanup(func() { d.kill() })
	return d
}

func (d *daemon) start(t *testing.T) {
	t.Helper()
	d.cmd = exec.CommandContext(t.Context(), os.Args[0])
	d.cmd.Env = []string{commandEnv + "=1", "CHATD_LISTEN=" + d.listen, "CHATD_DATA=" + d.data}
	stderr, err := d.cmd.StderrPipe()
	must(t, err)
	must(t, d.cmd.Start())
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		var line struct{ Msg, Listen string }
		if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "serving" {
			d.listen = line.Listen
			go func() {
				for lines.Scan() { // so that the process never waits for its reader
				}
			}()
			return
		}
		t.Log(lines.Text())
	}
	t.Fatal("chatd ended")
}

func (d *daemon) kill() {
	_ = d.cmd.Process.Kill() // it may be dead already
	_ = d.cmd.Wait()
}

func (d *daemon) room(name string) string { return "http://" + d.listen + "/r/" + name }

// startBrowser starts Chromium with a profile of its own.
func startBrowser(t *testing.T) *rod.Browser {
	t.Helper()
	if _, err := os.Stat(chromium); err != nil {
		t.Fatalf("the page is tested in Chromium: apt-get install chromium (%v)", err)
	}
	l := launcher.New().Bin(chromium).Leakless(false).UserDataDir(folder(t)).NoSandbox(true)
	for _, flag := range []string{
		"headless", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
		"disable-component-update", "disable-sync", "disable-dev-shm-usage",
	} {
		l.Set(flags.Flag(flag))
	}
	address, err := l.Launch()
	must(t, err)
	browser := rod.New().ControlURL(address)
	must(t, browser.Connect())
	t.Cleanup(func() {
		_ = browser.Close()
		l.Cleanup()
	})
	return browser
}

// page is one tab.
type page struct {
	t   *testing.T
	tab *rod.Page
}

// person opens a tab that shares nothing with others: a person of their own.
func person(t *testing.T, b *rod.Browser, address string, width, height int) *page {
	t.Helper()
	own, err := b.Incognito()
	must(t, err)
	return open(t, own, address, width, height)
}

func open(t *testing.T, b *rod.Browser, address string, width, height int) *page {
	t.Helper()
	tab, err := b.Page(proto.TargetCreateTarget{URL: "about:blank"})
	must(t, err)
	p := &page{t, tab.Timeout(3 * patience)}
	must(t, p.tab.SetViewport(&proto.EmulationSetDeviceMetricsOverride{Width: width, Height: height, DeviceScaleFactor: 1, Mobile: width < 500}))
	must(t, p.tab.Navigate(address))
	p.await("the connection", `() => document.documentElement.dataset.state === "open"`)
	return p
}

// eval gives the value of a function as text.
func (p *page) eval(function string, args ...any) string {
	p.t.Helper()
	result, err := p.tab.Eval(function, args...)
	must(p.t, err)
	return result.Value.String()
}

// await waits until a function gives true.
func (p *page) await(what, function string, args ...any) {
	p.t.Helper()
	deadline := p.tab.Timeout(patience)
	if err := deadline.Wait(rod.Eval(function, args...)); err != nil {
		p.t.Fatalf("waiting for %s: %v\npage:\n%s", what, err, p.eval(`() => document.body.innerText`))
	}
}

func (p *page) press(keys ...input.Key) {
	p.t.Helper()
	must(p.t, p.tab.Keyboard.Type(keys...))
}

// write types text where the focus is.
func (p *page) write(text string) {
	p.t.Helper()
	must(p.t, p.tab.InsertText(text))
}

// introduce goes from a page just opened to the message box, by keyboard.
func (p *page) introduce(name string) {
	p.t.Helper()
	p.press(input.Tab)
	p.await("the skip link to have the focus", `() => document.activeElement.className === "skip"`)
	p.press(input.Enter)
	p.await("the name field to have the focus", `() => document.activeElement.id === "name"`)
	p.write(name)
	p.press(input.Enter)
	p.await("the message box to have the focus", `() => document.activeElement.id === "text"`)
}

// say types a message and sends it.
func (p *page) say(text string) {
	p.t.Helper()
	p.write(text)
	p.press(input.Enter)
}

// texts gives the messages in the timeline, without those that wait.
func (p *page) texts() []string {
	p.t.Helper()
	var texts []string
	must(p.t, json.Unmarshal([]byte(p.eval(`() => JSON.stringify([...document.querySelectorAll("#messages .text")].map((n) => n.textContent))`)), &texts))
	return texts
}

func (p *page) awaitText(text string) {
	p.t.Helper()
	p.await(fmt.Sprintf("%.40q", text), `(text) => [...document.querySelectorAll("#messages .text")].some((n) => n.textContent === text)`, text)
}

func (p *page) awaitCount(n int) {
	p.t.Helper()
	p.await(fmt.Sprint(n, " messages"), `(n) => document.querySelectorAll("#messages .message").length === n && document.querySelector("#pending").children.length === 0`, n)
}

func same(a, b []string) bool { return strings.Join(a, "\x00") == strings.Join(b, "\x00") }

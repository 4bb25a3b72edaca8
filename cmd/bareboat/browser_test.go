package main_test

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/go-rod/rod"
	"github.com/go-rod/rod/lib/input"
	"github.com/go-rod/rod/lib/launcher"
	"github.com/go-rod/rod/lib/launcher/flags"
	"github.com/go-rod/rod/lib/proto"
)

// page is one person's tab.
type page struct {
	t    *testing.T
	name string
	tab  *rod.Page
}

func startBrowser(t *testing.T) *rod.Browser {
	t.Helper()
	const chromium = "/usr/bin/chromium"
	if _, err := os.Stat(chromium); err != nil {
		t.Fatalf("the chat is tested in Chromium: apt-get install chromium (%v)", err)
	}
	profile, err := os.MkdirTemp("", "profile")
	if err != nil {
		t.Fatal(err)
	}
	l := launcher.New().Bin(chromium).Leakless(false).UserDataDir(profile).NoSandbox(true)
	for _, flag := range []string{
		"headless", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
		"disable-component-update", "disable-sync", "disable-dev-shm-usage",
	} {
		l.Set(flags.Flag(flag))
	}
	address, err := l.Launch()
	if err != nil {
		t.Fatal(err)
	}
	b := rod.New().ControlURL(address)
	if err := b.Connect(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = b.Close()
		l.Cleanup()
		_ = os.RemoveAll(profile)
	})
	return b
}

// open opens a room as somebody of their own, and says the name.
func open(t *testing.T, b *rod.Browser, address, name string) *page {
	t.Helper()
	own, err := b.Incognito()
	if err != nil {
		t.Fatal(err)
	}
	tab, err := own.Page(proto.TargetCreateTarget{URL: address})
	if err != nil {
		t.Fatal(err)
	}
	p := &page{t, name, tab.Timeout(5 * time.Minute)}
	p.await("the connection", `() => document.documentElement.dataset.state === "open"`)
	p.do(`() => document.querySelector("#name").focus()`)
	p.write(name)
	p.await("the message box", `() => document.activeElement.id === "text"`)
	return p
}

func (p *page) do(function string) {
	p.t.Helper()
	if _, err := p.tab.Eval(function); err != nil {
		p.t.Fatal(err)
	}
}

func (p *page) await(what, function string, args ...any) {
	p.t.Helper()
	if err := p.tab.Timeout(patience).Wait(rod.Eval(function, args...)); err != nil {
		p.t.Fatalf("%s waits for %s: %v", p.name, what, err)
	}
}

func (p *page) write(text string) {
	p.t.Helper()
	if err := p.tab.InsertText(text); err != nil {
		p.t.Fatal(err)
	}
	if err := p.tab.Keyboard.Type(input.Enter); err != nil {
		p.t.Fatal(err)
	}
}

// say sends a message; after a reload the box has to be focused again.
func (p *page) say(text string) {
	p.t.Helper()
	p.do(`() => document.querySelector("#text").focus()`)
	p.write(text)
}

func (p *page) texts() []string {
	p.t.Helper()
	result, err := p.tab.Eval(`() => [...document.querySelectorAll("#messages .text")].map((n) => n.textContent)`)
	if err != nil {
		p.t.Fatal(err)
	}
	var texts []string
	for _, v := range result.Value.Arr() {
		texts = append(texts, v.Str())
	}
	return texts
}

func (p *page) awaitText(text string) {
	p.t.Helper()
	p.await(fmt.Sprintf("%q", text), `(text) => [...document.querySelectorAll("#messages .text")].some((n) => n.textContent === text)`, text)
}

func (p *page) awaitTexts(texts ...string) {
	p.t.Helper()
	p.awaitCount(len(texts))
	if got := p.texts(); !slices.Equal(got, texts) {
		p.t.Errorf("%s sees %q, want %q", p.name, got, texts)
	}
}

func (p *page) awaitCount(n int) {
	p.t.Helper()
	p.await(fmt.Sprint(n, " messages"), `(n) => document.querySelectorAll("#messages .message").length === n && document.querySelector("#pending").children.length === 0`, n)
}

package web_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"bareboat/chat/chattest"
	"bareboat/chat/protocol"
	"bareboat/chat/web"

	"github.com/go-rod/rod"
	"github.com/go-rod/rod/lib/input"
	"github.com/go-rod/rod/lib/proto"
	"github.com/gorilla/websocket"
)

// TestTalk lets two people talk, by keyboard alone.
func TestTalk(t *testing.T) {
	d, b := startDaemon(t), startBrowser(t)
	ann := person(t, b, d.room("harbour"), 1200, 800)
	ann.introduce("Ann")
	bob := person(t, b, d.room("harbour"), 390, 780)
	bob.introduce("Bob")
	ann.say("Is anybody here?")
	bob.awaitText("Is anybody here?")
	bob.write("Yes,")
	must(t, bob.tab.KeyActions().Press(input.ShiftLeft).Type(input.Enter).Release(input.ShiftLeft).Do())
	bob.say("I am.")
	ann.awaitText("Yes,\nI am.")
	for _, p := range []*page{ann, bob} {
		p.awaitCount(2)
		p.await("both names", `() => [...document.querySelectorAll("#people bdi")].map((n) => n.textContent).sort().join() === "Ann,Bob"`)
	}
	if own := ann.eval(`() => document.querySelector("#messages .own .text").textContent`); own != "Is anybody here?" {
		t.Errorf("Ann's own message is %q", own)
	}

	must(t, bob.tab.Reload())
	bob.awaitCount(2)
	if got := bob.texts(); !same(got, []string{"Is anybody here?", "Yes,\nI am."}) {
		t.Errorf("after a reload: %q", got)
	}
	if name := bob.eval(`() => document.querySelector("#my-name").value`); name != "Bob" {
		t.Errorf("after a reload the name is %q", name)
	}
	if own := bob.eval(`() => document.querySelector("#messages .own .text").textContent`); own != "Yes,\nI am." {
		t.Errorf("after a reload Bob's own message is %q", own)
	}
}

// TestKill kills the server while two people write, and starts it again.
func TestKill(t *testing.T) {
	d, b := startDaemon(t), startBrowser(t)
	ann := person(t, b, d.room("a"), 1000, 700)
	ann.introduce("Ann")
	bob := person(t, b, d.room("a"), 1000, 700)
	bob.introduce("Bob")
	const each = 18
	people := []*page{ann, bob}
	for n := range each {
		switch n {
		case 6:
			d.kill()
		case 12:
			for _, p := range people {
				p.await("what waits to be shown", `(n) => document.querySelectorAll("#pending .waiting").length >= n`, 6)
			}
			d.start(t)
		}
		for i, p := range people {
			p.say(fmt.Sprintf("%d says %d", i, n))
		}
	}
	for _, p := range people {
		p.awaitCount(2 * each)
	}
	if !same(ann.texts(), bob.texts()) {
		t.Errorf("the two differ:\n%q\n%q", ann.texts(), bob.texts())
	}
	for i := range people {
		own := slices.DeleteFunc(ann.texts(), func(text string) bool { return !strings.HasPrefix(text, fmt.Sprint(i, " ")) })
		for n, text := range own {
			if text != fmt.Sprintf("%d says %d", i, n) {
				t.Errorf("message %d of %d is %q", n, i, text)
			}
		}
		if len(own) != each {
			t.Errorf("%d has %d messages", i, len(own))
		}
	}
}

// TestOutboxOutlivesPage closes the tab while the server is away.
func TestOutboxOutlivesPage(t *testing.T) {
	d, b := startDaemon(t), startBrowser(t)
	own, err := b.Incognito()
	must(t, err)
	first := open(t, own, d.room("a"), 1000, 700)
	first.introduce("Ann")
	first.say("arrives at once")
	first.awaitCount(1)
	d.kill()
	first.say("arrives later")
	first.await("the message to wait", `() => document.querySelectorAll("#pending .waiting").length === 1`)
	must(t, first.tab.Close())
	d.start(t)
	second := open(t, own, d.room("a"), 1000, 700)
	second.awaitCount(2)
	if got := second.texts(); !same(got, []string{"arrives at once", "arrives later"}) {
		t.Errorf("got %q", got)
	}
	if left := second.eval(`() => Object.keys(localStorage).filter((key) => key.startsWith("chat.outbox")).length`); left != "0" {
		t.Errorf("%s messages are left in the outbox", left)
	}
}

// TestMarkupStaysText tries to bring markup in through all that a person can set.
func TestMarkupStaysText(t *testing.T) {
	d, b := startDaemon(t), startBrowser(t)
	const attack = `<img src=x onerror="window.broken=1"><script>window.broken=1</script>`
	eve := person(t, b, d.room("a"), 1000, 700)
	eve.introduce(`<b onclick=x>Eve</b>`)
	ann := person(t, b, d.room("a"), 1000, 700)
	ann.introduce("Ann")
	eve.say(attack)
	for _, p := range []*page{eve, ann} {
		p.awaitText(attack)
		p.await("Eve's name", `() => [...document.querySelectorAll("#people bdi")].some((n) => n.textContent === "<b onclick=x>Eve</b>")`)
		if got := p.eval(`() => String(window.broken) + document.querySelectorAll("#log img, #log script, #log b, #people b").length`); got != "undefined0" {
			t.Errorf("markup came through: %s", got)
		}
	}
	inline := ann.eval(`() => {
		const script = document.createElement("script");
		try { script.textContent = "window.broken = 2"; document.body.append(script); } catch { }
		return String(window.broken);
	}`)
	if inline != "undefined" {
		t.Error("the policy lets inline code run")
	}
}

// TestNarrow looks at the page at 320 pixels, with all that is long.
func TestNarrow(t *testing.T) {
	d, b := startDaemon(t), startBrowser(t)
	ann := person(t, b, d.room(strings.Repeat("long-", 6)+"ab"), 320, 568)
	wide := `() => String(document.documentElement.scrollWidth > innerWidth || document.querySelector("#log").scrollWidth > document.querySelector("#log").clientWidth)`
	if ann.eval(wide) != "false" {
		t.Error("the first sight scrolls sideways")
	}
	ann.introduce(strings.Repeat("W", 32))
	ann.say(strings.Repeat("W", 300))
	bob := person(t, b, ann.eval(`() => location.href`), 320, 568)
	bob.introduce("Bob")
	bob.say("ok")
	ann.awaitCount(2)
	bob.awaitCount(2)
	for _, p := range []*page{ann, bob} {
		if p.eval(wide) != "false" {
			t.Error("the messages scroll sideways")
		}
	}
	ann.eval(`() => document.querySelector("#menu").focus()`)
	ann.press(input.Enter)
	ann.await("the sidebar", `() => document.querySelector("#side").contains(document.activeElement) && document.querySelector("#menu").ariaExpanded === "true"`)
	if ann.eval(wide) != "false" {
		t.Error("the sidebar scrolls sideways")
	}
	ann.press(input.Escape)
	ann.await("the focus to be back", `() => document.activeElement.id === "menu"`)
	ann.await("the sidebar to be out of reach", `() => getComputedStyle(document.querySelector("#side")).visibility === "hidden"`)
}

func TestColors(t *testing.T) {
	d, b := startDaemon(t), startBrowser(t)
	p := person(t, b, d.room("a"), 1000, 700)
	colors := map[string]string{}
	for _, scheme := range []string{"light", "dark"} {
		must(t, proto.EmulationSetEmulatedMedia{Features: []*proto.EmulationMediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}.Call(p.tab))
		colors[scheme] = p.eval(`() => getComputedStyle(document.body).backgroundColor + getComputedStyle(document.body).color`)
	}
	if colors["light"] == colors["dark"] {
		t.Errorf("light and dark look the same: %v", colors)
	}
}

// TestHistory scrolls up to the first message.
func TestHistory(t *testing.T) {
	d, b := startDaemon(t), startBrowser(t)
	const n = 230
	talk(t, d, "a", n)
	p := person(t, b, d.room("a"), 1000, 700)
	p.awaitText(fmt.Sprint("text ", n-1))
	if shown := p.eval(`() => document.querySelectorAll("#messages .message").length`); shown == strconv.Itoa(n) {
		t.Error("the whole history came at once")
	}
	if end := p.eval(`() => { const l = document.querySelector("#log"); return String(l.scrollHeight - l.scrollTop - l.clientHeight < 2); }`); end != "true" {
		t.Error("the page does not begin at the end")
	}
	p.await("the first message", `() => {
		document.querySelector("#log").scrollTop = 0;
		return document.querySelectorAll("#messages .message").length === 230;
	}`)
	if whole := p.eval(`() => String(document.documentElement.scrollHeight > innerHeight)`); whole != "false" {
		t.Error("the page itself scrolls, not only the messages")
	}
	for i, text := range p.texts() {
		if text != fmt.Sprint("text ", i) {
			t.Fatalf("message %d is %q", i, text)
		}
	}
	p.await("the beginning to be told", `() => !document.querySelector("#begin").hidden`)
}

// talk stores n messages.
func talk(t *testing.T, d *daemon, room string, n int) {
	t.Helper()
	for sent := 0; sent < n; {
		c, _, err := chattest.Dial(t.Context(), "http://"+d.listen+"/ws", nil)
		must(t, err)
		must(t, c.Hello("Past", map[string]*int64{room: nil}))
		for range min(35, n-sent) { // what one connection may send at once
			must(t, c.Send(room, fmt.Sprint("c", sent), fmt.Sprint("text ", sent)))
			_, err := c.AwaitType("ack")
			must(t, err)
			sent++
		}
		c.Close()
	}
}

// TestGo plays a server that asks the page to move: the page must dial anew
// before it leaves, name its cursor, and show what both connections send once.
func TestGo(t *testing.T) {
	p, connections := play(t, startBrowser(t))
	first := <-connections
	defer first.Close()
	if cursor := welcome(t, first); cursor != nil {
		t.Errorf("a new page named %d", *cursor)
	}
	say(t, first, 1, 2)
	must(t, first.Conn.WriteJSON(protocol.NewGo(0)))
	second := <-connections
	defer second.Close()
	say(t, first, 3) // the last connection still serves
	p.awaitText("number 3")
	if cursor := welcome(t, second); cursor == nil || *cursor < 2 {
		t.Errorf("the page did not name its cursor")
	}
	if code, err := first.AwaitClose(); err != nil || code != websocket.CloseNormalClosure {
		t.Errorf("the page left with %d, %v", code, err)
	}
	say(t, second, 3, 4)
	p.awaitText("number 4")
	if got := p.texts(); !same(got, []string{"number 1", "number 2", "number 3", "number 4"}) {
		t.Errorf("the page shows %q", got)
	}
}

// play serves the page without a chat behind it: the test itself is the server.
// It gives a tab, and the connections that its page opens.
func play(t *testing.T, b *rod.Browser) (*page, <-chan *chattest.Client) {
	t.Helper()
	connections := make(chan *chattest.Client)
	pages := web.New()
	upgrader := websocket.Upgrader{Subprotocols: []string{protocol.Name}}
	mux := http.NewServeMux()
	mux.HandleFunc("/r/a", pages.ServePage)
	mux.Handle("/assets/", pages)
	mux.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) {
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		select {
		case connections <- &chattest.Client{Conn: conn}:
		case <-t.Context().Done():
			_ = conn.Close()
		}
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)

	own, err := b.Incognito()
	must(t, err)
	tab, err := own.Page(proto.TargetCreateTarget{URL: "about:blank"})
	must(t, err)
	p := &page{t, tab.Timeout(3 * patience)}
	must(t, p.tab.Navigate(server.URL+"/r/a"))
	return p, connections
}

// greet reads a hello, welcomes the page and gives the cursor that it named.
func greet(t *testing.T, c *chattest.Client) *int64 {
	t.Helper()
	hello := heard(t, c, "hello")
	cursor, named := hello.Cursors["a"]
	if !named {
		t.Fatalf("the page said %+v", hello)
	}
	must(t, c.Conn.WriteJSON(protocol.NewWelcome(protocol.Welcome{
		Store: "s", User: "me", Nick: "Me", Limits: protocol.Limits{Text: 4000, Nick: 32, Rate: 10, Burst: 40},
	})))
	return cursor
}

// heard reads what the page says next, which must be of that type. A ping may
// come at any time, and is answered.
func heard(t *testing.T, c *chattest.Client, kind string) protocol.Frame {
	t.Helper()
	must(t, c.Conn.SetReadDeadline(time.Now().Add(patience)))
	for {
		var f protocol.Frame
		must(t, c.Conn.ReadJSON(&f))
		switch f.T {
		case kind:
			return f
		case "ping":
			must(t, c.Conn.WriteJSON(protocol.NewPong()))
		default:
			t.Fatalf("the page said %+v instead of a %s", f, kind)
		}
	}
}

// welcome greets the page and says that nothing is missing. It gives the
// cursor that the page named.
func welcome(t *testing.T, c *chattest.Client) *int64 {
	t.Helper()
	cursor := greet(t, c)
	from := int64(0)
	if cursor != nil {
		from = *cursor
	}
	must(t, c.Conn.WriteJSON(protocol.NewJoined("a", from, from)))
	return cursor
}

func say(t *testing.T, c *chattest.Client, numbers ...int64) {
	t.Helper()
	for _, n := range numbers {
		m := protocol.Message{Seq: n, At: 1, User: "u", Nick: "U", CID: fmt.Sprint(n), Text: fmt.Sprint("number ", n)}
		must(t, c.Conn.WriteJSON(protocol.NewEvent("a", m)))
	}
}

package web_test

import (
	"testing"
	"time"

	"bareboat/chat/chattest"
	"bareboat/chat/protocol"

	"github.com/gorilla/websocket"
)

// TestBackoff plays a server that greets and then cannot go on: the page must
// give it more time with each failure, not come back at once for ever.
func TestBackoff(t *testing.T) {
	_, connections := play(t, startBrowser(t))
	for range 4 {
		fail(t, <-connections)
	}
	began := time.Now()
	defer (<-connections).Close()
	if waited := time.Since(began); waited < time.Second {
		t.Errorf("after four failures the page came back in %v", waited)
	}
}

// fail greets the page and closes as a server does that cannot read its store.
func fail(t *testing.T, c *chattest.Client) {
	t.Helper()
	greet(t, c)
	end := websocket.FormatCloseMessage(protocol.CloseNotServed, "the messages cannot be read now")
	must(t, c.Conn.WriteMessage(websocket.CloseMessage, end))
	if _, err := c.AwaitClose(); err != nil {
		t.Error(err)
	}
	c.Close()
}

// TestHistoryAfterFailure plays a server that cannot give older messages once.
func TestHistoryAfterFailure(t *testing.T) {
	p, connections := play(t, startBrowser(t))
	c := <-connections
	defer c.Close()
	greet(t, c)
	must(t, c.Conn.WriteJSON(protocol.NewJoined("a", 1, 2)))
	if asked := heard(t, c, "fill"); asked.Before != 2 {
		t.Fatalf("the page asked for what is before %d", asked.Before)
	}
	must(t, c.Conn.WriteJSON(protocol.NewError(protocol.CodeUnavailable, "not now", "a", "")))
	heard(t, c, "fill")
	first := protocol.Message{Seq: 1, At: 1, User: "u", Nick: "U", CID: "c", Text: "number 1"}
	must(t, c.Conn.WriteJSON(protocol.NewFill("a", 2, []protocol.Message{first}, false)))
	p.awaitText("number 1")
}

// TestHistoryIsNotReadOut looks at what a screen reader is told of a room's
// history, and of what is said after.
func TestHistoryIsNotReadOut(t *testing.T) {
	p, connections := play(t, startBrowser(t))
	c := <-connections
	defer c.Close()
	greet(t, c)
	p.await("the page", `() => document.querySelector("#messages") !== null`)
	p.eval(`() => {
		window.told = [];
		const log = document.querySelector("#log");
		new MutationObserver((changes) => {
			for (const node of changes.flatMap((change) => [...change.addedNodes])) {
				window.told.push(node.querySelector(".text").textContent + (log.ariaBusy === "true" ? " quietly" : " aloud"));
			}
		}).observe(document.querySelector("#messages"), { childList: true });
	}`)
	messages := []protocol.Message{
		{Seq: 1, At: 1, User: "u", Nick: "U", CID: "1", Text: "number 1"},
		{Seq: 2, At: 2, User: "u", Nick: "U", CID: "2", Text: "number 2"},
	}
	must(t, c.Conn.WriteJSON(protocol.NewJoined("a", 0, 2)))
	must(t, c.Conn.WriteJSON(protocol.NewFill("a", 0, messages, false)))
	p.await("the history to be there", `() => window.told.length === 2 && document.querySelector("#log").ariaBusy !== "true"`)
	say(t, c, 3)
	p.awaitText("number 3")
	if told := p.eval(`() => window.told.join()`); told != "number 1 quietly,number 2 quietly,number 3 aloud" {
		t.Errorf("told %s", told)
	}
}

// TestAckOfOldMessage lets a page find a message in its outbox that was stored
// long ago, and hear so before it hears where the room's messages begin.
func TestAckOfOldMessage(t *testing.T) {
	p, connections := play(t, startBrowser(t))
	c := <-connections
	greet(t, c)
	p.eval(`() => localStorage.setItem("chat.outbox.a.old", JSON.stringify({ cid: "old", text: "said long ago", at: 1 }))`)
	c.Close()
	must(t, p.tab.Reload())
	c = <-connections
	defer c.Close()
	greet(t, c)
	if sent := heard(t, c, "send"); sent.CID != "old" {
		t.Fatalf("the page sent %+v", sent)
	}
	must(t, c.Conn.WriteJSON(protocol.NewAck("old", "a", 7, time.UnixMilli(1))))
	must(t, c.Conn.WriteJSON(protocol.NewJoined("a", 60, 60)))
	p.await("nothing to wait", `() => document.querySelector("#pending").children.length === 0`)
}

// TestOutboxOfClosedTab writes in one tab while the server is away, and closes
// it: the other tab, which was open all along, sends what is left.
func TestOutboxOfClosedTab(t *testing.T) {
	d, b := startDaemon(t), startBrowser(t)
	own, err := b.Incognito()
	must(t, err)
	stays := open(t, own, d.room("a"), 1000, 700)
	stays.introduce("Ann")
	leaves := open(t, own, d.room("a"), 1000, 700)
	leaves.await("the message box", `() => !document.querySelector("#composer").hidden`)
	leaves.eval(`() => document.querySelector("#text").focus()`)
	leaves.say("first")
	for _, p := range []*page{stays, leaves} {
		p.awaitCount(1)
	}
	d.kill()
	leaves.say("second")
	leaves.say("third")
	leaves.await("what waits", `() => document.querySelectorAll("#pending .waiting").length === 2`)
	must(t, leaves.tab.Close())
	d.start(t)
	stays.awaitCount(3)
	if got := stays.texts(); !same(got, []string{"first", "second", "third"}) {
		t.Errorf("got %q", got)
	}
	stays.await("an empty outbox", `() => !Object.keys(localStorage).some((key) => key.startsWith("chat.outbox"))`)
}

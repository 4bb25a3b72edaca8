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

package chat_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"bareboat/chat"
	"bareboat/chat/chattest"
	"bareboat/chat/protocol"
)

// web starts a server in this process, over real HTTP.
func web(t *testing.T, set func(*chat.Config)) (*chat.Server, string) {
	t.Helper()
	config := chat.DefaultConfig()
	config.Data = folder(t)
	config.Release = "r7"
	if set != nil {
		set(&config)
	}
	server, err := chat.NewServer(t.Context(), config, slog.New(slog.DiscardHandler))
	must(t, err)
	front := httptest.NewServer(server.Handler())
	t.Cleanup(func() {
		_ = server.Close()
		front.Close()
	})
	return server, front.URL
}

// get asks without following redirects.
func get(t *testing.T, address string, header http.Header) (*http.Response, string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	must(t, err)
	if header != nil {
		request.Header = header
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	must(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	must(t, err)
	return response, string(body)
}

func TestOrigins(t *testing.T) {
	trust := func(c *chat.Config) { c.Trusted = []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")} }
	list := func(c *chat.Config) { c.Origins = []string{"https://chat.example.org"} }
	cases := []struct {
		name   string
		set    func(*chat.Config)
		header map[string]string
		want   int
	}{
		{"same host", nil, map[string]string{"Origin": "http://HOST"}, 101},
		{"same host by TLS", nil, map[string]string{"Origin": "https://HOST"}, 101},
		{"another host", nil, map[string]string{"Origin": "http://evil.example"}, 403},
		{"another port", nil, map[string]string{"Origin": "http://127.0.0.1:1"}, 403},
		{"the host as a prefix", nil, map[string]string{"Origin": "http://HOST.evil.example"}, 403},
		{"null", nil, map[string]string{"Origin": "null"}, 403},
		{"no browser", nil, nil, 101},
		{"forwarded host of a stranger", nil, map[string]string{"Origin": "https://front.example", "X-Forwarded-Host": "front.example"}, 403},
		{"forwarded host of a trusted proxy", trust, map[string]string{"Origin": "https://front.example", "X-Forwarded-Host": "front.example"}, 101},
		{"on the list", list, map[string]string{"Origin": "https://chat.example.org"}, 101},
		{"not on the list", list, map[string]string{"Origin": "http://chat.example.org"}, 403},
		{"the same host, not on the list", list, map[string]string{"Origin": "http://HOST"}, 403},
		{"no browser, with a list", list, nil, 403},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, url := web(t, c.set)
			header := http.Header{}
			for name, value := range c.header {
				header.Set(name, strings.ReplaceAll(value, "HOST", strings.TrimPrefix(url, "http://")))
			}
			client, response, err := chattest.Dial(t.Context(), url+"/ws", header)
			if err == nil {
				client.Close()
			}
			if response == nil || response.StatusCode != c.want {
				t.Errorf("got %v, %v; want %d", response, err, c.want)
			}
		})
	}
}

func TestIdentity(t *testing.T) {
	_, url := web(t, nil)
	page, _ := get(t, url+"/r/lobby", nil)
	cookies := page.Cookies()
	if len(cookies) != 1 || !cookies[0].HttpOnly || cookies[0].SameSite != http.SameSiteLaxMode || cookies[0].Secure || cookies[0].MaxAge < 30*86400 {
		t.Fatalf("the cookie is %v", cookies)
	}
	header := http.Header{"Cookie": {cookies[0].Name + "=" + cookies[0].Value}}
	again, _ := get(t, url+"/r/lobby", header)
	if again.Cookies()[0].Value != cookies[0].Value {
		t.Error("the identity changed")
	}
	user := func(header http.Header) string {
		c, _, err := chattest.Dial(t.Context(), url+"/ws", header)
		must(t, err)
		defer c.Close()
		must(t, c.Hello("Ann", map[string]*int64{"a": nil}))
		welcome, err := c.AwaitType("welcome")
		must(t, err)
		if welcome.Release != "r7" || welcome.Limits.Text != protocol.MaxText {
			t.Errorf("welcome is %+v", welcome)
		}
		return welcome.User
	}
	first := user(header)
	if first != user(header) || first == user(nil) {
		t.Error("an identity is not one user")
	}
	if strings.Contains(strings.ToLower(cookies[0].Value), first) {
		t.Error("the user tells the token")
	}
	forged, _ := get(t, url+"/r/lobby", http.Header{"Cookie": {cookies[0].Name + "=me"}})
	if forged.Cookies()[0].Value == "me" {
		t.Error("a made-up identity was taken")
	}
}

func TestSecureCookie(t *testing.T) {
	for trusted, want := range map[string]bool{"127.0.0.1/32": true, "192.0.2.0/24": false} {
		_, url := web(t, func(c *chat.Config) { c.Trusted = []netip.Prefix{netip.MustParsePrefix(trusted)} })
		page, _ := get(t, url+"/r/lobby", http.Header{"X-Forwarded-Proto": {"https"}})
		if got := page.Cookies()[0].Secure; got != want {
			t.Errorf("with %s trusted, secure is %v", trusted, got)
		}
	}
}

func TestPages(t *testing.T) {
	_, url := web(t, nil)
	cases := []struct {
		path     string
		status   int
		location string
	}{
		{"/", 302, "/r/lobby"},
		{"/r/lobby", 200, ""},
		{"/r/Lobby", 302, "/r/lobby"},
		{"/r/", 404, ""},
		{"/r/a%20b", 404, ""},
		{"/r/a/b", 404, ""},
		{"/etc/passwd", 404, ""},
		{"/assets/x/none.js", 404, ""},
		{"/assets/x/index.html", 404, ""},
		{"/assets/x/app.js", 200, ""},
		{"/ws", 426, ""},
		{"/healthz", 200, ""},
		{"/readyz", 200, ""},
	}
	for _, c := range cases {
		response, _ := get(t, url+c.path, nil)
		if response.StatusCode != c.status || response.Header.Get("Location") != c.location {
			t.Errorf("%s: %d %q, want %d %q", c.path, response.StatusCode, response.Header.Get("Location"), c.status, c.location)
		}
		policy := response.Header.Get("Content-Security-Policy")
		if !strings.HasPrefix(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") {
			t.Errorf("%s: policy %q", c.path, policy)
		}
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin", "X-Chat-Release": "r7",
		} {
			if got := response.Header.Get(name); got != want {
				t.Errorf("%s: %s is %q", c.path, name, got)
			}
		}
	}
}

func TestNeedsSubprotocol(t *testing.T) {
	_, url := web(t, nil)
	response, body := get(t, url+"/ws", http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"},
		"Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}, "Sec-Websocket-Protocol": {"chat.v0"},
	})
	if response.StatusCode != 400 || !strings.Contains(body, protocol.Name) {
		t.Errorf("got %d %q", response.StatusCode, body)
	}
}

func TestReadiness(t *testing.T) {
	server, url := web(t, nil)
	c, _, err := chattest.Dial(t.Context(), url+"/ws", nil)
	must(t, err)
	must(t, c.Hello("Ann", map[string]*int64{"a": nil}))
	if response, body := get(t, url+"/readyz", nil); response.StatusCode != 200 || body != "ready\n" {
		t.Errorf("got %d %q", response.StatusCode, body)
	}
	closed := make(chan int, 1)
	go func() {
		code, err := c.AwaitClose()
		if err != nil {
			t.Error(err)
		}
		c.Close()
		closed <- code
	}()
	server.Drain(context.WithoutCancel(t.Context()), 0, 0)
	if code := <-closed; code != protocol.CloseRestart {
		t.Errorf("closed with %d", code)
	}
	if response, body := get(t, url+"/readyz", nil); response.StatusCode != 503 || body != "draining\n" {
		t.Errorf("got %d %q", response.StatusCode, body)
	}
	if response, _ := get(t, url+"/healthz", nil); response.StatusCode != 200 {
		t.Errorf("the process does not live: %d", response.StatusCode)
	}
	_, response, err := chattest.Dial(t.Context(), url+"/ws", nil)
	if err == nil || response.StatusCode != 503 {
		t.Errorf("a session was admitted: %v, %v", response, err)
	}
}

func TestReadinessSeesTheStore(t *testing.T) {
	server, url := web(t, nil)
	must(t, server.BreakStore())
	if response, body := get(t, url+"/readyz", nil); response.StatusCode != 503 || !strings.Contains(body, "store") {
		t.Errorf("got %d %q", response.StatusCode, body)
	}
}

func TestMetrics(t *testing.T) {
	_, url := web(t, nil)
	c, _, err := chattest.Dial(t.Context(), url+"/ws", nil)
	must(t, err)
	defer c.Close()
	must(t, c.Hello("Ann", map[string]*int64{"a": nil}))
	for range 2 {
		must(t, c.Send("a", "c1", "hi"))
		_, err = c.AwaitType("ack")
		must(t, err)
	}
	if response, _ := get(t, url+"/metrics", http.Header{"X-Forwarded-For": {"192.0.2.1"}}); response.StatusCode != http.StatusNotFound {
		t.Errorf("through a proxy the metrics answer %s", response.Status)
	}
	response, body := get(t, url+"/metrics", nil)
	if !strings.HasPrefix(response.Header.Get("Content-Type"), "text/plain; version=0.0.4") {
		t.Errorf("content type %q", response.Header.Get("Content-Type"))
	}
	for _, want := range []string{
		"chat_sessions 1\n", "chat_rooms 1\n", "chat_messages_stored_total 1\n", "chat_messages_resent_total 1\n",
		"# TYPE chat_sessions gauge\n", `release="r7"`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("metrics lack %q:\n%s", want, body)
		}
	}
}

func TestCaching(t *testing.T) {
	_, url := web(t, nil)
	page, html := get(t, url+"/r/lobby", nil)
	if page.Header.Get("Cache-Control") != "private, no-cache" || page.Header.Get("Last-Modified") != "" {
		t.Errorf("the page, and the secret in its cookie, is cached: %v", page.Header)
	}
	kept, _ := get(t, url+"/r/lobby", http.Header{"If-None-Match": {page.Header.Get("ETag")}})
	if kept.StatusCode != http.StatusNotModified {
		t.Errorf("the page came again: %d", kept.StatusCode)
	}
	_, rest, _ := strings.Cut(html, `src="`)
	script, _, _ := strings.Cut(rest, `"`)
	asset, _ := get(t, url+script, nil)
	if asset.StatusCode != 200 || !strings.Contains(asset.Header.Get("Cache-Control"), "immutable") || asset.Header.Get("Last-Modified") != "" {
		t.Errorf("%s: %d %v", script, asset.StatusCode, asset.Header)
	}
	old, _ := get(t, url+"/assets/0123456789abcdef/app.js", nil)
	if old.StatusCode != 200 || old.Header.Get("Cache-Control") != "no-cache" {
		t.Errorf("of another release: %d %v", old.StatusCode, old.Header)
	}
}

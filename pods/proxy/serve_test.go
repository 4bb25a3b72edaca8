package proxy_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bareboat/pods/proxy"

	"github.com/gorilla/websocket"
)

// echoed is how a backend answers: with the request that reached it.
type echoed struct {
	Backend string
	Host    string
	Path    string
	Query   string
	Header  http.Header
	Body    int64
}

// startBackend answers with the request, and echoes what comes by WebSocket. It
// gives the address in nginx's words; a backend is known by it.
func startBackend(t *testing.T, network string) string {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		dir, err := os.MkdirTemp("", "sock")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
		address = filepath.Join(dir, "b.sock")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	name := l.Addr().String()
	if network == "unix" {
		name = "unix:" + name
	}
	s := httptest.NewUnstartedServer(backend(name))
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	return name
}

func backend(name string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		w.Header().Set("X-Release", "the backend's own")
		json.NewEncoder(w).Encode(echoed{name, r.Host, r.URL.Path, r.URL.RawQuery, r.Header, n})
	})
	mux.HandleFunc("/strict", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Security-Policy", "frame-ancestors 'none'")
		w.Header().Set("Referrer-Policy", "no-referrer")
		w.Header().Set("X-Content-Type-Options", "nosniff")
	})
	mux.HandleFunc("/text", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/css")
		io.WriteString(w, strings.Repeat("some text ", 1000))
	})
	mux.HandleFunc("/ws", func(w http.ResponseWriter, r *http.Request) {
		c, err := new(websocket.Upgrader).Upgrade(w, r, http.Header{"X-Client": {r.Header.Get("X-Real-IP")}})
		if err != nil {
			return
		}
		defer c.Close()
		for {
			kind, text, err := c.ReadMessage()
			if err != nil || c.WriteMessage(kind, text) != nil {
				return
			}
		}
	})
	return mux
}

type answered struct {
	*http.Response
	text []byte
	body echoed // where the body is JSON
}

// get asks the edge, from 127.0.0.9, on a connection of its own.
func get(t *testing.T, e *edge, path string, header http.Header) answered {
	t.Helper()
	return ask(t, e, http.MethodGet, path, header, nil)
}

func ask(t *testing.T, e *edge, method, path string, header http.Header, body io.Reader) answered {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+e.address+path, body)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range header {
		req.Header[k] = v
	}
	if host := header.Get("Host"); host != "" {
		req.Host = host
	}
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}}
	client := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DialContext: dialer.DialContext, DisableKeepAlives: true, DisableCompression: true,
	}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := answered{Response: resp, text: text}
	json.Unmarshal(text, &a.body)
	return a
}

func TestRequestsReachTheirService(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	chat, web, api := startBackend(t, "unix"), startBackend(t, "tcp"), startBackend(t, "tcp")
	e.start(t, e.config("5", map[string]string{"chat": chat, "web": web, "api": api},
		proxy.Site{Path: "/", Service: "web"},
		proxy.Site{Path: "/api", Service: "api"},
		proxy.Site{Hosts: []string{"chat.example", "*.chat.example"}, Path: "/", Service: "chat"}))
	for _, c := range []struct{ host, path, want string }{
		{"", "/", web},
		{"other.example", "/x/y", web},
		{"", "/api", api},
		{"", "/api/x", api},
		{"", "/apix", web},
		{"chat.example", "/", chat},
		{"CHAT.example", "/room", chat},
		{"a.chat.example:8080", "/room", chat},
		{"chat.example", "/api/x", api},
	} {
		got := get(t, e, c.path, http.Header{"Host": {c.host}})
		if got.body.Backend != c.want || got.body.Path != c.path {
			t.Errorf("%s%s: %s, want %s: %s", c.host, c.path, got.body.Backend, c.want, got.text)
		}
		if c.host != "" && got.body.Host != c.host {
			t.Errorf("host is %q, want %q", got.body.Host, c.host)
		}
		if got := got.Header.Values("X-Release"); !slices.Equal(got, []string{"5"}) {
			t.Errorf("%s%s: X-Release is %q", c.host, c.path, got)
		}
	}
	for path, want := range map[string]int{"/-/edge/healthz": 200, "/-/edge/": 404, "/-/edge/x": 404} {
		got := get(t, e, path, nil)
		if got.StatusCode != want || got.body.Backend != "" || got.Header.Get("X-Release") != "5" {
			t.Errorf("%s: %s, release %q", path, got.Status, got.Header.Get("X-Release"))
		}
	}
}

func TestHostsThatNobodyHasGetNothing(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	e.start(t, e.config("1", map[string]string{"chat": startBackend(t, "unix")},
		proxy.Site{Hosts: []string{"chat.example"}, Path: "/", Service: "chat"}))
	if got := get(t, e, "/", http.Header{"Host": {"other.example"}}); got.StatusCode != http.StatusNotFound {
		t.Errorf("status is %s", got.Status)
	}
	if got := get(t, e, "/", http.Header{"Host": {"chat.example"}}); got.StatusCode != http.StatusOK {
		t.Errorf("status is %s", got.Status)
	}
}

func TestClientsAddressIsTheRealOne(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	e.start(t, e.config("1", map[string]string{"chat": startBackend(t, "unix")}, proxy.Site{Path: "/", Service: "chat"}))
	spoofed := http.Header{
		"X-Forwarded-For":   {"198.51.100.1, 198.51.100.2"},
		"X-Real-Ip":         {"198.51.100.3"},
		"X-Forwarded-Proto": {"https"},
		"X-Forwarded-Host":  {"evil.example"},
		"Forwarded":         {"for=198.51.100.4"},
		"Upgrade":           {"h2c"},
		"Connection":        {"upgrade"},
	}
	got := get(t, e, "/", spoofed).body.Header
	for name, want := range map[string]string{
		"X-Real-Ip": "127.0.0.9", "X-Forwarded-For": "127.0.0.9", "X-Forwarded-Proto": "http",
		"X-Forwarded-Host": e.address, "Forwarded": "", "Upgrade": "", "Connection": "",
	} {
		if v := strings.Join(got.Values(name), ", "); v != want {
			t.Errorf("%s is %q, want %q", name, v, want)
		}
	}
	if len(got.Get("X-Request-Id")) != 32 {
		t.Errorf("request's ID is %q", got.Get("X-Request-Id"))
	}
}

func TestBodiesHaveALimit(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	e.start(t, e.config("1", map[string]string{"chat": startBackend(t, "unix")},
		proxy.Site{Path: "/", Service: "chat"},
		proxy.Site{Path: "/upload", Service: "chat", MaxBody: 4 << 20}))
	for _, c := range []struct {
		path   string
		size   int
		status int
	}{
		{"/", 1 << 20, 200}, {"/", 1<<20 + 1, 413}, {"/upload", 4 << 20, 200}, {"/upload", 4<<20 + 1, 413},
	} {
		got := ask(t, e, http.MethodPost, c.path, nil, bytes.NewReader(make([]byte, c.size)))
		if got.StatusCode != c.status || c.status == 200 && got.body.Body != int64(c.size) {
			t.Errorf("%s, %d bytes: %s, %d arrived", c.path, c.size, got.Status, got.body.Body)
		}
		if got.Header.Get("X-Release") != "1" {
			t.Errorf("%s, %d bytes: no X-Release", c.path, c.size)
		}
	}
}

func TestHeadersForThoseWhoSendNone(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	e.start(t, e.config("1", map[string]string{"chat": startBackend(t, "unix")}, proxy.Site{Path: "/", Service: "chat"}))
	want := func(path string, header map[string][]string) {
		t.Helper()
		got := get(t, e, path, nil)
		for name, values := range header {
			if !slices.Equal(got.Header.Values(name), values) {
				t.Errorf("%s: %s is %q, want %q", path, name, got.Header.Values(name), values)
			}
		}
	}
	want("/", map[string][]string{
		"X-Content-Type-Options": {"nosniff"}, "Referrer-Policy": {"strict-origin-when-cross-origin"},
		"X-Frame-Options": {"SAMEORIGIN"}, "Server": {"nginx"},
	})
	want("/strict", map[string][]string{
		"X-Content-Type-Options": {"nosniff"}, "Referrer-Policy": {"no-referrer"},
		"X-Frame-Options": nil, "Content-Security-Policy": {"frame-ancestors 'none'"},
	})
}

func TestTextIsCompressed(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	e.start(t, e.config("1", map[string]string{"chat": startBackend(t, "unix")}, proxy.Site{Path: "/", Service: "chat"}))
	got := get(t, e, "/text", http.Header{"Accept-Encoding": {"gzip"}})
	if got.Header.Get("Content-Encoding") != "gzip" || got.Header.Get("Vary") != "Accept-Encoding" || len(got.text) > 1000 {
		t.Errorf("%d bytes, %v", len(got.text), got.Header)
	}
	r, err := gzip.NewReader(bytes.NewReader(got.text))
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(r); err != nil || len(text) != 10_000 {
		t.Errorf("%d bytes, %v", len(text), err)
	}
	if got := get(t, e, "/text", nil); got.Header.Get("Content-Encoding") != "" || len(got.text) != 10_000 {
		t.Errorf("unasked: %d bytes, %v", len(got.text), got.Header)
	}
}

func TestLogIsJSONWithoutSecrets(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	chat := startBackend(t, "unix")
	e.start(t, e.config("3", map[string]string{"chat": chat}, proxy.Site{Path: "/", Service: "chat"}))
	get(t, e, "/room?token=hunter2", http.Header{"User-Agent": {`a "quoted" one`}, "Referer": {"http://x/?token=hunter2"}})
	var line struct {
		Time, Remote, Method, Host, Path, Service, Upstream, Release, Request, Agent string
		Status                                                                       int
		Seconds                                                                      *float64
	}
	until(t, "its line", func() bool { return strings.Contains(e.read(t), "/room") }) // written after the answer
	log := e.read(t)
	if strings.Contains(log, "hunter2") {
		t.Errorf("the log tells a secret:\n%s", log)
	}
	if strings.Contains(log, "healthz") {
		t.Errorf("the log tells of health checks:\n%s", log)
	}
	last := log[strings.LastIndex(strings.TrimSpace(log), "\n")+1:]
	if err := json.Unmarshal([]byte(last), &line); err != nil {
		t.Fatalf("%v: %s", err, last)
	}
	if line.Remote != "127.0.0.9" || line.Method != "GET" || line.Path != "/room" || line.Status != 200 || line.Seconds == nil ||
		line.Service != "chat" || line.Upstream != chat || line.Release != "3" || line.Agent != `a "quoted" one` ||
		line.Host != e.address || len(line.Request) != 32 {
		t.Errorf("line is %+v", line)
	}
	if _, err := time.Parse(time.RFC3339, line.Time); err != nil {
		t.Error(err)
	}
}

func TestWebSocketsOutliveAReload(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	site := proxy.Site{Path: "/", Service: "chat"}
	first, second := startBackend(t, "unix"), startBackend(t, "unix")
	e.start(t, e.config("1", map[string]string{"chat": first}, site))

	dialer := websocket.Dialer{NetDialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}}).DialContext}
	c, resp, err := dialer.DialContext(t.Context(), "ws://"+e.address+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if resp.Header.Get("X-Client") != "127.0.0.9" || resp.Header.Get("X-Release") != "1" {
		t.Errorf("handshake: %v", resp.Header)
	}
	talk := func(text string) {
		t.Helper()
		c.SetReadDeadline(time.Now().Add(30 * time.Second))
		if err := c.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if _, got, err := c.ReadMessage(); err != nil || string(got) != text {
			t.Fatalf("%q, %v", got, err)
		}
	}
	talk("before")
	if got := get(t, e, "/", nil).body.Backend; got != first {
		t.Errorf("before: %s answers", got)
	}
	if err := e.Write(e.config("2", map[string]string{"chat": second}, site)); err != nil {
		t.Fatal(err)
	}
	if err := e.test(t.Context()); err != nil {
		t.Fatal(err)
	}
	e.reload(t)
	e.wait(t, "2")
	for range 5 {
		if got := get(t, e, "/", nil).body.Backend; got != second {
			t.Errorf("after: %s answers", got)
		}
	}
	talk("after")
}

func TestBackendThatIsGoneIsABadGateway(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	e.start(t, e.config("1", map[string]string{"chat": "unix:/nowhere/chat.sock"}, proxy.Site{Path: "/", Service: "chat"}))
	got := get(t, e, "/", nil)
	if got.StatusCode != http.StatusBadGateway || got.Header.Get("X-Release") != "1" {
		t.Errorf("%s, release %q", got.Status, got.Header.Get("X-Release"))
	}
}

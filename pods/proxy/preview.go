package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/gorilla/websocket"
)

// Check is what an upstream is asked.
type Check struct {
	Path      string
	Host      string // to ask for; empty is the edge's address
	WebSocket bool   // a handshake, and not a mere answer
	Protocol  string // of the WebSocket; empty is none
	Strict    bool   // any answer but an error of the server's is not enough: it has to be 2xx or 3xx
}

// upstreamHeader names the upstream in a preview.
const upstreamHeader = "X-Bareboat-Upstream"

// previewTimeout is for an upstream to answer a preview.
const previewTimeout = 10 * time.Second

// ErrNoToken says that an edge was told no token, and lets nobody preview.
var ErrNoToken = errors.New("the edge was told no token")

// Preview asks an upstream, which need not be in the configuration, through the
// edge that was told it, on the edge's own host. The error says what was wrong
// with the answer.
func Preview(ctx context.Context, c Config, upstream string, check Check) error {
	ctx, cancel := context.WithTimeout(ctx, previewTimeout)
	defer cancel()
	if check.WebSocket {
		return shake(ctx, c, upstream, check)
	}
	resp, err := pass(ctx, c, upstream, http.MethodGet, check.Path, check.Host)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if bad := resp.StatusCode >= 500 || check.Strict && resp.StatusCode >= 400; bad {
		said, _ := io.ReadAll(io.LimitReader(resp.Body, maxHealth))
		return fmt.Errorf("GET %s: %s%s", check.Path, resp.Status, words(said))
	}
	return nil
}

// Request has an upstream asked through the edge, and wants an answer that is
// no error.
func Request(ctx context.Context, c Config, upstream, method, path string) error {
	ctx, cancel := context.WithTimeout(ctx, previewTimeout)
	defer cancel()
	resp, err := pass(ctx, c, upstream, method, path, "")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 400 {
		return fmt.Errorf("%s %s: %s", method, path, resp.Status)
	}
	return nil
}

func pass(ctx context.Context, c Config, upstream, method, path, host string) (*http.Response, error) {
	url, err := previewURL("http", c, path)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return nil, err
	}
	req.Host = host
	req.Header.Set(upstreamHeader, named(upstream))
	client := asker()
	client.Timeout = 0 // ctx ends it
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, hideURL(err))
	}
	return resp, nil
}

// shake does a handshake: the dialer verifies the answer.
func shake(ctx context.Context, c Config, upstream string, check Check) error {
	url, err := previewURL("ws", c, check.Path)
	if err != nil {
		return err
	}
	header := http.Header{upstreamHeader: {named(upstream)}}
	if check.Host != "" {
		header.Set("Host", check.Host)
	}
	dialer := websocket.Dialer{HandshakeTimeout: previewTimeout}
	if check.Protocol != "" {
		dialer.Subprotocols = []string{check.Protocol}
	}
	conn, resp, err := dialer.DialContext(ctx, url, header)
	switch {
	case err != nil && resp != nil:
		return fmt.Errorf("WebSocket %s: %s", check.Path, resp.Status)
	case err != nil:
		return fmt.Errorf("WebSocket %s: %w", check.Path, hideURL(err))
	}
	defer conn.Close()
	if got := conn.Subprotocol(); got != check.Protocol {
		return fmt.Errorf("WebSocket %s: protocol is %q, not %q", check.Path, got, check.Protocol)
	}
	bye := websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")
	return conn.WriteControl(websocket.CloseMessage, bye, time.Now().Add(previewTimeout))
}

func previewURL(scheme string, c Config, path string) (string, error) {
	if c.Token == "" {
		return "", ErrNoToken
	}
	return scheme + "://" + c.Listen.Local() + edgePath + "/preview/" + c.Token + "/" + strings.TrimPrefix(path, "/"), nil
}

// named is the upstream as nginx wants it before a path.
func named(upstream string) string {
	if strings.HasPrefix(upstream, "unix:") {
		return upstream + ":"
	}
	return upstream
}

// hideURL leaves the URL out of an error, and with it the token.
func hideURL(err error) error {
	var u interface{ Unwrap() error }
	if errors.As(err, &u) && u.Unwrap() != nil {
		return u.Unwrap()
	}
	return errors.New("the edge does not answer")
}

func words(body []byte) string {
	text := strings.Join(strings.Fields(string(body)), " ")
	if text == "" || strings.HasPrefix(text, "<") {
		return ""
	}
	return ": " + text
}

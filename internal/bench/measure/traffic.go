package measure

import (
	"io"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync/atomic"
)

// Traffic is what clients asked of a server.
type Traffic struct {
	Requests int64
	Sent     int64 // bytes of the requests' bodies
}

// A Meter is an http.Handler that hands each request on to a server, and counts.
// The zero value answers 502 until Forward names a server.
type Meter struct {
	proxy          atomic.Pointer[httputil.ReverseProxy]
	requests, sent atomic.Int64
}

// Forward names the server. The requests keep their Host, so that the addresses
// which the server makes of it lead through the Meter again.
func (m *Meter) Forward(server *url.URL) {
	m.proxy.Store(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(server)
		r.Out.Host = r.In.Host
	}})
}

// Take gives what was counted since the last call.
func (m *Meter) Take() Traffic {
	return Traffic{Requests: m.requests.Swap(0), Sent: m.sent.Swap(0)}
}

func (m *Meter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.requests.Add(1)
	proxy := m.proxy.Load()
	if proxy == nil {
		http.Error(w, "no server", http.StatusBadGateway)
		return
	}
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = &countingBody{ReadCloser: r.Body, n: &m.sent}
	}
	proxy.ServeHTTP(w, r)
}

type countingBody struct {
	io.ReadCloser
	n *atomic.Int64
}

func (b *countingBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.n.Add(int64(n))
	return n, err
}

package chat

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
)

// front tells what a proxy in front of the server says of a request, as far as
// it is to be believed.
type front struct {
	origins []string
	trusted []netip.Prefix
}

// unixPeer marks the context of connections that came through a unix socket.
type unixPeer struct{}

// noteUnix is an http.Server.ConnContext. Who can reach the socket was allowed
// to by the file system, so such a peer is a proxy of our own.
func noteUnix(ctx context.Context, conn net.Conn) context.Context {
	_, unix := conn.LocalAddr().(*net.UnixAddr)
	return context.WithValue(ctx, unixPeer{}, unix)
}

// believes tells whether the request's forwarding headers count.
func (f front) believes(r *http.Request) bool {
	if unix, _ := r.Context().Value(unixPeer{}).(bool); unix {
		return true
	}
	peer, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(f.trusted, func(p netip.Prefix) bool { return p.Contains(peer.Addr().Unmap()) })
}

// client gives the address that the request comes from.
func (f front) client(r *http.Request) string {
	if f.believes(r) {
		if addr, err := netip.ParseAddr(r.Header.Get("X-Real-IP")); err == nil {
			return addr.String()
		}
		// The last entry is the one that the proxy itself added.
		forwarded := strings.Join(r.Header.Values("X-Forwarded-For"), ",")
		last := strings.TrimSpace(forwarded[strings.LastIndexByte(forwarded, ',')+1:])
		if addr, err := netip.ParseAddr(last); err == nil {
			return addr.String()
		}
	}
	if peer, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		return peer.Addr().Unmap().String()
	}
	return "unknown" // a unix socket with a proxy that does not tell
}

// secure tells whether the browser came by TLS.
func (f front) secure(r *http.Request) bool {
	return r.TLS != nil || f.believes(r) && strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https")
}

// allows tells whether the page that made the request may open a session.
// Without a list it must come from this very host. A program that is not a
// browser sends no Origin and carries no cookie of somebody else's, so it may
// come where no list says otherwise.
func (f front) allows(r *http.Request) bool {
	origin := r.Header.Get("Origin")
	if len(f.origins) > 0 {
		return slices.Contains(f.origins, strings.ToLower(origin))
	}
	if origin == "" {
		return true
	}
	u, err := url.Parse(origin)
	if err != nil || u.Host == "" {
		return false
	}
	host := r.Host
	if forwarded := r.Header.Get("X-Forwarded-Host"); forwarded != "" && f.believes(r) {
		host = forwarded
	}
	return strings.EqualFold(u.Host, host)
}

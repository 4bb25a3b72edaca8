// Package registry pushes, resolves and pulls images at any registry that
// speaks the OCI distribution protocol v1.1
// (https://github.com/opencontainers/distribution-spec).
//
// A registry holds repositories. A repository holds blobs, which are the
// configs and layers of images, and manifests, which list them; both are found
// by their digest. A tag is a name for a manifest that may move to another; to
// resolve is to ask which manifest it names now. A layout is an image on disk:
// a folder as the OCI image layout describes it, with index.json, oci-layout
// and blobs/ALGORITHM/HEX.
//
// Credentials are those that Podman and Docker keep. Plain HTTP is spoken to
// this machine alone, unless Options.Insecure says otherwise.
package registry

import (
	"crypto/tls"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	// defaultJobs is how many blobs travel side by side.
	defaultJobs = 4
	// patience is the usual Options.Patience.
	patience = 5 * time.Minute
)

// Options are the choices of a Client; the zero value is the usual one.
type Options struct {
	// Insecure allows plain HTTP and certificates that cannot be verified, as
	// Podman's --tls-verify=false does. This machine (127.0.0.0/8, ::1,
	// localhost) may always be spoken to over plain HTTP.
	Insecure bool
	// Jobs is how many blobs travel side by side; 0 means 4.
	Jobs int
	// AuthFile is the one file to read credentials from. If it is empty, the
	// usual files are searched; see the environment variable
	// REGISTRY_AUTH_FILE in containers-auth.json(5).
	AuthFile string
	// Places is a folder that keeps notes of which repositories have which blobs,
	// so that another repository of the same registry can be lent them. A wrong
	// note does no harm. If it is empty, the client notes for itself alone.
	Places string
	// Patience is how long a registry may think about a request, or take nothing
	// of a blob that is sent to it; 0 means 5 minutes: some check a large blob
	// before they answer.
	Patience time.Duration
}

// Client speaks to registries. It is safe for concurrent use.
type Client struct {
	options Options
	base    *http.Transport
	places  *places
	busy    locks      // by registry and digest
	tagging sync.Mutex // held while a tag is changed that others change, too
}

// New returns a client.
func New(options Options) *Client {
	if options.Jobs <= 0 {
		options.Jobs = defaultJobs
	}
	if options.Patience <= 0 {
		options.Patience = patience
	}
	return &Client{
		options: options, base: newTransport(options.Insecure, options.Patience),
		places: newPlaces(options.Places),
	}
}

func newTransport(insecure bool, patience time.Duration) *http.Transport {
	dialer := &net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}
	return &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           dialer.DialContext,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   16,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   10 * time.Second,
		ResponseHeaderTimeout: patience,
		TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: insecure},
	}
}

// isLoopback tells whether a host, with or without a port, is this machine.
func isLoopback(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.Trim(host, "[]")
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

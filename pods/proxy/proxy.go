// Package proxy is about the edge: the nginx that people reach, and that passes
// their requests on to the pods of a release.
//
// An upstream is where the containers of one service listen. A site says which
// requests, by host and path, go to which service. A release, in the words of
// this package, is a name that the edge sends along with every answer in the
// header X-Release, so that one can see from outside which configuration
// answers. A preview is a request that the edge passes on to an upstream that it
// was not told of, so that a new pod can be asked before requests go there. The
// folder nginx holds the configuration that stays; sites, upstreams
// and addresses are rendered into one further file by each release.
package proxy

import (
	"net"
	"strconv"
)

// Config is what a release tells the edge.
type Config struct {
	Release   string // sent as X-Release
	Token     string `json:",omitempty"` // lets who knows it preview; empty: nobody may
	Listen    Listen
	Upstreams []Upstream
	Sites     []Site
}

// Listen is where the edge takes connections.
type Listen struct {
	Address string // IP address; empty is every IPv4 address, "::" every address
	Port    uint16
}

// Local is an address, HOST:PORT, at which the edge is reached from its own host.
func (l Listen) Local() string {
	host := l.Address
	switch ip := net.ParseIP(host); {
	case host == "" || ip != nil && ip.IsUnspecified():
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, strconv.Itoa(int(l.Port)))
}

// Upstream is where the containers of a service listen.
type Upstream struct {
	Service   string
	Addresses []string // unix:/PATH as the edge sees it, or IP:PORT
	Release   string   // of the service, told in a comment; may be empty
}

// Site sends requests to a service.
type Site struct {
	Hosts   []string // names, also *.NAME; empty is every host that no other site names
	Path    string   // the path itself and all below it; empty is /
	Service string
	MaxBody int64 // bytes of a request's body; zero is 1 MiB
}

package release

import "strconv"

// Routing is what the edge is told: the number of the release, where people
// reach it, and which requests go where.
type Routing struct {
	Release int
	Address string // empty is all
	Port    uint16
	Sites   []Site
}

func (r Routing) name() string { return "release " + strconv.Itoa(r.Release) }

// Site is one backend as the edge knows it.
type Site struct {
	Service  string
	Hosts    []string // empty is all
	Path     string
	Upstream string // unix:PATH or 127.0.0.1:PORT
}

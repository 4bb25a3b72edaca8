// Package config reads a Compose file into validated values.
//
// A project is what one Compose file describes: services, volumes and networks
// under one name. A service is one program, run from one image. The edge is
// the service that people's browsers reach and that passes requests on; a
// backend is a service that the edge passes them to, at the place where it
// listens. A route says which requests. A recipe is the file that says how the
// service's image is built; so is a Containerfile, which build names. A warning names a key of the Compose file that is
// not honoured.
//
// The file's format is the Compose specification
// (https://github.com/compose-spec/compose-spec); what it has no word for
// stands under x-bareboat, which is decoded strictly:
//
//	x-bareboat:                      # of the project
//	  registry: HOST[:PORT][/PATH]   # where images are pushed to
//	  keep: 3                        # releases that can be gone back to
//	  hooks:                         # commands: a line for sh -c, or a list of words
//	    before_build: make
//	    before_switch: [./migrate, up]
//	    after_release: ./tell
//	    on_failure: ./page
//
//	services:
//	  NAME:
//	    x-bareboat:
//	      recipe: PATH               # how `bareboat build NAME` builds the image
//	      edge: true                 # this service is the edge; at most one is
//	      network: none              # no network but a loopback, whatever networks says
//	      listen:                    # a backend: where the edge reaches it, one of
//	        socket: /run/x/{release}.sock  # a unix socket per release, in a volume that the edge mounts too
//	        port: 8080                     # a TCP port, published on a loopback port leased per release
//	      route:                     # optional: which requests reach the backend
//	        hosts: [chat.example]    # all hosts without it
//	        path: /                  # below this path
//	      check:                     # what a new pod is asked before it gets requests
//	        path: /readyz            # it has to answer 2xx or 3xx, or
//	        websocket: true          # take a handshake,
//	        protocol: chat.v1        # with this subprotocol
//	      drain:                     # how it is told to send its clients elsewhere, one of
//	        signal: SIGUSR1
//	        request: POST /drain
//	      environment:               # variables that differ by release; they override the service's
//	        X_LISTEN: unix:/run/x/{release}.sock
//	        X_VERSION: "{release} of {revision}"
//
// Beside these, every pod is told BAREBOAT_RELEASE and BAREBOAT_REVISION.
//
// The edge is reached at the one port that it publishes in ports, and runs on
// the host's network, whatever networks says: on any other rootless one it would
// not see who its clients are.
package config

import (
	"time"

	"bareboat/internal/oci"
)

// What stands for the facts of a release, in a socket's path and in variables.
const (
	ReleaseMark  = "{release}"  // its number
	ReplicaMark  = "{replica}"  // which of the service's pods it is, from 1
	RevisionMark = "{revision}" // of the source; empty where it is not known
)

// BuiltinRecipe precedes the name of a recipe that Bareboat brings along:
// bareboat:proxy.
const BuiltinRecipe = "bareboat:"

// Project is a Compose file, read and validated.
type Project struct {
	Name     string
	Dir      string    // absolute; relative paths of the file are below it
	Files    []string  // absolute; later files override earlier ones
	Registry string    // HOST[:PORT][/PATH]; empty when the file names none
	Services []Service // dependencies first, then by name
	Volumes  []Volume  // by key
	Networks []Network // by key; only those that a service uses
	Sources  []Source  // secrets and configs that a service uses
	Keep     int       // releases that can be gone back to
	Hooks    Hooks
	Warnings []string // one line each
}

// Service is the one with this name.
func (p *Project) Service(name string) (Service, bool) {
	for _, s := range p.Services {
		if s.Name == name {
			return s, true
		}
	}
	return Service{}, false
}

// Edge is the service that is the edge.
func (p *Project) Edge() (Service, bool) {
	for _, s := range p.Services {
		if s.Edge != nil {
			return s, true
		}
	}
	return Service{}, false
}

// Service is one program of a project. Empty fields leave what the image says.
type Service struct {
	Name   string
	Image  oci.Reference // has a tag or a digest
	Recipe string        // absolute path, or BuiltinRecipe and a name; empty when the image is not built of one
	Build  *Build        // nil when the image is not built of a Containerfile

	Edge   *Edge   // set on the edge
	Listen *Listen // set on a backend
	Route  Route   // of a backend

	Entrypoint []string
	Command    []string
	Env        map[string]string
	ReleaseEnv map[string]string // override Env; values may hold the marks
	User       string
	NonRoot    bool // the file does not say which user: not root, whatever the image says
	WorkDir    string
	Hostname   string
	Labels     map[string]string
	Init       bool

	Mounts   []Mount
	ReadOnly bool // read-only root, unless the file says otherwise

	NetworkMode NetworkMode
	Networks    []Attachment // of NetworkBridge
	Ports       []Port

	CapAdd     []string // without CAP_
	CapDrop    []string // ALL unless the file says otherwise
	Privileges bool     // may gain privileges by setuid; not unless the file says so
	Limits     Limits

	Health     *Health
	StopGrace  time.Duration // from the stop signal to the kill
	StopSignal string
	Restart    string // no, on-failure[:N], always, unless-stopped
	DependsOn  []Dependency
	Replicas   int
	Order      Order
	Update     UpdateConfig
	Rollback   UpdateConfig
	Drain      *Drain // of a backend
	Check      *Check // of a backend

	Files   []FileMount // secrets and configs
	Sidecar string      // the service whose pod it shares; empty is its own
}

// Edge says where people reach the project.
type Edge struct {
	Address string // empty is all addresses
	Port    uint16
}

// Listen says where the edge reaches a backend: a socket or a port.
type Listen struct {
	Socket     string // path in the service's container, with ReleaseMark
	EdgeSocket string // the same socket's path in the edge's container
	Port       uint16 // in the service's container
}

// Route says which requests reach a backend.
type Route struct {
	Hosts []string // empty is all
	Path  string   // starts with a slash
}

// MountKind says what a mount brings in.
type MountKind string

// The kinds of mounts.
const (
	MountVolume MountKind = "volume" // a named volume
	MountBind   MountKind = "bind"   // a path of the host
	MountTmpfs  MountKind = "tmpfs"
)

// Mount brings a volume, a path of the host or a tmpfs into a container.
type Mount struct {
	Kind     MountKind
	Source   string // name of the volume in Podman, or absolute path of the host
	Target   string
	ReadOnly bool
	Size     int64  // bytes, tmpfs only; zero is no limit of its own
	Mode     uint32 // permissions, tmpfs only; zero is the default
}

// NetworkMode is how a service reaches others.
type NetworkMode string

// The network modes.
const (
	NetworkNone   NetworkMode = "none"   // only a loopback of its own
	NetworkHost   NetworkMode = "host"   // the host's
	NetworkBridge NetworkMode = "bridge" // the project's networks
)

// Attachment joins a service to a network.
type Attachment struct {
	Network string // its name in Podman
	Aliases []string
}

// Port publishes a container's port on the host.
type Port struct {
	HostIP    string // empty is all addresses
	Host      uint16 // zero lets Podman choose
	Container uint16
	Protocol  string // tcp or udp
}

// Limits bound what a service takes; zero is no limit.
type Limits struct {
	Memory int64 // bytes
	CPUs   float64
	PIDs   int64
}

// Health is how a service is asked whether it is well.
type Health struct {
	Test        []string // CMD, CMD-SHELL or NONE first
	Interval    time.Duration
	Timeout     time.Duration
	StartPeriod time.Duration
	Retries     int
}

// Order says which of an old and a new container is there first.
type Order string

// The orders of deploy.update_config.order. OrderDefault leaves it to the
// release: start first, unless both cannot run at once.
const (
	OrderDefault    Order = ""
	OrderStartFirst Order = "start-first"
	OrderStopFirst  Order = "stop-first"
)

// Volume is a named volume.
type Volume struct {
	Key      string // in the Compose file
	Name     string // in Podman
	External bool   // not ours: neither made nor removed
	Labels   map[string]string
}

// Network is a network that services share.
type Network struct {
	Key      string // in the Compose file
	Name     string // in Podman
	External bool   // not ours: neither made nor removed
	Internal bool   // no way out
	Labels   map[string]string
}

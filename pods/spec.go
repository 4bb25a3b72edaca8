// Package pods runs pods on rootless Podman through its API.
//
// A pod is a group of containers that share a network and start and stop
// together. A spec says what a pod should be; a Pod is what Podman says it is.
// Health is what a container's own check answered. Labels on pods, volumes and
// networks say which project, service and release they belong to, so that the
// state can always be read from Podman itself.
//
// This package is the only one that imports Podman's bindings.
package pods

import "time"

// Labels that Bareboat puts on what it makes. A value is never a secret.
const (
	LabelProject = "bareboat.project"
	LabelService = "bareboat.service"
	LabelRelease = "bareboat.release"  // number of the release, decimal
	LabelReplica = "bareboat.replica"  // which of the service's pods it is, from 1
	LabelConfig  = "bareboat.config"   // hash of the service's configuration, images by digest
	LabelImage   = "bareboat.image"    // NAME@sha256:… of the service's image
	LabelUp      = "bareboat.upstream" // where the edge reaches the pod: "unix:/run/…" or "127.0.0.1:PORT"
)

// Spec says what a pod should be. Names are those that Podman shows.
type Spec struct {
	Name       string
	Labels     map[string]string
	Network    Network
	Ports      []Port
	Hostname   string
	Containers []Container
}

// Network says how a pod reaches others.
type Network struct {
	Mode  NetworkMode
	Names []string // networks that exist; Mode is NetworkBridge
	Alias []string // names by which others on those networks find the pod
}

// NetworkMode is one of Podman's ways to give a pod a network.
type NetworkMode string

// The network modes.
const (
	NetworkNone   NetworkMode = "none"   // only a loopback of its own
	NetworkHost   NetworkMode = "host"   // the host's
	NetworkBridge NetworkMode = "bridge" // the named networks
)

// Port publishes a port of the pod on the host.
type Port struct {
	HostIP    string
	Host      uint16
	Container uint16
	Protocol  string // tcp or udp; empty is tcp
}

// NonRootUser is whom a container runs as that must not be root, with an image that
// does not name anybody: that of distroless images.
const NonRootUser = "65532:65532"

// Container says what one container of a pod should be. Empty fields leave
// what the image says.
type Container struct {
	Name        string
	Image       string // an image ID or a pinned reference that the store has
	Entrypoint  []string
	Command     []string
	Env         map[string]string
	User        string
	NonRoot     bool `json:",omitempty"` // with an image that says root, run as NonRootUser
	WorkDir     string
	Labels      map[string]string
	Mounts      []Mount
	Secrets     []SecretFile `json:",omitempty"`
	ReadOnly    bool         // read-only root
	CapAdd      []string
	CapDrop     []string
	Privileges  bool // may gain privileges; the default is no-new-privileges
	Health      *Health
	StopSignal  string
	StopTimeout time.Duration // whole seconds; zero leaves Podman's default
	Restart     string        // no, on-failure[:N], always, unless-stopped
	Memory      int64         // bytes; zero is no limit
	CPUs        float64       // zero is no limit
	PIDs        int64         // zero leaves Podman's default
	Init        bool
	Stdin       bool `json:",omitempty"` // it reads what is attached to it
	TTY         bool `json:",omitempty"`
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
	Source   string // volume name or host path
	Target   string
	ReadOnly bool
	Size     int64  // bytes, tmpfs only; zero is no limit of its own
	Mode     uint32 // permissions, tmpfs only; zero is 01777
}

// SecretFile is a secret of Podman's that a container reads in a file.
type SecretFile struct {
	Name   string
	Target string // absolute path
	UID    uint32 // in the container
	GID    uint32
	Mode   uint32 // zero is 0444
}

// Health is a container's own check, as Compose's healthcheck has it.
type Health struct {
	Test        []string // Compose's form: CMD, CMD-SHELL or NONE first
	Interval    time.Duration
	Timeout     time.Duration
	StartPeriod time.Duration
	Retries     int
}

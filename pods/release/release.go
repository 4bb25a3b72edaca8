// Package release replaces what runs of a project by what should run, so that
// whoever uses it notices nothing.
//
// Desired is what should run: services with their images pinned, the volumes
// and networks that they use. Actual is what runs, read from Podman's labels and
// from what the edge was told last. A plan is the list of steps from the one to
// the other; without a step there is nothing to do. A release is one run of such
// a plan, and its number, which new pods carry in their names and labels.
//
// The edge is the service that people reach; a backend is a service that the
// edge passes requests on to, at its upstream; any other service is a worker. A
// switch tells the edge the upstreams of the new pods. Until then, and while the
// new ones are watched after it, all can be taken back, and is when a step fails.
// Then the release is recorded, and the old pods are retired: told to let go of
// their clients, stopped within their grace, and kept as they are, so that there
// is a way back to them. A rollback is a release of pods that are kept.
//
// A service has one pod a replica. Replicas are replaced all at once, or in
// batches, each with a switch of its own.
//
// What runs is known from Podman, and where requests go from the edge's own
// file. The records only say what may be gone back to. Doing a plan again after a
// crash at any step goes on from what is there.
package release

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"bareboat/internal/oci"
	"bareboat/pods"
)

// Variables that each container of a release is given.
const (
	EnvRelease  = "BAREBOAT_RELEASE"  // number of the release that made the pod
	EnvRevision = "BAREBOAT_REVISION" // of the source; empty where it is not known
)

// What stands for the facts of a release in sockets and variables.
const (
	Mark         = "{release}"  // its number
	ReplicaMark  = "{replica}"  // which of the service's pods it is, from 1
	RevisionMark = "{revision}" // of the source
)

// loopback is where leased ports are published: only the edge uses them.
const loopback = "127.0.0.1"

// Desired is what should run of a project.
type Desired struct {
	Project  string
	Revision string // of the source; not compared, since a new one alone changes nothing that runs
	Volumes  []Volume
	Networks []Network
	Secrets  []Secret
	Services []Service // in start order

	// Keep is how many releases before this one can be gone back to: their pods
	// stay, stopped.
	Keep int
	Hook bool // something is to be run before the switch: Deployer.BeforeSwitch
}

// Secret is what a service may read in a file, under a name that tells its
// content apart from any other.
type Secret struct {
	Name   string
	Data   []byte `json:"-"` // empty when Podman has it already
	Labels map[string]string
}

// Volume is a named volume that the project owns.
type Volume struct {
	Name   string
	Labels map[string]string
}

// Network is a network that the project owns.
type Network struct {
	Name     string
	Labels   map[string]string
	Internal bool
}

// Service is one service as it should run.
type Service struct {
	Name  string
	Image oci.Reference // as the project names it, pinned

	// Pull is where the image is pulled from, pinned. Zero: Podman has it as Image.
	Pull     oci.Reference
	Insecure bool // that registry has no TLS that can be verified

	// Sidecars are the images of the pod's further containers.
	Sidecars []Sidecar

	// Pod is what the pod should be, but for its name, the labels and variables
	// of its release, the image and the leased port. Its first container runs
	// Image; names of containers are completed by the pod's.
	Pod pods.Spec

	// Env are variables that override those of the pod's containers, with marks.
	Env map[string]string

	Replicas  int // how many pods; zero is one
	DependsOn []Dependency
	StopFirst bool         // the old and the new cannot run at once
	Update    UpdateConfig // how a release goes about it
	Rollback  UpdateConfig // and a rollback

	Backend *Backend // set on a backend
	Drain   *Drain   // of a backend; nil: its stop signal is all that it is told
	Check   *Check   // of a backend; nil asks for its path and takes any answer of its own
	Edge    *Edge    // set on the edge; at most one service is
}

// Sidecar is the image of a further container in a service's pod.
type Sidecar struct {
	Name     string // of the service that it is in the Compose file
	Image    oci.Reference
	Pull     oci.Reference
	Insecure bool
}

func (s Service) replicas() int { return max(s.Replicas, 1) }

// The conditions of a dependency, as Compose has them.
const (
	ConditionStarted   = "service_started"
	ConditionHealthy   = "service_healthy"
	ConditionCompleted = "service_completed_successfully"
)

// Dependency is a service that has to be there before another.
type Dependency struct {
	Service   string
	Condition string
}

// What happens when a new pod fails (Compose's failure_action).
const (
	FailureRollback = "rollback" // all is taken back; the default
	FailurePause    = "pause"    // all stays where it stands
	FailureContinue = "continue" // the old pod of that replica stays, the release goes on
)

// UpdateConfig says how the pods of a service are replaced (Compose's
// deploy.update_config and deploy.rollback_config).
type UpdateConfig struct {
	Parallelism   int           // replicas at a time; zero is all
	Delay         time.Duration // between batches
	Monitor       time.Duration // for which the new pods are watched after the switch
	FailureAction string
}

// Drain is how a program is told to send its clients elsewhere while it goes on
// serving those that it has: by a signal, or by a request.
type Drain struct {
	Signal string
	Method string
	Path   string
}

// Check is what a new backend is asked through the edge before the switch.
type Check struct {
	Path      string
	WebSocket bool   // a handshake, and not a mere answer
	Protocol  string // of the WebSocket; empty is none
	Strict    bool   // it has to answer 2xx or 3xx; else any answer but 5xx will do
}

// Backend says where a service listens and which requests it gets.
type Backend struct {
	EdgeSocket string // as the edge sees it, with Mark; or empty and
	Port       uint16 // in the service's container
	Hosts      []string
	Path       string
}

// Edge says where people reach the project.
type Edge struct {
	Address string // empty is all
	Port    uint16
}

// podName is deterministic, so that a step done twice makes one pod.
func podName(project, service string, release, replica int) string {
	name := project + "-" + service + "-r" + strconv.Itoa(release)
	if replica > 1 {
		name += "-" + strconv.Itoa(replica)
	}
	return name
}

// instance is one pod of a service in one release.
type instance struct {
	project, revision string
	release, replica  int
	port              uint16 // leased, for a backend with a port
	hash              string
}

// stamp completes the service's pod for a release.
func (s Service) stamp(i instance) pods.Spec {
	spec := s.inPod(podName(i.project, s.Name, i.release, i.replica))
	own := map[string]string{
		pods.LabelProject: i.project,
		pods.LabelService: s.Name,
		pods.LabelRelease: strconv.Itoa(i.release),
		pods.LabelReplica: strconv.Itoa(i.replica),
	}
	spec.Labels = merge(s.Pod.Labels, own, map[string]string{
		pods.LabelConfig: i.hash,
		pods.LabelImage:  s.Image.String(),
	})
	facts := i.facts()
	env := map[string]string{EnvRelease: strconv.Itoa(i.release), EnvRevision: i.revision}
	for name, value := range s.Env {
		env[name] = facts.Replace(value)
	}
	if b := s.Backend; b != nil {
		spec.Labels[pods.LabelUp] = b.upstream(i)
		if b.Port != 0 {
			lease := pods.Port{HostIP: loopback, Host: i.port, Container: b.Port}
			spec.Ports = append(append([]pods.Port{}, s.Pod.Ports...), lease)
		}
	}
	for n := range spec.Containers {
		c := &spec.Containers[n]
		c.Env = merge(c.Env, env)
		c.Labels = merge(c.Labels, own)
	}
	spec.Containers[0].Image = source(s.Pull, s.Image).String()
	for n, side := range s.Sidecars {
		spec.Containers[n+1].Image = source(side.Pull, side.Image).String()
	}
	return spec
}

// inPod is the service's pod under a name, from which its containers have
// theirs: Podman keeps the names of pods and containers together.
func (s Service) inPod(name string) pods.Spec {
	spec := s.Pod
	spec.Name = name
	spec.Containers = slices.Clone(s.Pod.Containers)
	for i := range spec.Containers {
		spec.Containers[i].Name = name + "-" + spec.Containers[i].Name
	}
	return spec
}

// source is the name under which Podman has the image once it is pulled.
func source(pull, image oci.Reference) oci.Reference {
	if pull != (oci.Reference{}) {
		return pull
	}
	return image
}

// facts puts the facts of the release where their marks stand.
func (i instance) facts() *strings.Replacer {
	return strings.NewReplacer(Mark, strconv.Itoa(i.release), ReplicaMark, strconv.Itoa(i.replica), RevisionMark, i.revision)
}

// upstream is where the edge reaches the backend.
func (b Backend) upstream(i instance) string {
	if b.Port != 0 {
		return loopback + ":" + strconv.Itoa(int(i.port))
	}
	return "unix:" + i.facts().Replace(b.EdgeSocket)
}

func merge(layers ...map[string]string) map[string]string {
	out := map[string]string{}
	for _, l := range layers {
		maps.Copy(out, l)
	}
	return out
}

package release

import (
	"time"

	"bareboat/pods"
)

// Status is one pod of a project, for people to look at.
type Status struct {
	Service    string
	Pod        string
	Release    int
	Image      string // NAME@sha256:…
	State      string // as Podman says it
	Health     string // of the first container: healthy, unhealthy, starting; empty without a check
	Upstream   string // where the edge reaches it; empty unless it is a backend
	Serving    bool   // the edge passes requests to it
	Created    time.Time
	Containers []pods.ContainerState
}

// StatusOf lists a project's pods, the newest release first.
func StatusOf(project string, a Actual) []Status {
	var list []Status
	for _, p := range a.of(project) {
		s := Status{
			Service: p.service, Pod: p.Name, Release: p.release, Image: p.Labels[pods.LabelImage],
			State: p.State, Upstream: p.upstream, Serving: a.serves(p) && p.Running(),
			Created: p.Created, Containers: p.Containers,
		}
		if len(p.Containers) > 0 {
			s.Health = p.Containers[0].Health
		}
		list = append(list, s)
	}
	return list
}

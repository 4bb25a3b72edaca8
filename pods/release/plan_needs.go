package release

import (
	"fmt"
	"slices"

	"bareboat/pods"
)

// needs checks what a plan cannot make: volumes, networks and secrets of somebody
// else's have to be there, since Podman would make an empty volume without a word, and
// a network that is there has to be what the project says, since it is only made
// anew when nothing is on it any more.
func (p *planner) needs() error {
	for _, s := range p.desired.Services {
		for _, c := range s.Pod.Containers {
			for _, m := range c.Mounts {
				if m.Kind == pods.MountVolume && !p.hasVolume(m.Source) {
					return missing(s.Name, "volume", m.Source)
				}
			}
			for _, f := range c.Secrets {
				if !p.hasSecret(f.Name) && !p.makesSecret(f.Name) {
					return missing(s.Name, "secret", f.Name)
				}
			}
		}
		for _, name := range s.Pod.Network.Names {
			if !p.hasNetwork(name) {
				return missing(s.Name, "network", name)
			}
		}
	}
	for _, n := range p.desired.Networks {
		if err := p.sameNetwork(n); err != nil {
			return err
		}
	}
	return nil
}

func missing(service, kind, name string) error {
	return &pods.HintError{
		Err:  fmt.Errorf("plan service %s: %s %s does not exist, and is not the project's to make", service, kind, name),
		Hint: fmt.Sprintf("podman %s create %s", kind, name),
	}
}

// makesSecret tells whether what the secret holds is at hand. In a rollback it is
// not.
func (p *planner) makesSecret(name string) bool {
	return p.rollback == nil && named(p.desired.Secrets, name, func(s Secret) string { return s.Name })
}

func (p *planner) hasVolume(name string) bool {
	return named(p.desired.Volumes, name, func(v Volume) string { return v.Name }) ||
		named(p.actual.Volumes, name, func(v pods.Volume) string { return v.Name })
}

func (p *planner) hasNetwork(name string) bool {
	return named(p.desired.Networks, name, func(n Network) string { return n.Name }) ||
		named(p.actual.Networks, name, func(n pods.NetworkState) string { return n.Name })
}

func (p *planner) sameNetwork(n Network) error {
	i := slices.IndexFunc(p.actual.Networks, func(is pods.NetworkState) bool { return is.Name == n.Name })
	if i < 0 || p.actual.Networks[i].Internal == n.Internal {
		return nil
	}
	is := p.actual.Networks[i]
	conflict := &pods.ConflictError{
		Kind: "network", Name: n.Name, Why: fmt.Sprintf("internal is %t, not %t", is.Internal, n.Internal),
	}
	if is.Labels[pods.LabelProject] != p.desired.Project {
		return conflict
	}
	return &pods.HintError{Err: conflict, Hint: "bareboat down, which leaves the data, and bareboat up make it anew"}
}

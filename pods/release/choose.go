package release

import (
	"fmt"
	"slices"
	"time"

	"bareboat/pods"
	"bareboat/pods/proxy"
)

// choice is which pod a replica of a service gets.
type choice struct {
	Service
	replica int
	keep    *pod      // one that is there; nil when a new pod is made
	revive  bool      // it is kept, and has to be started
	spec    pods.Spec // of the new pod
	old     []pod     // all others
	job     bool      // it is to come to its end before others begin
	batch   int       // in which it is replaced
}

// name is that of the pod that the replica gets.
func (c choice) name() string {
	if c.keep != nil {
		return c.keep.Name
	}
	return c.spec.Name
}

// changes tells whether anything has to be started.
func (c choice) changes() bool { return c.keep == nil || c.revive }

// upstream is where the edge reaches the replica.
func (c choice) upstream() string {
	if c.keep != nil {
		return c.keep.upstream
	}
	return c.spec.Labels[pods.LabelUp]
}

// containers is the pod's spec, by which to wait for its containers.
func (c choice) containers() pods.Spec { return c.inPod(c.name()) }

// before is the pod that serves in the replica's place until the switch.
func (c choice) before(a Actual) *pod {
	var found *pod
	for i := range c.old {
		if active(c.old[i]) && (found == nil || a.serves(c.old[i])) {
			found = &c.old[i]
		}
	}
	return found
}

// policy is how the replica is replaced.
func (p *planner) policy(s Service) UpdateConfig {
	if p.rollback != nil {
		return s.Rollback
	}
	return s.Update
}

func (p *planner) choose() error {
	jobs := map[string]bool{}
	for _, s := range p.desired.Services {
		for _, d := range s.DependsOn {
			jobs[d.Service] = jobs[d.Service] || d.Condition == ConditionCompleted
		}
	}
	for _, s := range p.desired.Services {
		for replica := 1; replica <= s.replicas(); replica++ {
			if p.rollback != nil && p.rollback.pod(s.Name, replica) == "" {
				continue // it failed then, and the release went on without it
			}
			c, err := p.choice(choice{Service: s, replica: replica, job: jobs[s.Name]})
			if err != nil {
				return err
			}
			p.chosen = append(p.chosen, c)
		}
		p.batches(s)
	}
	return nil
}

// batches says which of the service's replicas are replaced together: all,
// unless there are old ones to go on with meanwhile.
func (p *planner) batches(s Service) {
	size := p.policy(s).Parallelism
	if size <= 0 {
		return
	}
	n := 0
	for i := range p.chosen {
		c := &p.chosen[i]
		if c.Name == s.Name && c.changes() && c.before(p.actual) != nil {
			c.batch = n / size
			n++
		}
	}
}

func (p *planner) choice(c choice) (choice, error) {
	hash, err := c.hash()
	if err != nil {
		return choice{}, err
	}
	if err := p.find(&c, hash); err != nil {
		return choice{}, err
	}
	for i := range p.pods {
		if is := &p.pods[i]; is.service == c.Name && is.replica == c.replica && is != c.keep {
			c.old = append(c.old, *is)
		}
	}
	if c.keep != nil {
		return c, nil
	}
	i := instance{project: p.desired.Project, revision: p.desired.Revision, release: p.number, replica: c.replica, hash: hash}
	if c.Backend != nil && c.Backend.Port != 0 {
		port, ok := p.leases.next()
		if !ok {
			return choice{}, fmt.Errorf("plan service %s: no port of %s from %d to %d is free", c.Name, loopback, firstLease, lastLease)
		}
		i.port = port
	}
	c.spec = c.stamp(i)
	return c, nil
}

// find looks for a pod that is there for the replica.
func (p *planner) find(c *choice, hash string) error {
	if p.rollback != nil {
		return p.findKept(c)
	}
	for i := range p.pods {
		is := &p.pods[i]
		if is.service == c.Name && is.replica == c.replica && p.fits(*c, *is, hash) && p.better(c.keep, *is) {
			c.keep = is
		}
	}
	return nil
}

// findKept finds the pod that the replica had in the release that is gone back
// to. A job was done then, and is not done again.
func (p *planner) findKept(c *choice) error {
	name := p.rollback.pod(c.Name, c.replica)
	i := slices.IndexFunc(p.pods, func(is pod) bool { return is.Name == name })
	if i < 0 {
		return &NoWayBackError{p.desired.Project, p.rollback.Release, fmt.Sprintf("its pod %s is gone", name)}
	}
	c.keep = &p.pods[i]
	c.revive = !c.job && (!c.keep.Running() || c.Edge != nil && (p.actual.Told == nil || p.leaving(*c.keep)))
	return nil
}

// fits tells whether the pod is what the replica should be. One that does not
// run is replaced: why it stopped is not known. A job that is done is done.
func (p *planner) fits(c choice, is pod, hash string) bool {
	if is.Labels[pods.LabelConfig] != hash {
		return false
	}
	if c.job && completed(is) {
		return true
	}
	return is.Running() && (c.Edge == nil || p.edgeFits(*c.Edge, is))
}

// edgeFits tells whether an edge can go on: one whose file is gone may have a
// folder mounted that is gone too, and one has its sockets from its start on.
func (p *planner) edgeFits(e Edge, is pod) bool {
	told := p.actual.Told
	return told != nil && told.Listen == proxy.Listen{Address: e.Address, Port: e.Port} && !p.leaving(is)
}

// leaving tells whether an edge that runs may have been told to take no more
// connections, which Podman does not show: another was started since.
func (p *planner) leaving(edge pod) bool {
	return slices.ContainsFunc(p.pods, func(is pod) bool {
		return is.service == edge.service && active(is) && is.started().After(edge.started())
	})
}

// started is when the first container of the pod was started last.
func (p pod) started() time.Time {
	if len(p.Containers) == 0 {
		return time.Time{}
	}
	return p.Containers[0].Started
}

// better prefers the pod that serves, and else the newer, which comes first.
func (p *planner) better(than *pod, is pod) bool {
	return than == nil || !p.actual.serves(*than) && p.actual.serves(is)
}

// unproven tells that the kept pod may not have been seen healthy: an
// interrupted release may have left it.
func (c choice) unproven(a Actual) bool {
	switch {
	case c.keep == nil || c.revive || a.serves(*c.keep) || a.recorded(c.keep.Name):
		return false
	case c.job:
		return c.keep.Running()
	}
	return len(c.old) > 0 || c.Backend != nil
}

// active tells whether anything of the pod runs.
func active(p pod) bool {
	return slices.ContainsFunc(p.Containers, func(c pods.ContainerState) bool { return c.State == pods.StateRunning })
}

// completed tells whether all of the pod came to its end, and well.
func completed(p pod) bool {
	for _, c := range p.Containers {
		if c.State != pods.StateExited && c.State != pods.StateStopped || c.ExitCode != 0 || c.Started.IsZero() {
			return false
		}
	}
	return len(p.Containers) > 0
}

package release

import (
	"fmt"
	"slices"
	"strings"

	"bareboat/pods"
	"bareboat/pods/proxy"
)

// Action is what a step does. Each can be done again without harm.
type Action int

// The actions, in the order in which a plan has them.
const (
	MakeVolume    Action = iota // make a volume
	MakeNetwork                 // make a network
	Pull                        // pull an image by digest
	Stop                        // stop an old pod that cannot run beside the new
	Start                       // make a pod and start it
	Ready                       // wait until a pod is healthy
	Tell                        // write down for the edge where to pass requests
	Switch                      // have the edge read that, and wait until it does
	Retire                      // stop a pod within its grace and remove it
	RemoveNetwork               // remove a network
	RemoveVolume                // remove a volume with its data
	Forget                      // remove what the edge was told
)

func (a Action) String() string {
	return [...]string{"make volume", "make network", "pull", "stop", "start", "wait for", "tell the edge", "switch to",
		"stop and remove", "remove network", "remove volume", "remove"}[a]
}

// Step is one step of a plan.
type Step struct {
	Action  Action
	Service string // empty where it is the project's
	Name    string // of the pod, image, volume or network

	spec     pods.Spec // Start, Ready
	labels   map[string]string
	internal bool         // MakeNetwork
	insecure bool         // Pull
	number   int          // Switch: of the release
	adopted  bool         // Ready: an interrupted release made the pod, and another is there to go on
	config   proxy.Config // Tell, Switch
	edge     string       // Tell, Switch: name of the edge's container; empty while none runs
}

// String says the step in a few words.
func (s Step) String() string {
	if s.Action != Tell {
		return s.Action.String() + " " + s.Name
	}
	to := make([]string, len(s.config.Upstreams))
	for i, u := range s.config.Upstreams {
		to[i] = u.Service + " is at " + strings.Join(u.Addresses, " and ")
	}
	return s.Action.String() + ": " + strings.Join(append(to, s.Name), ", ")
}

// Plan is how to get from what runs to what should run. The zero value has
// nothing to do.
type Plan struct {
	Project string
	Release int // number of the release; zero when none of its steps makes one
	Serving int // number of the release that serves before it; zero is none
	Steps   []Step
}

// Empty tells that there is nothing to do.
func (p Plan) Empty() bool { return len(p.Steps) == 0 }

// String has one line a step.
func (p Plan) String() string {
	var b strings.Builder
	for _, s := range p.Steps {
		b.WriteString(s.String() + "\n")
	}
	return b.String()
}

// NewPlan compares what should run with what runs. It is the same for the same
// input.
func NewPlan(d Desired, a Actual) (Plan, error) {
	p := planner{desired: d, actual: a, number: a.last(d.Project) + 1, leases: a.leases(d.Project)}
	p.pods = a.of(d.Project)
	if err := p.needs(); err != nil {
		return Plan{}, err
	}
	if err := p.choose(); err != nil {
		return Plan{}, err
	}
	p.prepare()
	p.start()
	if err := p.edge(); err != nil {
		return Plan{}, err
	}
	p.retire()
	plan := Plan{Project: d.Project, Serving: a.serving(d.Project), Steps: p.steps}
	plan.Release = p.release()
	return plan, nil
}

// serving is the number of the release that serves: what the edge was told, or
// the newest that runs.
func (a Actual) serving(project string) int {
	for _, p := range a.of(project) {
		if a.serves(p) && p.Running() {
			return a.told()
		}
	}
	for _, p := range a.of(project) {
		if p.Running() && a.Told == nil {
			return p.release
		}
	}
	return 0
}

// planner builds a plan, phase by phase.
type planner struct {
	desired Desired
	actual  Actual
	number  int // of the release, if one is made
	leases  *leases
	pods    []pod

	chosen []choice // one a desired service, in the same order
	steps  []Step
}

// choice is which pod a service gets.
type choice struct {
	Service
	keep *pod      // stays; nil when a new pod is made
	spec pods.Spec // of the new pod
	old  []pod     // all others
}

// unproven tells that the kept pod may not have been seen healthy: while there
// is another, an interrupted release may have left both.
func (c choice) unproven(a Actual) bool {
	if c.keep == nil || a.serves(*c.keep) {
		return false
	}
	return len(c.old) > 0 || c.Backend != nil
}

func (p *planner) add(s Step) { p.steps = append(p.steps, s) }

func (p *planner) choose() error {
	for _, s := range p.desired.Services {
		c, err := p.choice(s)
		if err != nil {
			return err
		}
		p.chosen = append(p.chosen, c)
	}
	return nil
}

func (p *planner) choice(s Service) (choice, error) {
	hash, err := s.hash()
	if err != nil {
		return choice{}, err
	}
	c := choice{Service: s}
	for i := range p.pods {
		if p.pods[i].service == s.Name && p.fits(s, p.pods[i], hash) && p.better(c.keep, p.pods[i]) {
			c.keep = &p.pods[i]
		}
	}
	for i := range p.pods {
		if p.pods[i].service == s.Name && &p.pods[i] != c.keep {
			c.old = append(c.old, p.pods[i])
		}
	}
	if c.keep != nil {
		return c, nil
	}
	i := instance{project: p.desired.Project, revision: p.desired.Revision, release: p.number, hash: hash}
	if s.Backend != nil && s.Backend.Port != 0 {
		port, ok := p.leases.next()
		if !ok {
			return choice{}, fmt.Errorf("plan service %s: no port of %s from %d to %d is free", s.Name, loopback, firstLease, lastLease)
		}
		i.port = port
	}
	c.spec = s.stamp(i)
	return c, nil
}

// fits tells whether the pod is what the service should be. One that does not
// run is replaced: why it stopped is not known.
func (p *planner) fits(s Service, is pod, hash string) bool {
	if !is.Running() || is.Labels[pods.LabelConfig] != hash {
		return false
	}
	// An edge whose file is gone may have a folder mounted that is gone too.
	return s.Edge == nil || p.actual.Told != nil
}

// better prefers the pod that serves, and else the newer, which comes first.
func (p *planner) better(than *pod, is pod) bool {
	return than == nil || !p.actual.serves(*than) && p.actual.serves(is)
}

func (p *planner) prepare() {
	own := map[string]string{pods.LabelProject: p.desired.Project}
	for _, v := range p.desired.Volumes {
		if !named(p.actual.Volumes, v.Name, func(v pods.Volume) string { return v.Name }) {
			p.add(Step{Action: MakeVolume, Name: v.Name, labels: merge(v.Labels, own)})
		}
	}
	for _, n := range p.desired.Networks {
		if !named(p.actual.Networks, n.Name, func(n pods.NetworkState) string { return n.Name }) {
			p.add(Step{Action: MakeNetwork, Name: n.Name, labels: merge(n.Labels, own), internal: n.Internal})
		}
	}
	pulled := map[string]bool{}
	for _, c := range p.chosen {
		ref := c.source().String()
		if c.keep != nil || c.Pull.Registry == "" || pulled[ref] {
			continue
		}
		pulled[ref] = true
		p.add(Step{Action: Pull, Service: c.Name, Name: ref, insecure: c.Insecure})
	}
}

func named[T any](list []T, name string, of func(T) string) bool {
	for _, item := range list {
		if of(item) == name {
			return true
		}
	}
	return false
}

// start brings up what the edge is to reach, and the workers.
func (p *planner) start() {
	for _, c := range p.chosen {
		if c.Edge == nil {
			p.bring(c)
		}
	}
}

// bring makes the service's pod and waits for it.
func (p *planner) bring(c choice) {
	if c.keep != nil {
		p.adopt(c)
		return
	}
	if c.StopFirst {
		p.stop(c)
	}
	p.add(Step{Action: Start, Service: c.Name, Name: c.spec.Name, spec: c.spec})
	p.add(Step{Action: Ready, Service: c.Name, Name: c.spec.Name, spec: c.spec})
}

// adopt has a pod that an interrupted release left prove itself. One that the
// others were stopped for already is all there is, and stays if it cannot.
func (p *planner) adopt(c choice) {
	if c.unproven(p.actual) {
		alone := c.Backend == nil && !slices.ContainsFunc(c.old, active)
		p.add(Step{Action: Ready, Service: c.Name, Name: c.keep.Name, spec: c.inPod(c.keep.Name), adopted: !alone})
	}
}

// stop makes room for a pod that cannot run beside the old one.
func (p *planner) stop(c choice) {
	for _, old := range c.old {
		if active(old) {
			p.add(Step{Action: Stop, Service: c.Name, Name: old.Name})
		}
	}
}

// active tells whether anything of the pod runs.
func active(p pod) bool {
	return slices.ContainsFunc(p.Containers, func(c pods.ContainerState) bool { return c.State == pods.StateRunning })
}

func (p *planner) makesPods() bool {
	return slices.ContainsFunc(p.chosen, func(c choice) bool { return c.keep == nil })
}

// release is the number of the release that the plan makes, or zero.
func (p *planner) release() int {
	n := 0
	if p.makesPods() {
		n = p.number
	}
	for _, s := range p.steps {
		if s.Action == Switch {
			n = max(n, s.number)
		}
	}
	return n
}

// retire removes what nobody needs any more: after the switch, when all is well.
func (p *planner) retire() {
	for _, old := range p.old() {
		p.add(Step{Action: Retire, Service: old.service, Name: old.Name})
	}
}

func (p *planner) retiresBackend() bool {
	return slices.ContainsFunc(p.old(), func(old pod) bool { return old.upstream != "" && active(old) })
}

// old lists the pods that no service keeps: in the order of the services, then
// those of services that are no more.
func (p *planner) old() []pod {
	var list []pod
	desired := map[string]bool{}
	for _, c := range p.chosen {
		desired[c.Name] = true
		list = append(list, c.old...)
	}
	for _, is := range p.pods {
		if !desired[is.service] {
			list = append(list, is)
		}
	}
	return list
}

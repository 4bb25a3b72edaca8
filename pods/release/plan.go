package release

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"bareboat/internal/oci"
	"bareboat/pods"
	"bareboat/pods/proxy"
)

// Action is what a step does. Each can be done again without harm.
type Action int

// The actions. A failure of one up to Watch takes back what the plan did.
const (
	MakeVolume    Action = iota // make a volume
	MakeNetwork                 // make a network
	MakeSecret                  // make a secret
	Pull                        // pull an image by digest
	Stop                        // stop an old pod that cannot run beside the new
	Start                       // make a pod, or take one that was kept, and start it
	Ready                       // wait until a pod is healthy, or has come to its end
	Preview                     // ask a new pod through the edge
	Hook                        // run what the project wants run before the switch
	Tell                        // write down for the edge where to pass requests
	Switch                      // have the edge read that, and wait until it does
	Quit                        // have the old edge take no more connections
	Watch                       // see that the new pods stay well
	Pause                       // wait between two batches of replicas
	Note                        // record the release: from here on it counts
	Dismiss                     // tell a pod to send its clients elsewhere
	Settle                      // wait until the edge has let go of what is old
	Retire                      // stop a pod within its grace, and keep it
	Remove                      // stop a pod within its grace, and remove it
	RemoveNetwork               // remove a network
	RemoveVolume                // remove a volume with its data
	RemoveSecret                // remove a secret
	Forget                      // remove what the edge was told
)

func (a Action) String() string {
	return [...]string{"make volume", "make network", "make secret", "pull", "stop", "start", "wait for", "preview",
		"run hook", "tell the edge", "switch to", "close the doors of", "watch", "pause", "record", "drain", "wait for the clients of",
		"stop and keep", "stop and remove", "remove network", "remove volume", "remove secret", "remove"}[a]
}

// Step is one step of a plan.
type Step struct {
	Action  Action
	Service string // empty where it is the project's
	Name    string // of the pod, image, volume or network

	slot      slot      // Stop, Start, Ready, Preview, Retire: whose pod it is; the zero slot is none
	onFailure string    // Start, Ready, Preview, Watch: what a failure of it means
	spec      pods.Spec // Start, Ready
	kept      bool      // Start: the pod is there
	job       bool      // Ready: it comes to its end
	labels    map[string]string
	data      []byte        // MakeSecret
	internal  bool          // MakeNetwork
	insecure  bool          // Pull
	number    int           // Switch: of the release
	adopted   bool          // Ready: an interrupted release made the pod, and another is there to go on
	config    proxy.Config  // Tell, Switch, Preview
	places    []place       // Tell, Switch
	edge      string        // Preview, Tell, Switch, Settle, Quit: name of the edge's container; empty while none runs
	fresh     bool          // Switch: the edge has just started, and has read its file
	check     *Check        // Preview
	host      string        // Preview: the host to ask for; may be empty
	upstream  string        // Preview, Dismiss
	drain     Drain         // Dismiss
	container string        // Quit, Dismiss
	watched   []watched     // Watch
	wait      time.Duration // Pause, Settle: at most
	records   Records       // Note
	instead   []instead     // Note
}

// slot is one replica of a service.
type slot struct {
	service string
	replica int
}

// place is where the edge finds a slot, and where it would without the release.
type place struct {
	slot
	now, before string // upstreams; before is empty when there was none
}

// instead is the pod that stays in a slot where the new one fails.
type instead struct {
	slot
	now, before string // names; before is empty when there was none
}

// watched is a container that is to stay well for a time.
type watched struct {
	slot
	pods.Watched
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
	Release int    // number of the release; zero when none of its steps makes one
	Serving int    // number of the release that serves before it; zero is none
	Note    string // what an interrupted release left, and what becomes of it; may be empty
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
	return p.plan()
}

// NewRollback plans the way back to a release, by its kept pods; zero is the one
// before. How many are kept stays as it was. The error is a *NoWayBackError when
// there is no such way.
func NewRollback(project string, to int, hook bool, a Actual) (Plan, error) {
	rec, ok := a.Records.Find(to)
	if to == 0 {
		if rec, ok = a.Records.Before(); !ok {
			return Plan{}, &NoWayBackError{Project: project, Why: "none before the one that serves is kept"}
		}
	}
	if !ok {
		return Plan{}, &NoWayBackError{project, to, "it is not kept"}
	}
	rec.Desired.Hook = hook
	p := planner{desired: rec.Desired, actual: a, number: rec.Release, leases: a.leases(project), rollback: &rec}
	return p.plan()
}

// planner builds a plan, phase by phase.
type planner struct {
	desired  Desired
	actual   Actual
	number   int // of the release, if one is made
	leases   *leases
	pods     []pod
	rollback *Record // of the release that is gone back to

	chosen []choice      // one a replica, in the order of the services
	told   *proxy.Config // what the plan tells the edge last; nil while it tells nothing
	hooked bool
	steps  []Step
}

func (p *planner) plan() (Plan, error) {
	p.pods = p.actual.of(p.desired.Project)
	if err := p.needs(); err != nil {
		return Plan{}, err
	}
	if err := p.choose(); err != nil {
		return Plan{}, err
	}
	p.prepare()
	last := p.lastBatch()
	for batch := 0; batch <= last; batch++ {
		p.start(batch)
		if err := p.edge(batch); err != nil {
			return Plan{}, err
		}
		p.watch(batch)
		if batch < last {
			p.makeRoom(batch)
		}
	}
	records := p.note()
	p.drain()
	p.retire(records)
	return Plan{
		Project: p.desired.Project, Release: p.release(), Serving: p.actual.serving(p.desired.Project),
		Note: p.leftover(), Steps: p.steps,
	}, nil
}

func (p *planner) add(s Step) { p.steps = append(p.steps, s) }

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
	for _, s := range p.desired.Secrets {
		if !p.hasSecret(s.Name) {
			p.add(Step{Action: MakeSecret, Name: s.Name, labels: merge(s.Labels, own), data: s.Data})
		}
	}
	p.pull()
}

// pull has Podman get the images of new pods, each once.
func (p *planner) pull() {
	pulled := map[string]bool{}
	add := func(service string, from oci.Reference, insecure bool) {
		ref := from.String()
		if from.Registry != "" && !pulled[ref] {
			pulled[ref] = true
			p.add(Step{Action: Pull, Service: service, Name: ref, insecure: insecure})
		}
	}
	for _, c := range p.chosen {
		if c.keep != nil {
			continue
		}
		add(c.Name, c.Pull, c.Insecure)
		for _, side := range c.Sidecars {
			add(c.Name, side.Pull, side.Insecure)
		}
	}
}

func named[T any](list []T, name string, of func(T) string) bool {
	return slices.ContainsFunc(list, func(item T) bool { return of(item) == name })
}

func (p *planner) hasSecret(name string) bool {
	return named(p.actual.Secrets, name, func(s pods.Secret) string { return s.Name })
}

func (p *planner) lastBatch() int {
	last := 0
	for _, c := range p.chosen {
		last = max(last, c.batch)
	}
	return last
}

// start brings up what the edge is to reach, and the workers. The edge waits for
// the last batch.
func (p *planner) start(batch int) {
	for _, c := range p.chosen {
		if c.batch == batch && c.Edge == nil {
			p.bring(c)
		}
	}
}

// bring has the replica's pod run, and waits for it.
func (p *planner) bring(c choice) {
	if !c.changes() {
		p.adopt(c)
		return
	}
	if c.StopFirst {
		p.stop(c)
	}
	p.launch(c)
	p.preview(c)
}

// launch starts the replica's pod and waits for it.
func (p *planner) launch(c choice) {
	s := Step{Service: c.Name, Name: c.name(), slot: c.slot(), onFailure: p.policy(c.Service).FailureAction}
	s.spec, s.kept, s.job = c.spec, c.keep != nil, c.job
	if s.kept {
		s.spec = c.containers()
		if active(*c.keep) {
			p.add(Step{Action: Stop, Service: c.Name, Name: c.name(), slot: c.slot()})
		}
	}
	s.Action = Start
	p.add(s)
	s.Action = Ready
	p.add(s)
}

func (c choice) slot() slot { return slot{c.Name, c.replica} }

// adopt has a pod that an interrupted release left prove itself. One that the
// others were stopped for already is all there is, and stays if it cannot.
func (p *planner) adopt(c choice) {
	if c.unproven(p.actual) {
		alone := c.Edge != nil || c.Backend == nil && !slices.ContainsFunc(c.old, active)
		p.add(Step{
			Action: Ready, Service: c.Name, Name: c.name(), slot: c.slot(), spec: c.containers(), adopted: !alone, job: c.job,
		})
	}
}

// stop makes room for a pod that cannot run beside the old one.
func (p *planner) stop(c choice) {
	for _, old := range c.old {
		if active(old) {
			p.add(Step{Action: Stop, Service: c.Name, Name: old.Name, slot: c.slot()})
		}
	}
}

// watch sees that what is new in this batch stays well.
func (p *planner) watch(batch int) {
	s := Step{Action: Watch, onFailure: FailureContinue}
	var names []string
	for _, c := range p.chosen {
		policy := p.policy(c.Service)
		if c.batch != batch || !c.changes() || c.job || policy.Monitor <= 0 {
			continue
		}
		for _, is := range c.containers().Containers {
			w := pods.Watched{Container: is.Name, For: policy.Monitor}
			if is.Health != nil {
				w.Health = *is.Health
			}
			s.watched = append(s.watched, watched{c.slot(), w})
		}
		names = append(names, fmt.Sprintf("%s for %v", c.name(), policy.Monitor))
		s.onFailure = stricter(s.onFailure, policy.FailureAction)
	}
	if len(names) > 0 {
		s.Name = strings.Join(names, ", ")
		p.add(s)
	}
}

// stricter is what happens when one of two services fails and it is not asked
// which: going back comes before staying, and that before going on.
func stricter(a, b string) string {
	for _, action := range []string{FailurePause, FailureContinue} {
		if a != FailureRollback && a != "" && b != FailureRollback && b != "" && (a == action || b == action) {
			return action
		}
	}
	return FailureRollback
}

// makeRoom stops the old pods of a batch, before the next is started beside those
// that are left.
func (p *planner) makeRoom(batch int) {
	var delay time.Duration
	var leaving []pod
	for _, c := range p.chosen {
		if c.batch != batch || !c.changes() {
			continue
		}
		for _, old := range c.old {
			if active(old) && !p.retired(old.Name) {
				leaving = append(leaving, old)
			}
		}
		delay = max(delay, p.policy(c.Service).Delay)
	}
	for _, old := range leaving {
		p.drainOne(old)
	}
	if edge, live := p.liveEdge(); live && p.told != nil {
		p.settle(edge, leaving)
	}
	for _, old := range leaving {
		p.add(Step{Action: Retire, Service: old.service, Name: old.Name, slot: slot{old.service, old.replica}})
	}
	if delay > 0 {
		p.add(Step{Action: Pause, Name: delay.String(), wait: delay})
	}
}

func (p *planner) makesPods() bool {
	return slices.ContainsFunc(p.chosen, func(c choice) bool { return c.keep == nil })
}

// release is the number of the release that the plan makes, or zero.
func (p *planner) release() int {
	n := 0
	switch {
	case p.makesPods(), p.rollback != nil && len(p.steps) > 0:
		n = p.number
	case p.rollback == nil:
		n = p.left()
	}
	for _, s := range p.steps {
		if s.Action == Switch {
			n = max(n, s.number)
		}
	}
	return n
}

// note records the release, if that was not done yet, and says what is recorded
// then.
func (p *planner) note() Records {
	rec := Record{Release: p.serves(), Desired: p.desired, Pods: map[string][]string{}}
	rec.Desired.Hook = false
	for _, c := range p.chosen {
		rec.Pods[c.Name] = append(rec.Pods[c.Name], c.name())
	}
	before := p.actual.Records
	records := before
	is, known := before.Find(before.Serving)
	switch known = known && is.same(rec); {
	case p.rollback != nil && !known:
		records = before.back(rec)
	case p.rollback == nil && known:
		records = before.trim(p.desired.Keep)
	case p.rollback == nil:
		records = before.advance(rec, p.desired.Keep)
	}
	if !records.same(before) {
		p.add(Step{Action: Note, Name: fmt.Sprintf("release %d", rec.Release), records: records, instead: p.instead()})
	}
	return records
}

func (p *planner) instead() []instead {
	var list []instead
	for _, c := range p.chosen {
		is := instead{slot: c.slot(), now: c.name()}
		if old := c.before(p.actual); old != nil {
			is.before = old.Name
		}
		list = append(list, is)
	}
	return list
}

// left is the number of the release that an interruption left, if the plan goes
// on with it; else zero.
func (p *planner) left() int {
	n := 0
	for _, c := range p.chosen {
		if c.keep != nil {
			n = max(n, c.keep.release)
		}
	}
	if n > p.actual.known() {
		return n
	}
	return 0
}

// serves is the number of the release that serves when the plan is done.
func (p *planner) serves() int {
	if p.rollback != nil {
		return p.rollback.Release
	}
	return cmp.Or(p.release(), p.actual.serving(p.desired.Project), p.number-1)
}

// retire stops what nobody reaches any more, and removes what there is no way
// back to.
func (p *planner) retire(records Records) {
	for _, old := range p.old() {
		switch {
		case !records.Needs(old.Name):
			p.add(Step{Action: Remove, Service: old.service, Name: old.Name, slot: slot{old.service, old.replica}})
		case active(old) && !p.retired(old.Name):
			p.add(Step{Action: Retire, Service: old.service, Name: old.Name, slot: slot{old.service, old.replica}})
		}
	}
	for _, s := range p.actual.Secrets {
		if s.Labels[pods.LabelProject] == p.desired.Project && !records.needsSecret(s.Name) {
			p.add(Step{Action: RemoveSecret, Name: s.Name})
		}
	}
}

// retired tells whether a step of the plan stops the pod already.
func (p *planner) retired(name string) bool {
	return slices.ContainsFunc(p.steps, func(s Step) bool { return (s.Action == Retire || s.Action == Stop) && s.Name == name })
}

// old lists the pods that no replica keeps: in the order of the services, the
// edge first, since it may lead clients to the others; then those of services and
// replicas that are no more.
func (p *planner) old() []pod {
	var edges, list []pod
	desired := map[slot]bool{}
	for _, c := range p.chosen {
		desired[c.slot()] = true
		if c.Edge != nil {
			edges = append(edges, c.old...)
		} else {
			list = append(list, c.old...)
		}
	}
	for _, is := range p.pods {
		if !desired[slot{is.service, is.replica}] {
			list = append(list, is)
		}
	}
	return append(edges, list...)
}

// leftover says what an interrupted release left, and what becomes of it.
func (p *planner) leftover() string {
	serving := p.actual.serving(p.desired.Project)
	for _, is := range p.pods {
		if serving == 0 || is.release <= serving || !active(is) || p.rollback != nil && p.rollback.Has(is.Name) {
			continue
		}
		if slices.ContainsFunc(p.chosen, func(c choice) bool { return c.keep != nil && c.keep.Name == is.Name }) {
			return fmt.Sprintf("going on with release %d, which was interrupted", is.release)
		}
		return fmt.Sprintf("taking back what release %d left when it was interrupted", is.release)
	}
	return ""
}

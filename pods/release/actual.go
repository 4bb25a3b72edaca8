package release

import (
	"cmp"
	"context"
	"hash/fnv"
	"net"
	"slices"
	"strconv"

	"bareboat/pods"
	"bareboat/pods/proxy"
)

// Actual is what there is.
type Actual struct {
	Pods     []pods.Pod // of every project, since ports are leased by all of them
	Volumes  []pods.Volume
	Networks []pods.NetworkState
	Secrets  []pods.Secret
	Told     *proxy.Config // what the edge was told last; nil when it was told nothing
	Loaded   bool          // the edge has read that
	Records  Records

	// Listen tells why a port of the host cannot be listened on, by the system's
	// own error. Nil is for hosts that cannot be asked.
	Listen func(address string, port uint16) error
}

// observer reads what there is.
type observer interface {
	Pods(ctx context.Context, labels map[string]string) ([]pods.Pod, error)
	Volumes(ctx context.Context, labels map[string]string) ([]pods.Volume, error)
	Networks(ctx context.Context, labels map[string]string) ([]pods.NetworkState, error)
	Secrets(ctx context.Context, labels map[string]string) ([]pods.Secret, error)
}

// teller knows what the edge was told, and which releases there were.
type teller interface {
	Current() (*proxy.Config, error) // nil when nothing was written
	Records() (Records, error)
	// Loaded tells whether the edge has read what it was told.
	Loaded(ctx context.Context, told proxy.Config) bool
}

// Observe reads the actual state from Podman and from what the edge was told.
func Observe(ctx context.Context, o observer, edge teller) (Actual, error) {
	a := Actual{Listen: listen}
	var err error
	if a.Pods, err = o.Pods(ctx, nil); err != nil {
		return Actual{}, err
	}
	if a.Volumes, err = o.Volumes(ctx, nil); err != nil {
		return Actual{}, err
	}
	if a.Networks, err = o.Networks(ctx, nil); err != nil {
		return Actual{}, err
	}
	if a.Secrets, err = o.Secrets(ctx, nil); err != nil {
		return Actual{}, err
	}
	if a.Told, err = edge.Current(); err != nil {
		return Actual{}, err
	}
	if a.Told != nil {
		a.Loaded = edge.Loaded(ctx, *a.Told)
	}
	a.Records, err = edge.Records()
	return a, err
}

// listen tries a port of this host. An empty address is all.
func listen(address string, port uint16) error {
	l, err := net.Listen("tcp", net.JoinHostPort(address, strconv.Itoa(int(port))))
	if err != nil {
		return err
	}
	return l.Close()
}

// pod is a pod of the project with its labels read.
type pod struct {
	pods.Pod
	service  string
	release  int
	replica  int
	upstream string // where the edge reaches it; empty unless it is a backend
}

// of lists the pods of a project, the newest release first.
func (a Actual) of(project string) []pod {
	var list []pod
	for _, p := range a.Pods {
		if p.Labels[pods.LabelProject] != project || p.Labels[pods.LabelService] == "" {
			continue
		}
		n, err := strconv.Atoi(p.Labels[pods.LabelRelease])
		if err != nil {
			continue // not made by a release
		}
		replica := 1
		if text := p.Labels[pods.LabelReplica]; text != "" {
			if replica, err = strconv.Atoi(text); err != nil {
				continue
			}
		}
		list = append(list, pod{
			Pod: p, service: p.Labels[pods.LabelService], release: n, replica: replica, upstream: p.Labels[pods.LabelUp],
		})
	}
	slices.SortFunc(list, func(a, b pod) int {
		return cmp.Or(cmp.Compare(b.release, a.release), cmp.Compare(a.Name, b.Name))
	})
	return list
}

// serves tells whether the edge passes requests to the pod.
func (a Actual) serves(p pod) bool {
	return p.upstream != "" && a.Told != nil && slices.ContainsFunc(a.Told.Upstreams, func(u proxy.Upstream) bool {
		return slices.Contains(u.Addresses, p.upstream)
	})
}

// told is the number of the release that the edge was told last, or zero.
func (a Actual) told() int {
	if a.Told == nil {
		return 0
	}
	n, err := strconv.Atoi(a.Told.Release)
	if err != nil {
		return 0 // not told by a release
	}
	return n
}

// recorded tells whether the pod is part of the release that was recorded last.
func (a Actual) recorded(pod string) bool {
	rec, ok := a.Records.Find(a.Records.Serving)
	return ok && rec.Has(pod)
}

// Serving is the number of the release that serves; zero is none.
func (a Actual) Serving(project string) int { return a.serving(project) }

// serving is the number of the release that serves: what was recorded last, or
// what the edge was told where it leads to other pods, or the newest that runs.
func (a Actual) serving(project string) int {
	var running []pod
	for _, p := range a.of(project) {
		if p.Running() {
			running = append(running, p)
		}
	}
	recorded := func(p pod) bool { return a.recorded(p.Name) }
	served := slices.DeleteFunc(slices.Clone(running), func(p pod) bool { return !a.serves(p) })
	switch {
	case len(served) > 0 && !slices.ContainsFunc(served, func(p pod) bool { return !recorded(p) }):
		return a.Records.Serving
	case len(served) > 0:
		return a.told()
	case a.Told != nil || len(running) == 0:
		return 0
	case slices.ContainsFunc(running, recorded):
		return a.Records.Serving
	}
	return running[0].release
}

// known is the highest number of a release that is known to have served.
func (a Actual) known() int { return max(a.told(), a.Records.Serving) }

// last is the highest number that a release of the project had.
func (a Actual) last(project string) int {
	n := max(a.told(), a.Records.Serving)
	for _, rec := range a.Records.List {
		n = max(n, rec.Release)
	}
	for _, p := range a.of(project) {
		n = max(n, p.release)
	}
	return n
}

// The range that ports are leased from: above what services are registered for,
// below what Linux gives to connections by default.
const (
	firstLease = 20000
	lastLease  = 29999
	numLeases  = lastLease - firstLease + 1
)

// leases hands out ports of the loopback that nobody has. Each project begins at
// another, since two may be released at once and see the same ports free.
type leases struct {
	taken  map[string]bool
	listen func(string, uint16) error
	first  uint32 // counted from firstLease
}

func (a Actual) leases(project string) *leases {
	sum := fnv.New32a()
	sum.Write([]byte(project)) // a hash never fails
	l := &leases{taken: map[string]bool{}, listen: a.Listen, first: sum.Sum32() % numLeases}
	for _, p := range a.Pods {
		l.taken[p.Labels[pods.LabelUp]] = true
	}
	return l
}

func (l *leases) next() (uint16, bool) {
	for i := range uint32(numLeases) {
		port := uint16(firstLease + (l.first+i)%numLeases)
		at := loopback + ":" + strconv.Itoa(int(port))
		if l.taken[at] || l.listen != nil && l.listen(loopback, port) != nil {
			continue
		}
		l.taken[at] = true
		return port, true
	}
	return 0, false
}

package release

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"bareboat/pods"
	"bareboat/pods/proxy"
)

// edge has the edge pass requests to the chosen pods, as far as their batches
// have come.
func (p *planner) edge(batch int) error {
	c, ok := p.edgeChoice()
	if !ok {
		p.hook()
		return nil
	}
	config, places := p.config(c, batch)
	if err := p.checkPort(c, config.Listen); err != nil {
		return fmt.Errorf("plan service %s: %w", c.Name, err)
	}
	if _, err := proxy.Render(config); err != nil {
		return fmt.Errorf("plan service %s: %w", c.Name, err)
	}
	if !c.changes() {
		p.adopt(c)
		return p.switchEdge(c.Name, *c.keep, config, places)
	}
	if batch == p.lastBatch() {
		p.replaceEdge(c, config, places)
		return nil
	}
	if old := c.before(p.actual); old != nil && p.actual.Told != nil {
		return p.switchEdge(c.Name, *old, config, places)
	}
	return nil
}

func (p *planner) edgeChoice() (choice, bool) {
	i := slices.IndexFunc(p.chosen, func(c choice) bool { return c.Edge != nil })
	if i < 0 {
		return choice{}, false
	}
	return p.chosen[i], true
}

// PortError says that the edge cannot have its port.
type PortError struct {
	Port uint16
	Err  error
}

func (e *PortError) Error() string {
	switch {
	case errors.Is(e.Err, syscall.EADDRINUSE):
		return fmt.Sprintf("port %d is in use by another program", e.Port)
	case errors.Is(e.Err, syscall.EACCES):
		return fmt.Sprintf("port %d is kept from users without root", e.Port)
	}
	return fmt.Sprintf("listen on port %d: %v", e.Port, e.Err)
}

// Unwrap gives the system's error.
func (e *PortError) Unwrap() error { return e.Err }

// Hints names the ways out.
func (e *PortError) Hints() []string {
	another := "or choose another port in the edge's ports"
	switch {
	case errors.Is(e.Err, syscall.EADDRINUSE):
		return []string{fmt.Sprintf("ss -ltnp 'sport = :%d' names it", e.Port), another}
	case errors.Is(e.Err, syscall.EACCES):
		return []string{fmt.Sprintf("sudo sysctl net.ipv4.ip_unprivileged_port_start=%d", e.Port), another}
	}
	return []string{another}
}

// checkPort finds out before anything is touched that the edge will not get
// its port. One that the project's own edge has is its to keep; what an edge
// has whose file is lost is not known.
func (p *planner) checkPort(c choice, l proxy.Listen) error {
	runs := c.keep != nil || slices.ContainsFunc(c.old, active)
	if p.actual.Listen == nil || runs && (p.actual.Told == nil || p.actual.Told.Listen == l) {
		return nil
	}
	if err := p.actual.Listen(l.Address, l.Port); err != nil {
		return &PortError{Port: l.Port, Err: err}
	}
	return nil
}

// config is what the edge is to be told when a batch is there, under the number
// that it knows.
func (p *planner) config(edge choice, batch int) (proxy.Config, []place) {
	c := proxy.Config{
		Release: strconv.Itoa(max(p.actual.told(), 1)),
		Token:   p.token(),
		Listen:  proxy.Listen{Address: edge.Edge.Address, Port: edge.Edge.Port},
	}
	var places []place
	for _, s := range p.desired.Services {
		if s.Backend == nil {
			continue
		}
		up := proxy.Upstream{Service: s.Name}
		newest := 0
		for _, c := range p.chosen {
			if c.Name != s.Name {
				continue
			}
			at, release := c.upstream(), p.number
			if c.keep != nil {
				release = c.keep.release
			}
			where := place{slot: c.slot(), now: at}
			if old := c.before(p.actual); old != nil {
				where.before = old.upstream
				if c.batch > batch {
					at, release = old.upstream, old.release
				}
			}
			places = append(places, where)
			up.Addresses = append(up.Addresses, at)
			newest = max(newest, release)
		}
		up.Release = strconv.Itoa(newest)
		c.Upstreams = append(c.Upstreams, up)
		c.Sites = append(c.Sites, proxy.Site{Hosts: s.Backend.Hosts, Path: s.Backend.Path, Service: s.Name})
	}
	return c, places
}

// token is the one that the edge has; a new one is made when it has none.
func (p *planner) token() string {
	if p.actual.Told == nil {
		return ""
	}
	return p.actual.Told.Token
}

// preview asks a new backend through the edge that runs. Where none does yet it
// is asked through the new one.
func (p *planner) preview(c choice) {
	if edge, ok := p.liveEdge(); ok && p.actual.Told != nil {
		p.previewBy(c, edge, *cmp.Or(p.told, p.actual.Told))
	}
}

func (p *planner) previewBy(c choice, edge string, config proxy.Config) {
	if c.Backend == nil {
		return
	}
	check := Check{Path: c.Backend.Path}
	if c.Check != nil {
		check = *c.Check
		check.Strict = true
	}
	host := ""
	for _, name := range c.Backend.Hosts {
		if host == "" && !strings.HasPrefix(name, "*") {
			host = name
		}
	}
	p.add(Step{
		Action: Preview, Service: c.Name, Name: c.name(), slot: c.slot(), onFailure: p.policy(c.Service).FailureAction,
		check: &check, host: host, upstream: c.upstream(), edge: edge, config: config,
	})
}

// liveEdge is the container of the edge that runs before the release.
func (p *planner) liveEdge() (string, bool) {
	c, ok := p.edgeChoice()
	if !ok {
		return "", false
	}
	if c.keep != nil && !c.revive {
		return c.keep.Containers[0].Name, true
	}
	if old := c.before(p.actual); old != nil {
		return old.Containers[0].Name, true
	}
	return "", false
}

// hook runs what the project wants run before the switch, once a release that
// changes anything.
func (p *planner) hook() {
	if p.desired.Hook && !p.hooked && p.changes() {
		p.hooked = true
		p.add(Step{Action: Hook, Name: "before the switch"})
	}
}

func (p *planner) changes() bool { return slices.ContainsFunc(p.chosen, choice.changes) }

// replaceEdge starts the new edge beside the old, which hands its listening
// sockets over: both take connections until the old one is told to take no more.
// One that cannot do that is stopped first. The new edge is told what it reads
// when it starts; so does the old one, should it be started again.
func (p *planner) replaceEdge(c choice, config proxy.Config, places []place) {
	tell, change := p.tellAndSwitch(c.Name, config, places, p.number, c.inPod(c.name()).Containers[0].Name)
	change.fresh = true
	old := c.before(p.actual)
	// What the old one hands over by is gone with the folder.
	beside := old != nil && !c.StopFirst && p.actual.Told != nil
	tell.edge = "" // none runs yet
	if beside {
		tell.edge = old.Containers[0].Name
	} else {
		p.stop(c)
	}
	p.hook()
	p.add(tell)
	p.launch(c)
	if _, live := p.liveEdge(); !live {
		for _, backend := range p.chosen {
			if backend.changes() {
				p.previewBy(backend, change.edge, change.config)
			}
		}
	}
	if beside {
		p.quit(p.otherEdges(pod{Pod: pods.Pod{Name: c.name()}, service: c.Name}), change)
	}
	p.add(change)
}

// switchEdge leaves the edge as it is where it was told the same already, and
// has read it: an interrupted release may have left it before it did, or beside
// another.
func (p *planner) switchEdge(service string, edge pod, config proxy.Config, places []place) error {
	told := cmp.Or(p.told, p.actual.Told)
	config.Release = told.Release
	same, err := sameConfig(*told, config)
	if err != nil {
		return fmt.Errorf("plan service %s: %w", service, err)
	}
	number := p.actual.told()
	others := p.otherEdges(edge)
	switch {
	case same && (p.told != nil || p.actual.Loaded && len(others) == 0):
		return nil
	case !same:
		number = p.newRelease()
	}
	p.hook()
	tell, change := p.tellAndSwitch(service, config, places, number, edge.Containers[0].Name)
	p.add(tell)
	p.quit(others, change)
	p.add(change)
	return nil
}

func sameConfig(a, b proxy.Config) (bool, error) {
	is, err := proxy.Render(a)
	if err != nil {
		return false, err
	}
	want, err := proxy.Render(b)
	return bytes.Equal(is, want), err
}

// otherEdges are the edges that an interrupted release left beside this one.
func (p *planner) otherEdges(edge pod) []pod {
	var list []pod
	for _, is := range p.pods {
		if is.service == edge.service && is.Name != edge.Name && active(is) {
			list = append(list, is)
		}
	}
	return list
}

// quit closes the doors of old edges, so that all connections come to the new.
func (p *planner) quit(edges []pod, to Step) {
	for _, is := range edges {
		p.add(Step{Action: Quit, Service: is.service, Name: is.Name, container: is.Containers[0].Name, config: to.config})
	}
}

func (p *planner) tellAndSwitch(service string, config proxy.Config, places []place, number int, container string) (tell, change Step) {
	config.Release = strconv.Itoa(number)
	p.told = &config
	s := Step{Service: service, Name: "release " + config.Release, config: config, places: places, number: number, edge: container}
	tell, change = s, s
	tell.Action, change.Action = Tell, Switch
	return tell, change
}

// newRelease is the number under which the edge is told something new: that of
// the new pods, or of those that an interrupted release left.
func (p *planner) newRelease() int {
	if p.rollback != nil || p.makesPods() || p.left() == 0 {
		return p.number
	}
	return p.left()
}

// drain has clients of what served before go over: those of pods that stay, too,
// since the connections that they have lead through what is old of the edge.
func (p *planner) drain() {
	if p.told == nil {
		return
	}
	for _, is := range p.pods {
		if active(is) && p.actual.serves(is) && !p.retired(is.Name) {
			p.drainOne(is)
		}
	}
	edge, ok := p.edgeChoice()
	if !ok || edge.changes() {
		return // the old edge ends by itself when they have gone
	}
	p.settle(edge.keep.Containers[0].Name, slices.DeleteFunc(p.old(), func(old pod) bool { return !active(old) || p.retired(old.Name) }))
}

// settle waits until no connection leads to those of the pods that are backends, or
// their grace is over.
func (p *planner) settle(edge string, leaving []pod) {
	wait := time.Duration(0)
	for _, old := range leaving {
		if old.upstream != "" {
			wait = max(wait, p.grace(old))
		}
	}
	if wait > 0 {
		p.add(Step{Action: Settle, Name: "what is old", edge: edge, wait: wait})
	}
}

// drainOne tells a pod to send its clients elsewhere, if it knows how.
func (p *planner) drainOne(is pod) {
	if s, ok := p.madeOf(is); ok && s.Drain != nil {
		p.add(Step{
			Action: Dismiss, Service: is.service, Name: is.Name, slot: slot{is.service, is.replica},
			drain: *s.Drain, container: is.Containers[0].Name, upstream: is.upstream,
		})
	}
}

// defaultGrace is Podman's own.
const defaultGrace = 10 * time.Second

// grace is how long the pod has between its stop signal and the kill.
func (p *planner) grace(is pod) time.Duration {
	wait := time.Duration(0)
	if s, ok := p.madeOf(is); ok {
		for _, c := range s.Pod.Containers {
			wait = max(wait, c.StopTimeout)
		}
	}
	return cmp.Or(wait, defaultGrace)
}

// madeOf is the service as it was when the pod was released, as far as is known.
func (p *planner) madeOf(is pod) (Service, bool) {
	for _, rec := range slices.Backward(p.actual.Records.List) {
		if rec.Has(is.Name) {
			return rec.service(is.service)
		}
	}
	i := slices.IndexFunc(p.desired.Services, func(s Service) bool { return s.Name == is.service })
	if i < 0 {
		return Service{}, false
	}
	return p.desired.Services[i], true
}

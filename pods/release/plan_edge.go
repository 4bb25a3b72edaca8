package release

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"syscall"

	"bareboat/pods"
	"bareboat/pods/proxy"
)

// edge has the edge pass requests to the chosen pods.
func (p *planner) edge() error {
	for _, c := range p.chosen {
		if c.Edge == nil {
			continue
		}
		config := p.config(c)
		if err := p.checkPort(c, config.Listen); err != nil {
			return fmt.Errorf("plan service %s: %w", c.Name, err)
		}
		want, err := proxy.Render(config)
		if err != nil {
			return fmt.Errorf("plan service %s: %w", c.Name, err)
		}
		if c.keep == nil {
			p.replaceEdge(c, config)
			return nil
		}
		p.adopt(c)
		return p.switchEdge(c, config, want)
	}
	return nil
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

// config is what the edge is to be told, under the number that it knows.
func (p *planner) config(edge choice) proxy.Config {
	c := proxy.Config{
		Release: strconv.Itoa(max(p.actual.told(), 1)),
		Listen:  proxy.Listen{Address: edge.Edge.Address, Port: edge.Edge.Port},
	}
	for _, backend := range p.chosen {
		if b := backend.Backend; b != nil {
			release, upstream := p.at(backend)
			c.Upstreams = append(c.Upstreams, proxy.Upstream{
				Service: backend.Name, Addresses: []string{upstream}, Release: strconv.Itoa(release),
			})
			c.Sites = append(c.Sites, proxy.Site{Hosts: b.Hosts, Path: b.Path, Service: backend.Name})
		}
	}
	return c
}

// at is the release of a backend's pod and where it listens.
func (p *planner) at(c choice) (release int, upstream string) {
	if c.keep != nil {
		return c.keep.release, c.keep.upstream
	}
	return p.number, c.spec.Labels[pods.LabelUp]
}

// replaceEdge tells the new edge between stopping the old and starting the new,
// so that each reads its own when it starts, the old one also when it is started
// again.
func (p *planner) replaceEdge(c choice, config proxy.Config) {
	tell, change := tellAndSwitch(c, config, p.number, c.spec.Containers[0].Name)
	tell.edge = "" // none runs yet
	p.stop(c)
	p.add(tell)
	p.add(Step{Action: Start, Service: c.Name, Name: c.spec.Name, spec: c.spec})
	p.add(Step{Action: Ready, Service: c.Name, Name: c.spec.Name, spec: c.spec})
	p.add(change)
}

// switchEdge leaves the edge as it is where it was told the same already. But a
// release that was interrupted between writing and reloading left the edge
// where it was: before a backend is retired, it has to have read its file.
func (p *planner) switchEdge(c choice, config proxy.Config, want []byte) error {
	is, err := proxy.Render(*p.actual.Told)
	if err != nil {
		return fmt.Errorf("plan service %s: %w", c.Name, err)
	}
	number := p.actual.told()
	if !bytes.Equal(is, want) {
		number = p.newRelease()
	} else if !p.retiresBackend() {
		return nil
	}
	tell, change := tellAndSwitch(c, config, number, c.keep.Containers[0].Name)
	p.add(tell)
	p.add(change)
	return nil
}

func tellAndSwitch(c choice, config proxy.Config, number int, container string) (tell, change Step) {
	config.Release = strconv.Itoa(number)
	s := Step{Service: c.Name, Name: "release " + config.Release, config: config, number: number, edge: container}
	tell, change = s, s
	tell.Action, change.Action = Tell, Switch
	return tell, change
}

// newRelease is a number that the edge was not told yet: that of the new pods,
// or of those that an interrupted release left.
func (p *planner) newRelease() int {
	if last := p.number - 1; !p.makesPods() && last > p.actual.told() {
		return last
	}
	return p.number
}

package release

import (
	"bytes"
	"fmt"
	"strconv"

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

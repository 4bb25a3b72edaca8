package config

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"bareboat/internal/oci"
)

// project turns the library's model into ours.
func (r *reader) project(model *types.Project) (*Project, error) {
	r.warnIgnored(func(name string) bool { _, ok := model.Services[name]; return ok })
	p := &Project{
		Name:    model.Name,
		Dir:     model.WorkingDir,
		Files:   model.ComposeFiles,
		Volumes: volumes(model.Volumes),
	}
	if err := p.decode(model.Extensions[extensionKey]); err != nil {
		return nil, r.fault("", err)
	}
	order, err := startOrder(model.Services)
	if err != nil {
		return nil, r.fault("", err)
	}
	for _, name := range order {
		s, err := service(model, model.Services[name])
		if err != nil {
			return nil, r.fault(name, err)
		}
		if !r.saysReadOnly[name] {
			s.isolate()
		}
		p.Services = append(p.Services, s)
	}
	if len(p.Services) == 0 {
		return nil, r.fault("", &keyError{"services", errors.New("there is none to run")})
	}
	if name, err := p.join(); err != nil {
		return nil, r.fault(name, err)
	}
	p.Networks = networks(model.Networks, p.Services)
	if p.Sources, err = sources(model, p.Services); err != nil {
		return nil, r.fault("", err)
	}
	p.Warnings = r.warnings
	return p, nil
}

// fault says where in the file an error stands.
func (r *reader) fault(service string, err error) error {
	e := &Error{File: r.file, Service: service, Err: err}
	var at *keyError
	if errors.As(err, &at) {
		e.Key, e.Err = at.key, at.err
	}
	return e
}

// startOrder puts what a service depends on before it, and else goes by name.
func startOrder(services types.Services) ([]string, error) {
	var order, path []string
	var visit func(name string) error
	visit = func(name string) error {
		if slices.Contains(order, name) {
			return nil
		}
		if i := slices.Index(path, name); i >= 0 {
			return &keyError{"depends_on", fmt.Errorf("goes in a circle: %s", strings.Join(append(path[i:], name), ", "))}
		}
		path = append(path, name)
		for _, dep := range slices.Sorted(maps.Keys(services[name].DependsOn)) {
			if _, enabled := services[dep]; !enabled {
				continue // the library lets only those pass that are not required
			}
			if err := visit(dep); err != nil {
				return err
			}
		}
		path = path[:len(path)-1]
		order = append(order, name)
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(services)) {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	return order, nil
}

func volumes(in types.Volumes) []Volume {
	var out []Volume
	for _, key := range slices.Sorted(maps.Keys(in)) {
		v := in[key]
		out = append(out, Volume{Key: key, Name: v.Name, External: bool(v.External), Labels: v.Labels})
	}
	return out
}

// networks are those that a service is on, which need not be all that the file
// puts it on.
func networks(in types.Networks, services []Service) []Network {
	used := map[string]bool{}
	for _, s := range services {
		for _, a := range s.Networks {
			used[a.Network] = true
		}
	}
	var out []Network
	for _, key := range slices.Sorted(maps.Keys(in)) {
		n := in[key]
		if !used[n.Name] {
			continue
		}
		out = append(out, Network{Key: key, Name: n.Name, External: bool(n.External), Internal: n.Internal, Labels: n.Labels})
	}
	return out
}

// join checks what one service demands of another, and tells each backend
// where the edge sees its socket. An error comes with the service at fault.
func (p *Project) join() (service string, err error) {
	edge, err := p.onlyEdge()
	if err != nil {
		return edge.Name, err
	}
	if name, err := p.riders(); err != nil {
		return name, err
	}
	routes, upstreams := map[string]string{}, map[string]string{}
	for i := range p.Services {
		s := &p.Services[i]
		if s.Listen == nil {
			continue
		}
		if edge.Name == "" {
			return s.Name, &keyError{extensionKey + ".listen", errors.New("no service of this file is the edge (x-bareboat.edge)")}
		}
		if err := s.reach(edge); err != nil {
			return s.Name, err
		}
		// nginx takes no notice of case in the names of upstreams.
		name := strings.ToLower(s.Name)
		if other, taken := upstreams[name]; taken {
			return s.Name, &keyError{extensionKey + ".listen", fmt.Errorf("the edge cannot tell it from service %s", other)}
		}
		upstreams[name] = s.Name
		if !upstreamName.MatchString(s.Name) {
			return s.Name, &keyError{extensionKey + ".listen", errors.New("the name of a service that the edge reaches starts with a letter or digit")}
		}
		for _, host := range routeHosts(s.Route) {
			at := host + strings.TrimSuffix(s.Route.Path, "/")
			if other, taken := routes[at]; taken {
				return s.Name, &keyError{extensionKey + ".route", fmt.Errorf("service %s has the same host and path", other)}
			}
			routes[at] = s.Name
		}
	}
	return "", nil
}

// riders checks that each sidecar has a pod to share.
func (p *Project) riders() (service string, err error) {
	for _, s := range p.Services {
		if s.Sidecar == "" {
			continue
		}
		owner, ok := p.Service(s.Sidecar)
		switch {
		case !ok:
			return s.Name, &keyError{"network_mode", fmt.Errorf("there is no service %s", s.Sidecar)}
		case owner.Sidecar != "":
			return s.Name, &keyError{"network_mode", fmt.Errorf("service %s has no pod of its own: it shares that of %s", s.Sidecar, owner.Sidecar)}
		}
	}
	return "", nil
}

// routeHosts are the hosts of a route; an empty name stands for all.
func routeHosts(r Route) []string {
	if len(r.Hosts) == 0 {
		return []string{""}
	}
	return r.Hosts
}

// onlyEdge is the edge, or the second one with an error.
func (p *Project) onlyEdge() (Service, error) {
	var edge Service
	for _, s := range p.Services {
		if s.Edge == nil {
			continue
		}
		if edge.Name != "" {
			return s, &keyError{extensionKey + ".edge", fmt.Errorf("service %s is the edge already", edge.Name)}
		}
		edge = s
	}
	return edge, nil
}

// reach checks that the edge can reach the backend where it listens.
func (s *Service) reach(edge Service) error {
	if s.Listen.Port != 0 {
		return nil // on the loopback, which is the edge's too
	}
	own, rest, ok := mountHolding(s.Mounts, s.Listen.Socket)
	if !ok {
		return &keyError{extensionKey + ".listen.socket", fmt.Errorf("%s lies in none of the service's volumes", s.Listen.Socket)}
	}
	for _, m := range edge.Mounts {
		if m.Kind == own.Kind && m.Source == own.Source {
			s.Listen.EdgeSocket = filepath.Join(m.Target, rest)
			var path string
			if err := socket(&path)(s.Listen.EdgeSocket); err != nil {
				return &keyError{extensionKey + ".listen.socket", fmt.Errorf("as the edge (service %s) mounts it: %w", edge.Name, err)}
			}
			return nil
		}
	}
	return &keyError{extensionKey + ".listen.socket", fmt.Errorf("the edge (service %s) does not mount %s", edge.Name, own.Source)}
}

// mountHolding is the mount that path lies in, the deepest where several do,
// and the path below it.
func mountHolding(mounts []Mount, path string) (Mount, string, bool) {
	var best Mount
	var rest string
	found := false
	for _, m := range mounts {
		rel, err := filepath.Rel(m.Target, path)
		if err != nil || !filepath.IsLocal(rel) || found && len(m.Target) < len(best.Target) {
			continue
		}
		best, rest, found = m, rel, true
	}
	return best, rest, found && best.Kind != MountTmpfs
}

// imageOf is the image that a service names. One that is built here stays
// local when it names no registry; another is then of Docker Hub.
func imageOf(project string, s types.ServiceConfig, built bool) (oci.Reference, error) {
	name, parse := s.Image, oci.ParseReference
	if built {
		parse = oci.ParseLocal
	}
	if name == "" {
		name, parse = project+"-"+s.Name, oci.ParseLocal
	}
	ref, err := parse(name)
	if err != nil {
		return oci.Reference{}, &keyError{"image", fmt.Errorf("%q is not an image's name", name)}
	}
	if ref.Tag == "" && ref.Digest == "" {
		ref = ref.WithTag("latest")
	}
	return ref, nil
}

package pipeline

import (
	"fmt"
	"maps"
	"net"
	"slices"

	"bareboat/internal/config"
	"bareboat/internal/oci"
	"bareboat/pods"
	"bareboat/pods/release"
)

// Desired says what should run of a project: its services with these images,
// each pulled by the name in Ref. The edge gets a mount beside those of the
// file, by which it reads what a release tells it. Revision is the source's,
// or empty. Secrets are found under the names in named, by kind and key.
func Desired(p *config.Project, images []Image, revision string, told pods.Mount, named map[string]string) (release.Desired, error) {
	d := release.Desired{Project: p.Name, Revision: revision, Keep: p.Keep, Hook: len(p.Hooks.BeforeSwitch) > 0}
	for _, v := range p.Volumes {
		if !v.External {
			d.Volumes = append(d.Volumes, release.Volume{Name: v.Name, Labels: v.Labels})
		}
	}
	for _, n := range p.Networks {
		if !n.External {
			d.Networks = append(d.Networks, release.Network{Name: n.Name, Labels: n.Labels, Internal: n.Internal})
		}
	}
	for _, s := range p.Services {
		if s.Sidecar != "" {
			continue
		}
		out, err := desiredService(p, s, images, told, named)
		if err != nil {
			return release.Desired{}, err
		}
		d.Services = append(d.Services, out)
	}
	return d, nil
}

func desiredService(p *config.Project, s config.Service, images []Image, told pods.Mount, named map[string]string) (release.Service, error) {
	image, err := imageFor(s, images)
	if err != nil {
		return release.Service{}, err
	}
	out := release.Service{
		Name:      s.Name,
		Image:     s.Image.WithDigest(image.Digest),
		Pull:      image.Ref,
		Insecure:  image.Insecure || isLoopback(image.Ref.Registry),
		Pod:       podOf(s, named),
		Env:       s.ReleaseEnv,
		Replicas:  s.Replicas,
		DependsOn: dependencies(p, s),
		StopFirst: stopFirst(s),
		Update:    release.UpdateConfig(s.Update),
		Rollback:  release.UpdateConfig(s.Rollback),
		Drain:     (*release.Drain)(s.Drain),
	}
	if c := s.Check; c != nil {
		out.Check = &release.Check{Path: c.Path, WebSocket: c.WebSocket, Protocol: c.Protocol}
	}
	if l := s.Listen; l != nil {
		out.Backend = &release.Backend{
			EdgeSocket: l.EdgeSocket, Port: l.Port, Hosts: s.Route.Hosts, Path: s.Route.Path,
		}
	}
	if e := s.Edge; e != nil {
		out.Edge = &release.Edge{Address: e.Address, Port: e.Port}
		first := &out.Pod.Containers[0]
		first.Mounts = append(first.Mounts, told)
	}
	for _, side := range p.Services {
		if side.Sidecar != s.Name {
			continue
		}
		image, err := imageFor(side, images)
		if err != nil {
			return release.Service{}, err
		}
		out.Sidecars = append(out.Sidecars, release.Sidecar{
			Name: side.Name, Image: side.Image.WithDigest(image.Digest), Pull: image.Ref,
			Insecure: image.Insecure || isLoopback(image.Ref.Registry),
		})
		out.Pod.Containers = append(out.Pod.Containers, container(side, named))
	}
	return out, nil
}

func imageFor(s config.Service, images []Image) (Image, error) {
	i := slices.IndexFunc(images, func(i Image) bool { return i.Service == s.Name })
	if i < 0 {
		return Image{}, fmt.Errorf("plan service %s: its image %s is not resolved", s.Name, s.Image)
	}
	return images[i], nil
}

// dependencies are those of the service's pod: what its sidecars depend on it
// depends on, and a sidecar stands for its pod.
func dependencies(p *config.Project, s config.Service) []release.Dependency {
	var out []release.Dependency
	for _, c := range p.Services {
		if c.Name != s.Name && c.Sidecar != s.Name {
			continue
		}
		for _, d := range c.DependsOn {
			on := d.Service
			if other, ok := p.Service(on); ok && other.Sidecar != "" {
				on = other.Sidecar
			}
			if on != s.Name {
				out = append(out, release.Dependency{Service: on, Condition: d.Condition})
			}
		}
	}
	return out
}

// isLoopback tells whether a registry is on this machine, where it is spoken to
// without TLS, as our own client does.
func isLoopback(registry string) bool {
	host, _, err := net.SplitHostPort(registry)
	if err != nil {
		host = registry
	}
	ip := net.ParseIP(host)
	return host == oci.LocalRegistry || ip != nil && ip.IsLoopback()
}

// stopFirst tells whether a service's old and new pod cannot run at once: both
// would take the same port of the host. The edge hands its port over.
func stopFirst(s config.Service) bool {
	if s.Order != config.OrderDefault {
		return s.Order == config.OrderStopFirst
	}
	fixed := slices.ContainsFunc(s.Ports, func(p config.Port) bool { return p.Host != 0 })
	return fixed || s.NetworkMode == config.NetworkHost && s.Listen == nil && s.Edge == nil
}

// podOf is the pod of a service, without what each release adds.
func podOf(s config.Service, named map[string]string) pods.Spec {
	spec := pods.Spec{
		Hostname:   s.Hostname,
		Network:    pods.Network{Mode: pods.NetworkMode(s.NetworkMode)},
		Containers: []pods.Container{container(s, named)},
	}
	for _, n := range s.Networks {
		spec.Network.Names = append(spec.Network.Names, n.Network)
		for _, alias := range n.Aliases {
			if !slices.Contains(spec.Network.Alias, alias) {
				spec.Network.Alias = append(spec.Network.Alias, alias)
			}
		}
	}
	for _, p := range s.Ports {
		spec.Ports = append(spec.Ports, pods.Port(p))
	}
	return spec
}

func container(s config.Service, named map[string]string) pods.Container {
	c := pods.Container{
		Name:        s.Name,
		Entrypoint:  s.Entrypoint,
		Command:     s.Command,
		Env:         maps.Clone(s.Env),
		User:        s.User,
		NonRoot:     s.NonRoot,
		WorkDir:     s.WorkDir,
		Labels:      maps.Clone(s.Labels),
		Mounts:      mountsOf(s),
		ReadOnly:    s.ReadOnly,
		CapAdd:      s.CapAdd,
		CapDrop:     s.CapDrop,
		Privileges:  s.Privileges,
		Health:      (*pods.Health)(s.Health),
		StopSignal:  s.StopSignal,
		StopTimeout: s.StopGrace,
		Restart:     s.Restart,
		Memory:      s.Limits.Memory,
		CPUs:        s.Limits.CPUs,
		PIDs:        s.Limits.PIDs,
		Init:        s.Init,
	}
	for _, f := range s.Files {
		c.Secrets = append(c.Secrets, pods.SecretFile{Name: named[f.Kind+" "+f.Key], Target: f.Target, UID: f.UID, GID: f.GID, Mode: f.Mode})
	}
	return c
}

func mountsOf(s config.Service) []pods.Mount {
	var out []pods.Mount
	for _, m := range s.Mounts {
		out = append(out, pods.Mount{
			Kind: pods.MountKind(m.Kind), Source: m.Source, Target: m.Target,
			ReadOnly: m.ReadOnly, Size: m.Size, Mode: m.Mode,
		})
	}
	return out
}

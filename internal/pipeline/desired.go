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
// or empty.
func Desired(p *config.Project, images []Image, revision string, told pods.Mount) (release.Desired, error) {
	d := release.Desired{Project: p.Name, Revision: revision, Keep: defaultKeep}
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
		i := slices.IndexFunc(images, func(i Image) bool { return i.Service == s.Name })
		if i < 0 {
			return release.Desired{}, fmt.Errorf("plan service %s: its image %s is not resolved", s.Name, s.Image)
		}
		d.Services = append(d.Services, desiredService(s, images[i], told))
	}
	return d, nil
}

// defaultKeep is how many releases can be gone back to.
const defaultKeep = 3

func desiredService(s config.Service, image Image, told pods.Mount) release.Service {
	out := release.Service{
		Name:      s.Name,
		Image:     s.Image.WithDigest(image.Digest),
		Pull:      image.Ref,
		Insecure:  image.Insecure || isLoopback(image.Ref.Registry),
		Pod:       podOf(s),
		Env:       s.ReleaseEnv,
		StopFirst: stopFirst(s),
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
// would take the same port of the host.
func stopFirst(s config.Service) bool {
	if s.Edge != nil {
		return true
	}
	if s.Order != config.OrderDefault {
		return s.Order == config.OrderStopFirst
	}
	fixed := slices.ContainsFunc(s.Ports, func(p config.Port) bool { return p.Host != 0 })
	return fixed || s.NetworkMode == config.NetworkHost && s.Listen == nil
}

// podOf is the pod of a service, without what each release adds.
func podOf(s config.Service) pods.Spec {
	spec := pods.Spec{
		Hostname: s.Hostname,
		Network:  pods.Network{Mode: pods.NetworkMode(s.NetworkMode)},
		Containers: []pods.Container{{
			Name:        s.Name,
			Entrypoint:  s.Entrypoint,
			Command:     s.Command,
			Env:         maps.Clone(s.Env),
			User:        s.User,
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
		}},
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

package config

import (
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
)

// What Compose takes where a file says nothing.
const (
	defaultGrace          = 10 * time.Second
	defaultHealthInterval = 30 * time.Second
	defaultHealthTimeout  = 30 * time.Second
	defaultHealthRetries  = 3
)

// service turns the library's service into ours.
func service(p *types.Project, in types.ServiceConfig) (Service, error) {
	ext, err := decodeService(in.Extensions[extensionKey])
	if err != nil {
		return Service{}, err
	}
	s := Service{
		Name:       in.Name,
		Listen:     ext.listen,
		Entrypoint: in.Entrypoint,
		Command:    in.Command,
		Env:        environment(in.Environment),
		ReleaseEnv: ext.env,
		User:       in.User,
		NonRoot:    in.User == "",
		WorkDir:    in.WorkingDir,
		Hostname:   in.Hostname,
		Labels:     in.Labels,
		Init:       in.Init != nil && *in.Init,
		ReadOnly:   in.ReadOnly,
		CapAdd:     capabilities(in.CapAdd),
		CapDrop:    capabilities(in.CapDrop),
		Privileges: privileges(in.SecurityOpt),
		Limits:     limits(in),
		StopGrace:  duration(in.StopGracePeriod, defaultGrace),
		StopSignal: in.StopSignal,
		Order:      order(in.Deploy),
	}
	if len(s.CapDrop) == 0 {
		s.CapDrop = []string{"ALL"}
	}
	if ext.recipe != "" {
		s.Recipe = filepath.Join(p.WorkingDir, ext.recipe)
		if filepath.IsAbs(ext.recipe) || strings.HasPrefix(ext.recipe, BuiltinRecipe) {
			s.Recipe = ext.recipe
		}
	}
	s.DependsOn = dependencies(p, in.DependsOn)
	for _, step := range []func() error{
		func() (err error) { s.Build, err = build(p, in.Build, s.Recipe); return },
		func() (err error) { s.Image, err = imageOf(p.Name, in, s.Built()); return },
		func() (err error) { s.Mounts, err = mounts(p, in); return },
		func() (err error) { s.Ports, err = ports(in.Ports); return },
		func() (err error) { s.Health, err = health(in.HealthCheck); return },
		func() (err error) { s.Restart, err = restart(in.Restart); return },
		func() (err error) { s.Files, err = files(in); return },
		func() error { return s.deploy(in) },
		func() error { return s.attach(p, in, ext) },
		func() error { return s.place(ext) },
		func() error { return s.asEdge(ext) },
		s.replicate,
	} {
		if err := step(); err != nil {
			return Service{}, err
		}
	}
	return s, nil
}

// isolate makes the root read-only, where the file does not say, with a place for
// temporary files.
func (s *Service) isolate() {
	s.ReadOnly = true
	for _, m := range s.Mounts {
		if m.Target == tmp {
			return
		}
	}
	s.Mounts = append(s.Mounts, Mount{Kind: MountTmpfs, Target: tmp})
}

// tmp is where programs write what need not last.
const tmp = "/tmp"

func environment(in types.MappingWithEquals) map[string]string {
	out := map[string]string{}
	for k, v := range in {
		if v != nil { // a variable passed on that is not set stays unset
			out[k] = *v
		}
	}
	return out
}

func capabilities(in []string) []string {
	var out []string
	for _, c := range in {
		out = append(out, strings.TrimPrefix(strings.ToUpper(c), "CAP_"))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// The spellings of security_opt that have an effect.
var (
	noNewPrivileges   = []string{"no-new-privileges", "no-new-privileges:true", "no-new-privileges=true"}
	mayGainPrivileges = []string{"no-new-privileges:false", "no-new-privileges=false"}
)

func privileges(options []string) bool {
	return slices.ContainsFunc(options, func(o string) bool { return slices.Contains(mayGainPrivileges, o) })
}

func limits(in types.ServiceConfig) Limits {
	l := Limits{Memory: int64(in.MemLimit), CPUs: float64(in.CPUS), PIDs: in.PidsLimit}
	if in.Deploy != nil && in.Deploy.Resources.Limits != nil {
		d := in.Deploy.Resources.Limits
		l.Memory = cmp.Or(int64(d.MemoryBytes), l.Memory)
		l.CPUs = cmp.Or(float64(d.NanoCPUs), l.CPUs)
		l.PIDs = cmp.Or(d.Pids, l.PIDs)
	}
	return l
}

func duration(d *types.Duration, fallback time.Duration) time.Duration {
	if d == nil {
		return fallback
	}
	return time.Duration(*d)
}

func health(in *types.HealthCheckConfig) (*Health, error) {
	if in == nil {
		return nil, nil
	}
	if in.Disable || len(in.Test) > 0 && in.Test[0] == "NONE" {
		return &Health{Test: []string{"NONE"}}, nil
	}
	if len(in.Test) < 2 {
		return nil, &keyError{"healthcheck.test", errors.New("names no command")}
	}
	h := &Health{
		Test:        in.Test,
		Interval:    duration(in.Interval, defaultHealthInterval),
		Timeout:     duration(in.Timeout, defaultHealthTimeout),
		StartPeriod: duration(in.StartPeriod, 0),
		Retries:     defaultHealthRetries,
	}
	if in.Retries != nil {
		h.Retries = int(min(*in.Retries, 1<<20))
	}
	return h, nil
}

func restart(policy string) (string, error) {
	name, times, counted := strings.Cut(policy, ":")
	switch {
	case policy == "":
		return "no", nil
	case counted && name == "on-failure":
		if _, err := strconv.ParseUint(times, 10, 16); err == nil {
			return policy, nil
		}
	case slices.Contains([]string{"no", "always", "on-failure", "unless-stopped"}, policy):
		return policy, nil
	}
	return "", &keyError{"restart", fmt.Errorf("%q is none of no, always, on-failure[:N], unless-stopped", policy)}
}

// order is valid: the library checks the values that a key lists.
func order(d *types.DeployConfig) Order {
	if d == nil || d.UpdateConfig == nil {
		return OrderDefault
	}
	return Order(d.UpdateConfig.Order)
}

// attach sets the network.
func (s *Service) attach(p *types.Project, in types.ServiceConfig, e extension) error {
	if owner, ok := strings.CutPrefix(in.NetworkMode, "service:"); ok && e.network == "" {
		s.Sidecar = owner
		return s.ride(e)
	}
	switch cmp.Or(e.network, in.NetworkMode) {
	case "none":
		s.NetworkMode = NetworkNone
	case "host":
		s.NetworkMode = NetworkHost
	case "":
		s.NetworkMode = NetworkBridge
		for _, key := range in.NetworksByPriority() {
			a := Attachment{Network: p.Networks[key].Name, Aliases: []string{in.Name}}
			if n := in.Networks[key]; n != nil {
				a.Aliases = append(a.Aliases, n.Aliases...)
			}
			s.Networks = append(s.Networks, a)
		}
	default:
		return &keyError{"network_mode", fmt.Errorf("%q is not one that bareboat knows: none, host, service:NAME, or networks", in.NetworkMode)}
	}
	if s.NetworkMode == NetworkNone && len(s.Ports) > 0 {
		return &keyError{"ports", errors.New("there is none to publish without a network")}
	}
	return nil
}

// ride checks what a service cannot have that shares the pod of another.
func (s *Service) ride(e extension) error {
	for _, has := range []struct {
		key string
		is  bool
	}{
		{"ports", len(s.Ports) > 0}, {"hostname", s.Hostname != ""}, {"deploy.replicas", s.Replicas != 1},
		{extensionKey + ".listen", e.listen != nil}, {extensionKey + ".edge", e.edge},
	} {
		if has.is {
			return &keyError{has.key, fmt.Errorf("is that of service %s, whose pod it shares", s.Sidecar)}
		}
	}
	return nil
}

// place checks what x-bareboat says about where the service stands.
func (s *Service) place(e extension) error {
	if e.route != nil {
		if e.listen == nil {
			return &keyError{extensionKey + ".route", errors.New("needs listen beside it")}
		}
		s.Route = *e.route
	}
	if e.listen == nil && (e.drain != nil || e.check != nil) {
		return &keyError{extensionKey, errors.New("drain and check need listen beside them")}
	}
	if e.listen == nil {
		return nil
	}
	s.Route.Path = cmp.Or(s.Route.Path, "/")
	s.Drain, s.Check = e.drain, e.check
	key := extensionKey + ".listen"
	switch {
	case e.edge:
		return &keyError{key, errors.New("the edge cannot be a backend too")}
	case (e.listen.Socket == "") == (e.listen.Port == 0):
		return &keyError{key, errors.New("needs either socket or port")}
	case e.listen.Port != 0 && s.NetworkMode != NetworkBridge:
		return &keyError{key + ".port", fmt.Errorf("cannot be published on network %s", s.NetworkMode)}
	}
	return nil
}

// asEdge puts the edge where people reach it.
func (s *Service) asEdge(e extension) error {
	if !e.edge {
		return nil
	}
	key := extensionKey + ".edge"
	if e.network != "" {
		return &keyError{key, fmt.Errorf("the edge is on the host's network, so that network: %s cannot be", e.network)}
	}
	if len(s.Ports) != 1 || s.Ports[0].Host == 0 || s.Ports[0].Protocol != "tcp" {
		return &keyError{key, errors.New("needs one entry in ports, HOST:CONTAINER, that says where people reach it")}
	}
	s.Edge = &Edge{Address: s.Ports[0].HostIP, Port: s.Ports[0].Host}
	s.NetworkMode, s.Networks, s.Ports = NetworkHost, nil, nil
	return nil
}

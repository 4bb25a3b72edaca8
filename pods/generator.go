package pods

import (
	"cmp"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containers/podman/v5/pkg/specgen"
	"github.com/opencontainers/runtime-spec/specs-go"
	nettypes "go.podman.io/common/libnetwork/types"
	"go.podman.io/image/v5/manifest"
	"golang.org/x/sys/unix"
)

// limitSet says which limits are set.
type limitSet struct{ memory, cpu, pids bool }

// cpuPeriod is the kernel's default, in microseconds.
const cpuPeriod = 100_000

// podGenerator says a spec in Podman's words, without its containers.
func podGenerator(s Spec) *specgen.PodSpecGenerator {
	g := specgen.NewPodSpecGenerator()
	g.Name, g.Hostname = s.Name, s.hostname()
	g.Labels = maps.Clone(s.Labels)
	if g.Labels == nil {
		g.Labels = map[string]string{}
	}
	switch s.Network.Mode {
	case NetworkNone:
		g.NetNS = specgen.Namespace{NSMode: specgen.NoNetwork}
	case NetworkHost:
		g.NetNS = specgen.Namespace{NSMode: specgen.Host}
	default:
		g.NetNS = specgen.Namespace{NSMode: specgen.Bridge}
		g.Networks = map[string]nettypes.PerNetworkOptions{}
		for _, name := range s.Network.Names {
			g.Networks[name] = nettypes.PerNetworkOptions{Aliases: s.Network.Alias}
		}
	}
	for _, p := range s.Ports {
		g.PortMappings = append(g.PortMappings, nettypes.PortMapping{
			HostIP: p.HostIP, HostPort: p.Host, ContainerPort: p.Container, Protocol: p.Protocol,
		})
	}
	return g
}

// maxHostname is the kernel's limit, in bytes.
const maxHostname = 64

// hostname is what the spec says. Where it says nothing Podman takes the pod's
// name, of which the end fits if the whole does not.
func (s Spec) hostname() string {
	if s.Hostname != "" || len(s.Name) <= maxHostname {
		return s.Hostname
	}
	return strings.TrimLeft(s.Name[len(s.Name)-maxHostname:], "-._")
}

func containerGenerators(s Spec, limits limitSet) ([]*specgen.SpecGenerator, error) {
	var out []*specgen.SpecGenerator
	for _, c := range s.Containers {
		g, err := containerGenerator(c, limits)
		if err != nil {
			return nil, fmt.Errorf("container %s: %w", c.Name, err)
		}
		out = append(out, g)
	}
	return out, nil
}

// containerGenerator says a container in Podman's words.
func containerGenerator(c Container, limits limitSet) (*specgen.SpecGenerator, error) {
	g := specgen.NewSpecGenerator(c.Image, false)
	g.Name, g.Labels, g.Env = c.Name, c.Labels, c.Env
	g.Entrypoint, g.Command = c.Entrypoint, c.Command
	g.User, g.WorkDir = c.User, c.WorkDir
	g.Init = &c.Init
	if c.Stdin || c.TTY {
		g.Stdin, g.Terminal = &c.Stdin, &c.TTY
	}
	secure(g, c)
	limit(g, c, limits)
	if err := mount(g, c.Mounts); err != nil {
		return nil, err
	}
	for _, f := range c.Secrets {
		g.Secrets = append(g.Secrets, specgen.Secret{Source: f.Name, Target: f.Target, UID: f.UID, GID: f.GID, Mode: cmp.Or(f.Mode, defaultSecretMode)})
	}
	if err := lifeCycle(g, c); err != nil {
		return nil, err
	}
	if c.Health != nil {
		g.HealthConfig = c.Health.config()
	}
	return g, nil
}

// defaultSecretMode is Compose's: it is the container that keeps others out.
const defaultSecretMode = 0o444

func secure(g *specgen.SpecGenerator, c Container) {
	g.CapAdd, g.CapDrop = c.CapAdd, c.CapDrop
	noNew := !c.Privileges
	g.NoNewPrivileges = &noNew
	g.ReadOnlyFilesystem = &c.ReadOnly
	// Podman's own idea of writable folders below a read-only root differs by version: only what the spec names.
	tmpfs := false
	g.ReadWriteTmpfs = &tmpfs
}

func limit(g *specgen.SpecGenerator, c Container, can limitSet) {
	var r specs.LinuxResources
	if can.memory && c.Memory > 0 {
		r.Memory = &specs.LinuxMemory{Limit: &c.Memory}
	}
	if can.cpu && c.CPUs > 0 {
		period, quota := uint64(cpuPeriod), int64(c.CPUs*cpuPeriod)
		r.CPU = &specs.LinuxCPU{Period: &period, Quota: &quota}
	}
	if can.pids && c.PIDs > 0 {
		r.Pids = &specs.LinuxPids{Limit: c.PIDs}
	}
	if r.Memory != nil || r.CPU != nil || r.Pids != nil {
		g.ResourceLimits = &r
	}
}

func mount(g *specgen.SpecGenerator, mounts []Mount) error {
	for _, m := range mounts {
		access := "rw"
		if m.ReadOnly {
			access = "ro"
		}
		switch m.Kind {
		case MountVolume:
			g.Volumes = append(g.Volumes, &specgen.NamedVolume{Name: m.Source, Dest: m.Target, Options: []string{access}})
		case MountBind:
			g.Mounts = append(g.Mounts, specs.Mount{
				Type: "bind", Source: m.Source, Destination: m.Target, Options: []string{"rbind", access},
			})
		case MountTmpfs:
			g.Mounts = append(g.Mounts, tmpfs(m, access))
		default:
			return fmt.Errorf("mount %s: unknown kind %q", m.Target, m.Kind)
		}
	}
	return nil
}

func tmpfs(m Mount, access string) specs.Mount {
	mode := m.Mode
	if mode == 0 {
		mode = 0o1777
	}
	// What the image has there would be copied in, with its mode.
	options := []string{access, "nosuid", "nodev", "noexec", "notmpcopyup", fmt.Sprintf("mode=%o", mode)}
	if m.Size > 0 {
		options = append(options, "size="+strconv.FormatInt(m.Size, 10))
	}
	return specs.Mount{Type: "tmpfs", Source: "tmpfs", Destination: m.Target, Options: options}
}

// lifeCycle maps how a container stops and whether it starts again.
func lifeCycle(g *specgen.SpecGenerator, c Container) error {
	if c.StopSignal != "" {
		sig, err := parseSignal(c.StopSignal)
		if err != nil {
			return err
		}
		g.StopSignal = &sig
	}
	if c.StopTimeout > 0 {
		timeout := seconds(c.StopTimeout)
		g.StopTimeout = &timeout
	}
	policy, retries, counted := strings.Cut(c.Restart, ":")
	g.RestartPolicy = policy
	if counted {
		n, err := strconv.ParseUint(retries, 10, 31)
		if err != nil || policy != "on-failure" {
			return fmt.Errorf("restart %q: want no, on-failure[:N], always or unless-stopped", c.Restart)
		}
		tries := uint(n)
		g.RestartRetries = &tries
	}
	return nil
}

// parseSignal reads SIGTERM, TERM or 15.
func parseSignal(s string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil && unix.SignalName(syscall.Signal(n)) != "" {
		return syscall.Signal(n), nil
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if sig := unix.SignalNum(name); sig != 0 {
		return sig, nil
	}
	return 0, fmt.Errorf("unknown signal %q", s)
}

// Compose's defaults for a health check.
const (
	defaultInterval = 30 * time.Second
	defaultTimeout  = 30 * time.Second
	defaultRetries  = 3
)

// defaults fills in what Compose says where nothing is said.
func (h Health) defaults() Health {
	if h.Interval <= 0 {
		h.Interval = defaultInterval
	}
	if h.Timeout <= 0 {
		h.Timeout = defaultTimeout
	}
	if h.Retries <= 0 {
		h.Retries = defaultRetries
	}
	return h
}

// none tells that there is nothing to ask.
func (h Health) none() bool {
	return len(h.Test) == 0 || h.Test[0] == "NONE"
}

func (h Health) config() *manifest.Schema2HealthConfig {
	if h.none() {
		return &manifest.Schema2HealthConfig{Test: []string{"NONE"}}
	}
	h = h.defaults()
	return &manifest.Schema2HealthConfig{
		Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod, Retries: h.Retries,
	}
}

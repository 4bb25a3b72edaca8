package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"bareboat/internal/config"
	"bareboat/pods"
	"bareboat/pods/release"
)

// ErrNotRunning says that a service of the project has no pod that runs.
var ErrNotRunning = errors.New("is not running")

// connect reaches the Podman that runs the project.
func (p *Pipeline) connect(ctx context.Context) (*pods.Podman, error) {
	podman, err := pods.Connect(ctx, p.Host)
	if err != nil {
		return nil, err
	}
	podman.Warn = func(text string) { p.notify(Event{Subject: "podman", Text: text, Warn: true}) }
	return podman, nil
}

// withPodman calls do with a connection, and ends it.
func (p *Pipeline) withPodman(ctx context.Context, do func(*pods.Podman) error) (err error) {
	podman, err := p.connect(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, podman.Close()) }()
	return do(podman)
}

// Running is what runs of a service, as Podman tells it.
type Running struct {
	Service  string    `json:"service"`
	Release  int       `json:"release"`
	Pod      string    `json:"pod"`
	State    string    `json:"state"`
	Health   string    `json:"health,omitempty"`
	Image    string    `json:"image"` // NAME@sha256:…
	Upstream string    `json:"upstream,omitempty"`
	Started  time.Time `json:"started"`

	pod pods.Pod
}

// PS lists the pods of services, or of all, newest release of a service first: those
// that run, and those that should; with all also those that are kept for a rollback,
// whose state is "kept".
func (p *Pipeline) PS(ctx context.Context, services []string, all bool) (out []Running, err error) {
	err = p.at(ctx, func(w *workplace) error {
		list, err := p.running(ctx, w.podman, services)
		if err != nil {
			return err
		}
		records, err := w.edge.Records()
		if err != nil {
			return err
		}
		rec, recorded := records.Find(records.Serving)
		for _, r := range list {
			kept := recorded && !rec.Has(r.Pod) && !someRun(r.pod)
			if kept && records.Needs(r.Pod) {
				r.State = StateKept
			}
			if !kept || all {
				out = append(out, r)
			}
		}
		return nil
	})
	return out, err
}

func (p *Pipeline) running(ctx context.Context, podman *pods.Podman, services []string) ([]Running, error) {
	if _, err := p.Services(services); err != nil {
		return nil, err
	}
	all, err := podman.Pods(ctx, map[string]string{pods.LabelProject: p.Project.Name})
	if err != nil {
		return nil, err
	}
	var out []Running
	for _, pod := range all {
		service := pod.Labels[pods.LabelService]
		if pod.Labels[pods.LabelRelease] == "" {
			continue // a one-off
		}
		if len(services) == 0 || slices.Contains(services, service) {
			out = append(out, describe(pod, service))
		}
	}
	slices.SortStableFunc(out, func(a, b Running) int {
		if c := strings.Compare(a.Service, b.Service); c != 0 {
			return c
		}
		return b.Release - a.Release
	})
	return out, nil
}

func describe(pod pods.Pod, service string) Running {
	r := Running{
		Service: service, Pod: pod.Name, State: strings.ToLower(pod.State),
		Image: pod.Labels[pods.LabelImage], Upstream: pod.Labels[pods.LabelUp], pod: pod,
	}
	r.Release, _ = strconv.Atoi(pod.Labels[pods.LabelRelease])
	for _, c := range pod.Containers {
		r.Health, r.Started = c.Health, c.Started
	}
	return r
}

// serving is the newest pod of a service that runs.
func (p *Pipeline) serving(ctx context.Context, podman *pods.Podman, service string) (pods.Pod, error) {
	all, err := p.running(ctx, podman, []string{service})
	if err != nil {
		return pods.Pod{}, err
	}
	for _, r := range all {
		if r.pod.Running() {
			return r.pod, nil
		}
	}
	return pods.Pod{}, &pods.HintError{
		Err:  fmt.Errorf("service %s of project %s %w", service, p.Project.Name, ErrNotRunning),
		Hint: "bareboat up",
	}
}

// Stop stops the pods of services, or of all: first those that others depend
// on least. Their state and data stay.
func (p *Pipeline) Stop(ctx context.Context, services []string) ([]string, error) {
	chosen, err := p.Services(services)
	if err != nil {
		return nil, err
	}
	chosen = slices.Clone(chosen)
	slices.Reverse(chosen)
	var stopped []string
	err = p.withPodman(ctx, func(podman *pods.Podman) error {
		for _, s := range chosen {
			all, err := p.running(ctx, podman, []string{s.Name})
			if err != nil {
				return err
			}
			for _, r := range all {
				if !someRun(r.pod) {
					continue
				}
				if err := podman.StopPod(ctx, r.Pod, s.StopGrace); err != nil {
					return err
				}
				stopped = append(stopped, r.Pod)
			}
		}
		return nil
	})
	return stopped, err
}

func someRun(pod pods.Pod) bool {
	return slices.ContainsFunc(pod.Containers, func(c pods.ContainerState) bool { return c.State == pods.StateRunning })
}

// Start starts the pods of the release that serves, or served last, of each of the
// services, and waits until they are healthy.
func (p *Pipeline) Start(ctx context.Context, services []string) ([]string, error) {
	return p.startEach(ctx, services, func(ctx context.Context, podman *pods.Podman, r Running, h *config.Health) (bool, error) {
		if r.pod.Running() {
			return false, nil
		}
		return true, startPod(ctx, podman, r.pod, h)
	})
}

// Restart stops and starts the pods of services, or of all.
func (p *Pipeline) Restart(ctx context.Context, services []string) ([]string, error) {
	return p.startEach(ctx, services, func(ctx context.Context, podman *pods.Podman, r Running, h *config.Health) (bool, error) {
		if err := podman.StopPod(ctx, r.Pod, 0); err != nil {
			return false, err
		}
		return true, startPod(ctx, podman, r.pod, h)
	})
}

// startEach does something to the pods that should run of each service, and gives
// the names of those where it changed anything.
func (p *Pipeline) startEach(ctx context.Context, services []string, do func(context.Context, *pods.Podman, Running, *config.Health) (bool, error)) ([]string, error) {
	chosen, err := p.Services(services)
	if err != nil {
		return nil, err
	}
	var started []string
	err = p.at(ctx, func(w *workplace) error {
		records, err := w.edge.Records()
		if err != nil {
			return err
		}
		rec, _ := records.Find(records.Serving)
		for _, s := range chosen {
			all, err := p.running(ctx, w.podman, []string{s.Name})
			if err != nil {
				return err
			}
			current := slices.DeleteFunc(slices.Clone(all), func(r Running) bool { return !rec.Has(r.Pod) })
			if len(current) == 0 && len(all) > 0 {
				current = all[:1] // nothing is recorded: the newest
			}
			if len(current) == 0 && s.Sidecar == "" {
				return &pods.HintError{
					Err:  fmt.Errorf("service %s of project %s has no pod", s.Name, p.Project.Name),
					Hint: "bareboat up",
				}
			}
			for _, r := range current {
				if p.isJob(s.Name) && done(r.pod) {
					continue
				}
				changed, err := do(ctx, w.podman, r, s.Health)
				if err != nil {
					return err
				}
				if changed {
					started = append(started, r.Pod)
				}
			}
		}
		return nil
	})
	return started, err
}

func startPod(ctx context.Context, podman *pods.Podman, pod pods.Pod, h *config.Health) error {
	if err := podman.StartPod(ctx, pod.Name); err != nil {
		return err
	}
	var health pods.Health
	if h != nil {
		health = pods.Health(*h)
	}
	for _, c := range pod.Containers {
		if err := podman.WaitHealthy(ctx, c.Name, health); err != nil {
			return err
		}
	}
	return nil
}

// Output gives the writers for what a service prints.
type Output func(service string) (stdout, stderr io.Writer)

// Logs writes what the containers of services print. When following, it
// returns when all of them have ended.
func (p *Pipeline) Logs(ctx context.Context, services []string, opts pods.LogOptions, out Output) error {
	return p.withPodman(ctx, func(podman *pods.Podman) error {
		all, err := p.running(ctx, podman, services)
		if err != nil {
			return err
		}
		if len(all) == 0 {
			return &pods.HintError{Err: fmt.Errorf("project %s has no pods", p.Project.Name), Hint: "bareboat up"}
		}
		g, ctx := errgroup.WithContext(ctx)
		if !opts.Follow {
			g.SetLimit(1) // in order
		}
		for _, r := range all {
			stdout, stderr := out(r.Service)
			for _, c := range r.pod.Containers {
				g.Go(func() error { return podman.Logs(ctx, c.ID, opts, stdout, stderr) })
			}
		}
		return g.Wait()
	})
}

// Exec runs a program in the container of a service and gives its exit code.
func (p *Pipeline) Exec(ctx context.Context, service string, opts pods.ExecOptions) (code int, err error) {
	err = p.withPodman(ctx, func(podman *pods.Podman) error {
		pod, err := p.serving(ctx, podman, service)
		if err != nil {
			return err
		}
		code, err = podman.Exec(ctx, pod.Containers[0].ID, opts)
		return err
	})
	return code, err
}

// Info is what the Podman that runs the project says of itself.
func (p *Pipeline) Info(ctx context.Context) (info pods.Info, err error) {
	err = p.withPodman(ctx, func(podman *pods.Podman) error {
		info, err = podman.Info(ctx)
		return err
	})
	return info, err
}

// Inspect gives all that Podman says about the pods of a service.
func (p *Pipeline) Inspect(ctx context.Context, service string) (out []pods.Pod, err error) {
	err = p.withPodman(ctx, func(podman *pods.Podman) error {
		all, err := p.running(ctx, podman, []string{service})
		for _, r := range all {
			out = append(out, r.pod)
		}
		return err
	})
	return out, err
}

// containersOf are the running containers of services, or of all, by service.
func (p *Pipeline) containersOf(ctx context.Context, podman *pods.Podman, services []string) (map[string][]string, error) {
	all, err := p.running(ctx, podman, services)
	if err != nil {
		return nil, err
	}
	out := map[string][]string{}
	for _, r := range all {
		for _, c := range r.pod.Containers {
			if c.State == pods.StateRunning {
				out[r.Service] = append(out[r.Service], c.Name)
			}
		}
	}
	return out, nil
}

// Top lists what runs in the containers of services, or of all: by container, a
// heading and a line for each process.
func (p *Pipeline) Top(ctx context.Context, services []string) (out map[string][]string, err error) {
	out = map[string][]string{}
	err = p.withPodman(ctx, func(podman *pods.Podman) error {
		all, err := p.containersOf(ctx, podman, services)
		for _, names := range all {
			for _, name := range names {
				if out[name], err = podman.Top(ctx, name); err != nil {
					return err
				}
			}
		}
		return err
	})
	return out, err
}

// Stats tells what the containers of services, or of all, use now.
func (p *Pipeline) Stats(ctx context.Context, services []string) (out []pods.Stats, err error) {
	err = p.withPodman(ctx, func(podman *pods.Podman) error {
		all, err := p.containersOf(ctx, podman, services)
		if err != nil {
			return err
		}
		var names []string
		for _, list := range all {
			names = append(names, list...)
		}
		if len(names) == 0 {
			return nil
		}
		info, err := podman.Info(ctx)
		if err != nil {
			return err
		}
		for _, controller := range []string{"memory", "pids"} {
			if !slices.Contains(info.CgroupControllers, controller) {
				p.notify(Event{Subject: "podman", Text: "this user has no " + controller + " cgroup controller: what needs it is shown as 0", Warn: true})
			}
		}
		out, err = podman.Stats(ctx, names)
		return err
	})
	return out, err
}

// Events tells what Podman does to the project's containers, from since on.
func (p *Pipeline) Events(ctx context.Context, since time.Time, follow bool, tell func(pods.Happening)) error {
	return p.withPodman(ctx, func(podman *pods.Podman) error {
		return podman.Events(ctx, map[string]string{pods.LabelProject: p.Project.Name}, since, follow, tell)
	})
}

// RunOptions are what is different about a one-off from the service that it is of.
type RunOptions struct {
	pods.RunOptions
	Command []string // empty: the service's
	Env     map[string]string
	User    string
	WorkDir string
	TTY     bool
}

// Run runs a one-off pod of a service beside it: with its image, variables, volumes,
// networks and secrets, but without its ports, and the edge does not know it. It
// gives the program's exit code.
func (p *Pipeline) Run(ctx context.Context, service string, o RunOptions) (code int, err error) {
	s, ok := p.Project.Service(service)
	if !ok {
		return -1, p.fault(service, "", fmt.Errorf("%w (there are: %s)", ErrNoService, p.serviceNames()))
	}
	d := p.openRegistry(ctx)
	defer func() { err = errors.Join(err, d.close()) }()
	image, err := d.resolve(ctx, s)
	if err != nil {
		return -1, err
	}
	secrets, named, err := p.secrets()
	if err != nil {
		return -1, err
	}
	err = p.withPodman(ctx, func(podman *pods.Podman) error {
		puller := &puller{Podman: podman, from: d, tagged: p.localNames(d, []Image{image})}
		if _, err := puller.Pull(ctx, image.Ref.String(), image.Insecure || isLoopback(image.Ref.Registry), io.Discard); err != nil {
			return err
		}
		if err := p.ready(ctx, podman, s, secrets); err != nil {
			return err
		}
		code, err = podman.Run(ctx, p.oneOff(s, image, named, o), o.RunOptions)
		return err
	})
	return code, err
}

// ready makes what a one-off needs and no release has made yet.
func (p *Pipeline) ready(ctx context.Context, podman *pods.Podman, s config.Service, secrets []release.Secret) error {
	own := map[string]string{pods.LabelProject: p.Project.Name}
	for _, v := range p.Project.Volumes {
		if !v.External && slices.ContainsFunc(s.Mounts, func(m config.Mount) bool { return m.Kind == config.MountVolume && m.Source == v.Name }) {
			if err := podman.EnsureVolume(ctx, v.Name, own); err != nil {
				return err
			}
		}
	}
	for _, n := range p.Project.Networks {
		if !n.External && slices.ContainsFunc(s.Networks, func(a config.Attachment) bool { return a.Network == n.Name }) {
			if err := podman.EnsureNetwork(ctx, n.Name, own, n.Internal); err != nil {
				return err
			}
		}
	}
	for _, secret := range secrets {
		if err := podman.EnsureSecret(ctx, secret.Name, secret.Data, own); err != nil {
			return err
		}
	}
	return nil
}

// oneOff is the pod of a one-off.
func (p *Pipeline) oneOff(s config.Service, image Image, named map[string]string, o RunOptions) pods.Spec {
	spec := podOf(s, named)
	spec.Name = fmt.Sprintf("%s-%s-run-%d", p.Project.Name, s.Name, time.Now().UnixNano())
	spec.Ports, spec.Network.Alias = nil, nil
	spec.Labels = map[string]string{pods.LabelProject: p.Project.Name, pods.LabelService: s.Name}
	c := &spec.Containers[0]
	c.Name = spec.Name + "-" + s.Name
	c.Image = image.Ref.String()
	c.Restart, c.Health = "no", &pods.Health{Test: []string{"NONE"}}
	c.Labels = maps.Clone(spec.Labels)
	c.Stdin, c.TTY = o.Stdin != nil, o.TTY
	if len(o.Command) > 0 {
		c.Command = o.Command
	}
	if o.User != "" {
		c.User = o.User
	}
	if o.WorkDir != "" {
		c.WorkDir = o.WorkDir
	}
	if c.Env == nil {
		c.Env = map[string]string{}
	}
	maps.Copy(c.Env, o.Env)
	return spec
}

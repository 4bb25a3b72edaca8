package pipeline

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"bareboat/internal/config"
	"bareboat/pods"
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

// PS lists the pods of services, or of all, newest release of a service first.
func (p *Pipeline) PS(ctx context.Context, services []string) (out []Running, err error) {
	err = p.withPodman(ctx, func(podman *pods.Podman) error {
		out, err = p.running(ctx, podman, services)
		return err
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

// Start starts the newest pod of each of the services again, and waits until
// it is healthy.
func (p *Pipeline) Start(ctx context.Context, services []string) ([]string, error) {
	chosen, err := p.Services(services)
	if err != nil {
		return nil, err
	}
	var started []string
	err = p.withPodman(ctx, func(podman *pods.Podman) error {
		for _, s := range chosen {
			all, err := p.running(ctx, podman, []string{s.Name})
			if err != nil {
				return err
			}
			if len(all) == 0 {
				return &pods.HintError{
					Err:  fmt.Errorf("service %s of project %s has no pod", s.Name, p.Project.Name),
					Hint: "bareboat up",
				}
			}
			if all[0].pod.Running() {
				continue
			}
			if err := startPod(ctx, podman, all[0].pod, s.Health); err != nil {
				return err
			}
			started = append(started, all[0].Pod)
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

package pods

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/containers/podman/v5/pkg/bindings/containers"
	"github.com/containers/podman/v5/pkg/bindings/pods"
	"github.com/containers/podman/v5/pkg/domain/entities/types"
)

// Pod is what Podman says about a pod.
type Pod struct {
	ID         string
	Name       string
	Labels     map[string]string
	State      string // Created, Running, Degraded (some run), Exited, Stopped, Paused, Dead
	Created    time.Time
	Containers []ContainerState // in the order they were created, without the infra container

	infra string // ID of the container that holds the pod's network
}

// Running tells whether every container of the pod runs.
func (p Pod) Running() bool {
	for _, c := range p.Containers {
		if c.State != StateRunning {
			return false
		}
	}
	return len(p.Containers) > 0
}

// States of a container that callers tell apart; Podman has more.
const (
	StateCreated = "created"
	StateRunning = "running"
	StateExited  = "exited"
	StateStopped = "stopped"
)

// ContainerState is what Podman says about a container.
type ContainerState struct {
	ID           string
	Name         string
	Pod          string // name
	Image        string // name or ID, as it was asked for
	ImageID      string
	Labels       map[string]string
	State        string // created, running, exited, stopped, paused, …
	Health       string // what the last check said: healthy, unhealthy, starting; empty without a check
	ExitCode     int    // of the last run; zero before it ended
	OOMKilled    bool
	Created      time.Time
	Started      time.Time // of the last run
	Finished     time.Time // of the last run that ended
	RestartCount int       // by its restart policy
}

// Pods lists the pods that carry all the labels, running or not, by name.
func (p *Podman) Pods(ctx context.Context, labels map[string]string) ([]Pod, error) {
	list, err := pods.List(p.call(ctx), new(pods.ListOptions).WithFilters(labelFilter(labels)))
	if err != nil {
		return nil, fail("list pods", err)
	}
	var out []Pod
	for _, r := range list {
		if !carries(r.Labels, labels) {
			continue
		}
		pod, err := p.pod(ctx, r)
		if err != nil {
			return nil, err
		}
		out = append(out, pod)
	}
	sortBy(out, func(p Pod) string { return p.Name })
	return out, nil
}

// Pod is the pod of that name; without one the error is [ErrNotFound].
func (p *Podman) Pod(ctx context.Context, name string) (Pod, error) {
	list, err := pods.List(p.call(ctx), new(pods.ListOptions).WithFilters(map[string][]string{"name": {name}}))
	if err != nil {
		return Pod{}, fail("look at pod "+name, err)
	}
	for _, r := range list { // the filter is a pattern
		if r.Name == name {
			return p.pod(ctx, r)
		}
	}
	return Pod{}, fmt.Errorf("look at pod %s: %w", name, ErrNotFound)
}

func (p *Podman) pod(ctx context.Context, r *types.ListPodsReport) (Pod, error) {
	pod := Pod{ID: r.Id, Name: r.Name, Labels: r.Labels, State: r.Status, Created: r.Created, infra: r.InfraId}
	for _, c := range r.Containers {
		if c.Id == r.InfraId {
			continue
		}
		state, err := p.Container(ctx, c.Id)
		if errors.Is(err, ErrNotFound) { // gone since the list was made
			continue
		}
		if err != nil {
			return Pod{}, err
		}
		state.Pod = r.Name
		pod.Containers = append(pod.Containers, state)
	}
	sortBy(pod.Containers, func(c ContainerState) int64 { return c.Created.UnixNano() })
	return pod, nil
}

// Container is the state of the container of that name or ID; without one the
// error is [ErrNotFound].
func (p *Podman) Container(ctx context.Context, name string) (ContainerState, error) {
	c, err := containers.Inspect(p.call(ctx), name, nil)
	if err != nil {
		return ContainerState{}, fail("look at container "+name, err)
	}
	out := ContainerState{
		ID: c.ID, Name: c.Name, Image: c.ImageName, ImageID: c.Image,
		Created: c.Created, RestartCount: int(c.RestartCount),
	}
	if c.Config != nil {
		out.Labels = c.Config.Labels
	}
	if s := c.State; s != nil {
		out.State, out.ExitCode, out.OOMKilled = s.Status, int(s.ExitCode), s.OOMKilled
		out.Started, out.Finished = s.StartedAt, s.FinishedAt
		if s.Health != nil {
			out.Health = s.Health.Status
		}
	}
	return out, nil
}

// StartPod starts the containers of the pod that do not run, one after the
// other in the order of its spec.
func (p *Podman) StartPod(ctx context.Context, name string) error {
	pod, err := p.Pod(ctx, name)
	if err != nil {
		return fmt.Errorf("start pod %s: %w", name, err)
	}
	// Started as a mere dependency it would hide what is wrong with the network.
	if err := containers.Start(p.call(ctx), pod.infra, nil); err != nil {
		return fail("start pod "+name, err)
	}
	for _, c := range pod.Containers {
		if c.State == StateRunning {
			continue
		}
		if err := containers.Start(p.call(ctx), c.ID, nil); err != nil {
			return fail("start pod "+name+": start container "+c.Name, err)
		}
	}
	return nil
}

// StopPod stops the containers of the pod, the last first, and then the pod.
// Each is sent its stop signal and killed after grace, or after the stop
// time-out of its own where grace is zero; Podman counts whole seconds. The
// containers come before the pod, since Podman before 5.5 stops a pod by taking
// its network away first.
func (p *Podman) StopPod(ctx context.Context, name string, grace time.Duration) error {
	pod, err := p.Pod(ctx, name)
	if err != nil {
		return fmt.Errorf("stop pod %s: %w", name, err)
	}
	options := new(containers.StopOptions)
	if grace > 0 {
		options = options.WithTimeout(seconds(grace))
	}
	if err := p.stopContainers(ctx, pod, options); err != nil {
		return fmt.Errorf("stop pod %s: %w", name, err)
	}
	// The API would not stop the pod: it calls one that only holds its network stopped already.
	err = containers.Stop(p.call(ctx), pod.infra, new(containers.StopOptions).WithTimeout(0))
	return fail("stop pod "+name, err)
}

func (p *Podman) stopContainers(ctx context.Context, pod Pod, options *containers.StopOptions) error {
	for i := len(pod.Containers) - 1; i >= 0; i-- {
		c := pod.Containers[i]
		err := containers.Stop(p.call(ctx), c.ID, options)
		if err != nil && status(err) != http.StatusNotFound && c.State != StateCreated {
			return fail("stop container "+c.Name, err)
		}
	}
	return nil
}

// RemovePod kills what still runs of the pod and removes it. That it is not
// there is no error.
func (p *Podman) RemovePod(ctx context.Context, name string) error {
	pod, err := p.Pod(ctx, name)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove pod %s: %w", name, err)
	}
	// Podman before 5 waits for each container's stop time-out even when forced.
	if err := p.stopContainers(ctx, pod, new(containers.StopOptions).WithTimeout(0)); err != nil {
		return fmt.Errorf("remove pod %s: %w", name, err)
	}
	report, err := pods.Remove(p.call(ctx), pod.ID, new(pods.RemoveOptions).WithForce(true).WithTimeout(0))
	if status(err) == http.StatusNotFound {
		return nil
	}
	if err == nil && report != nil {
		err = report.Err
	}
	return fail("remove pod "+name, err)
}

// Signal sends a signal, such as SIGHUP, to the container's first process.
func (p *Podman) Signal(ctx context.Context, container, signal string) error {
	err := containers.Kill(p.call(ctx), container, new(containers.KillOptions).WithSignal(signal))
	return fail("send "+signal+" to container "+container, err)
}

// seconds rounds up: half a second of grace is not none.
func seconds(d time.Duration) uint {
	return uint((d + time.Second - 1) / time.Second)
}

// Processes gives the command lines of all that runs in the container.
func (p *Podman) Processes(ctx context.Context, container string) ([]string, error) {
	lines, err := containers.Top(p.call(ctx), container, new(containers.TopOptions).WithDescriptors([]string{"args"}))
	if err != nil {
		return nil, fail("look at the processes of container "+container, err)
	}
	return lines[min(1, len(lines)):], nil // the first is a heading
}

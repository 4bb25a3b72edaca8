package pods

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/containers/podman/v5/libpod/define"
	"github.com/containers/podman/v5/pkg/bindings/containers"
)

// HealthResult is what one run of a container's check answered.
type HealthResult struct {
	Status string // healthy, unhealthy or starting
	Output string // what the check printed
}

// Healthy tells whether the check passed.
func (r HealthResult) Healthy() bool { return r.Status == define.HealthCheckHealthy }

// UnhealthyError says that a container is not ready and will not be.
type UnhealthyError struct {
	Container string
	Exited    bool // it died; else its check goes on failing
	ExitCode  int  // if it died; -1 if it was started again since, which makes Podman forget
	Output    string
	Log       []string // its last lines
}

func (e *UnhealthyError) Error() string {
	if e.Exited && e.ExitCode < 0 {
		return fmt.Sprintf("container %s died and was started again", e.Container)
	}
	if e.Exited {
		return fmt.Sprintf("container %s died with exit code %d", e.Container, e.ExitCode)
	}
	if out := oneLine(e.Output); out != "" {
		return fmt.Sprintf("container %s is unhealthy: %s", e.Container, out)
	}
	return fmt.Sprintf("container %s is unhealthy", e.Container)
}

// Hints gives the end of the container's log.
func (e *UnhealthyError) Hints() []string {
	if len(e.Log) == 0 {
		return []string{"its log is empty"}
	}
	hints := append([]string{"the end of its log:"}, e.Log...)
	text := strings.ToLower(strings.Join(e.Log, "\n"))
	for _, cause := range causes {
		if strings.Contains(text, cause.says) {
			hints = append(hints, cause.hint)
		}
	}
	return hints
}

// causes are what programs say that need more than they are given unless asked for.
var causes = []struct{ says, hint string }{
	{"read-only file system", "its root is read-only: tmpfs or volumes for the folders that it writes to, or read_only: false"},
	{"permission denied", "it may not be root, and has no capabilities: user, and cap_add, ask for more"},
	{"operation not permitted", "it may not be root, and has no capabilities: user, and cap_add, ask for more"},
}

const (
	logTail = 20 // lines in an UnhealthyError
	// A container that is not ready yet is asked soon, and then less and less
	// often: its interval is meant for one that is ready. Podman keeps a process
	// for five minutes after each check that was asked for through the API.
	firstPoll = 100 * time.Millisecond
	lastPoll  = 2 * time.Second
	// healthMargin is what the service may need beside the check itself.
	healthMargin = 5 * time.Second
)

// CheckHealth runs the container's own check now. It needs no systemd, unlike
// Podman's timer for it.
func (p *Podman) CheckHealth(ctx context.Context, container string) (HealthResult, error) {
	doing := "check health of container " + container
	r, err := containers.RunHealthCheck(p.call(ctx), container, nil)
	if err != nil {
		return HealthResult{}, fail(doing, err)
	}
	result := HealthResult{Status: r.Status, Output: lastOutput(r)}
	if result.Output == "" && !result.Healthy() {
		// Podman before 5 answers with the status alone.
		c, err := containers.Inspect(p.call(ctx), container, nil)
		if err != nil {
			return HealthResult{}, fail(doing, err)
		}
		if c.State != nil {
			result.Output = lastOutput(c.State.Health)
		}
	}
	return result, nil
}

func lastOutput(r *define.HealthCheckResults) string {
	if r == nil || len(r.Log) == 0 {
		return ""
	}
	return strings.TrimSpace(r.Log[len(r.Log)-1].Output)
}

// WaitHealthy returns when the container is ready: when its check passes for
// the first time or, without a check, as soon as it runs. It gives up when the
// container dies, or when start period and retries times the interval have gone
// by, with an [UnhealthyError].
func (p *Podman) WaitHealthy(ctx context.Context, container string, health Health) error {
	health = health.defaults()
	patience := health.StartPeriod + time.Duration(health.Retries)*health.Interval
	first, err := p.Container(ctx, container)
	if err != nil {
		return err
	}
	deadline := time.Now().Add(patience)
	for pause := firstPoll; ; pause = min(2*pause, lastPoll, health.Interval) {
		ready, output, err := p.ready(ctx, container, health, first.RestartCount)
		if ready || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return p.unhealthy(ctx, UnhealthyError{Container: container, Output: output})
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for container %s: %w", container, ctx.Err())
		case <-time.After(pause):
		}
	}
}

// ready asks once. restarts is how often the container had been started again
// when the wait began: once more is a death.
func (p *Podman) ready(ctx context.Context, container string, health Health, restarts int) (bool, string, error) {
	c, err := p.Container(ctx, container)
	if err != nil {
		return false, "", err
	}
	ended := c.State == StateExited || c.State == StateStopped
	if ended || c.RestartCount > restarts {
		if !ended {
			c.ExitCode = -1
		}
		return false, "", p.unhealthy(ctx, UnhealthyError{Container: container, Exited: true, ExitCode: c.ExitCode})
	}
	if health.none() || c.State != StateRunning {
		return c.State == StateRunning, "it does not run yet", nil
	}
	asking, cancel := context.WithTimeout(ctx, health.Timeout+healthMargin)
	defer cancel()
	result, err := p.CheckHealth(asking, container)
	switch {
	case err == nil:
		return result.Healthy(), result.Output, nil
	case ctx.Err() != nil:
		return false, "", err
	case errors.Is(err, context.DeadlineExceeded):
		return false, fmt.Sprintf("the check takes more than %v", health.Timeout), nil
	}
	// It may have died under the question; the next look at its state tells.
	return false, err.Error(), nil
}

// unhealthy adds the end of the container's log.
func (p *Podman) unhealthy(ctx context.Context, e UnhealthyError) error {
	var text strings.Builder
	if err := p.Logs(ctx, e.Container, LogOptions{Tail: logTail}, &text, &text); err != nil {
		return errors.Join(&e, err)
	}
	if s := strings.TrimSpace(text.String()); s != "" {
		e.Log = strings.Split(s, "\n")
	}
	return &e
}

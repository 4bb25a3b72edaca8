package pods

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"
)

// Watched is a container that is to stay well for a time.
type Watched struct {
	Container string
	Health    Health
	For       time.Duration
}

// lookAgain is how often a container that is watched is looked at. Its check is
// run at its own interval.
const lookAgain = 200 * time.Millisecond

// StayHealthy returns when all the containers, which are healthy already, have
// stayed so for their times. When one dies, is started again, or its check fails
// as often in a row as its retries say, or fails at the end, the error is an
// [UnhealthyError].
func (p *Podman) StayHealthy(ctx context.Context, list []Watched) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, w := range list {
		g.Go(func() error { return p.stayHealthy(ctx, w) })
	}
	return g.Wait()
}

func (p *Podman) stayHealthy(ctx context.Context, w Watched) error {
	health := w.Health.defaults()
	first, err := p.Container(ctx, w.Container)
	if err != nil {
		return err
	}
	look := time.NewTicker(lookAgain)
	defer look.Stop()
	end := time.Now().Add(w.For)
	asked, failures := time.Now(), 0
	for {
		c, err := p.Container(ctx, w.Container)
		if err != nil {
			return err
		}
		now := time.Now()
		if c.State != StateRunning || c.RestartCount > first.RestartCount || !c.Started.Equal(first.Started) {
			return p.died(ctx, c)
		}
		last := !now.Before(end)
		if !health.none() && (last || now.Sub(asked) >= health.Interval) {
			asked = now
			output, err := p.ask(ctx, w.Container, health)
			if err != nil {
				return err
			}
			if output == "" {
				failures = 0
			} else if failures++; last || failures >= health.Retries {
				return p.unhealthy(ctx, UnhealthyError{Container: w.Container, Output: output})
			}
		}
		if last {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("watch container %s: %w", w.Container, ctx.Err())
		case <-look.C:
		}
	}
}

// ask runs the container's check once and says what is wrong, or nothing.
func (p *Podman) ask(ctx context.Context, container string, health Health) (string, error) {
	asking, cancel := context.WithTimeout(ctx, health.Timeout+healthMargin)
	defer cancel()
	result, err := p.CheckHealth(asking, container)
	switch {
	case err == nil && result.Healthy():
		return "", nil
	case err == nil && result.Output != "":
		return result.Output, nil
	case err == nil:
		return "its check fails", nil
	case ctx.Err() != nil:
		return "", err
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Sprintf("the check takes more than %v", health.Timeout), nil
	}
	return err.Error(), nil
}

// died says that the container does not run as it did.
func (p *Podman) died(ctx context.Context, c ContainerState) error {
	code := c.ExitCode
	if c.State == StateRunning {
		code = -1
	}
	return p.unhealthy(ctx, UnhealthyError{Container: c.Name, Exited: true, ExitCode: code})
}

// WaitCompleted returns when the container has ended with exit code 0. Another
// is an [UnhealthyError].
func (p *Podman) WaitCompleted(ctx context.Context, container string) error {
	for pause := firstPoll; ; pause = min(2*pause, lastPoll) {
		c, err := p.Container(ctx, container)
		if err != nil {
			return err
		}
		if ended := c.State == StateExited || c.State == StateStopped; ended && c.ExitCode == 0 {
			return nil
		} else if ended {
			return p.died(ctx, c)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for container %s to end: %w", container, ctx.Err())
		case <-time.After(pause):
		}
	}
}

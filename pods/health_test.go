package pods_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"bareboat/pods"
)

// check passes once /tmp/up is there.
func check(interval time.Duration) *pods.Health {
	return &pods.Health{
		Test: []string{"CMD", "/probe", "health", "/tmp/up"}, Interval: interval, Timeout: 10 * time.Second, Retries: 2,
	}
}

func (p *podmanWithImage) checked(health *pods.Health, command ...string) pods.Spec {
	spec := p.spec(command...)
	spec.Containers[0].Health = health
	spec.Containers[0].Mounts = []pods.Mount{{Kind: pods.MountTmpfs, Target: "/tmp"}}
	return spec
}

func TestWaitHealthyReturnsWithTheFirstGoodAnswer(t *testing.T) {
	t.Parallel()
	p := use(t)
	spec := p.checked(check(time.Minute), "lines", "0")
	p.start(t, spec)
	name := spec.Containers[0].Name
	bad, err := p.CheckHealth(t.Context(), name)
	if err != nil || bad.Healthy() || !strings.Contains(bad.Output, "not ready: /tmp/up is missing") {
		t.Fatalf("before: %+v, %v", bad, err)
	}
	done := make(chan error, 1)
	go func() { done <- p.WaitHealthy(t.Context(), name, *spec.Containers[0].Health) }()
	p.run(t, name, "touch", "/tmp/up")
	select {
	case err := <-done: // long before the interval is over
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it goes on waiting")
	}
	good, err := p.CheckHealth(t.Context(), name)
	if err != nil || !good.Healthy() {
		t.Errorf("after: %+v, %v", good, err)
	}
	if c := p.pod(t, spec.Name).Containers[0]; c.Health != "healthy" {
		t.Errorf("health is %q", c.Health)
	}
}

func TestWaitHealthyGivesUp(t *testing.T) {
	t.Parallel()
	p := use(t)
	spec := p.checked(check(time.Second), "lines", "2")
	p.start(t, spec)
	name := spec.Containers[0].Name
	err := p.WaitHealthy(t.Context(), name, *spec.Containers[0].Health)
	var unhealthy *pods.UnhealthyError
	if !errors.As(err, &unhealthy) || unhealthy.Exited || !strings.Contains(unhealthy.Output, "/tmp/up is missing") {
		t.Fatalf("error is %#v", err)
	}
	if !slices.Contains(unhealthy.Log, "out 1") || !slices.Contains(unhealthy.Log, "err 1") {
		t.Errorf("log is %q", unhealthy.Log)
	}
	if s := err.Error(); !strings.Contains(s, name) || strings.Contains(s, "\n") {
		t.Errorf("message is %q", s)
	}
}

func TestWaitHealthySeesADeath(t *testing.T) {
	t.Parallel()
	p := use(t)
	for _, restart := range []string{"no", "always"} {
		spec := p.checked(check(time.Hour), "exit", "3", "no", "such", "table")
		spec.Containers[0].Restart = restart
		p.start(t, spec)
		err := p.WaitHealthy(t.Context(), spec.Containers[0].Name, *spec.Containers[0].Health)
		var unhealthy *pods.UnhealthyError
		if !errors.As(err, &unhealthy) || !unhealthy.Exited || !slices.Contains(unhealthy.Log, "no such table") {
			t.Fatalf("restart %s: %#v", restart, err)
		}
		again := restart == "always" && strings.Contains(err.Error(), "died and was started again")
		if !again && unhealthy.ExitCode != 3 {
			t.Errorf("restart %s: %#v", restart, err)
		}
	}
}

func TestWithoutACheckRunningIsReady(t *testing.T) {
	t.Parallel()
	p := use(t)
	spec := p.spec("lines", "0")
	p.start(t, spec)
	name := spec.Containers[0].Name
	if err := p.WaitHealthy(t.Context(), name, pods.Health{}); err != nil {
		t.Error(err)
	}
	if _, err := p.CheckHealth(t.Context(), name); err == nil {
		t.Error("a check that is not there could be run")
	}
	if err := p.WaitHealthy(t.Context(), name+"-none", pods.Health{}); !errors.Is(err, pods.ErrNotFound) {
		t.Errorf("no such container: %v", err)
	}
}

func TestWaitHealthyEndsWithItsContext(t *testing.T) {
	t.Parallel()
	p := use(t)
	spec := p.checked(check(time.Hour), "lines", "0")
	p.start(t, spec)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := p.WaitHealthy(ctx, spec.Containers[0].Name, *spec.Containers[0].Health); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error is %v", err)
	}
}

package pods_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"bareboat/pods"
)

func TestPodsAreListedByLabel(t *testing.T) {
	t.Parallel()
	p := use(t)
	spec := p.spec("exit", "3")
	p.create(t, spec)
	list, err := p.Pods(t.Context(), spec.Labels)
	if err != nil || len(list) != 1 {
		t.Fatalf("%+v, %v", list, err)
	}
	pod := list[0]
	if pod.Name != spec.Name || pod.ID == "" || pod.Created.IsZero() || pod.Labels[pods.LabelService] != "probe" {
		t.Errorf("pod is %+v", pod)
	}
	if len(pod.Containers) != 1 || pod.Containers[0].State != pods.StateCreated || pod.Running() {
		t.Fatalf("containers are %+v", pod.Containers)
	}
	if c := pod.Containers[0]; c.Name != spec.Containers[0].Name || c.Pod != spec.Name || !strings.Contains(c.ImageID, p.id) {
		t.Errorf("container is %+v", c)
	}
	if err := p.StartPod(t.Context(), spec.Name); err != nil {
		t.Fatal(err)
	}
	until(t, "its end", func() bool { return p.pod(t, spec.Name).Containers[0].State == pods.StateExited })
	if c := p.pod(t, spec.Name).Containers[0]; c.ExitCode != 3 || c.Started.IsZero() || c.Finished.Sub(c.Started).Abs() > time.Minute {
		t.Errorf("container is %d, %v, %v", c.ExitCode, c.Started, c.Finished)
	}
	none, err := p.Pods(t.Context(), map[string]string{testLabel: spec.Name, pods.LabelService: "other"})
	if err != nil || len(none) != 0 {
		t.Errorf("%+v, %v", none, err)
	}
	if _, err := p.Container(t.Context(), spec.Name+"-none"); !errors.Is(err, pods.ErrNotFound) {
		t.Errorf("a container that is not there: %v", err)
	}
}

func TestStopPodStopsTheLastFirstAndKeepsTheNetwork(t *testing.T) {
	t.Parallel()
	p := use(t)
	network := "bareboat-" + unique()
	t.Cleanup(func() {
		if err := p.RemoveNetwork(context.Background(), network); err != nil {
			t.Error(err)
		}
	})
	if err := p.EnsureNetwork(t.Context(), network, nil, false); err != nil {
		t.Fatal(err)
	}
	spec := p.spec("serve", ":8080")
	spec.Network = pods.Network{Mode: pods.NetworkBridge, Names: []string{network}}
	first := &spec.Containers[0]
	first.Env = map[string]string{"EXIT": "5", "DRAIN": "1s"}
	first.StopTimeout = 30 * time.Second
	second := *first
	second.Name += "-2"
	second.Command = []string{"serve", ":8081"}
	second.Env = map[string]string{"EXIT": "6", "DRAIN": "500ms"}
	spec.Containers = append(spec.Containers, second)
	p.start(t, spec)
	for _, c := range spec.Containers {
		until(t, c.Name, func() bool { return strings.Contains(p.log(t, c.Name), "ready") })
	}
	if err := p.StopPod(t.Context(), spec.Name, 0); err != nil {
		t.Fatal(err)
	}
	pod := p.pod(t, spec.Name)
	a, b := pod.Containers[0], pod.Containers[1]
	if a.ExitCode != 5 || b.ExitCode != 6 || a.State != pods.StateExited {
		t.Errorf("exit codes %d and %d, state %s", a.ExitCode, b.ExitCode, a.State)
	}
	// The first drains for a second, and is told to only when the second has ended.
	if d := a.Finished.Sub(b.Finished); d < 900*time.Millisecond {
		t.Errorf("the first ended %v after the second", d)
	}
	for _, c := range pod.Containers {
		if log := p.log(t, c.Name); !strings.Contains(log, "networks at the end: lo eth0") {
			t.Errorf("the network went before %s:\n%s", c.Name, log)
		}
	}
	// Podman may still be tidying up after the containers: until then the pod is Degraded.
	until(t, "the pod's end", func() bool { return p.pod(t, spec.Name).State == "Exited" })
	// It starts again as it was.
	if err := p.StartPod(t.Context(), spec.Name); err != nil {
		t.Fatal(err)
	}
	if !p.pod(t, spec.Name).Running() {
		t.Error("the pod does not run again")
	}
}

func TestStopPodKillsAfterGrace(t *testing.T) {
	t.Parallel()
	p := use(t)
	spec := p.spec("serve", "unix:@x")
	spec.Containers[0].Env = map[string]string{"DRAIN": "10m"}
	spec.Containers[0].StopTimeout = 10 * time.Minute
	p.start(t, spec)
	until(t, "the server", func() bool { return strings.Contains(p.log(t, spec.Containers[0].Name), "ready") })
	start := time.Now()
	if err := p.StopPod(t.Context(), spec.Name, time.Second); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < time.Second || took > 30*time.Second {
		t.Errorf("it took %v", took)
	}
	if c := p.pod(t, spec.Name).Containers[0]; c.ExitCode != 137 {
		t.Errorf("exit code is %d", c.ExitCode)
	}
}

func TestRemovePod(t *testing.T) {
	t.Parallel()
	p := use(t)
	spec := p.spec("serve", "unix:@x")
	spec.Containers[0].Env = map[string]string{"DRAIN": "10m"}
	spec.Containers[0].StopTimeout = 10 * time.Minute
	spec.Containers[0].Restart = "always"
	p.start(t, spec)
	start := time.Now()
	for range 2 { // the second time there is nothing to remove
		if err := p.RemovePod(t.Context(), spec.Name); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("it took %v", took)
	}
	if _, err := p.Container(t.Context(), spec.Containers[0].Name); !errors.Is(err, pods.ErrNotFound) {
		t.Errorf("its container: %v", err)
	}
	if err := p.StopPod(t.Context(), spec.Name, 0); !errors.Is(err, pods.ErrNotFound) {
		t.Errorf("stop: %v", err)
	}
	if err := p.StartPod(t.Context(), spec.Name); !errors.Is(err, pods.ErrNotFound) {
		t.Errorf("start: %v", err)
	}
}

func TestSignalReachesTheFirstProcess(t *testing.T) {
	t.Parallel()
	p := use(t)
	spec := p.spec("lines", "0")
	p.start(t, spec)
	name := spec.Containers[0].Name
	until(t, "its start", func() bool { return strings.Contains(p.log(t, name), "written") })
	if err := p.Signal(t.Context(), name, "SIGHUP"); err != nil {
		t.Fatal(err)
	}
	until(t, "the signal", func() bool { return strings.Contains(p.log(t, name), "hangup") })
	if err := p.Signal(t.Context(), name+"-none", "SIGHUP"); !errors.Is(err, pods.ErrNotFound) {
		t.Errorf("no such container: %v", err)
	}
}

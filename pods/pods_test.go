package pods_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"bareboat/pods"
)

const testLabel = "bareboat.test"

// spec is a pod without a network with one container, named after the test.
func (p *podmanWithImage) spec(command ...string) pods.Spec {
	name := "bareboat-" + unique()
	return pods.Spec{
		Name:    name,
		Labels:  map[string]string{testLabel: name, pods.LabelService: "probe"},
		Network: pods.Network{Mode: pods.NetworkNone},
		Containers: []pods.Container{{
			Name: name + "-app", Image: p.id, Command: command,
			ReadOnly: true, CapDrop: []string{"ALL"}, User: "65532:65532",
		}},
	}
}

// create makes the pod and removes it after the test.
func (p *podmanWithImage) create(t *testing.T, spec pods.Spec) pods.Pod {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := p.RemovePod(ctx, spec.Name); err != nil {
			t.Error(err)
		}
	})
	pod, err := p.CreatePod(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

func (p *podmanWithImage) start(t *testing.T, spec pods.Spec) pods.Pod {
	t.Helper()
	p.create(t, spec)
	if err := p.StartPod(t.Context(), spec.Name); err != nil {
		t.Fatal(err)
	}
	return p.pod(t, spec.Name)
}

func (p *podmanWithImage) pod(t *testing.T, name string) pods.Pod {
	t.Helper()
	pod, err := p.Pod(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return pod
}

func (p *podmanWithImage) log(t *testing.T, container string) string {
	t.Helper()
	var out strings.Builder
	if err := p.Logs(t.Context(), container, pods.LogOptions{}, &out, &out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// run runs the probe in a container and wants it to end well.
func (p *podmanWithImage) run(t *testing.T, container string, cmd ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	code, err := p.Exec(t.Context(), container, pods.ExecOptions{
		Cmd: append([]string{"/probe"}, cmd...), Stdout: &out, Stderr: &errs,
	})
	if err != nil || code != 0 {
		t.Fatalf("%v: exit code %d, %v\n%s%s", cmd, code, err, out.String(), errs.String())
	}
	return out.String()
}

func (p *podmanWithImage) volume(t *testing.T) string {
	t.Helper()
	name := "bareboat-" + unique()
	t.Cleanup(func() {
		if err := p.RemoveVolume(context.Background(), name); err != nil {
			t.Error(err)
		}
	})
	if err := p.EnsureVolume(t.Context(), name, map[string]string{testLabel: name}); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestVersionAndInfo(t *testing.T) {
	p := use(t)
	version, err := p.Version(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if major, _, _ := strings.Cut(version, "."); !slices.Contains([]string{"4", "5", "6"}, major) {
		t.Errorf("version is %q", version)
	}
	info, err := p.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if info.Version != version || !info.Rootless || info.CgroupVersion != "v2" || info.GraphRoot == "" {
		t.Errorf("info is %+v", info)
	}
}

func TestCreatePodIsIdempotent(t *testing.T) {
	t.Parallel()
	p := use(t)
	spec := p.spec("lines", "0")
	first := p.start(t, spec)
	again, err := p.CreatePod(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if again.ID != first.ID || len(again.Containers) != 1 || again.Containers[0].ID != first.Containers[0].ID || !again.Running() {
		t.Errorf("made anew: %+v", again)
	}
	changed := spec
	changed.Containers = slices.Clone(spec.Containers)
	changed.Containers[0].Command = []string{"exit", "0"}
	var conflict *pods.ConflictError
	if _, err := p.CreatePod(t.Context(), changed); !errors.As(err, &conflict) || conflict.Kind != "pod" || conflict.Name != spec.Name {
		t.Errorf("another spec of the same name: %v", err)
	}
	if !p.pod(t, spec.Name).Running() {
		t.Error("the pod no longer runs after the conflict")
	}
}

func TestCreatePodGoesOnWhereItEnded(t *testing.T) {
	t.Parallel()
	p := use(t)
	spec := p.spec("lines", "0")
	second := spec.Containers[0]
	second.Name += "-2"
	spec.Containers = append(spec.Containers, second)
	whole := p.create(t, spec)
	podman(t, "rm", second.Name)
	if got := len(p.pod(t, spec.Name).Containers); got != 1 {
		t.Fatalf("%d containers are left", got)
	}
	again, err := p.CreatePod(t.Context(), spec)
	if err != nil || again.ID != whole.ID || len(again.Containers) != 2 {
		t.Errorf("%+v, %v", again, err)
	}
}

func TestCreatePodLeavesNothingHalfMade(t *testing.T) {
	t.Parallel()
	p := use(t)
	spec := p.spec("lines", "0")
	broken := spec.Containers[0]
	broken.Name += "-broken"
	broken.Image = "localhost/bareboat-test/none:" + unique()
	spec.Containers = append(spec.Containers, broken)
	_, err := p.CreatePod(t.Context(), spec)
	if err == nil || !strings.Contains(err.Error(), broken.Name) || strings.Contains(err.Error(), "\n") {
		t.Errorf("error is %v", err)
	}
	if _, err := p.Pod(t.Context(), spec.Name); !errors.Is(err, pods.ErrNotFound) {
		t.Errorf("the pod is still there: %v", err)
	}
}

func TestCreatePodRefusesWhatItCannotSay(t *testing.T) {
	t.Parallel()
	p := use(t)
	for want, change := range map[string]func(*pods.Container){
		`unknown signal "SIGNONE"`:  func(c *pods.Container) { c.StopSignal = "SIGNONE" },
		`restart "on-failure:many"`: func(c *pods.Container) { c.Restart = "on-failure:many" },
		`restart "always:3"`:        func(c *pods.Container) { c.Restart = "always:3" },
		`unknown kind "disk"`:       func(c *pods.Container) { c.Mounts = []pods.Mount{{Kind: "disk", Target: "/x"}} },
	} {
		spec := p.spec("lines", "0")
		change(&spec.Containers[0])
		if _, err := p.CreatePod(t.Context(), spec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %s, got %v", want, err)
		}
		if _, err := p.Pod(t.Context(), spec.Name); !errors.Is(err, pods.ErrNotFound) {
			t.Errorf("%s: a pod was made: %v", want, err)
		}
	}
}

func TestContainerIsAsTheSpecSays(t *testing.T) {
	t.Parallel()
	p := use(t)
	dir := t.TempDir()
	spec := p.spec("lines", "0")
	c := &spec.Containers[0]
	c.Env = map[string]string{"GREETING": "good day"}
	c.WorkDir = "/data"
	c.Init = true
	c.CapAdd = []string{"CAP_NET_BIND_SERVICE"}
	c.Labels = map[string]string{testLabel: "container"}
	c.Mounts = []pods.Mount{
		{Kind: pods.MountTmpfs, Target: "/tmp", Size: 1 << 20, Mode: 0o1777},
		{Kind: pods.MountBind, Source: dir, Target: "/host", ReadOnly: true},
	}
	pod := p.start(t, spec)
	if got := pod.Containers[0].Labels[testLabel]; got != "container" {
		t.Errorf("label is %q", got)
	}
	if got := p.run(t, c.Name, "env", "GREETING"); got != "GREETING=good day\n" {
		t.Errorf("environment: %q", got)
	}
	if got := p.run(t, c.Name, "id"); got != "uid 65532 gid 65532 in /data\n" {
		t.Errorf("account: %q", got)
	}
	p.run(t, c.Name, "touch", "/tmp/x")
	for _, path := range []string{"/x", "/data/x", "/host/x"} {
		code, err := p.Exec(t.Context(), c.Name, pods.ExecOptions{Cmd: []string{"/probe", "touch", path}})
		if err != nil || code != 1 {
			t.Errorf("%s could be written: exit code %d, %v", path, code, err)
		}
	}
	if got := p.run(t, c.Name, "status", "NoNewPrivs"); got != "NoNewPrivs: 1\n" {
		t.Errorf("first process: %q", got)
	}
	if got := p.run(t, c.Name, "status", "Name"); got == "Name: probe\n" {
		t.Error("the first process is not an init")
	}
	// bit 10 alone: net_bind_service
	if got := p.run(t, c.Name, "status", "CapBnd"); got != "CapBnd: 0000000000000400\n" {
		t.Errorf("capabilities: %q", got)
	}
}

// Podman makes the pod's name its hostname, of which the kernel takes 64 bytes.
func TestNamesMayBeLong(t *testing.T) {
	t.Parallel()
	p := use(t)
	for _, mode := range []pods.NetworkMode{pods.NetworkNone, pods.NetworkHost} {
		spec := p.spec("serve", "127.0.0.1:0")
		spec.Network.Mode = mode
		spec.Name += strings.Repeat("-long", 20)
		if pod := p.start(t, spec); !pod.Running() {
			t.Errorf("network %s: the pod does not run: %+v", mode, pod)
		}
	}
}

func TestLimitsThatCannotBeSetAreToldAndLeftOut(t *testing.T) {
	p := use(t)
	info, err := p.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var warnings []string
	own, err := pods.Connect(t.Context(), p.Host())
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	own.Warn = func(s string) { warnings = append(warnings, s) }
	spec := p.spec("lines", "0")
	spec.Containers[0].Memory = 64 << 20
	spec.Containers[0].CPUs = 0.5
	spec.Containers[0].PIDs = 50
	limited := &podmanWithImage{Podman: own, image: p.image, id: p.id}
	if !limited.start(t, spec).Running() {
		t.Error("the pod does not run")
	}
	for _, controller := range []string{"memory", "cpu", "pids"} {
		told := slices.ContainsFunc(warnings, func(s string) bool {
			return strings.Contains(s, spec.Name) && strings.Contains(s, controller+" limit")
		})
		if told == slices.Contains(info.CgroupControllers, controller) {
			t.Errorf("controllers %v, warnings %q", info.CgroupControllers, warnings)
		}
	}
}

func TestVolumes(t *testing.T) {
	t.Parallel()
	p := use(t)
	name := p.volume(t)
	labels := map[string]string{testLabel: name}
	if err := p.EnsureVolume(t.Context(), name, labels); err != nil {
		t.Fatal(err)
	}
	list, err := p.Volumes(t.Context(), labels)
	if err != nil || len(list) != 1 || list[0].Name != name || list[0].Labels[testLabel] != name || list[0].Mountpoint == "" {
		t.Errorf("%+v, %v", list, err)
	}
	for range 2 {
		if err := p.RemoveVolume(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := p.Volumes(t.Context(), labels); err != nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
}

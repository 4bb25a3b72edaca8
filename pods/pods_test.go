package pods_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
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

func TestPodsWithoutNetworkShareASocketInAVolume(t *testing.T) {
	t.Parallel()
	p := use(t)
	volume := p.volume(t)
	server := p.spec("serve", "unix:/data/app.sock")
	server.Hostname = "backend"
	server.Containers[0].Mounts = []pods.Mount{{Kind: pods.MountVolume, Source: volume, Target: "/data"}}
	p.start(t, server)
	edge := p.spec("lines", "0")
	edge.Containers[0].Mounts = []pods.Mount{{Kind: pods.MountVolume, Source: volume, Target: "/run/chat", ReadOnly: true}}
	p.start(t, edge)

	until(t, "the server", func() bool { return strings.Contains(p.log(t, server.Containers[0].Name), "ready") })
	if got := p.run(t, edge.Containers[0].Name, "get", "unix:/run/chat/app.sock"); got != "hello from backend" {
		t.Errorf("answer is %q", got)
	}
	code, err := p.Exec(t.Context(), edge.Containers[0].Name, pods.ExecOptions{Cmd: []string{"/probe", "touch", "/run/chat/x"}})
	if err != nil || code == 0 {
		t.Errorf("a read-only mount could be written: exit code %d, %v", code, err)
	}
	if log := p.run(t, server.Containers[0].Name, "touch", "/data/y"); log != "" {
		t.Error(log)
	}
	if err := p.RemoveVolume(t.Context(), volume); err == nil {
		t.Error("a volume in use was removed")
	}
}

func TestPodOnTheHostsNetwork(t *testing.T) {
	t.Parallel()
	p := use(t)
	port := freePort(t)
	spec := p.spec("serve", "127.0.0.1:"+strconv.Itoa(port))
	spec.Network.Mode = pods.NetworkHost
	p.start(t, spec)
	until(t, "an answer", func() bool { return answer(t, port) != "" })
}

func TestPodsOnABridgeFindEachOtherAndPublishPorts(t *testing.T) {
	t.Parallel()
	p := use(t)
	network := "bareboat-" + unique()
	labels := map[string]string{testLabel: network}
	t.Cleanup(func() {
		if err := p.RemoveNetwork(context.Background(), network); err != nil {
			t.Error(err)
		}
	})
	for range 2 { // the second time changes nothing
		if err := p.EnsureNetwork(t.Context(), network, labels, false); err != nil {
			t.Fatal(err)
		}
	}
	var conflict *pods.ConflictError
	if err := p.EnsureNetwork(t.Context(), network, labels, true); !errors.As(err, &conflict) || conflict.Name != network {
		t.Errorf("an internal network of the same name: %v", err)
	}
	list, err := p.Networks(t.Context(), labels)
	if err != nil || len(list) != 1 || list[0].Name != network || list[0].Internal {
		t.Errorf("networks: %+v, %v", list, err)
	}

	port := freePort(t)
	server := p.spec("serve", ":8080")
	server.Hostname = "web-1"
	server.Network = pods.Network{Mode: pods.NetworkBridge, Names: []string{network}, Alias: []string{"web"}}
	server.Ports = []pods.Port{{HostIP: "127.0.0.1", Host: uint16(port), Container: 8080}}
	p.start(t, server)
	client := p.spec("lines", "0")
	client.Network = pods.Network{Mode: pods.NetworkBridge, Names: []string{network}}
	p.start(t, client)

	until(t, "an answer at the published port", func() bool { return answer(t, port) == "hello from web-1" })
	if got := p.run(t, client.Containers[0].Name, "get", "web:8080"); got != "hello from web-1" {
		t.Errorf("answer by alias is %q", got)
	}
	if err := p.RemoveNetwork(t.Context(), network); err == nil {
		t.Error("a network in use was removed")
	}
}

func TestPortInUseIsSaid(t *testing.T) {
	t.Parallel()
	p := use(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	network := "bareboat-" + unique()
	t.Cleanup(func() {
		if err := p.RemoveNetwork(context.Background(), network); err != nil {
			t.Error(err)
		}
	})
	if err := p.EnsureNetwork(t.Context(), network, nil, true); err != nil {
		t.Fatal(err)
	}
	spec := p.spec("lines", "0")
	spec.Network = pods.Network{Mode: pods.NetworkBridge, Names: []string{network}}
	spec.Ports = []pods.Port{{HostIP: "127.0.0.1", Host: uint16(l.Addr().(*net.TCPAddr).Port), Container: 80}}
	p.create(t, spec)
	err = p.StartPod(t.Context(), spec.Name)
	if err == nil || !strings.Contains(err.Error(), "address already in use") || strings.Contains(err.Error(), "\n") {
		t.Errorf("error is %v", err)
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func answer(t *testing.T, port int) string {
	t.Helper()
	client := http.Client{Timeout: 5 * time.Second}
	resp, err := client.Get("http://127.0.0.1:" + strconv.Itoa(port))
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return string(body)
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

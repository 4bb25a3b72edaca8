package release_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"bareboat/internal/oci"
	"bareboat/pods"
	"bareboat/pods/proxy"
	"bareboat/pods/release"
)

var errInjected = errors.New("injected")

// crash is what a panic carries where the process would have been killed.
type crash struct{}

// world is a Podman and an edge that live in memory. Call number fail ends with
// an error, call number crash ends the process, before or after its effect.
type world struct {
	pods      map[string]*madePod
	volumes   map[string]pods.Volume
	networks  map[string]pods.NetworkState
	secrets   map[string]pods.Secret
	told      *proxy.Config
	records   release.Records
	loaded    map[string]proxy.Config // by running edge container
	sick      map[string]bool         // services whose pods are not healthy
	dumb      map[string]bool         // services whose pods answer nothing
	frail     map[string]bool         // services whose pods do not stay healthy
	bad       bool                    // the edge's configuration does not pass its test
	clock     int                     // of starts
	calls     []string
	fail      int
	crash     int
	afterward bool // crash after the effect
	atCall    func(call string)
}

type madePod struct {
	pod  pods.Pod
	spec pods.Spec
}

func newWorld() *world {
	return &world{
		pods: map[string]*madePod{}, volumes: map[string]pods.Volume{}, networks: map[string]pods.NetworkState{},
		loaded: map[string]proxy.Config{}, sick: map[string]bool{}, dumb: map[string]bool{}, frail: map[string]bool{},
		secrets: map[string]pods.Secret{},
	}
}

// call counts a call, has it fail or crash where that is due, and else has its
// effect.
func (w *world) call(ctx context.Context, effect func() error, name ...string) error {
	w.calls = append(w.calls, strings.Join(name, " "))
	if w.atCall != nil {
		w.atCall(w.calls[len(w.calls)-1])
	}
	n := len(w.calls)
	if err := ctx.Err(); err != nil {
		return err
	}
	if n == w.fail {
		return errInjected
	}
	if n == w.crash && !w.afterward {
		panic(crash{})
	}
	err := effect()
	if n == w.crash {
		panic(crash{})
	}
	return err
}

func (w *world) Pods(context.Context, map[string]string) ([]pods.Pod, error) {
	var list []pods.Pod
	for _, name := range slices.Sorted(maps.Keys(w.pods)) {
		p := w.pods[name].pod
		p.Containers = slices.Clone(p.Containers)
		list = append(list, p)
	}
	return list, nil
}

func (w *world) Volumes(context.Context, map[string]string) ([]pods.Volume, error) {
	return slices.Collect(maps.Values(w.volumes)), nil
}

func (w *world) Networks(context.Context, map[string]string) ([]pods.NetworkState, error) {
	return slices.Collect(maps.Values(w.networks)), nil
}

func (w *world) Secrets(context.Context, map[string]string) ([]pods.Secret, error) {
	return slices.Collect(maps.Values(w.secrets)), nil
}

func (w *world) EnsureSecret(ctx context.Context, name string, data []byte, labels map[string]string) error {
	return w.call(ctx, func() error {
		w.secrets[name] = pods.Secret{Name: name, Labels: labels}
		return nil
	}, "secret", name)
}

func (w *world) RemoveSecret(ctx context.Context, name string) error {
	return w.call(ctx, func() error { delete(w.secrets, name); return nil }, "remove secret", name)
}

func (w *world) EnsureVolume(ctx context.Context, name string, labels map[string]string) error {
	return w.call(ctx, func() error {
		w.volumes[name] = pods.Volume{Name: name, Labels: labels}
		return nil
	}, "volume", name)
}

func (w *world) EnsureNetwork(ctx context.Context, name string, labels map[string]string, internal bool) error {
	return w.call(ctx, func() error {
		w.networks[name] = pods.NetworkState{Name: name, Labels: labels, Internal: internal}
		return nil
	}, "network", name)
}

func (w *world) RemoveNetwork(ctx context.Context, name string) error {
	return w.call(ctx, func() error { delete(w.networks, name); return nil }, "remove network", name)
}

func (w *world) RemoveVolume(ctx context.Context, name string) error {
	return w.call(ctx, func() error { delete(w.volumes, name); return nil }, "remove volume", name)
}

func (w *world) Pull(ctx context.Context, ref string, insecure bool, _ io.Writer) (string, error) {
	return "id", w.call(ctx, func() error { return nil }, "pull", ref, fmt.Sprint(insecure))
}

func (w *world) CreatePod(ctx context.Context, spec pods.Spec) (pods.Pod, error) {
	err := w.call(ctx, func() error {
		if old, ok := w.pods[spec.Name]; ok {
			if !reflect.DeepEqual(old.spec, spec) {
				return &pods.ConflictError{Kind: "pod", Name: spec.Name, Why: "it differs"}
			}
			return nil
		}
		p := pods.Pod{Name: spec.Name, Labels: spec.Labels, State: "Created"}
		for _, c := range spec.Containers {
			p.Containers = append(p.Containers, pods.ContainerState{Name: c.Name, State: pods.StateCreated})
		}
		w.pods[spec.Name] = &madePod{p, spec}
		return nil
	}, "create", spec.Name)
	return pods.Pod{}, err
}

func (w *world) StartPod(ctx context.Context, name string) error {
	return w.call(ctx, func() error {
		p, ok := w.pods[name]
		if !ok {
			return pods.ErrNotFound
		}
		if p.pod.Running() {
			return nil
		}
		for i := range p.pod.Containers {
			w.clock++
			p.pod.Containers[i].State, p.pod.Containers[i].Started = pods.StateRunning, time.Unix(int64(w.clock), 0)
		}
		if p.spec.Network.Mode == pods.NetworkHost {
			if w.told == nil {
				return errors.New("the edge finds no configuration")
			}
			w.loaded[p.pod.Containers[0].Name] = *w.told
		}
		return nil
	}, "start", name)
}

func (w *world) StopPod(ctx context.Context, name string, _ time.Duration) error {
	return w.call(ctx, func() error {
		p, ok := w.pods[name]
		if !ok {
			return pods.ErrNotFound
		}
		for i := range p.pod.Containers {
			if p.pod.Containers[i].State == pods.StateRunning {
				p.pod.Containers[i].State, p.pod.Containers[i].ExitCode = pods.StateExited, 143
			}
			delete(w.loaded, p.pod.Containers[i].Name)
		}
		return nil
	}, "stop", name)
}

func (w *world) RemovePod(ctx context.Context, name string) error {
	return w.call(ctx, func() error {
		if p, ok := w.pods[name]; ok {
			delete(w.loaded, p.pod.Containers[0].Name)
		}
		delete(w.pods, name)
		return nil
	}, "remove", name)
}

// well says what is wrong with a container.
func (w *world) well(container string, sick map[string]bool) error {
	for _, p := range w.pods {
		if p.pod.Containers[0].Name != container {
			continue
		}
		if sick[p.pod.Labels[pods.LabelService]] || !p.pod.Running() {
			return &pods.UnhealthyError{Container: container, Output: "does not feel well", Log: []string{"line"}}
		}
		return nil
	}
	return pods.ErrNotFound
}

func (w *world) WaitHealthy(ctx context.Context, container string, _ pods.Health) error {
	return w.call(ctx, func() error { return w.well(container, w.sick) }, "healthy", container)
}

func (w *world) StayHealthy(ctx context.Context, list []pods.Watched) error {
	return w.call(ctx, func() error {
		for _, is := range list {
			if err := w.well(is.Container, w.frail); err != nil {
				return err
			}
		}
		return nil
	}, "watch", fmt.Sprint(len(list)))
}

func (w *world) WaitCompleted(ctx context.Context, container string) error {
	return w.call(ctx, func() error {
		if err := w.well(container, w.sick); err != nil {
			return err
		}
		for _, p := range w.pods {
			if c := &p.pod.Containers[0]; c.Name == container {
				c.State = pods.StateExited
			}
		}
		return nil
	}, "completed", container)
}

func (w *world) Signal(ctx context.Context, container, signal string) error {
	return w.call(ctx, func() error { return w.well(container, nil) }, "signal", container, signal)
}

func (w *world) Preview(ctx context.Context, c proxy.Config, upstream, host string, check release.Check) error {
	return w.call(ctx, func() error {
		if !w.isLoaded(c) {
			return errors.New("no edge answers")
		}
		for _, p := range w.pods {
			if p.pod.Labels[pods.LabelUp] == upstream && p.pod.Running() && !w.dumb[p.pod.Labels[pods.LabelService]] {
				return nil
			}
		}
		return errors.New("502 Bad Gateway")
	}, "preview", upstream, host, check.Path)
}

func (w *world) isLoaded(c proxy.Config) bool {
	return slices.ContainsFunc(slices.Collect(maps.Values(w.loaded)), func(is proxy.Config) bool { return is.Release == c.Release })
}

func (w *world) Request(ctx context.Context, c proxy.Config, upstream, method, path string) error {
	return w.call(ctx, func() error { return nil }, "request", upstream, method, path)
}

func (w *world) Quit(ctx context.Context, container string, now proxy.Config) error {
	return w.call(ctx, func() error { delete(w.loaded, container); return nil }, "quit", container)
}

func (w *world) Settled(ctx context.Context, container string, limit time.Duration) error {
	return w.call(ctx, func() error { return nil }, "settled", container, limit.String())
}

func (w *world) Loaded(_ context.Context, told proxy.Config) bool {
	return len(w.loaded) > 0 && !slices.ContainsFunc(slices.Collect(maps.Values(w.loaded)), func(is proxy.Config) bool {
		return !reflect.DeepEqual(is, told)
	})
}

func (w *world) Records() (release.Records, error) { return w.records, nil }

func (w *world) Record(r release.Records) error {
	return w.call(context.Background(), func() error { w.records = r; return nil }, "record", fmt.Sprint(r.Serving))
}

func (w *world) Current() (*proxy.Config, error) {
	if w.told == nil {
		return nil, nil
	}
	r := *w.told
	return &r, nil
}

func (w *world) Write(r proxy.Config) error {
	return w.call(context.Background(), func() error { w.told = &r; return nil }, "write", fmt.Sprint(r.Release))
}

func (w *world) Clear() error {
	return w.call(context.Background(), func() error { w.told, w.records = nil, release.Records{}; return nil }, "clear")
}

func (w *world) Test(ctx context.Context, container string) error {
	return w.call(ctx, func() error {
		if w.bad {
			return errors.New("unknown directive")
		}
		return nil
	}, "test", container)
}

func (w *world) Reload(ctx context.Context, container string) error {
	return w.call(ctx, func() error {
		if _, ok := w.loaded[container]; !ok {
			return fmt.Errorf("%s does not run", container)
		}
		w.loaded[container] = *w.told
		return nil
	}, "reload", container)
}

func (w *world) WaitRelease(ctx context.Context, r proxy.Config) error {
	return w.call(ctx, func() error {
		for _, l := range w.loaded {
			if l.Release != r.Release {
				return fmt.Errorf("release %s answers, too", l.Release)
			}
		}
		if len(w.loaded) == 0 {
			return errors.New("nobody answers")
		}
		return nil
	}, "ask for", fmt.Sprint(r.Release))
}

// answers says why a site that the edge has loaded would not answer, or "".
func (w *world) answers() string {
	if len(w.loaded) == 0 {
		return "no edge runs"
	}
	for _, l := range w.loaded {
		for _, u := range l.Upstreams {
			for _, at := range u.Addresses {
				if !slices.ContainsFunc(slices.Collect(maps.Values(w.pods)), func(p *madePod) bool {
					return p.pod.Labels[pods.LabelUp] == at && p.pod.Running()
				}) {
					return "nothing runs at " + at
				}
			}
		}
	}
	return ""
}

// state is what matters of the world, to be compared.
func (w *world) state() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(w.pods)) {
		fmt.Fprintf(&b, "%s running=%t\n", name, w.pods[name].pod.Running())
	}
	fmt.Fprintf(&b, "told %+v\nloaded %+v\nserves %d\nnetworks %v\n", w.told, w.loaded, w.records.Serving, slices.Sorted(maps.Keys(w.networks)))
	return b.String()
}

func (w *world) plan(t *testing.T, d release.Desired) release.Plan {
	t.Helper()
	actual, err := release.Observe(t.Context(), w, w)
	if err != nil {
		t.Fatal(err)
	}
	actual.Listen = nil // of the real host's ports nothing may depend
	plan, err := release.NewPlan(d, actual)
	if err != nil {
		t.Fatal(err)
	}
	return plan
}

// deploy brings the world to d and tells whether it crashed on the way.
func (w *world) deploy(t *testing.T, d release.Desired) (crashed bool, err error) {
	t.Helper()
	defer func() {
		if r := recover(); r != nil {
			if _, ours := r.(crash); !ours {
				panic(r)
			}
			crashed = true
		}
	}()
	return false, w.run(t, w.plan(t, d))
}

func (w *world) run(t *testing.T, plan release.Plan) error {
	w.calls = nil
	return release.NewDeployer(w, w).Run(t.Context(), plan)
}

// rollback goes back and tells whether it crashed on the way.
func (w *world) rollback(t *testing.T, to int) (crashed bool, err error) {
	t.Helper()
	defer func() {
		if r := recover(); r != nil {
			if _, ours := r.(crash); !ours {
				panic(r)
			}
			crashed = true
		}
	}()
	actual, err := release.Observe(t.Context(), w, w)
	if err != nil {
		t.Fatal(err)
	}
	actual.Listen = nil
	plan, err := release.NewRollback("shop", to, false, actual)
	if err != nil {
		return false, err
	}
	return false, w.run(t, plan)
}

// project is one of everything: a backend with a socket, one with a port, two
// workers and the edge. Each version is another image.
func project(versions map[string]string) release.Desired {
	service := func(name string, mode pods.NetworkMode) release.Service {
		v := versions[name]
		if v == "" {
			v = "1"
		}
		image := oci.Reference{Registry: "localhost", Repository: "shop/" + name}
		return release.Service{
			Name:  name,
			Image: image.WithDigest(oci.Digest("sha256:" + strings.Repeat(v, 64))),
			Pod: pods.Spec{
				Network:    pods.Network{Mode: mode},
				Containers: []pods.Container{{Name: name, Env: map[string]string{"A": "b"}, Health: &pods.Health{Test: []string{"CMD", "ok"}}}},
			},
		}
	}
	chat := service("chat", pods.NetworkNone)
	chat.Backend = &release.Backend{EdgeSocket: "/sockets/{release}.sock", Path: "/"}
	chat.Drain = &release.Drain{Signal: "SIGUSR1"}
	chat.Update.Monitor = time.Second
	chat.Env = map[string]string{"LISTEN": "unix:/run/{release}.sock", "VERSION": "{release} of {revision}"}
	api := service("api", pods.NetworkBridge)
	api.Backend = &release.Backend{Port: 9000, Path: "/api/", Hosts: []string{"shop.example"}}
	api.Pull = oci.Reference{Registry: "127.0.0.1:5000", Repository: "shop/api", Digest: api.Image.Digest}
	api.Insecure = true
	once := service("once", pods.NetworkBridge)
	once.StopFirst = true
	edge := service("edge", pods.NetworkHost)
	edge.Edge = &release.Edge{Port: 8080}
	return release.Desired{
		Project:  "shop",
		Revision: "abc",
		Volumes:  []release.Volume{{Name: "shop_run"}},
		Networks: []release.Network{{Name: "shop_default"}},
		Keep:     1,
		Services: []release.Service{chat, api, service("worker", pods.NetworkBridge), once, edge},
	}
}

package release_test

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"bareboat/internal/oci"
	"bareboat/pods"
	"bareboat/pods/release"
)

// running is a world where version 1 of everything runs as release 1.
func running(t *testing.T) *world {
	t.Helper()
	w := newWorld()
	if _, err := w.deploy(t, project(nil)); err != nil {
		t.Fatal(err)
	}
	return w
}

func digest(v string) string { return "@sha256:" + strings.Repeat(v, 64) }

func TestPlan(t *testing.T) {
	for _, c := range []struct {
		name    string
		prepare func(*world, *release.Desired)
		release int
		serving int
		want    string
	}{{
		name:    "first release",
		prepare: func(w *world, _ *release.Desired) { *w = *newWorld() },
		release: 1,
		want: `
make volume shop_run
make network shop_default
pull 127.0.0.1:5000/shop/api` + digest("1") + `
start shop-chat-r1
wait for shop-chat-r1
start shop-api-r1
wait for shop-api-r1
start shop-worker-r1
wait for shop-worker-r1
start shop-once-r1
wait for shop-once-r1
tell the edge: chat is at unix:/sockets/1.sock, api is at 127.0.0.1:22857, release 1
start shop-edge-r1
wait for shop-edge-r1
preview shop-chat-r1
preview shop-api-r1
switch to release 1
watch shop-chat-r1 for 1s
record release 1
`,
	}, {
		name:    "nothing to do",
		prepare: func(*world, *release.Desired) {},
		serving: 1,
		want:    "\n",
	}, {
		name:    "another revision of the same images",
		prepare: func(_ *world, d *release.Desired) { d.Revision = "def" },
		serving: 1,
		want:    "\n",
	}, {
		name:    "another registry with the same images",
		prepare: func(_ *world, d *release.Desired) { d.Services[1].Pull.Registry = "127.0.0.1:6000" },
		serving: 1,
		want:    "\n",
	}, {
		name: "one backend's image",
		prepare: func(_ *world, d *release.Desired) {
			d.Services[0] = project(map[string]string{"chat": "2"}).Services[0]
		},
		release: 2, serving: 1,
		want: `
start shop-chat-r2
wait for shop-chat-r2
preview shop-chat-r2
tell the edge: chat is at unix:/sockets/2.sock, api is at 127.0.0.1:22857, release 2
switch to release 2
watch shop-chat-r2 for 1s
record release 2
drain shop-chat-r1
wait for the clients of what is old
stop and keep shop-chat-r1
`,
	}, {
		name:    "a backend's port is leased anew",
		prepare: func(_ *world, d *release.Desired) { d.Services[1].Pod.Containers[0].Env = nil },
		release: 2, serving: 1,
		want: `
pull 127.0.0.1:5000/shop/api` + digest("1") + `
start shop-api-r2
wait for shop-api-r2
preview shop-api-r2
tell the edge: chat is at unix:/sockets/1.sock, api is at 127.0.0.1:22858, release 2
switch to release 2
record release 2
drain shop-chat-r1
wait for the clients of what is old
stop and keep shop-api-r1
`,
	}, {
		name:    "a worker that may run twice",
		prepare: func(_ *world, d *release.Desired) { d.Services[2].Pod.Containers[0].User = "5" },
		release: 2, serving: 1,
		want: `
start shop-worker-r2
wait for shop-worker-r2
record release 2
stop and keep shop-worker-r1
`,
	}, {
		name:    "a worker that may not run twice",
		prepare: func(_ *world, d *release.Desired) { d.Services[3].Pod.Containers[0].User = "5" },
		release: 2, serving: 1,
		want: `
stop shop-once-r1
start shop-once-r2
wait for shop-once-r2
record release 2
`,
	}, {
		name:    "the edge",
		prepare: func(_ *world, d *release.Desired) { d.Services[4].Pod.Containers[0].User = "5" },
		release: 2, serving: 1,
		want: `
tell the edge: chat is at unix:/sockets/1.sock, api is at 127.0.0.1:22857, release 2
start shop-edge-r2
wait for shop-edge-r2
close the doors of shop-edge-r1
switch to release 2
record release 2
drain shop-chat-r1
stop and keep shop-edge-r1
`,
	}, {
		name:    "a route alone needs no new pod",
		prepare: func(_ *world, d *release.Desired) { d.Services[0].Backend.Hosts = []string{"chat.example"} },
		release: 2, serving: 1,
		want: `
tell the edge: chat is at unix:/sockets/1.sock, api is at 127.0.0.1:22857, release 2
switch to release 2
record release 2
drain shop-chat-r1
`,
	}, {
		name:    "a port of the edge needs a new one",
		prepare: func(_ *world, d *release.Desired) { d.Services[4].Edge.Port = 9090 },
		release: 2, serving: 1,
		want: `
tell the edge: chat is at unix:/sockets/1.sock, api is at 127.0.0.1:22857, release 2
start shop-edge-r2
wait for shop-edge-r2
close the doors of shop-edge-r1
switch to release 2
record release 2
drain shop-chat-r1
stop and keep shop-edge-r1
`,
	}, {
		name:    "a service that is no more",
		prepare: func(_ *world, d *release.Desired) { d.Services = append(d.Services[:1], d.Services[2:]...) },
		release: 2, serving: 1,
		want: `
tell the edge: chat is at unix:/sockets/1.sock, release 2
switch to release 2
record release 2
drain shop-chat-r1
wait for the clients of what is old
stop and keep shop-api-r1
`,
	}, {
		name:    "a pod that does not run",
		prepare: func(w *world, _ *release.Desired) { w.pods["shop-chat-r1"].pod.Containers[0].State = pods.StateExited },
		release: 2, serving: 1,
		want: `
start shop-chat-r2
wait for shop-chat-r2
preview shop-chat-r2
tell the edge: chat is at unix:/sockets/2.sock, api is at 127.0.0.1:22857, release 2
switch to release 2
watch shop-chat-r2 for 1s
record release 2
`,
	}, {
		name:    "the edge's file is gone",
		prepare: func(w *world, _ *release.Desired) { w.told = nil },
		release: 2, serving: 1,
		want: `
stop shop-edge-r1
tell the edge: chat is at unix:/sockets/1.sock, api is at 127.0.0.1:22857, release 2
start shop-edge-r2
wait for shop-edge-r2
switch to release 2
record release 2
`,
	}, {
		name: "a port that another project has",
		prepare: func(w *world, _ *release.Desired) {
			*w = *newWorld()
			w.pods["x"] = &madePod{pod: pods.Pod{Name: "x", Labels: map[string]string{
				pods.LabelProject: "other", pods.LabelService: "x", pods.LabelRelease: "7", pods.LabelUp: "127.0.0.1:22857"}}}
			w.volumes["shop_run"], w.networks["shop_default"] = pods.Volume{Name: "shop_run"}, pods.NetworkState{Name: "shop_default"}
		},
		release: 1,
		want: `
pull 127.0.0.1:5000/shop/api` + digest("1") + `
start shop-chat-r1
wait for shop-chat-r1
start shop-api-r1
wait for shop-api-r1
start shop-worker-r1
wait for shop-worker-r1
start shop-once-r1
wait for shop-once-r1
tell the edge: chat is at unix:/sockets/1.sock, api is at 127.0.0.1:22858, release 1
start shop-edge-r1
wait for shop-edge-r1
preview shop-chat-r1
preview shop-api-r1
switch to release 1
watch shop-chat-r1 for 1s
record release 1
`,
	}} {
		t.Run(c.name, func(t *testing.T) {
			w, d := running(t), project(nil)
			c.prepare(w, &d)
			plan := w.plan(t, d)
			if got := "\n" + plan.String(); got != c.want {
				t.Errorf("plan is%s\nwant%s", got, c.want)
			}
			if plan.Release != c.release || plan.Serving != c.serving || plan.Empty() != (c.want == "\n") {
				t.Errorf("release %d, serving %d, empty %t; want %d, %d", plan.Release, plan.Serving, plan.Empty(), c.release, c.serving)
			}
		})
	}
}

func TestPlanNeedsDigests(t *testing.T) {
	d := project(nil)
	d.Services[0].Image = oci.Reference{Registry: "localhost", Repository: "shop/chat", Tag: "latest"}
	_, err := release.NewPlan(d, release.Actual{})
	if want := "plan service chat: image localhost/shop/chat:latest is not pinned by a digest"; err == nil || err.Error() != want {
		t.Errorf("NewPlan = %v, want %s", err, want)
	}
}

// Projects that are planned at once, of which neither sees the other's pods yet,
// do not get the same port.
func TestPlanLeasesByProject(t *testing.T) {
	seen := map[string]string{}
	for _, name := range []string{"shop", "shop2", "blog", "a", "b"} {
		d := project(nil)
		d.Project = name
		plan, err := release.NewPlan(d, release.Actual{})
		if err != nil {
			t.Fatal(err)
		}
		_, at, _ := strings.Cut(plan.String(), "api is at ")
		at, _, _ = strings.Cut(at, ",")
		if other, taken := seen[at]; taken || at == "" {
			t.Errorf("%s gets %s, as does %s", name, at, other)
		}
		seen[at] = name
	}
}

func TestPlanNoPortLeft(t *testing.T) {
	_, err := release.NewPlan(project(nil), release.Actual{Listen: func(string, uint16) error { return syscall.EADDRINUSE }})
	if want := "plan service api: no port of 127.0.0.1 from 20000 to 29999 is free"; err == nil || err.Error() != want {
		t.Errorf("NewPlan = %v, want %s", err, want)
	}
}

// What a plan cannot make is missed before anything is touched.
func TestPlanNeeds(t *testing.T) {
	for _, c := range []struct {
		name    string
		prepare func(*world, *release.Desired)
		want    string
		hint    string
	}{{
		name: "volume",
		prepare: func(_ *world, d *release.Desired) {
			d.Services[0].Pod.Containers[0].Mounts = []pods.Mount{{Kind: pods.MountVolume, Source: "theirs", Target: "/t"}}
		},
		want: "plan service chat: volume theirs does not exist, and is not the project's to make",
		hint: "podman volume create theirs",
	}, {
		name:    "network",
		prepare: func(_ *world, d *release.Desired) { d.Services[1].Pod.Network.Names = []string{"theirs"} },
		want:    "plan service api: network theirs does not exist, and is not the project's to make",
		hint:    "podman network create theirs",
	}, {
		name:    "network closed since",
		prepare: func(_ *world, d *release.Desired) { d.Networks[0].Internal = true },
		want:    "network shop_default exists already: internal is false, not true",
		hint:    "bareboat down, which leaves the data, and bareboat up make it anew",
	}, {
		name: "network of somebody else's",
		prepare: func(w *world, _ *release.Desired) {
			w.networks["shop_default"] = pods.NetworkState{Name: "shop_default", Internal: true}
		},
		want: "network shop_default exists already: internal is true, not false",
		hint: "if nothing needs it: podman network rm shop_default",
	}} {
		t.Run(c.name, func(t *testing.T) {
			w, d := running(t), project(nil)
			c.prepare(w, &d)
			a, err := release.Observe(t.Context(), w, w)
			if err != nil {
				t.Fatal(err)
			}
			_, err = release.NewPlan(d, a)
			if err == nil || err.Error() != c.want {
				t.Fatalf("NewPlan = %v, want %s", err, c.want)
			}
			var hints interface{ Hints() []string }
			if !errors.As(err, &hints) || len(hints.Hints()) != 1 || hints.Hints()[0] != c.hint {
				t.Errorf("hints are not %q: %#v", c.hint, err)
			}
			w.volumes["theirs"], w.networks["theirs"] = pods.Volume{Name: "theirs"}, pods.NetworkState{Name: "theirs"}
			w.networks["shop_default"] = pods.NetworkState{Name: "shop_default", Internal: d.Networks[0].Internal}
			w.plan(t, d)
		})
	}
}

// A port that the edge cannot have is found before anything is touched, and one
// that it has itself is no obstacle.
func TestPlanEdgePort(t *testing.T) {
	taken := func(address string, port uint16) error {
		if port == 8080 {
			return syscall.EADDRINUSE
		}
		return nil
	}
	_, err := release.NewPlan(project(nil), release.Actual{Listen: taken})
	if want := "plan service edge: port 8080 is in use by another program"; err == nil || err.Error() != want {
		t.Errorf("NewPlan = %v, want %s", err, want)
	}
	var port *release.PortError
	if !errors.As(err, &port) || len(port.Hints()) == 0 {
		t.Errorf("NewPlan = %#v, want a PortError with hints", err)
	}
	w := running(t)
	a, err := release.Observe(t.Context(), w, w)
	if err != nil {
		t.Fatal(err)
	}
	a.Listen = taken
	if plan, err := release.NewPlan(project(nil), a); err != nil || !plan.Empty() {
		t.Errorf("with the edge at its port: %v, %v", plan, err)
	}
	a.Told = nil
	if _, err := release.NewPlan(project(nil), a); err != nil {
		t.Errorf("with an edge whose file is lost: %v", err)
	}
}

// What a pod is told about its release.
func TestStamp(t *testing.T) {
	w := running(t)
	chat, api := w.pods["shop-chat-r1"].spec, w.pods["shop-api-r1"].spec
	for _, c := range []struct{ what, got, want string }{
		{"socket", chat.Containers[0].Env["LISTEN"], "unix:/run/1.sock"},
		{"several facts", chat.Containers[0].Env["VERSION"], "1 of abc"},
		{"release", chat.Containers[0].Env[release.EnvRelease], "1"},
		{"revision", chat.Containers[0].Env[release.EnvRevision], "abc"},
		{"own variable", chat.Containers[0].Env["A"], "b"},
		{"container", chat.Containers[0].Name, "shop-chat-r1-chat"},
		{"image", chat.Containers[0].Image, "localhost/shop/chat" + digest("1")},
		{"pulled image", api.Containers[0].Image, "127.0.0.1:5000/shop/api" + digest("1")},
		{"image label", api.Labels[pods.LabelImage], "localhost/shop/api" + digest("1")},
		{"upstream label", api.Labels[pods.LabelUp], "127.0.0.1:22857"},
		{"container's label", chat.Containers[0].Labels[pods.LabelService], "chat"},
		{"volume's label", w.volumes["shop_run"].Labels[pods.LabelProject], "shop"},
	} {
		if c.got != c.want {
			t.Errorf("%s is %q, want %q", c.what, c.got, c.want)
		}
	}
	if want := (pods.Port{HostIP: "127.0.0.1", Host: 22857, Container: 9000}); len(api.Ports) != 1 || api.Ports[0] != want {
		t.Errorf("ports are %v, want %v", api.Ports, want)
	}
	if e := project(nil).Services[0].Pod.Containers[0].Env; len(e) != 1 {
		t.Errorf("the service's own variables were changed: %v", e)
	}
}

func TestDown(t *testing.T) {
	for _, c := range []struct {
		volumes bool
		want    string
	}{
		{false, `
stop and remove shop-api-r1
stop and remove shop-chat-r1
stop and remove shop-edge-r1
stop and remove shop-once-r1
stop and remove shop-worker-r1
stop and remove shop-chat-run-1
remove network shop_default
remove secret shop_key_1
remove what the edge was told
`},
		{true, `
stop and remove shop-api-r1
stop and remove shop-chat-r1
stop and remove shop-edge-r1
stop and remove shop-once-r1
stop and remove shop-worker-r1
stop and remove shop-chat-run-1
remove network shop_default
remove volume shop_run
remove secret shop_key_1
remove what the edge was told
`},
	} {
		w := running(t)
		w.secrets["shop_key_1"] = pods.Secret{Name: "shop_key_1", Labels: map[string]string{pods.LabelProject: "shop"}}
		w.pods["shop-chat-run-1"] = &madePod{pod: pods.Pod{Name: "shop-chat-run-1", Labels: map[string]string{pods.LabelProject: "shop", pods.LabelService: "chat"}, Containers: []pods.ContainerState{{Name: "x"}}}}
		w.volumes["other"] = pods.Volume{Name: "other", Labels: map[string]string{pods.LabelProject: "other"}}
		actual, err := release.Observe(t.Context(), w, w)
		if err != nil {
			t.Fatal(err)
		}
		plan := release.DownPlan("shop", actual, c.volumes)
		if got := "\n" + plan.String(); got != c.want {
			t.Errorf("plan is%s\nwant%s", got, c.want)
		}
		if err := release.NewDeployer(w, w).Run(t.Context(), plan); err != nil {
			t.Fatal(err)
		}
		if len(w.pods)+len(w.networks)+len(w.secrets) != 0 || w.told != nil || w.volumes["other"].Name == "" {
			t.Errorf("left: %s", w.state())
		}
		if _, there := w.volumes["shop_run"]; there == c.volumes {
			t.Errorf("volume is there: %t", there)
		}
		actual, err = release.Observe(t.Context(), w, w)
		if err != nil {
			t.Fatal(err)
		}
		if again := release.DownPlan("shop", actual, c.volumes); !again.Empty() {
			t.Errorf("a second time: %s", again)
		}
	}
}

package release_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"bareboat/pods"
	"bareboat/pods/release"
)

// changes are the releases that the tests interrupt. In none may the site pause.
var changes = []struct {
	name     string
	versions map[string]string
}{
	{"backends and workers", map[string]string{"chat": "2", "api": "2", "worker": "2", "once": "2"}},
	{"one backend", map[string]string{"chat": "2"}},
	{"a worker", map[string]string{"worker": "2"}},
	{"edge", map[string]string{"edge": "2"}},
	{"all", map[string]string{"chat": "2", "api": "2", "worker": "2", "once": "2", "edge": "2"}},
}

// check tells whether d runs, completely and alone.
func check(t *testing.T, w *world, d release.Desired) {
	t.Helper()
	if plan := w.plan(t, d); !plan.Empty() {
		t.Errorf("still to do:\n%s", plan)
	}
	if why := w.answers(); why != "" {
		t.Errorf("the site does not answer: %s", why)
	}
	replicas, running := 0, 0
	for _, s := range d.Services {
		replicas += max(s.Replicas, 1)
	}
	for name, p := range w.pods {
		if p.pod.Running() {
			running++
		} else if !w.records.Needs(name) {
			t.Errorf("pod %s is left:\n%s", name, w.state())
		}
	}
	if running != replicas || len(w.records.List) > d.Keep+1 {
		t.Errorf("%d pods of %d replicas run, %d records:\n%s", running, replicas, len(w.records.List), w.state())
	}
	for _, l := range w.loaded {
		if l.Release != w.told.Release {
			t.Errorf("the edge has loaded release %s, but was told %s", l.Release, w.told.Release)
		}
	}
}

func TestDeploy(t *testing.T) {
	for _, c := range changes {
		t.Run(c.name, func(t *testing.T) {
			w, d := running(t), project(c.versions)
			w.atCall = func(call string) {
				if why := w.answers(); why != "" {
					t.Errorf("before %q: %s", call, why)
				}
			}
			if _, err := w.deploy(t, d); err != nil {
				t.Fatal(err)
			}
			check(t, w, d)
		})
	}
}

// A step that fails before the switch leaves all as it was; after it, the next
// plan goes on.
func TestFailAtEveryCall(t *testing.T) {
	for _, c := range changes {
		t.Run(c.name, func(t *testing.T) {
			before := running(t).state()
			d := project(c.versions)
			for n := 1; ; n++ {
				w := running(t)
				w.fail = n
				_, err := w.deploy(t, d)
				if err == nil && n <= len(w.calls) { // done all the same
					w.fail = 0
					check(t, w, d)
					continue
				}
				if err == nil {
					if n < 5 {
						t.Fatalf("only %d calls", n)
					}
					return // there are fewer calls than n
				}
				if !errors.Is(err, errInjected) {
					t.Fatalf("call %d (%s): %v", n, w.calls[n-1], err)
				}
				var failed *release.FailedError
				errors.As(err, &failed)
				counts := slices.Contains(w.calls, "record 2")
				if counts == (failed != nil) && !strings.HasPrefix(w.calls[n-1], "pull") {
					t.Errorf("call %d (%s): %v", n, w.calls[n-1], err)
				}
				if !counts {
					if got := w.state(); got != before {
						t.Errorf("call %d (%s) failed and left\n%s\nwant\n%s", n, w.calls[n-1], got, before)
					}
				}
				if failed != nil && (failed.Serving != 1 || failed.Release != 2 || failed.Undo != nil) {
					t.Errorf("call %d (%s): %+v", n, w.calls[n-1], failed)
				}
				w.fail = 0
				if _, err := w.deploy(t, d); err != nil {
					t.Fatalf("after call %d: %v", n, err)
				}
				check(t, w, d)
			}
		})
	}
}

// After a crash at any call, before or after its effect, the site answers and
// the next plan brings what is wanted: the new release, or the old one again.
func TestCrashAtEveryCall(t *testing.T) {
	for _, c := range changes {
		for _, afterward := range []bool{false, true} {
			for _, wanted := range []map[string]string{c.versions, nil} {
				t.Run(fmt.Sprintf("%s, after the effect %t, back %t", c.name, afterward, wanted == nil), func(t *testing.T) {
					for n := 1; ; n++ {
						w := running(t)
						w.crash, w.afterward = n, afterward
						crashed, err := w.deploy(t, project(c.versions))
						if err != nil {
							t.Fatal(err)
						}
						if !crashed {
							if n < 5 {
								t.Fatalf("only %d calls", n)
							}
							return
						}
						call := w.calls[n-1]
						if why := w.answers(); why != "" {
							t.Errorf("after a crash at %q: %s", call, why)
						}
						w.crash = 0
						w.atCall = func(next string) {
							if why := w.answers(); why != "" {
								t.Errorf("after a crash at %q, before %q: %s", call, next, why)
							}
						}
						if _, err := w.deploy(t, project(wanted)); err != nil {
							t.Fatalf("after a crash at %q: %v", call, err)
						}
						check(t, w, project(wanted))
					}
				})
			}
		}
	}
}

func TestCrashInFirstRelease(t *testing.T) {
	for _, afterward := range []bool{false, true} {
		for n := 1; ; n++ {
			w := newWorld()
			w.crash, w.afterward = n, afterward
			crashed, err := w.deploy(t, project(nil))
			if err != nil {
				t.Fatal(err)
			}
			if !crashed {
				break
			}
			call := w.calls[n-1]
			w.crash = 0
			if _, err := w.deploy(t, project(nil)); err != nil {
				t.Fatalf("after a crash at %q: %v", call, err)
			}
			check(t, w, project(nil))
		}
	}
}

func TestUnhealthy(t *testing.T) {
	w := running(t)
	before := w.state()
	w.sick["chat"] = true
	_, err := w.deploy(t, project(map[string]string{"chat": "2", "api": "2"}))
	want := "release 2 of shop failed: wait for shop-chat-r2: container shop-chat-r2-chat is unhealthy: does not feel well; release 1 still serves"
	if err == nil || err.Error() != want {
		t.Errorf("error is\n\t%v\nwant\n\t%s", err, want)
	}
	var hints interface{ Hints() []string }
	if !errors.As(err, &hints) || len(hints.Hints()) != 2 {
		t.Errorf("the log's tail is lost: %v", err)
	}
	if got := w.state(); got != before {
		t.Errorf("left\n%s\nwant\n%s", got, before)
	}
}

// A pod that an interrupted release left is not trusted: it proves itself, or is
// removed and the next plan makes a new one.
func TestLeftoverUnhealthy(t *testing.T) {
	d := project(map[string]string{"worker": "2"})
	w := running(t)
	w.crash = 3 // after create and start, at the first look at its health
	if crashed, err := w.deploy(t, d); !crashed {
		t.Fatalf("no crash: %v", err)
	}
	w.crash, w.sick["worker"] = 0, true
	_, err := w.deploy(t, d)
	var failed *release.FailedError
	if !errors.As(err, &failed) {
		t.Fatalf("error is %v", err)
	}
	if _, there := w.pods["shop-worker-r2"]; there {
		t.Error("the unhealthy leftover is still there")
	}
	if !w.pods["shop-worker-r1"].pod.Running() {
		t.Error("the old worker does not run")
	}
	w.sick["worker"] = false
	if _, err := w.deploy(t, d); err != nil {
		t.Fatal(err)
	}
	check(t, w, d)
}

// A pod that the old ones were stopped for already is not removed, too, because
// it is not well at the moment when the next plan looks.
func TestLastPodOfAServiceStays(t *testing.T) {
	for _, service := range []string{"once", "edge"} {
		d := project(map[string]string{service: "2"})
		w := running(t)
		w.atCall = func(call string) {
			if call == "record 2" {
				panic(crash{})
			}
		}
		if crashed, err := w.deploy(t, d); !crashed {
			t.Fatalf("no crash: %v", err)
		}
		w.atCall, w.sick[service] = nil, true
		if _, err := w.deploy(t, d); err == nil {
			t.Error("nobody minds that the pod is not healthy")
		}
		if p, there := w.pods["shop-"+service+"-r2"]; !there || !p.pod.Running() {
			t.Errorf("nothing runs of %s:\n%s", service, w.state())
		}
		w.sick[service] = false
		if _, err := w.deploy(t, d); err != nil {
			t.Fatal(err)
		}
		check(t, w, d)
	}
}

// A reload takes effect some time later: the new pods of a switch that failed
// stay until the edge passes requests to the old ones again.
func TestTakingBackASwitchWaitsForTheEdge(t *testing.T) {
	w := running(t)
	plan := w.plan(t, project(map[string]string{"chat": "2"}))
	w.calls = nil
	w.atCall = func(call string) {
		if call == "ask for 2" {
			w.fail = len(w.calls)
		}
	}
	var failed *release.FailedError
	if err := release.NewDeployer(w, w).Run(t.Context(), plan); !errors.As(err, &failed) {
		t.Fatalf("error is %v", err)
	}
	back := slices.Index(w.calls, "ask for 1")
	if gone := slices.Index(w.calls, "remove shop-chat-r2"); back < 0 || gone < back {
		t.Errorf("the new pod goes before the edge is asked: %q", w.calls)
	}
}

// An interrupt just as the last pod has stopped leaves it there, which is no
// success.
func TestInterruptAsTheLastPodStops(t *testing.T) {
	w := running(t)
	actual, err := release.Observe(t.Context(), w, w)
	if err != nil {
		t.Fatal(err)
	}
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	w.told, w.networks = nil, nil
	actual.Pods, actual.Told, actual.Networks = actual.Pods[:1], nil, nil
	stopping := stopThen{w, interrupt}
	if err := release.NewDeployer(stopping, w).Run(ctx, release.DownPlan("shop", actual, false)); !errors.Is(err, context.Canceled) {
		t.Errorf("Run = %v, want context.Canceled, since the pod is still there", err)
	}
}

// stopThen does something when a pod has stopped.
type stopThen struct {
	*world
	then func()
}

func (s stopThen) StopPod(ctx context.Context, name string, grace time.Duration) error {
	defer s.then()
	return s.world.StopPod(ctx, name, grace)
}

func TestBadConfigurationOfTheEdge(t *testing.T) {
	w := running(t)
	before := w.state()
	w.bad = true
	_, err := w.deploy(t, project(map[string]string{"chat": "2"}))
	var failed *release.FailedError
	if !errors.As(err, &failed) || failed.Step.Action != release.Switch || !strings.Contains(err.Error(), "unknown directive") {
		t.Errorf("error is %v", err)
	}
	if got := w.state(); got != before {
		t.Errorf("left\n%s\nwant\n%s", got, before)
	}
}

// Ctrl-C takes back what was made, on a context of its own.
func TestInterrupt(t *testing.T) {
	d := project(map[string]string{"chat": "2", "once": "2", "edge": "2"})
	total := func() int {
		w := running(t)
		if _, err := w.deploy(t, d); err != nil {
			t.Fatal(err)
		}
		return len(w.calls)
	}()
	before := running(t).state()
	for n := 1; n <= total; n++ {
		w := running(t)
		plan := w.plan(t, d)
		w.calls = nil
		ctx, interrupt := context.WithCancel(t.Context())
		w.atCall = func(string) {
			if len(w.calls) == n {
				interrupt()
			}
		}
		err := release.NewDeployer(w, w).Run(ctx, plan)
		interrupt()
		var failed *release.FailedError
		switch {
		case errors.As(err, &failed):
			if got := w.state(); got != before {
				t.Errorf("interrupted at %q, left\n%s\nwant\n%s", w.calls[n-1], got, before)
			}
		case w.told.Release != "2":
			t.Errorf("interrupted at %q: %v", w.calls[n-1], err)
		}
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("interrupted at %q: %v", w.calls[n-1], err)
		}
		w.atCall = nil
		if _, err := w.deploy(t, d); err != nil {
			t.Fatal(err)
		}
		check(t, w, d)
	}
}

// A pod of somebody else's that has our name stays.
func TestForeignPod(t *testing.T) {
	w := newWorld()
	foreign := pods.Spec{Name: "shop-chat-r1", Containers: []pods.Container{{Name: "theirs"}}}
	if _, err := w.CreatePod(t.Context(), foreign); err != nil {
		t.Fatal(err)
	}
	_, err := w.deploy(t, project(nil))
	var conflict *pods.ConflictError
	if !errors.As(err, &conflict) {
		t.Errorf("error is %v, want a *pods.ConflictError", err)
	}
	if _, there := w.pods["shop-chat-r1"]; !there || len(w.pods) != 1 {
		t.Errorf("left\n%s", w.state())
	}
}

func TestReport(t *testing.T) {
	w := running(t)
	w.sick["chat"] = true
	plan := w.plan(t, project(map[string]string{"chat": "2"}))
	var got []string
	d := release.NewDeployer(w, w)
	d.Report = func(e release.Event) { got = append(got, fmt.Sprintf("%s %s %t", e.Step, e.State, e.Err != nil)) }
	if err := d.Run(t.Context(), plan); err == nil {
		t.Fatal("no error")
	}
	want := `start shop-chat-r2 begun false
start shop-chat-r2 done false
wait for shop-chat-r2 begun false
wait for shop-chat-r2 failed true
start shop-chat-r2 taken back false`
	if s := strings.Join(got, "\n"); s != want {
		t.Errorf("reported\n%s\nwant\n%s", s, want)
	}
}

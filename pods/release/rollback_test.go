package release_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"bareboat/internal/oci"
	"bareboat/pods"
	"bareboat/pods/release"
)

// released is a world where versions 1, 2, … of the services were released, one
// after the other.
func released(t *testing.T, d ...release.Desired) *world {
	t.Helper()
	w := newWorld()
	for _, desired := range d {
		if _, err := w.deploy(t, desired); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// runs lists the pods that run.
func (w *world) runs() []string {
	var list []string
	for name, p := range w.pods {
		if p.pod.Running() {
			list = append(list, strings.TrimPrefix(name, "shop-"))
		}
	}
	slices.Sort(list)
	return list
}

func wantRuns(t *testing.T, w *world, want ...string) {
	t.Helper()
	if got := w.runs(); !slices.Equal(got, want) {
		t.Errorf("these run: %q, want %q", got, want)
	}
	if why := w.answers(); why != "" {
		t.Errorf("the site does not answer: %s", why)
	}
}

func TestRollback(t *testing.T) {
	two := project(map[string]string{"chat": "2", "worker": "2"})
	three := project(map[string]string{"chat": "3", "worker": "2", "edge": "2"})
	two.Keep, three.Keep = 2, 2
	for _, c := range []struct {
		to   int
		want string
	}{{0, `
start shop-chat-r2
wait for shop-chat-r2
preview shop-chat-r2
tell the edge: chat is at unix:/sockets/2.sock, api is at 127.0.0.1:22857, release 2
start shop-edge-r1
wait for shop-edge-r1
close the doors of shop-edge-r3
switch to release 2
record release 2
drain shop-chat-r3
stop and keep shop-edge-r3
stop and keep shop-chat-r3
`}, {1, `
start shop-chat-r1
wait for shop-chat-r1
preview shop-chat-r1
start shop-worker-r1
wait for shop-worker-r1
tell the edge: chat is at unix:/sockets/1.sock, api is at 127.0.0.1:22857, release 1
start shop-edge-r1
wait for shop-edge-r1
close the doors of shop-edge-r3
switch to release 1
record release 1
drain shop-chat-r3
stop and keep shop-edge-r3
stop and keep shop-chat-r3
stop and keep shop-worker-r2
`}} {
		w := released(t, project(nil), two, three)
		actual, err := release.Observe(t.Context(), w, w)
		if err != nil {
			t.Fatal(err)
		}
		plan, err := release.NewRollback("shop", c.to, false, actual)
		if err != nil {
			t.Fatal(err)
		}
		if got := "\n" + plan.String(); got != c.want || plan.Serving != 3 {
			t.Errorf("back to %d from %d: plan is%s\nwant%s", c.to, plan.Serving, got, c.want)
		}
		w.atCall = func(call string) {
			if why := w.answers(); why != "" {
				t.Errorf("before %q: %s", call, why)
			}
		}
		if err := w.run(t, plan); err != nil {
			t.Fatal(err)
		}
	}
}

// One may go back further, change one's mind, and go on with a new release, which
// forgets what was left by going back.
func TestRollbackAndOn(t *testing.T) {
	v := func(n string) release.Desired {
		d := project(map[string]string{"chat": n})
		d.Keep = 3
		return d
	}
	w := released(t, v("1"), v("2"), v("3"))
	others := []string{"edge-r1", "once-r1", "worker-r1"}
	back := func(to int, want string) {
		t.Helper()
		if _, err := w.rollback(t, to); err != nil {
			t.Fatal(err)
		}
		wantRuns(t, w, append([]string{"api-r1", "chat-r" + want}, others...)...)
		if w.told.Release != want {
			t.Errorf("the edge was told release %s, want %s", w.told.Release, want)
		}
	}
	back(0, "2")
	back(0, "1")
	back(3, "3")
	back(3, "3")
	back(2, "2")
	var none *release.NoWayBackError
	if _, err := w.deploy(t, v("4")); err != nil {
		t.Fatal(err)
	}
	wantRuns(t, w, append([]string{"api-r1", "chat-r4"}, others...)...)
	if _, err := w.rollback(t, 3); !errors.As(err, &none) || none.Release != 3 || len(none.Hints()) == 0 {
		t.Errorf("back to what was left: %v", err)
	}
	back(0, "2")
	back(0, "1")
	if _, err := w.rollback(t, 0); !errors.As(err, &none) {
		t.Errorf("back before the first: %v", err)
	}
	delete(w.pods, "shop-chat-r2")
	if _, err := w.rollback(t, 2); !errors.As(err, &none) || !strings.Contains(err.Error(), "its pod shop-chat-r2 is gone") {
		t.Errorf("back to a pod that is gone: %v", err)
	}
}

// A rollback that fails leaves what serves, and what it took stays kept.
func TestRollbackFails(t *testing.T) {
	w := released(t, project(nil), project(map[string]string{"chat": "2", "edge": "2"}))
	before := w.state()
	for n := 1; ; n++ {
		w.fail = n
		_, err := w.rollback(t, 0)
		if err == nil && n > len(w.calls) {
			break
		}
		var failed *release.FailedError
		if slices.Contains(w.calls, "record 1") {
			w.fail = 0
			if _, err := w.rollback(t, 2); err != nil {
				t.Fatal(err)
			}
		} else if !errors.As(err, &failed) || failed.Undo != nil { // only after it is recorded may a failure be let pass
			t.Errorf("call %d: %v", n, err)
		}
		if got := w.state(); got != before {
			t.Fatalf("call %d (%s) failed and left\n%s\nwant\n%s", n, w.calls[n-1], got, before)
		}
	}
}

// A rollback that is killed is done, or undone, by the next command.
func TestRollbackCrashes(t *testing.T) {
	one, two := project(nil), project(map[string]string{"chat": "2", "worker": "2", "once": "2", "edge": "2"})
	for _, afterward := range []bool{false, true} {
		for _, again := range []string{"rollback", "deploy"} {
			for n := 1; ; n++ {
				w := released(t, one, two)
				w.crash, w.afterward = n, afterward
				crashed, err := w.rollback(t, 0)
				if err != nil {
					t.Fatal(err)
				}
				if !crashed {
					break
				}
				call := w.calls[n-1]
				w.crash = 0
				w.atCall = func(next string) {
					if why := w.answers(); why != "" {
						t.Errorf("after a crash at %q, before %q: %s", call, next, why)
					}
				}
				want := one
				if again == "deploy" {
					want = two
					_, err = w.deploy(t, two)
				} else {
					_, err = w.rollback(t, 1)
				}
				if err != nil {
					t.Fatalf("%s after a crash at %q: %v", again, call, err)
				}
				check(t, w, want)
			}
		}
	}
}

// Only so many releases are kept, and with them only what they need.
func TestKeep(t *testing.T) {
	w := newWorld()
	for n := 1; n <= 5; n++ {
		d := project(map[string]string{"chat": fmt.Sprint(n), "worker": fmt.Sprint(n)})
		d.Keep = 2
		name := fmt.Sprintf("shop_key_%d", n)
		d.Secrets = []release.Secret{{Name: name, Data: []byte("x")}}
		d.Services[0].Pod.Containers[0].Secrets = []pods.SecretFile{{Name: name, Target: "/run/secrets/key"}}
		if _, err := w.deploy(t, d); err != nil {
			t.Fatal(err)
		}
		if len(w.records.List) != min(n, 3) || len(w.secrets) != min(n, 3) {
			t.Errorf("after release %d: %d records, %d secrets", n, len(w.records.List), len(w.secrets))
		}
	}
	for _, name := range []string{"shop-chat-r3", "shop-chat-r4", "shop-chat-r5", "shop-worker-r3"} {
		if _, there := w.pods[name]; !there {
			t.Errorf("%s is gone", name)
		}
	}
	for _, name := range []string{"shop-chat-r2", "shop-worker-r1"} {
		if _, there := w.pods[name]; there {
			t.Errorf("%s is still there", name)
		}
	}
}

// replicated is the project with three of api, replaced two at a time.
func replicated(version, action string) release.Desired {
	d := project(map[string]string{"api": version})
	d.Services[1].Replicas = 3
	d.Services[1].Update = release.UpdateConfig{Parallelism: 2, FailureAction: action}
	return d
}

func TestReplicas(t *testing.T) {
	w := released(t, replicated("1", ""))
	wantRuns(t, w, "api-r1", "api-r1-2", "api-r1-3", "chat-r1", "edge-r1", "once-r1", "worker-r1")
	plan := w.plan(t, replicated("2", ""))
	want := `
pull 127.0.0.1:5000/shop/api` + digest("2") + `
start shop-api-r2
wait for shop-api-r2
preview shop-api-r2
start shop-api-r2-2
wait for shop-api-r2-2
preview shop-api-r2-2
tell the edge: chat is at unix:/sockets/1.sock, api is at 127.0.0.1:22860 and 127.0.0.1:22861 and 127.0.0.1:22859, release 2
switch to release 2
wait for the clients of what is old
stop and keep shop-api-r1
stop and keep shop-api-r1-2
start shop-api-r2-3
wait for shop-api-r2-3
preview shop-api-r2-3
tell the edge: chat is at unix:/sockets/1.sock, api is at 127.0.0.1:22860 and 127.0.0.1:22861 and 127.0.0.1:22862, release 2
switch to release 2
record release 2
drain shop-chat-r1
wait for the clients of what is old
stop and keep shop-api-r1-3
`
	if got := "\n" + plan.String(); got != want {
		t.Errorf("plan is%s\nwant%s", got, want)
	}
	w.atCall = func(call string) {
		if why := w.answers(); why != "" {
			t.Errorf("before %q: %s", call, why)
		}
	}
	if err := w.run(t, plan); err != nil {
		t.Fatal(err)
	}
	check(t, w, replicated("2", ""))
	fewer := replicated("2", "")
	fewer.Services[1].Replicas = 1
	if _, err := w.deploy(t, fewer); err != nil {
		t.Fatal(err)
	}
	wantRuns(t, w, "api-r2", "chat-r1", "edge-r1", "once-r1", "worker-r1")
	if _, err := w.rollback(t, 0); err != nil {
		t.Fatal(err)
	}
	wantRuns(t, w, "api-r2", "api-r2-2", "api-r2-3", "chat-r1", "edge-r1", "once-r1", "worker-r1")
}

// Batches that were done are taken back, too.
func TestBatchFails(t *testing.T) {
	before := released(t, replicated("1", "")).state()
	for n := 1; ; n++ {
		w := released(t, replicated("1", ""))
		w.fail = n
		if n > 1000 {
			t.Fatal("it never succeeds")
		}
		if _, err := w.deploy(t, replicated("2", "")); err == nil && n > len(w.calls) {
			break
		} else if err == nil {
			w.fail = 0
			check(t, w, replicated("2", ""))
			continue
		}
		if slices.Contains(w.calls, "record 2") {
			continue
		}
		if got := w.state(); got != before {
			t.Errorf("call %d (%s) failed and left\n%s\nwant\n%s", n, w.calls[n-1], got, before)
		}
	}
}

func TestFailureActions(t *testing.T) {
	failAt := func(w *world, call string) {
		w.atCall = func(is string) {
			if is == call {
				w.fail = len(w.calls)
			}
		}
	}
	var failed *release.FailedError

	w := released(t, replicated("1", ""))
	failAt(w, "healthy shop-api-r2-2-api")
	_, err := w.deploy(t, replicated("2", release.FailurePause))
	if !errors.As(err, &failed) || !failed.Paused || !strings.HasSuffix(err.Error(), "; it is paused where it stands") {
		t.Errorf("pause: %v", err)
	}
	if _, there := w.pods["shop-api-r2-2"]; !there {
		t.Error("pause: the pod that failed is gone")
	}
	w.atCall, w.fail = nil, 0
	if _, err := w.deploy(t, replicated("2", release.FailurePause)); err != nil {
		t.Fatal(err)
	}
	check(t, w, replicated("2", ""))

	w = released(t, replicated("1", ""))
	failAt(w, "healthy shop-api-r2-2-api")
	if _, err := w.deploy(t, replicated("2", release.FailureContinue)); err != nil {
		t.Fatal(err)
	}
	wantRuns(t, w, "api-r1-2", "api-r2", "api-r2-3", "chat-r1", "edge-r1", "once-r1", "worker-r1")
	if rec, _ := w.records.Find(2); !slices.Equal(rec.Pods["api"], []string{"shop-api-r2", "shop-api-r1-2", "shop-api-r2-3"}) {
		t.Errorf("recorded %v", rec.Pods)
	}
	w.atCall, w.fail = nil, 0
	if _, err := w.deploy(t, replicated("2", release.FailureContinue)); err != nil {
		t.Fatal(err)
	}
	check(t, w, replicated("2", ""))

	w = released(t, replicated("1", ""))
	w.sick["api"] = true
	if _, err := w.deploy(t, replicated("2", release.FailureContinue)); err != nil {
		t.Errorf("the release does not go on without its replicas: %v", err)
	}
	wantRuns(t, w, "api-r1", "api-r1-2", "api-r1-3", "chat-r1", "edge-r1", "once-r1", "worker-r1")

	w = newWorld()
	w.sick["api"] = true
	if _, err := w.deploy(t, replicated("1", release.FailureContinue)); err == nil || !strings.Contains(err.Error(), "no pod of service api is well") {
		t.Errorf("all fail, which are all that there are: %v", err)
	}
}

// A pod that does not stay well is taken back after the switch.
func TestWatch(t *testing.T) {
	w := running(t)
	before := w.state()
	w.frail["chat"] = true
	_, err := w.deploy(t, project(map[string]string{"chat": "2"}))
	want := "release 2 of shop failed: watch shop-chat-r2 for 1s: container shop-chat-r2-chat is unhealthy: does not feel well; release 1 still serves"
	if err == nil || err.Error() != want {
		t.Errorf("error is\n\t%v\nwant\n\t%s", err, want)
	}
	if !slices.Contains(w.calls, "ask for 2") {
		t.Error("the edge was not switched before")
	}
	if got := w.state(); got != before {
		t.Errorf("left\n%s\nwant\n%s", got, before)
	}
}

func TestPreviewFails(t *testing.T) {
	w := running(t)
	before := w.state()
	w.dumb["api"] = true
	_, err := w.deploy(t, project(map[string]string{"api": "2"}))
	if err == nil || !strings.Contains(err.Error(), "preview shop-api-r2: 502 Bad Gateway; release 1 still serves") {
		t.Errorf("error is %v", err)
	}
	if !slices.Contains(w.calls, "preview 127.0.0.1:22858 shop.example /api/") {
		t.Errorf("asked %q", w.calls)
	}
	if got := w.state(); got != before {
		t.Errorf("left\n%s\nwant\n%s", got, before)
	}
}

// A job is done before what depends on it begins, once for each configuration.
func TestJob(t *testing.T) {
	with := func(version string) release.Desired {
		d := project(nil)
		job := project(nil).Services[2]
		job.Name, job.Pod.Containers[0].Name = "migrate", "migrate"
		job.Image.Digest = oci.Digest("sha256:" + strings.Repeat(version, 64))
		d.Services[0].DependsOn = []release.Dependency{{Service: "migrate", Condition: release.ConditionCompleted}}
		d.Services = append([]release.Service{job}, d.Services...)
		return d
	}
	w := released(t, with("1"))
	if i, j := slices.Index(w.calls, "completed shop-migrate-r1-migrate"), slices.Index(w.calls, "create shop-chat-r1"); i < 0 || j < i {
		t.Errorf("the job does not come first: %q", w.calls)
	}
	if plan := w.plan(t, with("1")); !plan.Empty() {
		t.Errorf("a second time: %s", plan)
	}
	if _, err := w.deploy(t, with("2")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.rollback(t, 0); err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(w.calls, func(call string) bool { return strings.Contains(call, "migrate") }) {
		t.Errorf("the job is done again: %q", w.calls)
	}
	w.sick["migrate"] = true
	if _, err := w.deploy(t, with("3")); err == nil {
		t.Error("nobody minds that the job fails")
	}
}

// An edge that cannot hand its sockets over is stopped first.
func TestEdgeStopFirst(t *testing.T) {
	d := project(map[string]string{"edge": "2"})
	d.Services[4].StopFirst = true
	w := running(t)
	want := `
stop shop-edge-r1
tell the edge: chat is at unix:/sockets/1.sock, api is at 127.0.0.1:22857, release 2
start shop-edge-r2
wait for shop-edge-r2
switch to release 2
record release 2
drain shop-chat-r1
`
	plan := w.plan(t, d)
	if got := "\n" + plan.String(); got != want {
		t.Errorf("plan is%s\nwant%s", got, want)
	}
	if err := w.run(t, plan); err != nil {
		t.Fatal(err)
	}
	check(t, w, d)
}

func TestHook(t *testing.T) {
	d := project(map[string]string{"chat": "2"})
	d.Hook = true
	w := running(t)
	before := w.state()
	deployer := release.NewDeployer(w, w)
	said := errors.New("the hook says no")
	deployer.BeforeSwitch = func(context.Context) error { return said }
	if err := deployer.Run(t.Context(), w.plan(t, d)); !errors.Is(err, said) {
		t.Errorf("error is %v", err)
	}
	if got := w.state(); got != before {
		t.Errorf("left\n%s\nwant\n%s", got, before)
	}
	times := 0
	deployer.BeforeSwitch = func(context.Context) error { times++; return nil }
	if err := deployer.Run(t.Context(), w.plan(t, d)); err != nil || times != 1 {
		t.Errorf("run %d times: %v", times, err)
	}
	if plan := w.plan(t, d); !plan.Empty() {
		t.Errorf("still to do: %s", plan)
	}
}

// An edge whose processes cannot be looked at is no reason to leave a release half
// done.
func TestEdgeThatCannotBeLookedAt(t *testing.T) {
	w, d := running(t), project(map[string]string{"chat": "2"})
	w.atCall = func(call string) {
		if strings.HasPrefix(call, "settled ") {
			w.fail = len(w.calls)
		}
	}
	if _, err := w.deploy(t, d); err != nil {
		t.Fatal(err)
	}
	w.atCall, w.fail = nil, 0
	check(t, w, d)
}

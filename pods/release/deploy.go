package release

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"bareboat/pods"
	"bareboat/pods/proxy"
)

// runtime is what a plan needs of Podman.
type runtime interface {
	maker
	RemoveNetwork(ctx context.Context, name string) error
	RemoveVolume(ctx context.Context, name string) error
	RemoveSecret(ctx context.Context, name string) error
}

// maker makes and removes pods and what they need. Each call may be made twice.
type maker interface {
	EnsureVolume(ctx context.Context, name string, labels map[string]string) error
	EnsureNetwork(ctx context.Context, name string, labels map[string]string, internal bool) error
	EnsureSecret(ctx context.Context, name string, data []byte, labels map[string]string) error
	Pull(ctx context.Context, ref string, insecure bool, progress io.Writer) (string, error)
	CreatePod(ctx context.Context, spec pods.Spec) (pods.Pod, error)
	StartPod(ctx context.Context, name string) error
	WaitHealthy(ctx context.Context, container string, health pods.Health) error
	// StayHealthy returns when all containers were well for their times.
	StayHealthy(ctx context.Context, list []pods.Watched) error
	// WaitCompleted returns when the container has ended well.
	WaitCompleted(ctx context.Context, container string) error
	Signal(ctx context.Context, container, signal string) error
	StopPod(ctx context.Context, name string, grace time.Duration) error
	RemovePod(ctx context.Context, name string) error
}

// router is the edge's configuration, and the edge in its container.
type router interface {
	teller
	Record(r Records) error
	Write(c proxy.Config) error
	Clear() error // as if nothing had been written
	Test(ctx context.Context, container string) error
	Reload(ctx context.Context, container string) error
	// WaitRelease returns when fresh connections are answered by this release.
	WaitRelease(ctx context.Context, c proxy.Config) error
	// Preview asks an upstream through an edge that was told c.
	Preview(ctx context.Context, c proxy.Config, upstream, host string, check Check) error
	// Request has an upstream asked through an edge that was told c.
	Request(ctx context.Context, c proxy.Config, upstream, method, path string) error
	// Quit has an edge take no more connections once another, which was told now,
	// takes some; those that it has go on.
	Quit(ctx context.Context, container string, now proxy.Config) error
	// Settled returns when the edge has no connections left from before its
	// last reload, or after limit.
	Settled(ctx context.Context, container string, limit time.Duration) error
}

// undoTimeout is for taking back a release, beyond what the steps themselves
// wait for.
const undoTimeout = 2 * time.Minute

// Event tells how far a plan is.
type Event struct {
	Step  Step
	State State
	Err   error // of Failed
}

// State is how far a step is.
type State int

// The states of a step.
const (
	Begun State = iota
	Done
	Failed
	Undone // taken back, since a later step failed
)

func (s State) String() string {
	return [...]string{"begun", "done", "failed", "taken back"}[s]
}

// Deployer carries out plans.
type Deployer struct {
	// Report is told how far a plan is; Progress gets what Podman says while it
	// pulls. Both may be nil.
	Report   func(Event)
	Progress io.Writer

	// BeforeSwitch is run where the plan says so; it may be nil. An error fails
	// the release.
	BeforeSwitch func(context.Context) error

	runtime runtime
	router  router
}

// NewDeployer gives a deployer for this Podman and this edge.
func NewDeployer(r runtime, edge router) *Deployer {
	return &Deployer{runtime: r, router: edge}
}

// FailedError says that a release failed, and was taken back.
type FailedError struct {
	Project string
	Release int
	Serving int // number of the release that goes on serving; zero is none
	Step    Step
	Err     error
	Undo    error // what could not be taken back
	Paused  bool  // all was left where it stands, as the service's failure_action says
}

func (e *FailedError) Error() string {
	text := fmt.Sprintf("release %d of %s failed: %s: %v", e.Release, e.Project, e.Step, e.Err)
	switch {
	case e.Paused:
		text += "; it is paused where it stands"
	case e.Undo != nil:
		text += fmt.Sprintf("; not all was taken back: %v", e.Undo)
	case e.Serving > 0:
		text += fmt.Sprintf("; release %d still serves", e.Serving)
	}
	return text
}

// Unwrap gives what failed.
func (e *FailedError) Unwrap() error { return e.Err }

// Run carries out the plan. When a step fails before the release is recorded, or
// ctx ends, what was made is taken back and the error is a *FailedError, but for
// steps that touch nothing that runs. After that a failure leaves the rest to the
// next plan. A service's failure action may say otherwise.
func (d *Deployer) Run(ctx context.Context, p Plan) error {
	r := run{Deployer: d, skipped: map[slot]bool{}}
	last := lastRevocable(p.Steps)
	for i, s := range p.Steps {
		if r.skipped[s.slot] {
			continue
		}
		d.report(Event{Step: s, State: Begun})
		err := ctx.Err()
		if err == nil {
			err = r.step(ctx, s)
		}
		if err == nil {
			d.report(Event{Step: s, State: Done})
			continue
		}
		d.report(Event{Step: s, State: Failed, Err: err})
		if courtesy := s.Action == Dismiss || s.Action == Settle; courtesy && ctx.Err() == nil {
			continue // who cannot be told, or looked at, is stopped within the grace all the same
		}
		if i > last {
			return fmt.Errorf("%s: %w", s, err)
		}
		failed := &FailedError{Project: p.Project, Release: p.Release, Serving: p.Serving, Step: s, Err: err}
		switch {
		case ctx.Err() == nil && s.onFailure == FailureContinue:
			if failed.Undo = r.skip(ctx, s); failed.Undo == nil {
				continue
			}
			return failed
		case ctx.Err() == nil && s.onFailure == FailurePause:
			failed.Paused = true
			return failed
		}
		back := r.takeBack(ctx)
		if s.Action < Stop {
			return errors.Join(fmt.Errorf("%s: %w", s, err), back)
		}
		failed.Undo = back
		return failed
	}
	return nil
}

// run is one run of a plan.
type run struct {
	*Deployer
	undo    []undo
	skipped map[slot]bool // replicas that failed, where the release goes on without them

	switched bool // the edge may have led clients to new pods
}

// skip goes on without the replica that failed: its old pod stays.
func (r *run) skip(ctx context.Context, s Step) error {
	if s.Action == Watch {
		return nil
	}
	r.skipped[s.slot] = true
	var mine, others []undo
	for _, u := range r.undo {
		if u.step.slot == s.slot {
			mine = append(mine, u)
		} else {
			others = append(others, u)
		}
	}
	r.undo = mine
	err := r.takeBack(ctx)
	r.undo = others
	return err
}

// lastRevocable is the index of the last step that a failure takes back.
func lastRevocable(steps []Step) int {
	last := -1
	for i, s := range steps {
		if s.Action <= Watch {
			last = i
		}
	}
	return last
}

func (d *Deployer) report(e Event) {
	if d.Report != nil {
		d.Report(e)
	}
}

// undo is how to take back what was done.
type undo struct {
	step Step
	do   func(context.Context) error
}

func (r *run) push(s Step, do func(context.Context) error) { r.undo = append(r.undo, undo{s, do}) }

// takeBack undoes the latest first, on time of its own: ctx may have ended.
func (r *run) takeBack(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	var errs []error
	for _, u := range slices.Backward(r.undo) {
		if err := u.do(ctx); err != nil {
			errs = append(errs, err)
			continue
		}
		r.report(Event{Step: u.step, State: Undone})
	}
	return errors.Join(errs...)
}

package release

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"bareboat/pods"
	"bareboat/pods/proxy"
)

// runtime is what a plan needs of Podman.
type runtime interface {
	maker
	RemoveNetwork(ctx context.Context, name string) error
	RemoveVolume(ctx context.Context, name string) error
}

// maker makes and removes pods and what they need. Each call may be made twice.
type maker interface {
	EnsureVolume(ctx context.Context, name string, labels map[string]string) error
	EnsureNetwork(ctx context.Context, name string, labels map[string]string, internal bool) error
	Pull(ctx context.Context, ref string, insecure bool, progress io.Writer) (string, error)
	CreatePod(ctx context.Context, spec pods.Spec) (pods.Pod, error)
	StartPod(ctx context.Context, name string) error
	WaitHealthy(ctx context.Context, container string, health pods.Health) error
	StopPod(ctx context.Context, name string, grace time.Duration) error
	RemovePod(ctx context.Context, name string) error
}

// router is the edge's configuration, and the edge in its container.
type router interface {
	Current() (*proxy.Config, error) // nil when nothing was written
	Write(c proxy.Config) error
	Clear() error // as if nothing had been written
	Test(ctx context.Context, container string) error
	Reload(ctx context.Context, container string) error
	// WaitRelease returns when fresh connections are answered by this release.
	WaitRelease(ctx context.Context, c proxy.Config) error
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
}

func (e *FailedError) Error() string {
	text := fmt.Sprintf("release %d of %s failed: %s: %v", e.Release, e.Project, e.Step, e.Err)
	if e.Serving > 0 && e.Undo == nil {
		text += fmt.Sprintf("; release %d still serves", e.Serving)
	}
	if e.Undo != nil {
		text += fmt.Sprintf("; not all was taken back: %v", e.Undo)
	}
	return text
}

// Unwrap gives what failed.
func (e *FailedError) Unwrap() error { return e.Err }

// Run carries out the plan. When a step fails before the switch is done, or
// ctx ends, what was made is taken back and the error is a *FailedError, but
// for steps that touch nothing that runs. After the switch a failure leaves the
// rest to the next plan.
func (d *Deployer) Run(ctx context.Context, p Plan) error {
	var undo undoing
	last := lastRevocable(p.Steps)
	for i, s := range p.Steps {
		d.report(Event{Step: s, State: Begun})
		err := ctx.Err()
		if err == nil {
			err = d.step(ctx, s, &undo)
		}
		if err == nil {
			d.report(Event{Step: s, State: Done})
			continue
		}
		d.report(Event{Step: s, State: Failed, Err: err})
		if i > last {
			return fmt.Errorf("%s: %w", s, err)
		}
		back := d.takeBack(ctx, undo)
		if s.Action < Stop {
			return errors.Join(fmt.Errorf("%s: %w", s, err), back)
		}
		return &FailedError{Project: p.Project, Release: p.Release, Serving: p.Serving, Step: s, Err: err, Undo: back}
	}
	return nil
}

// lastRevocable is the index of the last step that a failure takes back.
func lastRevocable(steps []Step) int {
	last := -1
	for i, s := range steps {
		if s.Action <= Switch {
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

// undoing collects how to take back what was done.
type undoing []undo

type undo struct {
	step Step
	do   func(context.Context) error
}

func (u *undoing) push(s Step, do func(context.Context) error) { *u = append(*u, undo{s, do}) }

// takeBack undoes the latest first, on time of its own: ctx may have ended.
func (d *Deployer) takeBack(ctx context.Context, list undoing) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	var errs []error
	for i := len(list) - 1; i >= 0; i-- {
		if err := list[i].do(ctx); err != nil {
			errs = append(errs, err)
			continue
		}
		d.report(Event{Step: list[i].step, State: Undone})
	}
	return errors.Join(errs...)
}

// step does one step, and notes how to take it back before it can fail half done.
func (d *Deployer) step(ctx context.Context, s Step, undo *undoing) error {
	switch s.Action {
	case MakeVolume:
		return d.runtime.EnsureVolume(ctx, s.Name, s.labels)
	case MakeNetwork:
		undo.push(s, func(ctx context.Context) error { return d.runtime.RemoveNetwork(ctx, s.Name) })
		return d.runtime.EnsureNetwork(ctx, s.Name, s.labels, s.internal)
	case Pull:
		_, err := d.runtime.Pull(ctx, s.Name, s.insecure, d.Progress)
		return err
	case Stop:
		undo.push(s, func(ctx context.Context) error { return d.runtime.StartPod(ctx, s.Name) })
		return d.runtime.StopPod(ctx, s.Name, 0)
	case Start:
		return d.start(ctx, s, undo)
	case Ready:
		if s.adopted {
			undo.push(s, func(ctx context.Context) error { return d.runtime.RemovePod(ctx, s.Name) })
		}
		return d.ready(ctx, s.spec)
	case Tell:
		return d.tell(s, undo)
	case Switch:
		return d.switchTo(ctx, s)
	case Retire:
		return d.retire(ctx, s.Name)
	case RemoveNetwork:
		return d.runtime.RemoveNetwork(ctx, s.Name)
	case RemoveVolume:
		return d.runtime.RemoveVolume(ctx, s.Name)
	case Forget:
		return d.router.Clear()
	}
	return fmt.Errorf("no such step: %d", s.Action)
}

func (d *Deployer) start(ctx context.Context, s Step, undo *undoing) error {
	_, err := d.runtime.CreatePod(ctx, s.spec)
	var taken *pods.ConflictError
	if errors.As(err, &taken) {
		return err // the name is somebody else's pod, which stays
	}
	undo.push(s, func(ctx context.Context) error { return d.runtime.RemovePod(ctx, s.Name) })
	if err != nil {
		return err
	}
	return d.runtime.StartPod(ctx, s.Name)
}

// retire gives the pod its grace. One that cannot be stopped is removed all the
// same, but not because nobody waits for it any more.
func (d *Deployer) retire(ctx context.Context, name string) error {
	stopErr := d.runtime.StopPod(ctx, name, 0)
	if err := ctx.Err(); err != nil {
		return cmp.Or(stopErr, err)
	}
	if err := d.runtime.RemovePod(ctx, name); err != nil {
		return errors.Join(stopErr, err)
	}
	return nil
}

// ready waits for every container of a pod.
func (d *Deployer) ready(ctx context.Context, spec pods.Spec) error {
	for _, c := range spec.Containers {
		var health pods.Health
		if c.Health != nil {
			health = *c.Health
		}
		if err := d.runtime.WaitHealthy(ctx, c.Name, health); err != nil {
			return err
		}
	}
	return nil
}

func (d *Deployer) tell(s Step, undo *undoing) error {
	before, err := d.router.Current()
	if err != nil {
		return err
	}
	undo.push(s, func(ctx context.Context) error {
		if before == nil {
			return d.router.Clear()
		}
		if err := d.router.Write(*before); err != nil || s.edge == "" {
			return err
		}
		if err := d.router.Reload(ctx, s.edge); err != nil {
			return err
		}
		// What goes next are the new pods, which the edge may still pass requests to.
		return d.router.WaitRelease(ctx, *before)
	})
	return d.router.Write(s.config)
}

func (d *Deployer) switchTo(ctx context.Context, s Step) error {
	if err := d.router.Test(ctx, s.edge); err != nil {
		return err
	}
	if err := d.router.Reload(ctx, s.edge); err != nil {
		return err
	}
	return d.router.WaitRelease(ctx, s.config)
}

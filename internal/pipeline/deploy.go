package pipeline

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"bareboat/internal/config"
	"bareboat/pods"
	"bareboat/pods/release"
)

// Released is what a release came to.
type Released struct {
	Release int     `json:"release"` // that serves now
	Changed bool    `json:"changed"`
	URL     string  `json:"url,omitempty"` // of the edge, if there is one
	Images  []Image `json:"images"`        // of all services, as they were released
}

// Up builds, pushes and releases the project.
func (p *Pipeline) Up(ctx context.Context) (Released, error) {
	return p.release(ctx, "up", func(d *destination) ([]Image, error) {
		if err := p.hook(ctx, hookBeforeBuild, hookFacts{}); err != nil {
			return nil, err
		}
		return p.push(ctx, d, nil)
	})
}

// Deploy releases the project with the images that the registry has.
func (p *Pipeline) Deploy(ctx context.Context) (Released, error) {
	return p.release(ctx, "deploy", func(*destination) ([]Image, error) { return nil, nil })
}

// release gets the images ready, plans and carries the plan out.
func (p *Pipeline) release(ctx context.Context, doing string, ready func(*destination) ([]Image, error)) (out Released, err error) {
	d := p.openRegistry(ctx)
	defer func() { err = errors.Join(err, d.close()) }()
	images, err := ready(d)
	if err != nil {
		return Released{}, err
	}
	if images, err = p.complete(ctx, d, images); err != nil {
		return Released{}, err
	}
	err = p.locked(ctx, "bareboat "+doing, func(w *workplace) error {
		plan, err := p.plan(ctx, w, images)
		if err != nil {
			return err
		}
		out, err = p.carryOut(ctx, w, plan, images, &puller{Podman: w.podman, from: d, tagged: p.localNames(d, images)}, doing)
		return err
	})
	return out, err
}

// Rollback goes back to a release that is kept; zero is the one before. It needs
// no image and no registry.
func (p *Pipeline) Rollback(ctx context.Context, to int) (out Released, err error) {
	err = p.locked(ctx, "bareboat rollback", func(w *workplace) error {
		plan, err := p.planRollback(ctx, w, to)
		if err != nil {
			return err
		}
		out, err = p.carryOut(ctx, w, plan, nil, &puller{Podman: w.podman}, "rollback")
		return err
	})
	return out, err
}

// carryOut carries out the plan of a release, with the project's hooks, and writes
// down that it did.
func (p *Pipeline) carryOut(ctx context.Context, w *workplace, plan release.Plan, images []Image, puller *puller, doing string) (Released, error) {
	out := Released{Release: plan.Serving, Changed: !plan.Empty(), URL: p.URL(), Images: append([]Image{}, images...)}
	if plan.Empty() {
		return out, nil
	}
	facts := hookFacts{release: plan.Release, serving: plan.Serving, images: images}
	entry := p.entry(ctx, plan, images, doing)
	if err := w.journal.Append(entry); err != nil {
		return Released{}, err
	}
	err := p.run(ctx, w, plan, puller, facts)
	if noteErr := w.journal.Append(ended(entry, plan, err)); err == nil {
		err = noteErr
	}
	if err != nil {
		facts.err = err
		// Whoever ended this command wants to know of the failure all the same.
		return Released{}, errors.Join(err, p.hook(context.WithoutCancel(ctx), hookOnFailure, facts))
	}
	if plan.Release != 0 {
		out.Release = plan.Release
	}
	facts.serving = out.Release
	return out, p.hook(ctx, hookAfterRelease, facts)
}

// entry is what the journal says when a release begins.
func (p *Pipeline) entry(ctx context.Context, plan release.Plan, images []Image, doing string) release.Entry {
	e := release.Entry{
		Time: time.Now().UTC(), Event: release.EventBegun, Release: plan.Release, Serving: plan.Serving,
		Command: "bareboat " + doing, Revision: p.revision(ctx), Images: map[string]string{},
	}
	host, _ := os.Hostname() // it is unknown then
	name := "?"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	e.Who = name + "@" + host
	for _, i := range images {
		if s, ok := p.Project.Service(i.Service); ok {
			e.Images[i.Service] = s.Image.WithDigest(i.Digest).String()
		}
	}
	return e
}

// ended is what it says when the release has ended.
func ended(e release.Entry, plan release.Plan, err error) release.Entry {
	began := e.Time
	e.Time = time.Now().UTC()
	e.Event, e.Seconds = release.EventDone, e.Time.Sub(began).Seconds()
	if err != nil {
		e.Event, e.Error = release.EventFailed, strings.Join(strings.Fields(err.Error()), " ")
		return e
	}
	if plan.Release != 0 {
		e.Serving = plan.Release
	}
	return e
}

// PlanRollback says what Rollback would do.
func (p *Pipeline) PlanRollback(ctx context.Context, to int) (lines []string, err error) {
	err = p.at(ctx, func(w *workplace) error {
		plan, err := p.planRollback(ctx, w, to)
		lines = planLines(plan)
		return err
	})
	return lines, err
}

func (p *Pipeline) planRollback(ctx context.Context, w *workplace, to int) (release.Plan, error) {
	actual, err := release.Observe(ctx, w.podman, w.edge)
	if err != nil {
		return release.Plan{}, err
	}
	return release.NewRollback(p.Project.Name, to, len(p.Project.Hooks.BeforeSwitch) > 0, actual)
}

// PlanDeploy says what Deploy would do.
func (p *Pipeline) PlanDeploy(ctx context.Context) (lines []string, err error) {
	d := p.openRegistry(ctx)
	defer func() { err = errors.Join(err, d.close()) }()
	images, err := p.complete(ctx, d, nil)
	if err != nil {
		return nil, err
	}
	err = p.at(ctx, func(w *workplace) error {
		plan, err := p.plan(ctx, w, images)
		lines = planLines(plan)
		return err
	})
	return lines, err
}

const nothingToDo = "nothing to do"

func planLines(plan release.Plan) []string {
	if plan.Empty() {
		return []string{nothingToDo}
	}
	return strings.Split(strings.TrimSpace(plan.String()), "\n")
}

// complete pins the images of the services that were not built just now.
func (p *Pipeline) complete(ctx context.Context, d *destination, built []Image) ([]Image, error) {
	have := map[string]bool{}
	for _, i := range built {
		have[i.Service] = true
	}
	for _, s := range p.Project.Services {
		if have[s.Name] {
			continue
		}
		i, err := d.resolve(ctx, s)
		if err != nil {
			return nil, err
		}
		built = append(built, i)
	}
	return built, nil
}

// workplace is what a release works with.
type workplace struct {
	podman  *pods.Podman
	edge    *release.Nginx
	told    pods.Mount // by which the edge reads what it is told
	journal release.Journal
}

// locked calls do while no other release of the project runs.
func (p *Pipeline) locked(ctx context.Context, doing string, do func(*workplace) error) (err error) {
	dir, err := p.stateDir()
	if err != nil {
		return err
	}
	lock, err := release.Acquire(dir, doing)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	return p.at(ctx, do)
}

// stateDir is the folder of what a release of the project keeps on this host:
// the lock, and what the edge is told.
func (p *Pipeline) stateDir() (string, error) {
	dir, err := dataDir()
	return filepath.Join(dir, "projects", p.Project.Name), err
}

// forget removes that folder, the lock in it being held: whoever waits for it
// makes a new one, which then stays.
func (p *Pipeline) forget() error {
	dir, err := p.stateDir()
	if err != nil {
		return err
	}
	for _, name := range []string{"edge", "releases.json", "journal.jsonl", "lock"} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, syscall.ENOTEMPTY) {
		return err
	}
	return nil
}

// at calls do with a connection to Podman.
func (p *Pipeline) at(ctx context.Context, do func(*workplace) error) error {
	dir, err := p.stateDir()
	if err != nil {
		return err
	}
	return p.withPodman(ctx, func(podman *pods.Podman) error {
		return do(&workplace{podman: podman, edge: release.NewNginx(dir, podman), told: release.EdgeMount(dir), journal: release.NewJournal(dir)})
	})
}

func (p *Pipeline) plan(ctx context.Context, w *workplace, images []Image) (release.Plan, error) {
	actual, err := release.Observe(ctx, w.podman, w.edge)
	if err != nil {
		return release.Plan{}, err
	}
	project, err := p.withHealth()
	if err != nil {
		return release.Plan{}, err
	}
	secrets, named, err := p.secrets()
	if err != nil {
		return release.Plan{}, err
	}
	desired, err := Desired(project, images, p.revision(ctx), w.told, named)
	if err != nil {
		return release.Plan{}, err
	}
	desired.Secrets = secrets
	return release.NewPlan(desired, actual)
}

// withHealth is the project with the health checks of the recipes, where the
// Compose file has none: an OCI image cannot hold them.
func (p *Pipeline) withHealth() (*config.Project, error) {
	project := *p.Project
	project.Services = slices.Clone(project.Services)
	for i, s := range project.Services {
		if s.Recipe == "" || s.Health != nil {
			continue
		}
		r, _, err := p.recipe(s)
		if err != nil {
			return nil, err
		}
		if h := r.Config.Healthcheck; h != nil {
			project.Services[i].Health = (*config.Health)(h)
		}
	}
	return &project, nil
}

func (p *Pipeline) planDown(ctx context.Context, w *workplace, volumes bool) (release.Plan, error) {
	actual, err := release.Observe(ctx, w.podman, w.edge)
	if err != nil {
		return release.Plan{}, err
	}
	return release.DownPlan(p.Project.Name, actual, volumes), nil
}

// run carries a plan out and tells of its steps.
func (p *Pipeline) run(ctx context.Context, w *workplace, plan release.Plan, images *puller, facts hookFacts) error {
	if plan.Note != "" {
		p.notify(Event{Subject: p.Project.Name, Text: plan.Note, Warn: true})
	}
	d := release.NewDeployer(images, w.edge)
	d.BeforeSwitch = func(ctx context.Context) error { return p.hook(ctx, hookBeforeSwitch, facts) }
	var began time.Time
	d.Report = func(e release.Event) {
		out := Event{Subject: e.Step.Service, Step: e.Step.String(), State: e.State.String(), Release: plan.Release, Err: e.Err}
		if out.Subject == "" {
			out.Subject = p.Project.Name
		}
		switch e.State {
		case release.Begun:
			began, out.Text = time.Now(), out.Step
		case release.Done:
			out.Seconds = time.Since(began).Seconds()
		case release.Failed:
			out.Seconds = time.Since(began).Seconds()
			out.Text, out.Warn = fmt.Sprintf("%s: failed: %v", out.Step, e.Err), true
		case release.Undone:
			out.Text, out.Warn = out.Step+": "+out.State, true
		}
		p.notify(out)
	}
	return d.Run(ctx, plan)
}

// revision names the source that is released, where it lies in git.
func (p *Pipeline) revision(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "-C", p.Project.Dir, "describe", "--always", "--dirty", "--abbrev=12").Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

// URL is where people reach the project; empty when it has no edge.
func (p *Pipeline) URL() string {
	edge, ok := p.Project.Edge()
	if !ok {
		return ""
	}
	host := edge.Edge.Address
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, strconv.Itoa(int(edge.Edge.Port))) + "/"
}

// PlanUp says what Up would do, as far as it can be known before the images
// are built.
func (p *Pipeline) PlanUp(ctx context.Context) ([]string, error) {
	plans, err := p.PlanPush(ctx, nil)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, plan := range plans {
		out = append(out, plan.Lines()...)
	}
	return append(out, fmt.Sprintf("release project %s with these images, if any of them or the configuration changed", p.Project.Name)), nil
}

// Down removes the project's pods and networks, and its volumes if asked to.
func (p *Pipeline) Down(ctx context.Context, volumes bool) error {
	return p.locked(ctx, "bareboat down", func(w *workplace) error {
		plan, err := p.planDown(ctx, w, volumes)
		if err != nil {
			return err
		}
		if plan.Empty() {
			p.notify(Event{Subject: p.Project.Name, Text: "nothing to do"})
		}
		if err := p.run(ctx, w, plan, &puller{Podman: w.podman}, hookFacts{}); err != nil {
			return err
		}
		return p.forget()
	})
}

// PlanDown says what Down would do.
func (p *Pipeline) PlanDown(ctx context.Context, volumes bool) (lines []string, err error) {
	err = p.at(ctx, func(w *workplace) error {
		plan, err := p.planDown(ctx, w, volumes)
		lines = planLines(plan)
		return err
	})
	return lines, err
}

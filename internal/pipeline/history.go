package pipeline

import (
	"context"
	"errors"
	"slices"
	"time"

	"bareboat/internal/config"
	"bareboat/pods"
	"bareboat/pods/release"
)

// States of a release.
const (
	StateServing = "serving"
	StateKept    = "kept" // it can be gone back to
	StateGone    = "gone"
	StateFailed  = "failed"
	StateUnknown = "interrupted" // it began, and nothing says how it ended
)

// Past is one thing that was done to the project, as the journal tells it.
type Past struct {
	Release  int               `json:"release"`
	Time     time.Time         `json:"time"` // of its beginning
	Who      string            `json:"who"`
	Command  string            `json:"command"`
	Revision string            `json:"revision,omitempty"`
	Images   map[string]string `json:"images,omitempty"`
	Seconds  float64           `json:"seconds"`
	State    string            `json:"state"`
	Error    string            `json:"error,omitempty"`
}

// Releases tells the history of the project, the latest first. What the journal
// does not tell, but is kept, is in it, too. A journal that was changed is told of
// as a warning.
func (p *Pipeline) Releases(ctx context.Context) (out []Past, err error) {
	err = p.at(ctx, func(w *workplace) error {
		actual, err := release.Observe(ctx, w.podman, w.edge)
		if err != nil {
			return err
		}
		entries, err := w.journal.Entries()
		var broken *release.BrokenJournalError
		if errors.As(err, &broken) {
			p.notify(Event{Subject: p.Project.Name, Text: broken.Error(), Warn: true})
		} else if err != nil {
			return err
		}
		out = p.history(entries, actual)
		return nil
	})
	return out, err
}

func (p *Pipeline) history(entries []release.Entry, actual release.Actual) []Past {
	var list []Past
	for _, e := range entries {
		last := len(list) - 1
		if e.Event != release.EventBegun && last >= 0 && list[last].State == StateUnknown {
			list[last].Seconds, list[last].Error = e.Seconds, e.Error
			if list[last].State = StateGone; e.Event == release.EventFailed {
				list[last].State = StateFailed
			}
			continue
		}
		list = append(list, Past{
			Release: e.Release, Time: e.Time, Who: e.Who, Command: e.Command, Revision: e.Revision, Images: e.Images, State: StateUnknown,
		})
	}
	serving := actual.Serving(p.Project.Name)
	told := map[int]bool{}
	for i := len(list) - 1; i >= 0; i-- {
		e := &list[i]
		_, kept := actual.Records.Find(e.Release)
		switch {
		case told[e.Release] || e.State == StateFailed:
			continue // only the last time that it served counts
		case e.Release == serving && serving != 0:
			e.State = StateServing
		case kept:
			e.State = StateKept
		default:
			continue
		}
		told[e.Release] = true
	}
	for _, rec := range actual.Records.List {
		if told[rec.Release] {
			continue
		}
		past := Past{Release: rec.Release, Time: rec.Time, Revision: rec.Desired.Revision, State: StateKept}
		if rec.Release == serving {
			past.State = StateServing
		}
		list = append(list, past)
	}
	slices.SortStableFunc(list, func(a, b Past) int { return b.Time.Compare(a.Time) })
	return list
}

// Status is the project at a glance.
type Status struct {
	Project string    `json:"project"`
	Release int       `json:"release"` // that serves; zero is none
	URL     string    `json:"url,omitempty"`
	Answers bool      `json:"answers"`        // the edge does, with what it was told; false without an edge
	Kept    []int     `json:"kept"`           // releases that can be gone back to
	Lock    string    `json:"lock,omitempty"` // who is at it now
	Pods    []Running `json:"pods"`           // of the release that serves
	Missing []string  `json:"missing"`        // services of which a pod should run and does not
	Todo    []string  `json:"todo"`           // what deploy would do
}

// Well tells whether all that should run does, and answers.
func (s Status) Well() bool {
	return len(s.Missing) == 0 && s.Release != 0 && (s.URL == "" || s.Answers)
}

// Status looks at the project. What deploy would do is left out where the registry
// cannot be asked.
func (p *Pipeline) Status(ctx context.Context) (out Status, err error) {
	out = Status{Project: p.Project.Name, URL: p.URL(), Kept: []int{}, Pods: []Running{}, Missing: []string{}, Todo: []string{}}
	dir, err := p.stateDir()
	if err != nil {
		return out, err
	}
	if holder, held := release.LockHolder(dir); held {
		out.Lock = holder.String()
	}
	err = p.at(ctx, func(w *workplace) error {
		actual, err := release.Observe(ctx, w.podman, w.edge)
		if err != nil {
			return err
		}
		out.Release, out.Answers = actual.Serving(p.Project.Name), actual.Loaded
		for _, rec := range actual.Records.List {
			if rec.Release != out.Release {
				out.Kept = append(out.Kept, rec.Release)
			}
		}
		all, err := p.running(ctx, w.podman, nil)
		if err != nil {
			return err
		}
		rec, recorded := actual.Records.Find(actual.Records.Serving)
		for _, r := range all {
			if r.pod.Running() || recorded && rec.Has(r.Pod) {
				out.Pods = append(out.Pods, r)
			}
		}
		out.Missing = p.missing(out.Pods)
		return nil
	})
	if err != nil {
		return out, err
	}
	if lines, err := p.PlanDeploy(ctx); err != nil {
		p.notify(Event{Subject: p.Project.Name, Text: "what deploy would do is not known: " + err.Error(), Warn: true})
	} else if !slices.Equal(lines, []string{nothingToDo}) {
		out.Todo = lines
	}
	return out, nil
}

// missing are the services of which fewer pods run than should.
func (p *Pipeline) missing(running []Running) []string {
	out := []string{}
	for _, s := range p.Project.Services {
		want := s.Replicas
		if s.Sidecar != "" {
			want = 0
		}
		for _, r := range running {
			if r.Service == s.Name && (r.pod.Running() || p.isJob(s.Name) && done(r.pod)) {
				want--
			}
		}
		if want > 0 {
			out = append(out, s.Name)
		}
	}
	return out
}

// isJob tells whether others wait until the service has come to its end.
func (p *Pipeline) isJob(service string) bool {
	return slices.ContainsFunc(p.Project.Services, func(s config.Service) bool {
		return slices.ContainsFunc(s.DependsOn, func(d config.Dependency) bool {
			return d.Service == service && d.Condition == release.ConditionCompleted
		})
	})
}

// done tells whether the pod came to its end, and well, as a job does.
func done(pod pods.Pod) bool {
	return len(pod.Containers) > 0 && !slices.ContainsFunc(pod.Containers, func(c pods.ContainerState) bool {
		return c.State != pods.StateExited || c.ExitCode != 0
	})
}

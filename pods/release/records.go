package release

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/moby/sys/atomicwriter"

	"bareboat/pods"
)

// Record says what a release was, so that there is a way back to it.
type Record struct {
	Release  int
	Time     time.Time           // when it began to serve
	Desired  Desired             // without what its secrets hold
	Pods     map[string][]string // names, by service, in the order of its replicas
	Rejected bool                // a rollback left it
}

// Has tells whether the pod is one of the release's.
func (r Record) Has(name string) bool {
	for _, names := range r.Pods {
		if slices.Contains(names, name) {
			return true
		}
	}
	return false
}

// pod is the name of a replica's pod; empty when it had none.
func (r Record) pod(service string, replica int) string {
	if names := r.Pods[service]; replica <= len(names) {
		return names[replica-1]
	}
	return ""
}

// same tells whether the releases are of the same pods.
func (r Record) same(other Record) bool {
	return r.Release == other.Release && maps.EqualFunc(r.Pods, other.Pods, slices.Equal)
}

func (r Record) service(name string) (Service, bool) {
	i := slices.IndexFunc(r.Desired.Services, func(s Service) bool { return s.Name == name })
	if i < 0 {
		return Service{}, false
	}
	return r.Desired.Services[i], true
}

// Records are the releases that may be gone back to, and the one that serves.
type Records struct {
	Serving int // number of the release that was recorded last; zero is none
	List    []Record
}

// Find gives the record of a release.
func (r Records) Find(release int) (Record, bool) {
	i := slices.IndexFunc(r.List, func(rec Record) bool { return rec.Release == release })
	if i < 0 {
		return Record{}, false
	}
	return r.List[i], true
}

// Before gives the newest release before the one that serves, leaving out those
// that a rollback left.
func (r Records) Before() (Record, bool) {
	var found Record
	for _, rec := range r.List {
		if rec.Release < r.Serving && rec.Release > found.Release && !rec.Rejected {
			found = rec
		}
	}
	return found, found.Release != 0
}

// Needs tells whether a pod is part of a release that serves or may be gone
// back to.
func (r Records) Needs(pod string) bool {
	return slices.ContainsFunc(r.List, func(rec Record) bool { return rec.Has(pod) })
}

// reads tells whether a container of the service is given the secret.
func (s Service) reads(secret string) bool {
	return slices.ContainsFunc(s.Pod.Containers, func(c pods.Container) bool {
		return slices.ContainsFunc(c.Secrets, func(f pods.SecretFile) bool { return f.Name == secret })
	})
}

// needsSecret tells whether a pod of any of the releases reads the secret.
func (r Records) needsSecret(name string) bool {
	return slices.ContainsFunc(r.List, func(rec Record) bool {
		return slices.ContainsFunc(rec.Desired.Services, func(s Service) bool { return s.reads(name) })
	})
}

// advance is what is known once rec serves as a new release. Those that a
// rollback left are forgotten.
func (r Records) advance(rec Record, keep int) Records {
	list := slices.DeleteFunc(slices.Clone(r.List), func(old Record) bool { return old.Rejected || old.Release >= rec.Release })
	return Records{Serving: rec.Release, List: append(list, rec)}.trim(keep)
}

// trim forgets all but the newest keep releases before the one that serves.
func (r Records) trim(keep int) Records {
	var list []Record
	for _, rec := range slices.Backward(r.List) {
		if rec.Release < r.Serving {
			if keep--; keep < 0 {
				continue
			}
		}
		list = append(list, rec)
	}
	slices.Reverse(list)
	return Records{Serving: r.Serving, List: list}
}

// same tells whether the records are of the same releases and pods.
func (r Records) same(other Records) bool {
	return r.Serving == other.Serving && slices.EqualFunc(r.List, other.List, func(a, b Record) bool {
		return a.same(b) && a.Rejected == b.Rejected
	})
}

// back is what is known once an earlier release serves again. Those after it
// stay until the next release, so that one may change one's mind.
func (r Records) back(rec Record) Records {
	list := slices.Clone(r.List)
	for i := range list {
		list[i].Rejected = list[i].Release > rec.Release
		if list[i].Release == rec.Release {
			list[i] = rec
		}
	}
	return Records{Serving: rec.Release, List: list}
}

// recordsFile is the records' in the project's state folder. It may hold what
// services have in their variables.
const recordsFile = "releases.json"

// recordsPath lies beside what the edge sees.
func (n *Nginx) recordsPath() string { return filepath.Join(filepath.Dir(n.dir), recordsFile) }

// Records are those that were written last.
func (n *Nginx) Records() (Records, error) {
	text, err := os.ReadFile(n.recordsPath())
	if errors.Is(err, os.ErrNotExist) {
		return Records{}, nil
	}
	if err != nil {
		return Records{}, fmt.Errorf("read the records of releases: %w", err)
	}
	var r Records
	if err := json.Unmarshal(text, &r); err != nil {
		return Records{}, fmt.Errorf("read the records of releases: %s: %w", n.recordsPath(), err)
	}
	return r, nil
}

// Record writes the records, all of them or nothing.
func (n *Nginx) Record(r Records) error {
	text, err := json.MarshalIndent(r, "", "\t")
	if err == nil {
		err = atomicwriter.WriteFile(n.recordsPath(), append(text, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("write the records of releases: %w", err)
	}
	return nil
}

// NoWayBackError says that a release cannot be gone back to.
type NoWayBackError struct {
	Project string
	Release int // zero when none was named
	Why     string
}

func (e *NoWayBackError) Error() string {
	if e.Release == 0 {
		return fmt.Sprintf("project %s has no release to go back to: %s", e.Project, e.Why)
	}
	return fmt.Sprintf("project %s cannot go back to release %d: %s", e.Project, e.Release, e.Why)
}

// Hints names the ways out.
func (e *NoWayBackError) Hints() []string {
	return []string{"bareboat releases lists those that it can go back to", "or check out the older source, and: bareboat up"}
}

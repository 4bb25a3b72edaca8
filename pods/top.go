package pods

import (
	"context"
	"time"

	"github.com/containers/podman/v5/pkg/bindings/containers"
	"github.com/containers/podman/v5/pkg/bindings/system"
	"github.com/containers/podman/v5/pkg/domain/entities/types"
)

// Top lists what runs in the container: a heading and a line for each process.
func (p *Podman) Top(ctx context.Context, container string) ([]string, error) {
	lines, err := containers.Top(p.call(ctx), container, nil)
	if err != nil {
		return nil, fail("look at the processes of container "+container, err)
	}
	return lines, nil
}

// Stats is what a container uses.
type Stats struct {
	Container   string  // name
	CPU         float64 // percent of one processor
	Memory      uint64  // bytes
	MemoryLimit uint64  // bytes
	NetIn       uint64  // bytes since it started
	NetOut      uint64
	PIDs        uint64
}

// Stats asks once what the containers use. Podman needs cgroups version 2 with
// controllers for it, and says so otherwise.
func (p *Podman) Stats(ctx context.Context, names []string) ([]Stats, error) {
	reports, err := containers.Stats(p.call(ctx), names, new(containers.StatsOptions).WithStream(false))
	if err != nil {
		return nil, fail("look at what containers use", err)
	}
	var out []Stats
	for r := range reports {
		if r.Error != nil {
			return nil, fail("look at what containers use", r.Error)
		}
		for _, s := range r.Stats {
			one := Stats{Container: s.Name, CPU: s.CPU, Memory: s.MemUsage, MemoryLimit: s.MemLimit, PIDs: s.PIDs}
			for _, n := range s.Network {
				one.NetIn, one.NetOut = one.NetIn+n.RxBytes, one.NetOut+n.TxBytes
			}
			out = append(out, one)
		}
	}
	sortBy(out, func(s Stats) string { return s.Container })
	return out, nil
}

// Happening is something that Podman did.
type Happening struct {
	Time   time.Time         `json:"time"`
	Type   string            `json:"type"`   // container, pod, image, volume, …
	Action string            `json:"action"` // create, start, died, …
	Name   string            `json:"name"`
	Labels map[string]string `json:"labels,omitempty"`
}

// Events tells what Podman does to what carries all the labels, from since on. It
// ends with ctx, which is no error, or, unless follow, when all is told.
func (p *Podman) Events(ctx context.Context, labels map[string]string, since time.Time, follow bool, tell func(Happening)) error {
	own, cut, err := p.ownConnection(ctx)
	if err != nil {
		return err
	}
	defer cut()
	defer context.AfterFunc(ctx, cut)()
	options := new(system.EventsOptions).WithStream(follow).WithFilters(labelFilter(labels))
	if !since.IsZero() {
		options = options.WithSince(since.Format(time.RFC3339Nano))
	}
	events := make(chan types.Event)
	if err := system.Events(own, events, nil, options); err != nil {
		return fail("hear of events", err)
	}
	for e := range events { // closed at the end
		if attributes := e.Actor.Attributes; carries(attributes, labels) {
			tell(Happening{
				Time: time.Unix(0, e.TimeNano), Type: string(e.Type), Action: string(e.Action), Name: attributes["name"], Labels: attributes,
			})
		}
	}
	return nil
}

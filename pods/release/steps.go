package release

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"bareboat/pods"
	"bareboat/pods/proxy"
)

// step does one step, and notes how to take it back before it can fail half done.
func (r *run) step(ctx context.Context, s Step) error {
	switch s.Action {
	case MakeVolume:
		return r.runtime.EnsureVolume(ctx, s.Name, s.labels)
	case MakeNetwork:
		r.push(s, func(ctx context.Context) error { return r.runtime.RemoveNetwork(ctx, s.Name) })
		return r.runtime.EnsureNetwork(ctx, s.Name, s.labels, s.internal)
	case MakeSecret:
		r.push(s, func(ctx context.Context) error { return r.runtime.RemoveSecret(ctx, s.Name) })
		return r.runtime.EnsureSecret(ctx, s.Name, s.data, s.labels)
	case Pull:
		_, err := r.runtime.Pull(ctx, s.Name, s.insecure, r.Progress)
		return err
	case Stop, Retire:
		r.push(s, func(ctx context.Context) error { return r.runtime.StartPod(ctx, s.Name) })
		return r.runtime.StopPod(ctx, s.Name, 0)
	case Start:
		return r.start(ctx, s)
	case Ready:
		return r.ready(ctx, s)
	case Preview:
		return r.router.Preview(ctx, s.config, s.upstream, s.host, *s.check)
	case Hook:
		if r.BeforeSwitch == nil {
			return nil
		}
		return r.BeforeSwitch(ctx)
	case Tell:
		return r.tell(s)
	case Switch:
		return r.switchTo(ctx, s)
	case Quit:
		return r.quit(ctx, s)
	case Watch:
		return r.watch(ctx, s.watched)
	case Pause:
		return pause(ctx, s.wait)
	case Note:
		return r.note(s)
	case Dismiss:
		return r.drain(ctx, s)
	case Settle:
		return r.router.Settled(ctx, s.edge, s.wait)
	case Remove:
		return r.remove(ctx, s.Name)
	case RemoveNetwork:
		return r.runtime.RemoveNetwork(ctx, s.Name)
	case RemoveVolume:
		return r.runtime.RemoveVolume(ctx, s.Name)
	case RemoveSecret:
		return r.runtime.RemoveSecret(ctx, s.Name)
	case Forget:
		return r.router.Clear()
	}
	return fmt.Errorf("no such step: %d", s.Action)
}

// start makes the pod, or takes the one that was kept, which stays if all is
// taken back.
func (r *run) start(ctx context.Context, s Step) error {
	if s.kept {
		r.push(s, func(ctx context.Context) error { return r.runtime.StopPod(ctx, s.Name, 0) })
		return r.runtime.StartPod(ctx, s.Name)
	}
	_, err := r.runtime.CreatePod(ctx, s.spec)
	var taken *pods.ConflictError
	if errors.As(err, &taken) {
		return err // the name is somebody else's pod, which stays
	}
	r.push(s, func(ctx context.Context) error {
		if !r.switched {
			return r.runtime.RemovePod(ctx, s.Name)
		}
		return r.remove(ctx, s.Name) // it may have got clients
	})
	if err != nil {
		return err
	}
	return r.runtime.StartPod(ctx, s.Name)
}

// remove gives the pod its grace. One that cannot be stopped is removed all the
// same, but not because nobody waits for it any more.
func (r *run) remove(ctx context.Context, name string) error {
	stopErr := r.runtime.StopPod(ctx, name, 0)
	if err := ctx.Err(); err != nil {
		return cmp.Or(stopErr, err)
	}
	if err := r.runtime.RemovePod(ctx, name); err != nil {
		return errors.Join(stopErr, err)
	}
	return nil
}

// ready waits for every container of a pod.
func (r *run) ready(ctx context.Context, s Step) error {
	if s.adopted {
		r.push(s, func(ctx context.Context) error { return r.runtime.RemovePod(ctx, s.Name) })
	}
	for _, c := range s.spec.Containers {
		if s.job {
			if err := r.runtime.WaitCompleted(ctx, c.Name); err != nil {
				return err
			}
			continue
		}
		var health pods.Health
		if c.Health != nil {
			health = *c.Health
		}
		if err := r.runtime.WaitHealthy(ctx, c.Name, health); err != nil {
			return err
		}
	}
	return nil
}

// tell writes for the edge. Taken back, an edge that runs has to have read what
// it is told again before the new pods go, which it may still pass requests to.
func (r *run) tell(s Step) error {
	before, err := r.router.Current()
	if err != nil {
		return err
	}
	config, err := r.withoutSkipped(s)
	if err != nil {
		return err
	}
	r.push(s, func(ctx context.Context) error {
		if before == nil {
			return r.router.Clear()
		}
		if err := r.router.Write(*before); err != nil || s.edge == "" {
			return err
		}
		if err := r.router.Reload(ctx, s.edge); err != nil {
			return err
		}
		return r.router.WaitRelease(ctx, *before)
	})
	return r.router.Write(config)
}

// withoutSkipped has the edge go on with the old pods where the new ones failed.
func (r *run) withoutSkipped(s Step) (proxy.Config, error) {
	config := s.config
	config.Upstreams = slices.Clone(config.Upstreams)
	for i := range config.Upstreams {
		u := &config.Upstreams[i]
		u.Addresses = slices.Clone(u.Addresses)
		for _, at := range s.places {
			if !r.skipped[at.slot] || at.service != u.Service {
				continue
			}
			n := slices.Index(u.Addresses, at.now)
			switch {
			case n < 0:
			case at.before != "":
				u.Addresses[n] = at.before
			default:
				u.Addresses = slices.Delete(u.Addresses, n, n+1)
			}
		}
		if len(u.Addresses) == 0 {
			return proxy.Config{}, fmt.Errorf("no pod of service %s is well", u.Service)
		}
	}
	return config, nil
}

func (r *run) switchTo(ctx context.Context, s Step) error {
	config, err := r.withoutSkipped(s)
	if err != nil {
		return err
	}
	if !s.fresh {
		if err := r.router.Test(ctx, s.edge); err != nil {
			return err
		}
	}
	r.switched = true
	if !s.fresh {
		if err := r.router.Reload(ctx, s.edge); err != nil {
			return err
		}
	}
	return r.router.WaitRelease(ctx, config)
}

// quit closes the doors of the old edge. Taken back it is started again, while
// the new one still takes connections.
func (r *run) quit(ctx context.Context, s Step) error {
	r.push(s, func(ctx context.Context) error {
		return errors.Join(r.runtime.StopPod(ctx, s.Name, 0), r.runtime.StartPod(ctx, s.Name))
	})
	return r.router.Quit(ctx, s.container, s.config)
}

// watch sees that all stay well.
func (r *run) watch(ctx context.Context, list []watched) error {
	var there []pods.Watched
	for _, w := range list {
		if !r.skipped[w.slot] {
			there = append(there, w.Watched)
		}
	}
	return r.runtime.StayHealthy(ctx, there)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// note records the release as it came to be.
func (r *run) note(s Step) error {
	list := slices.Clone(s.records.List)
	for i := range list {
		rec := &list[i]
		if rec.Release != s.records.Serving {
			continue
		}
		if rec.Time.IsZero() {
			rec.Time = time.Now().UTC().Truncate(time.Second)
		}
		rec.Pods = r.came(rec.Pods, s.instead)
	}
	return r.router.Record(Records{Serving: s.records.Serving, List: list})
}

// came names the pods that are there: the old one where the new one failed.
func (r *run) came(planned map[string][]string, list []instead) map[string][]string {
	out := map[string][]string{}
	for service, names := range planned {
		out[service] = slices.Clone(names)
	}
	for _, is := range list {
		if n := slices.Index(out[is.service], is.now); n >= 0 && r.skipped[is.slot] {
			out[is.service][n] = is.before
		}
	}
	return out
}

// drain tells a program to send its clients elsewhere.
func (r *run) drain(ctx context.Context, s Step) error {
	if s.drain.Signal != "" {
		return r.runtime.Signal(ctx, s.container, s.drain.Signal)
	}
	told, err := r.router.Current()
	if err != nil || told == nil {
		return err
	}
	return r.router.Request(ctx, *told, s.upstream, s.drain.Method, s.drain.Path)
}

// Package downtime finds out whether people notice what is done to a service.
//
// It puts a load on the service while something is done to it, and counts what
// went wrong. The load is open: each request has an intended time, and its
// latency counts from there, so that a service that stalls does not get fewer
// requests for it. A model is how a client behaves: strict, browser or fresh, see
// [Model]. A line of the report is what one kind of client met. Silence is the
// time between two things that a connected client hears.
//
// No line is right because it is zero: with none failed of n the share that fails
// is, at 95 % confidence, below 3/n (the rule of three,
// https://doi.org/10.1001/jama.1983.03330370053031), which the report says.
package downtime

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"net/url"
	"sync"
	"time"
)

// Options say what load there is. A part whose path is empty is left out.
type Options struct {
	URL     *url.URL      // http[s]://HOST[:PORT], of the site
	TLS     *tls.Config   // for https; nil trusts whom the system trusts
	Rate    float64       // requests a second, over all models
	Paths   []string      // that are asked for in turn; at least one
	Slow    string        // a path that takes its time to answer
	Upload  string        // a path that takes a body, which is sent slowly
	Post    string        // a path that counts requests once each by their header Idempotency-Key
	Posted  string        // a path that tells which keys it counted, one a line
	Echo    string        // a WebSocket that sends back what it gets
	Chat    string        // a WebSocket that speaks chat.v1
	Echoes  int           // clients of Echo
	Clients int           // of the chat
	Rooms   int           // over which these are spread
	Talk    float64       // messages a second, over all of the chat's clients
	Source  string        // address that clients come from; empty leaves it to the system
	Lead    time.Duration // how long there is load before anything is done, and after it; zero is DefaultLead
}

// DefaultLead is long enough that what goes wrong late counts, too.
const DefaultLead = 3 * time.Second

// Run puts the load on the service, calls during, and reports what its clients
// met. The error is that of during, or of a load that could not begin; what the
// clients met is never one.
func Run(ctx context.Context, o Options, during func(context.Context) error) (Report, error) {
	loading, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	dial := dialer(o)
	var parts []part
	for _, model := range []Model{Strict, Browser, Fresh} {
		parts = append(parts, newRequests(o, model, dial))
	}
	if o.Slow != "" {
		parts = append(parts, newSlow(o, dial))
	}
	if o.Upload != "" {
		parts = append(parts, newUploads(o, dial))
	}
	if o.Post != "" {
		parts = append(parts, newPosts(o, dial))
	}
	if o.Echo != "" {
		parts = append(parts, newEchoes(o, dial))
	}
	if o.Chat != "" {
		parts = append(parts, newTalk(o, dial))
	}
	lead := cmp.Or(o.Lead, DefaultLead)
	began := time.Now()
	for _, p := range parts {
		if err := p.begin(loading); err != nil {
			return Report{}, err
		}
	}
	err := pause(ctx, lead)
	if err == nil {
		err = during(ctx)
	}
	err = errors.Join(err, pause(ctx, lead))
	for _, p := range parts {
		p.quiet()
	}
	stop()
	report := Report{Seconds: time.Since(began).Seconds()}
	for _, p := range parts {
		report.Lines = append(report.Lines, p.line())
	}
	return report, err
}

// part is one kind of load.
type part interface {
	begin(ctx context.Context) error // returns when its clients are there
	quiet()                          // sends no more, and waits for what is under way
	line() Line                      // what its clients met
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// every calls do at its intended times, each call in a goroutine of its own,
// until ctx ends; it is never late because a call takes long. It returns when all
// calls have.
func every(ctx context.Context, interval time.Duration, do func(n int, intended time.Time)) {
	var calls sync.WaitGroup
	defer calls.Wait()
	began := time.Now()
	for n := 0; ; n++ {
		intended := began.Add(time.Duration(n) * interval)
		if pause(ctx, time.Until(intended)) != nil {
			return
		}
		calls.Go(func() { do(n, intended) })
	}
}

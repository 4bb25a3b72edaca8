package pods_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"bareboat/pods"
)

// lockedBuffer is written by one goroutine and read by another.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func TestLogs(t *testing.T) {
	t.Parallel()
	p := use(t)
	spec := p.spec("lines", "3")
	p.start(t, spec)
	name := spec.Containers[0].Name
	until(t, "its lines", func() bool { return strings.Contains(p.log(t, name), "written") })

	var out, errs strings.Builder
	read := func(o pods.LogOptions) {
		t.Helper()
		out.Reset()
		errs.Reset()
		if err := p.Logs(t.Context(), name, o, &out, &errs); err != nil {
			t.Fatal(err)
		}
	}
	read(pods.LogOptions{})
	if out.String() != "out 0\nout 1\nout 2\nwritten\n" || errs.String() != "err 0\nerr 1\nerr 2\n" {
		t.Errorf("all: %q and %q", out.String(), errs.String())
	}
	// Which of the two streams comes last in the log is up to Podman.
	read(pods.LogOptions{Tail: 1})
	last := out.String() + errs.String()
	if last != "written\n" && last != "err 2\n" {
		t.Errorf("tail: %q and %q", out.String(), errs.String())
	}
	read(pods.LogOptions{Tail: 1, Timestamps: true})
	stamp, rest, _ := strings.Cut(out.String()+errs.String(), " ")
	at, err := time.Parse(time.RFC3339Nano, stamp)
	if err != nil || time.Since(at) > time.Hour || rest != last {
		t.Errorf("timestamps: %q and %q, %v", out.String(), errs.String(), err)
	}
	before := time.Now()
	if err := p.Signal(t.Context(), name, "HUP"); err != nil {
		t.Fatal(err)
	}
	until(t, "a new line", func() bool { return strings.Contains(p.log(t, name), "hangup") })
	read(pods.LogOptions{Since: before})
	if out.String() != "hangup\n" || errs.String() != "" {
		t.Errorf("since: %q and %q", out.String(), errs.String())
	}
}

func TestLogsFollowUntilTheEnd(t *testing.T) {
	t.Parallel()
	p := use(t)
	spec := p.spec("lines", "1")
	p.start(t, spec)
	name := spec.Containers[0].Name
	var out lockedBuffer
	done := make(chan error, 1)
	go func() { done <- p.Logs(t.Context(), name, pods.LogOptions{Follow: true}, &out, io.Discard) }()
	until(t, "its lines", func() bool { return strings.Contains(out.String(), "written\n") })
	if err := p.Signal(t.Context(), name, "HUP"); err != nil {
		t.Fatal(err)
	}
	until(t, "a line that came later", func() bool { return strings.Contains(out.String(), "hangup\n") })
	if err := p.Signal(t.Context(), name, "TERM"); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Error("it goes on after the container's end")
	}
}

func TestLogsEndWithTheContextOrTheWriter(t *testing.T) {
	t.Parallel()
	p := use(t)
	spec := p.spec("lines", "1")
	p.start(t, spec)
	name := spec.Containers[0].Name
	ctx, cancel := context.WithCancel(t.Context())
	var out lockedBuffer
	done := make(chan error, 1)
	go func() { done <- p.Logs(ctx, name, pods.LogOptions{Follow: true}, &out, io.Discard) }()
	until(t, "its lines", func() bool { return out.String() != "" })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	r, w := io.Pipe()
	r.Close()
	if err := p.Logs(t.Context(), name, pods.LogOptions{Follow: true}, w, w); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("nobody reads: %v", err)
	}
	if err := p.Logs(t.Context(), name+"-none", pods.LogOptions{}, w, w); !errors.Is(err, pods.ErrNotFound) {
		t.Errorf("no such container: %v", err)
	}
}

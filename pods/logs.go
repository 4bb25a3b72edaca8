package pods

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/containers/podman/v5/pkg/bindings/containers"
)

// LogOptions says which part of a log is wanted.
type LogOptions struct {
	Follow     bool      // go on until the container ends
	Since      time.Time // zero is from the start
	Tail       int       // last lines; zero is all
	Timestamps bool      // before each line
}

// Logs writes what the container wrote. When following it returns when the
// container has ended, or with the context's error.
func (p *Podman) Logs(ctx context.Context, container string, opts LogOptions, stdout, stderr io.Writer) error {
	asked, cancel := context.WithCancel(ctx)
	defer cancel()
	out, errs := make(chan string), make(chan string)
	done := make(chan error, 1)
	go func() { done <- containers.Logs(p.call(asked), container, opts.bindings(), out, errs) }()
	var writeErr error
	write := func(w io.Writer, line string) {
		if writeErr != nil {
			return
		}
		if _, writeErr = io.WriteString(w, line); writeErr != nil {
			cancel() // and go on taking lines until the bindings notice
		}
	}
	for {
		select {
		case line := <-out:
			write(stdout, line)
		case line := <-errs:
			write(stderr, line)
		case err := <-done:
			switch {
			case writeErr != nil:
				return fmt.Errorf("write log of container %s: %w", container, writeErr)
			case ctx.Err() != nil:
				return fmt.Errorf("read log of container %s: %w", container, ctx.Err())
			}
			return fail("read log of container "+container, err)
		}
	}
}

func (o LogOptions) bindings() *containers.LogOptions {
	b := new(containers.LogOptions).WithStdout(true).WithStderr(true).
		WithFollow(o.Follow).WithTimestamps(o.Timestamps)
	if o.Tail > 0 {
		b = b.WithTail(strconv.Itoa(o.Tail))
	}
	if !o.Since.IsZero() {
		b = b.WithSince(o.Since.Format(time.RFC3339Nano))
	}
	return b
}

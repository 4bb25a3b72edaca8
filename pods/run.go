package pods

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/containers/podman/v5/libpod/define"
	"github.com/containers/podman/v5/pkg/bindings/containers"
)

// RunOptions says where the streams of a one-off pod go.
type RunOptions struct {
	Stdin  io.Reader // nil is empty
	Stdout io.Writer
	Stderr io.Writer
	Keep   bool // the pod stays when it has ended
}

// Run makes a pod, attaches to its first container, starts it, and gives the exit
// code when that ends. The pod is removed then, also when ctx ends before.
func (p *Podman) Run(ctx context.Context, spec Spec, o RunOptions) (code int, err error) {
	pod, err := p.CreatePod(ctx, spec)
	if err != nil {
		return -1, err
	}
	if !o.Keep {
		defer func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTimeout)
			defer cancel()
			err = errors.Join(err, p.RemovePod(ctx, pod.Name))
		}()
	}
	own, cut, err := p.ownConnection(ctx)
	if err != nil {
		return -1, err
	}
	defer cut()
	defer context.AfterFunc(ctx, cut)()
	container := pod.Containers[0].ID
	ready := make(chan bool)
	attached := make(chan error, 1)
	go func() { attached <- attach(own, container, o, ready) }()
	select {
	case <-ready:
	case err := <-attached:
		return -1, fail("attach to container "+pod.Containers[0].Name, err)
	}
	if err := p.StartPod(ctx, pod.Name); err != nil {
		return -1, err
	}
	// The end of the container ends the streams; where they hang, its state tells.
	attachErr := <-attached
	if ctx.Err() != nil {
		return -1, ctx.Err()
	}
	code, err = p.waitExit(ctx, container)
	if err == nil {
		err = attachErr
	}
	return code, err
}

func attach(ctx context.Context, container string, o RunOptions, ready chan bool) error {
	var stdin io.Reader
	if o.Stdin != nil {
		stdin = o.Stdin
		if _, terminal := o.Stdin.(interface{ Fd() uintptr }); !terminal {
			stdin = bufio.NewReader(o.Stdin)
		}
	}
	options := new(containers.AttachOptions).WithStream(true)
	return containers.Attach(ctx, container, stdin, o.Stdout, o.Stderr, ready, options)
}

// waitExit waits until the container has ended, and gives its exit code.
func (p *Podman) waitExit(ctx context.Context, container string) (int, error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := p.Container(ctx, container)
		if err != nil {
			return -1, err
		}
		if c.State == StateExited || c.State == StateStopped || c.State == define.ContainerStateRemoving.String() {
			return c.ExitCode, nil
		}
		select {
		case <-ctx.Done():
			return -1, fmt.Errorf("wait for container %s: %w", c.Name, ctx.Err())
		case <-tick.C:
		}
	}
}

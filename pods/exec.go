package pods

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/containers/podman/v5/pkg/api/handlers"
	"github.com/containers/podman/v5/pkg/bindings/containers"
	dockercontainer "github.com/docker/docker/api/types/container"
)

// ExecOptions says what to run in a container and where its streams go.
type ExecOptions struct {
	Cmd     []string
	Env     map[string]string
	User    string
	WorkDir string
	// TTY gives the program a terminal. Where this process's own standard input
	// is one, it is set to raw mode meanwhile and its size is passed on.
	TTY    bool
	Stdin  io.Reader // nil is empty; it may be read beyond what the program takes
	Stdout io.Writer // nil is nowhere
	Stderr io.Writer // nil is nowhere; with a TTY all goes to Stdout
}

// Exec runs a program in a running container and gives its exit code. The error
// is about running it, not about what it did.
func (p *Podman) Exec(ctx context.Context, container string, opts ExecOptions) (int, error) {
	code, err := p.exec(ctx, container, opts)
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return -1, fail("run in container "+container, err)
	}
	return code, nil
}

func (p *Podman) exec(ctx context.Context, container string, opts ExecOptions) (int, error) {
	own, cut, err := p.ownConnection(ctx)
	if err != nil {
		return -1, err
	}
	defer cut()
	defer context.AfterFunc(ctx, cut)()
	id, err := containers.ExecCreate(own, container, opts.config())
	if err != nil {
		return -1, err
	}
	if err := containers.ExecStartAndAttach(own, id, opts.streams()); err != nil {
		return -1, err
	}
	return p.exitCode(ctx, id)
}

// exitCode waits for Podman to note the end: the streams may close before.
func (p *Podman) exitCode(ctx context.Context, session string) (int, error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		s, err := containers.ExecInspect(p.call(ctx), session, nil)
		if err != nil {
			return -1, err
		}
		if !s.Running {
			return s.ExitCode, nil
		}
		select {
		case <-ctx.Done():
			return -1, ctx.Err()
		case <-tick.C:
		}
	}
}

func (o ExecOptions) config() *handlers.ExecCreateConfig {
	var env []string
	for k, v := range o.Env {
		env = append(env, k+"="+v)
	}
	slices.Sort(env)
	return &handlers.ExecCreateConfig{ExecOptions: dockercontainer.ExecOptions{
		Cmd: o.Cmd, Env: env, User: o.User, WorkingDir: o.WorkDir, Tty: o.TTY,
		AttachStdin: o.Stdin != nil, AttachStdout: true, AttachStderr: true,
	}}
}

func (o ExecOptions) streams() *containers.ExecStartAndAttachOptions {
	out, errs := o.Stdout, o.Stderr
	if out == nil {
		out = io.Discard
	}
	if errs == nil {
		errs = io.Discard
	}
	s := new(containers.ExecStartAndAttachOptions).
		WithOutputStream(out).WithAttachOutput(true).
		WithErrorStream(errs).WithAttachError(true)
	if o.Stdin != nil {
		s = s.WithInputStream(*bufio.NewReader(o.Stdin)).WithAttachInput(true)
	}
	return s
}

// recordDials makes the transport remember its connections, so that they can be
// cut even where they are no longer its own.
func recordDials(t *http.Transport) func() {
	var (
		mu    sync.Mutex
		conns []net.Conn
		over  bool
	)
	dial := t.DialContext
	t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		mu.Lock()
		defer mu.Unlock()
		if over {
			c.Close()
			return nil, fmt.Errorf("dial %s: %w", address, net.ErrClosed)
		}
		conns = append(conns, c)
		return c, nil
	}
	return func() {
		mu.Lock()
		defer mu.Unlock()
		over = true
		for _, c := range conns {
			c.Close()
		}
	}
}

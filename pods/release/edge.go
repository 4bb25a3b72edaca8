package release

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"bareboat/pods"
	"bareboat/pods/proxy"
)

const (
	// nginx is the program in the edge's container.
	nginx = "/usr/sbin/nginx"
	// edgeTarget is where nginx looks for what a release tells it.
	edgeTarget = "/etc/nginx/bareboat"
	// answersInARow have to come from the new release, since old workers of
	// nginx go on taking connections for a moment.
	answersInARow = 10
	// switchTimeout is for nginx to read its configuration.
	switchTimeout = 30 * time.Second
	// settleAgain is how often the edge's old workers are looked for.
	settleAgain = 100 * time.Millisecond
	// tokenBytes is more than anybody guesses.
	tokenBytes = 16
)

// EdgeMount brings what a release tells the edge into its container, from the
// project's state folder.
func EdgeMount(dir string) pods.Mount {
	return pods.Mount{Kind: pods.MountBind, Source: filepath.Join(dir, "edge"), Target: edgeTarget, ReadOnly: true}
}

// commander reaches into a container.
type commander interface {
	Exec(ctx context.Context, container string, opts pods.ExecOptions) (int, error)
	Signal(ctx context.Context, container, signal string) error
	// Processes gives the command lines, or titles, of all that runs there.
	Processes(ctx context.Context, container string) ([]string, error)
}

// Nginx is an edge that runs nginx in a container of its own.
type Nginx struct {
	*proxy.Nginx
	dir string
	in  commander
}

// NewNginx is the edge of the project whose state is in dir.
func NewNginx(dir string, in commander) *Nginx {
	told := EdgeMount(dir).Source
	return &Nginx{Nginx: proxy.New(told), dir: told, in: in}
}

// Write tells the edge; it does not read that yet. The folder is open to all,
// whatever the umask: nginx has an account of its own inside the container, and
// nobody else gets past the folder above.
func (n *Nginx) Write(c proxy.Config) error {
	if err := errors.Join(os.MkdirAll(n.dir, 0o755), os.Chmod(n.dir, 0o755)); err != nil {
		return fmt.Errorf("make the edge's folder: %w", err)
	}
	if c.Token == "" {
		token := make([]byte, tokenBytes)
		if _, err := rand.Read(token); err != nil {
			return fmt.Errorf("make the edge's token: %w", err)
		}
		c.Token = hex.EncodeToString(token)
	}
	return n.Nginx.Write(c)
}

// Test has the nginx in the container read its configuration without using it.
func (n *Nginx) Test(ctx context.Context, container string) error {
	var said bytes.Buffer
	code, err := n.in.Exec(ctx, container, pods.ExecOptions{Cmd: []string{nginx, "-t", "-q"}, Stdout: &said, Stderr: &said})
	if err != nil {
		return fmt.Errorf("test the edge's configuration: %w", err)
	}
	if code != 0 {
		return fmt.Errorf("test the edge's configuration: %s", strings.Join(strings.Fields(said.String()), " "))
	}
	return nil
}

// Reload has nginx read its configuration, some time later.
func (n *Nginx) Reload(ctx context.Context, container string) error {
	return n.in.Signal(ctx, container, "SIGHUP")
}

// WaitRelease returns when fresh connections are answered by this release.
func (n *Nginx) WaitRelease(ctx context.Context, c proxy.Config) error {
	ctx, cancel := context.WithTimeout(ctx, switchTimeout)
	defer cancel()
	told, err := n.tokened(c)
	if err != nil {
		return err
	}
	return proxy.WaitRelease(ctx, told, answersInARow)
}

// Loaded tells whether the edge has read what it was told.
func (n *Nginx) Loaded(ctx context.Context, told proxy.Config) bool { return proxy.Loaded(ctx, told) }

// tokened is the configuration with the token under which it was written.
func (n *Nginx) tokened(c proxy.Config) (proxy.Config, error) {
	if c.Token != "" {
		return c, nil
	}
	told, err := n.Current()
	if err == nil && told != nil {
		c.Token = told.Token
	}
	return c, err
}

// Preview asks an upstream through an edge that was told c. One that an older
// release told no token cannot be asked, and is not.
func (n *Nginx) Preview(ctx context.Context, c proxy.Config, upstream, host string, check Check) error {
	told, err := n.tokened(c)
	if err != nil || told.Token == "" {
		return err
	}
	return proxy.Preview(ctx, told, upstream, proxy.Check{
		Path: check.Path, Host: host, WebSocket: check.WebSocket, Protocol: check.Protocol, Strict: check.Strict,
	})
}

// Request has an upstream asked through an edge that was told c.
func (n *Nginx) Request(ctx context.Context, c proxy.Config, upstream, method, path string) error {
	told, err := n.tokened(c)
	if err != nil {
		return err
	}
	return proxy.Request(ctx, told, upstream, method, path)
}

// Quit has the old edge take no more connections, once the new one takes some: both
// have the same sockets. The old one waits then to be stopped.
func (n *Nginx) Quit(ctx context.Context, container string, now proxy.Config) error {
	ctx, cancel := context.WithTimeout(ctx, switchTimeout)
	defer cancel()
	told, err := n.tokened(now)
	if err != nil {
		return err
	}
	if err := proxy.WaitRelease(ctx, told, 1); err != nil {
		return err
	}
	return n.in.Signal(ctx, container, "SIGUSR2")
}

// leaving is what nginx says of a worker that only ends what it has begun.
const leaving = "is shutting down"

// Settled returns when no worker of the edge is left from before its last
// reload, or after limit: each goes with its last connection.
func (n *Nginx) Settled(ctx context.Context, container string, limit time.Duration) error {
	end := time.After(limit)
	for {
		titles, err := n.in.Processes(ctx, container)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(titles, func(title string) bool { return strings.Contains(title, leaving) }) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-end:
			return nil
		case <-time.After(settleAgain):
		}
	}
}

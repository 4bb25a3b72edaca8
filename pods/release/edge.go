package release

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
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
	return proxy.WaitRelease(ctx, c.Listen.Local(), c.Release, answersInARow)
}

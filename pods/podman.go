package pods

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"

	"github.com/containers/podman/v5/pkg/bindings"
	"github.com/containers/podman/v5/pkg/bindings/system"
)

// Podman is a connection to a Podman service. It is safe for use by several
// goroutines at once.
type Podman struct {
	// Warn is told, in one line, what Podman cannot do here and goes on
	// without. It may be nil. Set it before the first call.
	Warn func(string)

	uri     string
	conn    context.Context // carries the bindings' connection, nothing else
	service *service        // nil where the service is somebody else's
}

// Connect reaches the Podman service at host, a unix:// or ssh:// address. An
// empty host is CONTAINER_HOST, else the user's own socket if a service listens
// there, else a service that Connect starts and that ends with Close, or with
// this process, however it ends. Where podman is not installed the error is a
// [HintError] around [ErrNoPodman].
func Connect(ctx context.Context, host string) (*Podman, error) {
	if host == "" {
		host = os.Getenv("CONTAINER_HOST")
	}
	if host != "" {
		return dial(ctx, host)
	}
	if socket := userSocket(); listening(ctx, socket) {
		return dial(ctx, "unix://"+socket)
	}
	s, err := startService(ctx)
	if err != nil {
		return nil, err
	}
	p, err := dial(ctx, "unix://"+s.socket)
	if err != nil {
		return nil, errors.Join(err, s.stop())
	}
	p.service = s
	return p, nil
}

func dial(ctx context.Context, uri string) (*Podman, error) {
	conn, err := bindings.NewConnection(ctx, uri)
	if err != nil {
		return nil, &HintError{
			Err:  fmt.Errorf("connect to podman at %s: %w", uri, err),
			Hint: "is a Podman service running there? podman system service " + uri,
		}
	}
	return &Podman{uri: uri, conn: context.WithoutCancel(conn)}, nil
}

// userSocket is where the user's own podman.socket listens.
func userSocket() string {
	return filepath.Join(runtimeDir(), "podman", "podman.sock")
}

func runtimeDir() string {
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		return dir
	}
	return filepath.Join("/run/user", strconv.Itoa(os.Getuid()))
}

func listening(ctx context.Context, socket string) bool {
	c, err := new(net.Dialer).DialContext(ctx, "unix", socket)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// Close ends the connection, and the service if Connect started it.
func (p *Podman) Close() error {
	if client, err := bindings.GetClient(p.conn); err == nil {
		client.Client.CloseIdleConnections()
	}
	if p.service == nil {
		return nil
	}
	return p.service.stop()
}

// Host is the address of the service.
func (p *Podman) Host() string { return p.uri }

// Version is the version of the Podman that serves, such as "4.3.1".
func (p *Podman) Version(ctx context.Context) (string, error) {
	report, err := system.Version(p.call(ctx), nil)
	if err != nil {
		return "", fail("ask podman for its version", err)
	}
	return report.Server.Version, nil
}

// Info tells what kind of Podman this is.
type Info struct {
	Version           string
	APIVersion        string
	Rootless          bool
	NetworkBackend    string   // netavark or cni
	CgroupVersion     string   // v1 or v2
	CgroupManager     string   // systemd or cgroupfs
	CgroupControllers []string // those that this user may set limits with
	StorageDriver     string
	GraphRoot         string
	RunRoot           string
	OCIRuntime        string
	OS, Arch          string
}

// Info asks the service what it is and what it can do.
func (p *Podman) Info(ctx context.Context) (Info, error) {
	r, err := system.Info(p.call(ctx), nil)
	if err != nil {
		return Info{}, fail("ask podman what it is", err)
	}
	info := Info{Version: r.Version.Version, APIVersion: r.Version.APIVersion}
	if h := r.Host; h != nil {
		info.Rootless = h.Security.Rootless
		info.NetworkBackend = h.NetworkBackend
		info.CgroupVersion = h.CgroupsVersion
		info.CgroupManager = h.CgroupManager
		info.CgroupControllers = h.CgroupControllers
		info.OS, info.Arch = h.OS, h.Arch
		if h.OCIRuntime != nil {
			info.OCIRuntime = h.OCIRuntime.Name
		}
	}
	if s := r.Store; s != nil {
		info.StorageDriver, info.GraphRoot, info.RunRoot = s.GraphDriverName, s.GraphRoot, s.RunRoot
	}
	return info, nil
}

func (p *Podman) warn(format string, args ...any) {
	if p.Warn != nil {
		p.Warn(fmt.Sprintf(format, args...))
	}
}

// call gives the bindings the connection that they look for in a context, with
// the caller's deadline and cancellation.
func (p *Podman) call(ctx context.Context) context.Context {
	return callContext{Context: ctx, conn: p.conn}
}

type callContext struct {
	context.Context
	conn context.Context
}

func (c callContext) Value(key any) any {
	if v := c.Context.Value(key); v != nil {
		return v
	}
	return c.conn.Value(key)
}

// ownConnection gives a connection that is not shared, and a function that cuts
// it. The bindings replace the transport of a connection that they upgrade, and
// an upgraded one does not heed its context.
func (p *Podman) ownConnection(ctx context.Context) (context.Context, func(), error) {
	conn, err := bindings.NewConnection(ctx, p.uri)
	if err != nil {
		return nil, nil, fmt.Errorf("connect to podman at %s: %w", p.uri, err)
	}
	client, err := bindings.GetClient(conn)
	if err != nil {
		return nil, nil, err
	}
	t, ok := client.Client.Transport.(*http.Transport)
	if !ok {
		return nil, nil, fmt.Errorf("connect to podman at %s: unknown transport", p.uri)
	}
	t.CloseIdleConnections()
	cut := recordDials(t)
	return callContext{Context: ctx, conn: context.WithoutCancel(conn)}, cut, nil
}

package release_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"syscall"
	"testing"
	"time"

	"bareboat/pods"
	"bareboat/pods/proxy"
	"bareboat/pods/release"
)

// container is an nginx that says something and ends with a code.
type container struct {
	says string
	code int
	err  error

	titles [][]string // of its processes, at each look

	ran      [][]string
	signals  []string
	reloaded chan struct{}
}

func (c *container) Exec(_ context.Context, name string, opts pods.ExecOptions) (int, error) {
	c.ran = append(c.ran, append([]string{name}, opts.Cmd...))
	if _, err := io.WriteString(opts.Stderr, c.says); err != nil {
		return -1, err
	}
	return c.code, c.err
}

func (c *container) Signal(_ context.Context, name, signal string) error {
	c.signals = append(c.signals, name+" "+signal)
	if c.reloaded != nil {
		close(c.reloaded)
	}
	return c.err
}

func (c *container) Processes(context.Context, string) ([]string, error) {
	now := c.titles[0]
	c.titles = c.titles[min(1, len(c.titles)-1):]
	return now, c.err
}

// An edge has settled when the last worker from before its reload is gone, or
// nobody waits any longer.
func TestSettled(t *testing.T) {
	const master, worker, old = "nginx: master process /usr/sbin/nginx", "nginx: worker process", "nginx: worker process is shutting down"
	in := &container{titles: [][]string{{master, old, worker}, {master, old, worker}, {master, worker}}}
	if err := release.NewNginx(t.TempDir(), in).Settled(t.Context(), "edge", time.Hour); err != nil || len(in.titles) != 1 {
		t.Errorf("Settled = %v, %d looks left", err, len(in.titles))
	}
	in = &container{titles: [][]string{{master, old}}}
	if err := release.NewNginx(t.TempDir(), in).Settled(t.Context(), "edge", time.Nanosecond); err != nil {
		t.Errorf("Settled = %v", err)
	}
}

// What is recorded is read back, but for what secrets hold, and by nobody else.
func TestRecords(t *testing.T) {
	dir := t.TempDir()
	edge := release.NewNginx(dir, &container{})
	if r, err := edge.Records(); err != nil || r.Serving != 0 || r.List != nil {
		t.Errorf("before any: %+v, %v", r, err)
	}
	d := project(nil)
	d.Secrets = []release.Secret{{Name: "shop_key_1", Data: []byte("hush")}}
	want := release.Records{Serving: 2, List: []release.Record{{Release: 2, Desired: d, Pods: map[string][]string{"chat": {"shop-chat-r2"}}}}}
	if err := edge.Record(want); err != nil {
		t.Fatal(err)
	}
	got, err := edge.Records()
	want.List[0].Desired.Secrets[0].Data = nil
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("read back %+v, %v\nwant %+v", got, err, want)
	}
	info, err := os.Stat(filepath.Join(dir, "releases.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode is %v, %v", info.Mode(), err)
	}
	if text, _ := os.ReadFile(filepath.Join(dir, "releases.json")); bytes.Contains(text, []byte("hush")) || bytes.Contains(text, []byte("aHVzaA")) {
		t.Error("the secret is written down")
	}
}

func edgeConfig(number string, port uint16) proxy.Config {
	return proxy.Config{
		Release:   number,
		Listen:    proxy.Listen{Address: "127.0.0.1", Port: port},
		Upstreams: []proxy.Upstream{{Service: "chat", Addresses: []string{"unix:/run/1.sock"}, Release: "1"}},
		Sites:     []proxy.Site{{Path: "/", Service: "chat"}},
	}
}

func TestWriteIsReadableInTheContainer(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	dir := filepath.Join(t.TempDir(), "shop")
	lock, err := release.Acquire(dir, "test")
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	edge := release.NewNginx(dir, &container{})
	if told, err := edge.Current(); told != nil || err != nil {
		t.Errorf("before it was told: %v, %v", told, err)
	}
	want := edgeConfig("1", 8080)
	if err := edge.Write(want); err != nil {
		t.Fatal(err)
	}
	told, err := edge.Current()
	if err != nil || len(told.Token) != 32 {
		t.Fatalf("token is %v, %v", told, err)
	}
	if want.Token = told.Token; !reflect.DeepEqual(*told, want) {
		t.Errorf("told %+v, %v; want %+v", told, err, want)
	}
	mount := release.EdgeMount(dir)
	if mount.Kind != pods.MountBind || !mount.ReadOnly || mount.Target != "/etc/nginx/bareboat" {
		t.Errorf("mount is %+v", mount)
	}
	files, err := filepath.Glob(filepath.Join(mount.Source, "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("files are %v, %v", files, err)
	}
	for path, want := range map[string]os.FileMode{dir: 0o700, mount.Source: 0o755, files[0]: 0o644} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode().Perm(), want)
		}
	}
}

func TestNginxTest(t *testing.T) {
	broken := errors.New("no such container")
	for _, c := range []struct {
		in   container
		want string
	}{
		{container{says: "a warning\n"}, ""},
		{container{says: "nginx: [emerg] unknown directive\nnginx: test failed\n", code: 1}, "test the edge's configuration: nginx: [emerg] unknown directive nginx: test failed"},
		{container{code: -1, err: broken}, "test the edge's configuration: no such container"},
	} {
		err := release.NewNginx(t.TempDir(), &c.in).Test(t.Context(), "edge")
		if got := errorText(err); got != c.want {
			t.Errorf("Test = %q, want %q", got, c.want)
		}
		if want := []string{"edge", "/usr/sbin/nginx", "-t", "-q"}; !reflect.DeepEqual(c.in.ran[0], want) {
			t.Errorf("ran %v, want %v", c.in.ran[0], want)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// After the reload it takes nginx a while: the old configuration answers until
// then, and its answers do not count.
func TestReloadAndWait(t *testing.T) {
	in := &container{reloaded: make(chan struct{})}
	answers := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		number := "1"
		select {
		case <-in.reloaded:
			if answers++; answers > 3 {
				number = "2"
			}
		default:
		}
		w.Header().Set("X-Release", number)
	}))
	defer server.Close()
	_, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	edge := release.NewNginx(t.TempDir(), in)
	if err := edge.Reload(t.Context(), "edge"); err != nil {
		t.Fatal(err)
	}
	if want := []string{"edge SIGHUP"}; !reflect.DeepEqual(in.signals, want) {
		t.Errorf("signals are %v, want %v", in.signals, want)
	}
	if err := edge.WaitRelease(t.Context(), edgeConfig("2", uint16(n))); err != nil {
		t.Fatal(err)
	}
	if answers != 13 {
		t.Errorf("%d answers were asked for, want 3 old ones and 10 new ones", answers)
	}
}

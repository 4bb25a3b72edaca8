package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"bareboat/pods/proxy"
)

// edge is a real nginx on this host with the whole configuration from git. Its
// temporary files lie in a folder of the test's own.
type edge struct {
	*proxy.Nginx
	nginx   string // the program
	conf    string // nginx.conf
	address string // HOST:PORT
	listen  proxy.Listen
	log     string       // file with what nginx wrote
	before  proxy.Config // that nginx was started with
	cmd     *exec.Cmd
}

func nginxBinary(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"nginx", "/usr/sbin/nginx"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatal("nginx is missing, run: scripts/test (or sudo apt-get install nginx-light)")
	return ""
}

// newEdge copies the configuration, and starts nothing.
func newEdge(t *testing.T) *edge {
	t.Helper()
	// Short: a socket's path in it has at most 107 bytes.
	dir, err := os.MkdirTemp("", "edge")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Mkdir(filepath.Join(dir, "tmp"), 0o700); err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir("nginx", func(path string, d fs.DirEntry, err error) error {
		to := filepath.Join(dir, path)
		if err != nil || d.IsDir() {
			return errors.Join(err, os.MkdirAll(to, 0o755))
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		text = bytes.ReplaceAll(text, []byte(" /tmp/"), []byte(" "+dir+"/tmp/"))
		return os.WriteFile(to, text, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "nginx/bareboat/default.conf")); err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	return &edge{
		nginx:   nginxBinary(t),
		Nginx:   proxy.New(filepath.Join(dir, "nginx/bareboat")),
		conf:    filepath.Join(dir, "nginx/nginx.conf"),
		listen:  proxy.Listen{Address: "127.0.0.1", Port: port},
		address: "127.0.0.1:" + strconv.Itoa(int(port)),
		log:     filepath.Join(dir, "log"),
	}
}

func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port)
}

// config is a release with one upstream for each service.
func (e *edge) config(release string, upstreams map[string]string, sites ...proxy.Site) proxy.Config {
	c := proxy.Config{Release: release, Listen: e.listen, Sites: sites}
	for service, address := range upstreams {
		c.Upstreams = append(c.Upstreams, proxy.Upstream{Service: service, Addresses: []string{address}, Release: release})
	}
	return c
}

// start writes the configuration, starts nginx and waits until it answers.
func (e *edge) start(t *testing.T, c proxy.Config) {
	t.Helper()
	if err := e.Write(c); err != nil {
		t.Fatal(err)
	}
	e.before = c
	log, err := os.Create(e.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	e.cmd = exec.Command(e.nginx, "-c", e.conf)
	e.cmd.Stdout, e.cmd.Stderr = log, log
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := e.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		e.cmd.Process.Signal(syscall.SIGTERM)
		if err := e.cmd.Wait(); err != nil {
			t.Errorf("nginx: %v\n%s", err, e.read(t))
		}
		if t.Failed() {
			t.Logf("nginx wrote:\n%s", e.read(t))
		}
	})
	e.wait(t, c.Release)
}

func (e *edge) wait(t *testing.T, release string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := proxy.WaitRelease(ctx, e.named(t, release), 10); err != nil {
		t.Fatalf("%v\n%s", err, e.read(t))
	}
}

// named is the configuration that was written under that release, however often
// another was since.
func (e *edge) named(t *testing.T, release string) proxy.Config {
	t.Helper()
	c, err := e.Current()
	if err != nil {
		t.Fatal(err)
	}
	if c.Release != release {
		c = &e.before
	}
	return *c
}

func (e *edge) read(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(e.log)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func (e *edge) reload(t *testing.T) {
	t.Helper()
	if err := e.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
}

// test is nginx -t, of which a warning is a failure here.
func (e *edge) test(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, e.nginx, "-t", "-q", "-c", e.conf).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	if len(out) > 0 {
		return fmt.Errorf("nginx -t warns: %s", out)
	}
	return nil
}

func TestNginxTakesTheImagesConfiguration(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	text, err := os.ReadFile("nginx/bareboat/default.conf")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(e.conf), "bareboat/default.conf"), text, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := e.test(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestNginxTakesWhatIsRendered(t *testing.T) {
	t.Parallel()
	cases, err := filepath.Glob("testdata/render/[^e]*.txt")
	if err != nil || len(cases) < 3 {
		t.Fatalf("cases: %v, %v", cases, err)
	}
	for _, file := range cases {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, rendered, _ := strings.Cut(string(text), separator)
		e := newEdge(t)
		if err := os.WriteFile(filepath.Join(filepath.Dir(e.conf), "bareboat/sites.conf"), []byte(rendered), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := e.test(t.Context()); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestWriteCurrentClear(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made", "by", "write")
	n := proxy.New(dir)
	if c, err := n.Current(); c != nil || err != nil {
		t.Errorf("before: %+v, %v", c, err)
	}
	for _, release := range []string{"1", "2"} {
		if err := n.Write(proxy.Config{Release: release, Listen: proxy.Listen{Port: 8080}}); err != nil {
			t.Fatal(err)
		}
		if c, err := n.Current(); err != nil || c == nil || c.Release != release {
			t.Errorf("after: %+v, %v", c, err)
		}
	}
	if err := n.Write(proxy.Config{Release: "3"}); err == nil {
		t.Error("a configuration without a port was written")
	}
	if c, err := n.Current(); err != nil || c.Release != "2" {
		t.Errorf("after an error: %+v, %v", c, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("files: %v, %v", entries, err)
	}
	if info, err := entries[0].Info(); err != nil || info.Mode() != 0o644 {
		t.Errorf("mode: %v, %v", info.Mode(), err)
	}
	for range 2 {
		if err := n.Clear(); err != nil {
			t.Fatal(err)
		}
	}
	if c, err := n.Current(); c != nil || err != nil {
		t.Errorf("after clear: %+v, %v", c, err)
	}
	if err := os.WriteFile(filepath.Join(dir, "sites.conf"), []byte("server {}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if c, err := n.Current(); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("somebody else's file: %+v, %v", c, err)
	}
}

func TestNginxKeepsServingWhatItHasWhenTheNewIsBroken(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	web := startBackend(t, "tcp")
	old := e.config("1", map[string]string{"web": web}, proxy.Site{Path: "/", Service: "web"})
	e.start(t, old)
	broken := old
	broken.Release = "2"
	broken.Listen.Address = "203.0.113.7" // of no host: nginx cannot bind it
	if err := e.Write(broken); err != nil {
		t.Fatal(err)
	}
	if err := e.test(t.Context()); err == nil || !strings.Contains(err.Error(), "203.0.113.7") {
		t.Fatalf("nginx -t: %v", err)
	}
	e.reload(t) // which nobody should do now
	until(t, "its complaint", func() bool { return strings.Contains(e.read(t), "203.0.113.7") })
	e.wait(t, "1")
	if got := get(t, e, "/", nil).body.Backend; got != web {
		t.Errorf("%s answers", got)
	}
	mended := old
	mended.Release = "3"
	if err := e.Write(mended); err != nil {
		t.Fatal(err)
	}
	e.reload(t)
	e.wait(t, "3")
}

func TestFolderIsOpenToNginxWhateverTheUmask(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	dir := filepath.Join(t.TempDir(), "edge")
	if err := proxy.New(dir).Write(proxy.Config{Release: "1", Listen: proxy.Listen{Port: 8080}}); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]os.FileMode{dir: 0o755, filepath.Join(dir, "sites.conf"): 0o644} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
}

// Once a release answers nobody is led to the one before it, which ends then.
func TestNobodyIsLedToTheReleaseBefore(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	listen := func() *httptest.Server {
		return httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	}
	config := func(release int, s *httptest.Server) proxy.Config {
		at := map[string]string{"web": s.Listener.Addr().String()}
		return e.config(strconv.Itoa(release), at, proxy.Site{Service: "web"})
	}
	serving := listen()
	e.start(t, config(1, serving))
	ctx, stop := context.WithCancel(t.Context())
	var people sync.WaitGroup
	for range 4 {
		people.Go(func() {
			for ctx.Err() == nil {
				if code := get(t, e, "/", nil).StatusCode; code != http.StatusOK {
					t.Errorf("the edge answers %d", code)
					return
				}
			}
		})
	}
	for release := 2; release < 8 && !t.Failed(); release++ {
		next := listen()
		if err := e.Write(config(release, next)); err != nil {
			t.Fatal(err)
		}
		e.reload(t)
		e.wait(t, strconv.Itoa(release))
		serving.Close() // when what it has begun is answered
		serving = next
	}
	stop()
	people.Wait()
	serving.Close()
}

func TestWaitReleaseSaysWhoAnswers(t *testing.T) {
	t.Parallel()
	e := newEdge(t)
	e.start(t, e.config("1", nil))
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	err := proxy.WaitRelease(ctx, e.config("2", nil), 10)
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), `release "1" answers`) {
		t.Errorf("error is %v", err)
	}
	nobody := e.config("2", nil)
	nobody.Listen.Port = freePort(t)
	ctx, cancel = context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := proxy.WaitRelease(ctx, nobody, 10); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("error is %v", err)
	}
}

// until polls a condition for as long as anybody would wait for it.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

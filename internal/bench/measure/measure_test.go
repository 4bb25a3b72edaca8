package measure_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"bareboat/internal/bench/measure"
)

func TestRunCountsACompile(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"go.mod": "module tiny\n\ngo 1.24\n", "main.go": "package main\n\nfunc main() { println(1) }\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command("go", "build", "-o", "tiny", ".")
	build.Dir = dir
	run := exec.Command(filepath.Join(dir, "tiny"))
	u, err := measure.Run(t.Context(), []int{os.Getpid()}, build, run)
	if err != nil {
		t.Fatal(err)
	}
	if u.Wall <= 0 || u.CPU <= 0 || u.Memory < 1<<20 {
		t.Errorf("a compile cost %+v", u)
	}
}

// The memory is that of the whole tree, not of the program that was called.
func TestRunSeesTheTree(t *testing.T) {
	own, err := measure.Run(t.Context(), nil, exec.Command("sh", "-c", "head -c 1000 /dev/zero >/dev/null"))
	if err != nil {
		t.Fatal(err)
	}
	// tail keeps what it reads, since there is no end of a line in it.
	child, err := measure.Run(t.Context(), nil, exec.Command("sh", "-c", "head -c 100000000 /dev/zero | tail -n 1 >/dev/null; true"))
	if err != nil {
		t.Fatal(err)
	}
	if child.Memory < own.Memory+50e6 {
		t.Errorf("with 100 MB in a child: %d bytes, without: %d", child.Memory, own.Memory)
	}
}

func TestRunNamesWhatFailed(t *testing.T) {
	_, err := measure.Run(t.Context(), nil, exec.Command("sh", "-c", "echo first >&2; echo last >&2; exit 3"))
	var f *measure.Failure
	if !errors.As(err, &f) || f.Command != "sh" || f.Output != "last" {
		t.Errorf("got %v", err)
	}
	if _, err := measure.Run(t.Context(), nil, exec.Command("no-such-program")); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("a program that is missing: %v", err)
	}
}

// What a command started is gone with it: the pipe that both hold comes to its end.
func TestRunEndsWithTheContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command("sh", "-c", "echo started; sleep 1000; true")
	c.Stdout = w
	done := make(chan error)
	go func() {
		_, err := measure.Run(ctx, nil, c)
		w.Close()
		done <- err
	}()
	if _, err := r.Read(make([]byte, len("started\n"))); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
		t.Errorf("rest %q, %v", rest, err)
	}
}

func TestMeter(t *testing.T) {
	var host string
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		host = r.Host
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	defer server.Close()
	var m measure.Meter
	meter := httptest.NewServer(&m)
	defer meter.Close()
	if res, err := http.Get(meter.URL); err != nil || res.StatusCode != http.StatusBadGateway {
		t.Errorf("with no server: %v, %v", res, err)
	}
	m.Take()
	target, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	m.Forward(target)
	for _, body := range []string{"", "12345", strings.Repeat("x", 100_000)} {
		if _, err := http.Post(meter.URL, "text/plain", strings.NewReader(body)); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := m.Take(), (measure.Traffic{Requests: 3, Sent: 100_005}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := m.Take(); got != (measure.Traffic{}) {
		t.Errorf("after Take: %+v", got)
	}
	if "http://"+host != meter.URL {
		t.Errorf("the server saw host %s, not the meter's", host)
	}
}

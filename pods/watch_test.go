package pods_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"bareboat/pods"
)

func TestStayHealthy(t *testing.T) {
	t.Parallel()
	p := use(t)
	start := func() (pods.Spec, pods.Watched) {
		h := check(300 * time.Millisecond)
		h.Retries = 2
		spec := p.checked(h, "lines", "0")
		p.start(t, spec)
		return spec, pods.Watched{Container: spec.Containers[0].Name, Health: *spec.Containers[0].Health, For: 2 * time.Second}
	}
	_, well := start()
	p.run(t, well.Container, "touch", "/tmp/up")
	if err := p.StayHealthy(t.Context(), []pods.Watched{well}); err != nil {
		t.Errorf("one that is well: %v", err)
	}
	var unhealthy *pods.UnhealthyError
	_, sick := start()
	if err := p.StayHealthy(t.Context(), []pods.Watched{well, sick}); !errors.As(err, &unhealthy) || unhealthy.Exited || unhealthy.Container != sick.Container {
		t.Errorf("one that is not well: %#v", err)
	}
	dying := well
	dying.For = time.Hour
	ended := make(chan error, 1)
	go func() { ended <- p.StayHealthy(t.Context(), []pods.Watched{dying}) }()
	if err := p.Signal(t.Context(), dying.Container, "SIGTERM"); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.As(err, &unhealthy) || !unhealthy.Exited {
		t.Errorf("one that dies: %#v", err)
	}
}

func TestWaitCompleted(t *testing.T) {
	t.Parallel()
	p := use(t)
	for _, code := range []string{"0", "3"} {
		spec := p.spec("exit", code, "done")
		p.start(t, spec)
		err := p.WaitCompleted(t.Context(), spec.Containers[0].Name)
		var unhealthy *pods.UnhealthyError
		if code == "0" && err != nil {
			t.Errorf("one that ends well: %v", err)
		}
		if code != "0" && (!errors.As(err, &unhealthy) || unhealthy.ExitCode != 3) {
			t.Errorf("one that fails: %#v", err)
		}
	}
}

func TestRun(t *testing.T) {
	t.Parallel()
	p := use(t)
	for _, c := range []struct {
		command     []string
		stdin       string
		code        int
		stdout, err string
	}{
		{[]string{"cat"}, "one\ntwo\n", 0, "one\ntwo\n", "end of input\n"},
		{[]string{"exit", "7", "no", "rum"}, "", 7, "no rum\n", ""},
	} {
		spec := p.spec(c.command...)
		var stdout, stderr bytes.Buffer
		o := pods.RunOptions{Stdout: &stdout, Stderr: &stderr}
		if c.stdin != "" {
			spec.Containers[0].Stdin = true
			o.Stdin = strings.NewReader(c.stdin)
		}
		code, err := p.Run(t.Context(), spec, o)
		if err != nil || code != c.code || stdout.String() != c.stdout || stderr.String() != c.err {
			t.Errorf("%v: code %d, %v, %q, %q", c.command, code, err, stdout.String(), stderr.String())
		}
		if _, err := p.Pod(t.Context(), spec.Name); !errors.Is(err, pods.ErrNotFound) {
			t.Errorf("%v: its pod: %v", c.command, err)
		}
	}
}

// With an image that names nobody, a container that must not be root is not.
func TestNonRoot(t *testing.T) {
	t.Parallel()
	p := use(t)
	spec := p.spec("id")
	spec.Containers[0].User, spec.Containers[0].NonRoot = "", true
	var stdout bytes.Buffer
	if _, err := p.Run(t.Context(), spec, pods.RunOptions{Stdout: &stdout, Stderr: &stdout}); err != nil || !strings.Contains(stdout.String(), "65532") {
		t.Errorf("it is %q, %v", stdout.String(), err)
	}
}

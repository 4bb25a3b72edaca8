package pods_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"bareboat/pods"

	"golang.org/x/sys/unix"
)

func TestExec(t *testing.T) {
	t.Parallel()
	p := use(t)
	spec := p.spec("lines", "0")
	p.start(t, spec)
	name := spec.Containers[0].Name

	var out, errs bytes.Buffer
	code, err := p.Exec(t.Context(), name, pods.ExecOptions{
		Cmd: []string{"/probe", "cat"}, Stdin: strings.NewReader("some\ninput"), Stdout: &out, Stderr: &errs,
	})
	if err != nil || code != 0 || out.String() != "some\ninput" || errs.String() != "end of input\n" {
		t.Errorf("streams: %d, %v, %q, %q", code, err, out.String(), errs.String())
	}
	code, err = p.Exec(t.Context(), name, pods.ExecOptions{Cmd: []string{"/probe", "exit", "42"}})
	if err != nil || code != 42 {
		t.Errorf("exit code: %d, %v", code, err)
	}
	out.Reset()
	code, err = p.Exec(t.Context(), name, pods.ExecOptions{
		Cmd: []string{"/probe", "env", "A", "B"}, Env: map[string]string{"A": "1", "B": "2 3"}, Stdout: &out,
	})
	if err != nil || code != 0 || out.String() != "A=1\nB=2 3\n" {
		t.Errorf("environment: %d, %v, %q", code, err, out.String())
	}
	out.Reset()
	code, err = p.Exec(t.Context(), name, pods.ExecOptions{
		Cmd: []string{"/probe", "id"}, User: "7:8", WorkDir: "/data", Stdout: &out,
	})
	if err != nil || code != 0 || out.String() != "uid 7 gid 8 in /data\n" {
		t.Errorf("account: %d, %v, %q", code, err, out.String())
	}
}

func TestExecWhatIsNotThere(t *testing.T) {
	t.Parallel()
	p := use(t)
	spec := p.spec("lines", "0")
	p.create(t, spec)
	name := spec.Containers[0].Name
	run := pods.ExecOptions{Cmd: []string{"/none"}}
	if _, err := p.Exec(t.Context(), name+"-none", run); !errors.Is(err, pods.ErrNotFound) {
		t.Errorf("no such container: %v", err)
	}
	if _, err := p.Exec(t.Context(), name, run); err == nil || !strings.Contains(err.Error(), name) {
		t.Errorf("a container that does not run: %v", err)
	}
	if err := p.StartPod(t.Context(), spec.Name); err != nil {
		t.Fatal(err)
	}
	if code, err := p.Exec(t.Context(), name, run); err == nil && code == 0 {
		t.Errorf("no such program: %d, %v", code, err)
	}
}

func TestExecEndsWithItsContext(t *testing.T) {
	t.Parallel()
	p := use(t)
	spec := p.spec("lines", "0")
	p.start(t, spec)
	ctx, cancel := context.WithCancel(t.Context())
	var out lockedBuffer
	done := make(chan error, 1)
	go func() {
		_, err := p.Exec(ctx, spec.Containers[0].Name, pods.ExecOptions{Cmd: []string{"/probe", "lines", "0"}, Stdout: &out})
		done <- err
	}()
	until(t, "its start", func() bool { return strings.Contains(out.String(), "written") })
	cancel()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error is %v", err)
		}
	case <-time.After(time.Minute):
		t.Error("it goes on")
	}
}

// TestExecWithATerminal runs a process of its own, since a terminal belongs to
// a process: this one, whose standard input is the terminal.
func TestExecWithATerminal(t *testing.T) {
	t.Parallel()
	p := use(t)
	spec := p.spec("lines", "0")
	p.start(t, spec)
	master, slave := pty(t)
	resize(t, master, 101, 31)
	before := termios(t, slave)

	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "BAREBOAT_PODS_HELPER=exec", "BAREBOAT_PODS_HOST="+p.Host(),
		"BAREBOAT_PODS_CONTAINER="+spec.Containers[0].Name)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	var screen lockedBuffer
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			screen.Write(buf[:n])
			if err != nil {
				return
			}
		}
	}()
	shows := func(text string) func() bool {
		return func() bool { return strings.Contains(screen.String(), text) }
	}
	until(t, "the terminal's size", shows("size 101x31"))
	resize(t, master, 77, 22)
	until(t, "the new size", shows("size 77x22"))
	if raw := termios(t, slave); raw.Lflag&unix.ICANON != 0 || raw.Lflag&unix.ECHO != 0 {
		t.Error("the terminal is not raw meanwhile")
	}
	if _, err := master.Write([]byte("ahoy\r")); err != nil {
		t.Fatal(err)
	}
	until(t, "the line", shows(`read "ahoy"`))
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, screen.String())
	}
	if after := termios(t, slave); after.Lflag != before.Lflag {
		t.Error("the terminal was not set back")
	}
}

func helpExec() error {
	ctx := context.Background()
	p, err := pods.Connect(ctx, os.Getenv("BAREBOAT_PODS_HOST"))
	if err != nil {
		return err
	}
	defer p.Close()
	code, err := p.Exec(ctx, os.Getenv("BAREBOAT_PODS_CONTAINER"), pods.ExecOptions{
		Cmd: []string{"/probe", "tty"}, TTY: true, Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
	})
	if err == nil && code != 0 {
		err = fmt.Errorf("exit code %d", code)
	}
	return err
}

// pty opens a terminal and its other end.
func pty(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

func resize(t *testing.T, terminal *os.File, columns, rows uint16) {
	t.Helper()
	size := &unix.Winsize{Col: columns, Row: rows}
	if err := unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, size); err != nil {
		t.Fatal(err)
	}
}

func termios(t *testing.T, terminal *os.File) *unix.Termios {
	t.Helper()
	state, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return state
}

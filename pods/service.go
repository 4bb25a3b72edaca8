package pods

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	serviceDirs  = "bareboat-podman-"
	startTimeout = 30 * time.Second
	stopTimeout  = 10 * time.Second
)

// supervise runs a Podman service until whoever started it closes the pipe on
// its standard input, or dies: the kernel closes it then. A parent-death signal
// would not do: it belongs to one thread, and rootless Podman runs the service
// in a child that does not always ask for one. For the same reason the whole
// group is told to end; what Podman starts for containers has groups of its own.
const supervise = `
trap : TERM
exec 3<&0
podman system service --time=0 "$1" </dev/null 3<&- &
service=$!
{ read -r _ <&3; kill -TERM 0; } &
watcher=$!
exec 3<&-
wait "$service"
status=$?
while kill -0 "$service" 2>/dev/null; do
	wait "$service"
	status=$?
done
kill "$watcher" 2>/dev/null
exit "$status"
`

// service is a Podman service that lives as long as this process at most.
type service struct {
	socket string
	dir    string   // private, holds the socket and the log
	lock   *os.File // dir, locked: it is in use
	alive  *os.File // the service ends when this is closed
	cmd    *exec.Cmd
	done   chan struct{} // closed when the service has ended
}

func startService(ctx context.Context) (*service, error) {
	if _, err := exec.LookPath("podman"); err != nil {
		return nil, &HintError{
			Err:  fmt.Errorf("start a podman service: %w", ErrNoPodman),
			Hint: "install the package podman (Debian: sudo apt-get install podman), or name a host with --host",
		}
	}
	dir, lock, err := privateDir()
	if err != nil {
		return nil, fmt.Errorf("start a podman service: %w", err)
	}
	s := &service{socket: filepath.Join(dir, "podman.sock"), dir: dir, lock: lock, done: make(chan struct{})}
	if err := s.start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start a podman service: %w", err), s.cleanUp())
	}
	if err := s.ready(ctx); err != nil {
		log := s.log()
		return nil, errors.Join(&HintError{
			Err:  fmt.Errorf("start a podman service: %w%s", err, log),
			Hint: "does Podman work for this user? podman info",
		}, s.stop())
	}
	return s, nil
}

func (s *service) start() error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	s.alive = w
	// A file, not a pipe: what Podman starts for containers may hold on to it.
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd = exec.Command("/bin/sh", "-c", supervise, "bareboat-podman", "unix://"+s.socket)
	s.cmd.Env = localEnviron()
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = r, log, log
	// Its own group: the terminal's interrupt is for us, we still need Podman to clean up.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := s.cmd.Start(); err != nil {
		s.cmd = nil
		return err
	}
	go func() {
		_ = s.cmd.Wait() // how it ended stands in its ProcessState
		close(s.done)
	}()
	return nil
}

// localEnviron is our environment without what makes podman a mere client of
// another service; an empty value does, too.
func localEnviron() []string {
	return slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return name == "CONTAINER_HOST" || name == "CONTAINER_CONNECTION"
	})
}

// ready returns as soon as the service takes connections.
func (s *service) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if listening(ctx, s.socket) {
			return nil
		}
		select {
		case <-s.done:
			return fmt.Errorf("it ended at once: %s", s.cmd.ProcessState)
		case <-ctx.Done():
			return fmt.Errorf("it does not answer: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

// stop ends the service and returns when the last of its processes is gone.
func (s *service) stop() error {
	s.alive.Close()
	group := -s.cmd.Process.Pid
	kill := time.After(stopTimeout)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !errors.Is(unix.Kill(group, 0), unix.ESRCH) {
		select {
		case <-tick.C:
		case <-kill:
			if err := unix.Kill(group, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("stop the podman service: %w", err)
			}
		}
	}
	<-s.done
	return s.cleanUp()
}

func (s *service) cleanUp() error {
	if s.alive != nil {
		s.alive.Close()
	}
	defer s.lock.Close()
	return os.RemoveAll(s.dir)
}

func (s *service) logFile() string { return filepath.Join(s.dir, "log") }

// log is what the service said last, as the end of an error's line.
func (s *service) log() string {
	text, err := os.ReadFile(s.logFile())
	if err != nil || len(text) == 0 {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return ": " + oneLine(lines[len(lines)-1])
}

// privateDir makes a folder that only this user can enter, and removes those
// whose process was killed before it could.
func privateDir() (string, *os.File, error) {
	base := os.Getenv("XDG_RUNTIME_DIR")
	if base == "" {
		base = os.TempDir()
	}
	removeStale(base)
	dir, err := os.MkdirTemp(base, serviceDirs)
	if err != nil {
		return "", nil, err
	}
	lock, err := lockDir(dir)
	if err != nil {
		return "", nil, errors.Join(err, os.Remove(dir))
	}
	return dir, lock, nil
}

func removeStale(base string) {
	dirs, _ := filepath.Glob(filepath.Join(base, serviceDirs+"*"))
	for _, dir := range dirs {
		info, err := os.Lstat(dir)
		// A young one may be about to be locked.
		if err != nil || !info.IsDir() || time.Since(info.ModTime()) < time.Minute {
			continue
		}
		if lock, err := lockDir(dir); err == nil {
			os.RemoveAll(dir)
			lock.Close()
		}
	}
}

// lockDir locks a folder for as long as the file is open, else it fails.
func lockDir(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return f, nil
}

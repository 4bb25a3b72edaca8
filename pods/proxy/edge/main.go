// Command edge runs nginx and holds the sockets that it listens on, so that they
// outlive it.
//
// It is the first process of the edge's container. When it starts, it asks the
// edge that runs already, if there is one, for its listening sockets; only where
// there is none does it make them. Two edges then have one socket, with one queue
// of connections in the kernel: none is refused and none is lost when the old one
// takes no more. nginx gets the sockets in the way in which it hands them to a new
// binary of its own: in the variable NGINX.
//
// The edges meet at an abstract unix socket of the network namespace, which is the
// host's, and make sure that the other is of the same user. Its name is made of the
// token that the release wrote for the edge.
//
// Signals: SIGHUP has nginx read its configuration; SIGUSR2 closes the doors, and
// waits to be stopped when the last connection is gone; SIGQUIT, the stop signal,
// does so and ends; SIGTERM ends at once. If nginx dies it is started again, while
// connections wait in the queue.
//
// It is one file, with nothing but the standard library, so that it compiles to
// the same bytes wherever it lies.
package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	nginx = "/usr/sbin/nginx"
	// configs is where releases tell the edge what to do: pods/proxy.
	configs = "/etc/nginx/bareboat/*.conf"
	// mark precedes the configuration, as JSON, in what was rendered from it.
	mark = "# bareboat "
	// firstFD is the first file that a child inherits beyond the standard ones.
	firstFD = 3
	// maxSockets is more than an edge listens on.
	maxSockets = 16
	// askTimeout is for the other edge to answer.
	askTimeout = 5 * time.Second
	// again is how long to wait before nginx is started again.
	again = 100 * time.Millisecond
)

func main() {
	code, err := run()
	if err != nil {
		fmt.Fprintln(os.Stderr, "edge:", err)
	}
	os.Exit(code)
}

// told is what this program needs of the configuration.
type told struct {
	Token  string
	Listen struct {
		Address string
		Port    uint16
	}
}

func (t told) address() string {
	return net.JoinHostPort(t.Listen.Address, strconv.Itoa(int(t.Listen.Port)))
}

// network is that of nginx's listen directive for the address.
func (t told) network() string {
	if strings.Contains(t.Listen.Address, ":") {
		return "tcp"
	}
	return "tcp4"
}

// meeting is where the edges of one project meet.
func (t told) meeting() string {
	sum := sha256.Sum256([]byte("bareboat edge " + t.Token))
	return "@bareboat-edge-" + hex.EncodeToString(sum[:12])
}

// read finds the configuration.
func read(pattern string) (told, error) {
	files, err := filepath.Glob(pattern)
	if err != nil {
		return told{}, err
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return told{}, err
		}
		for line := range bytes.Lines(text) {
			if self, ok := bytes.CutPrefix(line, []byte(mark)); ok {
				var t told
				err := json.Unmarshal(self, &t)
				return t, err
			}
		}
	}
	return told{}, fmt.Errorf("%s: no configuration of bareboat's", pattern)
}

func run() (int, error) {
	t, err := read(configs)
	if err != nil {
		return 1, err
	}
	e := &edge{args: os.Args[1:], told: t, left: make(chan struct{})}
	if err := e.open(); err != nil {
		return 1, err
	}
	if t.Token != "" {
		go e.meet()
	}
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGINT)
	return e.serve(signals)
}

// edge holds the sockets, and the nginx that uses them. The sockets are bare file
// descriptors: as an os.File one would be set to block, for all who share it, and
// nginx would hang in accept.
type edge struct {
	args    []string
	told    told
	mu      sync.Mutex // over sockets
	sockets []int      // that nginx listens on; none once the doors are closed

	nginx *os.Process
	ended chan error    // of nginx
	left  chan struct{} // closed when the doors are
}

// open gets the sockets from the edge that runs, or makes them.
func (e *edge) open() error {
	if e.told.Token != "" {
		sockets, err := ask(e.told)
		if err == nil {
			e.sockets = sockets
			return nil
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			fmt.Fprintln(os.Stderr, "edge: the edge that runs does not hand its sockets over:", err)
		}
	}
	l, err := net.Listen(e.told.network(), e.told.address())
	if err != nil {
		return err
	}
	defer l.Close()
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		return err
	}
	var fd int
	var dupErr error
	if err := raw.Control(func(own uintptr) {
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock()
		if fd, dupErr = syscall.Dup(int(own)); dupErr == nil {
			syscall.CloseOnExec(fd)
		}
	}); err != nil {
		return err
	}
	e.sockets = []int{fd}
	return dupErr
}

// meet hands the sockets over to every edge that asks, as soon as the edge before
// has gone from the meeting and until this one leaves.
func (e *edge) meet() {
	for {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: e.told.meeting(), Net: "unix"})
		if err == nil {
			go e.answer(l)
			<-e.left
			l.Close()
			return
		}
		select {
		case <-e.left:
			return
		case <-time.After(again):
		}
	}
}

// ask asks the edge that runs for its sockets.
func ask(t told) ([]int, error) {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: t.meeting(), Net: "unix"})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := sameUser(c); err != nil {
		return nil, err
	}
	if err := c.SetDeadline(time.Now().Add(askTimeout)); err != nil {
		return nil, err
	}
	said := make([]byte, 256)
	rights := make([]byte, syscall.CmsgSpace(maxSockets*4))
	n, r, _, _, err := c.ReadMsgUnix(said, rights)
	if err != nil {
		return nil, err
	}
	sockets, err := received(rights[:r])
	if err == nil && (string(said[:n]) != t.address() || len(sockets) == 0) {
		for _, fd := range sockets {
			syscall.Close(fd)
		}
		err = fmt.Errorf("it listens at %s, not %s", said[:n], t.address())
	}
	return sockets, err
}

func received(rights []byte) ([]int, error) {
	messages, err := syscall.ParseSocketControlMessage(rights)
	if err != nil {
		return nil, err
	}
	var sockets []int
	for _, m := range messages {
		fds, err := syscall.ParseUnixRights(&m)
		if err != nil {
			return nil, err
		}
		for _, fd := range fds {
			syscall.CloseOnExec(fd)
			sockets = append(sockets, fd)
		}
	}
	return sockets, nil
}

// answer hands the sockets to every edge that asks, until the meeting is closed.
func (e *edge) answer(meeting *net.UnixListener) {
	for {
		c, err := meeting.AcceptUnix()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(again) // out of files, perhaps
			continue
		}
		if err := e.hand(c); err != nil {
			fmt.Fprintln(os.Stderr, "edge: hand the sockets over:", err)
		}
		c.Close()
	}
}

func (e *edge) hand(c *net.UnixConn) error {
	if err := sameUser(c); err != nil {
		return err
	}
	if err := c.SetDeadline(time.Now().Add(askTimeout)); err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	_, _, err := c.WriteMsgUnix([]byte(e.told.address()), syscall.UnixRights(e.sockets...), nil)
	return err
}

// sameUser makes sure of who is at the other end: the name of an abstract socket is
// open to all of the host.
func sameUser(c *net.UnixConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var peer *syscall.Ucred
	var peerErr error
	if err := raw.Control(func(fd uintptr) {
		peer, peerErr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if peerErr == nil && int(peer.Uid) != os.Getuid() {
		return fmt.Errorf("the other end is of user %d, not %d", peer.Uid, os.Getuid())
	}
	return peerErr
}

// start starts nginx with the sockets.
func (e *edge) start() error {
	files := []uintptr{0, 1, 2}
	var inherited strings.Builder
	for i, fd := range e.sockets {
		files = append(files, uintptr(fd))
		fmt.Fprintf(&inherited, "%d;", firstFD+i)
	}
	attr := &syscall.ProcAttr{Env: append(os.Environ(), "NGINX="+inherited.String()), Files: files}
	pid, err := syscall.ForkExec(nginx, append([]string{nginx}, e.args...), attr)
	if err != nil {
		return fmt.Errorf("start %s: %w", nginx, err)
	}
	if e.nginx, err = os.FindProcess(pid); err != nil {
		return err
	}
	e.ended = make(chan error, 1)
	go func(p *os.Process, ended chan<- error) {
		state, err := p.Wait()
		if err == nil {
			err = errors.New(state.String())
		}
		ended <- err
	}(e.nginx, e.ended)
	return nil
}

// serve runs nginx until it is told to end.
func (e *edge) serve(signals <-chan os.Signal) (int, error) {
	if err := e.start(); err != nil {
		return 1, err
	}
	leaving, ending := false, false
	for {
		select {
		case s := <-signals:
			switch s {
			case syscall.SIGUSR2:
				leaving = true
				e.leave(syscall.SIGQUIT)
			case syscall.SIGQUIT:
				leaving, ending = true, true
				e.leave(syscall.SIGQUIT)
			case syscall.SIGTERM, syscall.SIGINT:
				leaving, ending = true, true
				e.leave(syscall.SIGTERM)
			default:
				e.signal(s.(syscall.Signal))
			}
			if ending && e.nginx == nil {
				return 0, nil
			}
		case err := <-e.endedOrNever():
			e.nginx = nil
			switch {
			case ending:
				return 0, nil
			case leaving:
				continue // its pod is stopped when the release says so
			}
			fmt.Fprintf(os.Stderr, "edge: nginx ended, and is started again: %v\n", err)
			dismissWorkers()
			time.Sleep(again)
			if err := e.start(); err != nil {
				return 1, err
			}
		}
	}
}

func (e *edge) endedOrNever() <-chan error {
	if e.nginx == nil {
		return nil
	}
	return e.ended
}

// leave closes the doors: another edge has the sockets, too, or nobody needs them.
func (e *edge) leave(s syscall.Signal) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.sockets != nil {
		close(e.left)
	}
	for _, fd := range e.sockets {
		syscall.Close(fd)
	}
	e.sockets = nil
	e.signal(s)
}

func (e *edge) signal(s syscall.Signal) {
	if e.nginx != nil {
		_ = e.nginx.Signal(s) // it may have ended just now
	}
}

// dismissWorkers has the workers end that a master left which was killed: they
// would go on with what they know, and never hear of a release. As the first
// process of a container this one reaches all others, and only these.
func dismissWorkers() {
	if os.Getpid() == 1 {
		_ = syscall.Kill(-1, syscall.SIGQUIT) // there may be none
	}
}

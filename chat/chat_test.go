package chat_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"bareboat/chat"
	"bareboat/chat/chattest"

	"github.com/gorilla/websocket"
)

// commandEnv makes this test binary the chatd command.
const commandEnv = "CHATD_TEST_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(commandEnv) != "" {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		code := chat.Main(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
		stop()
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// folder gives a folder with a path short enough for sockets.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "chat")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// command prepares chatd with an environment of its own.
func command(ctx context.Context, env []string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append([]string{commandEnv + "=1", "PATH=/nonexistent", "HOME=/nonexistent"}, env...)
	return cmd
}

// outcome is what a command that ended left.
type outcome struct {
	code           int
	stdout, stderr string
}

func run(t *testing.T, env []string, args ...string) outcome {
	t.Helper()
	cmd := command(t.Context(), env, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return outcome{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// daemon is chatd serving.
type daemon struct {
	cmd    *exec.Cmd
	listen string
	ended  chan struct{} // closed when its log ended

	mu  sync.Mutex
	log []string
}

// serve starts chatd and waits until it says that it serves.
func serve(t *testing.T, env ...string) *daemon {
	t.Helper()
	cmd := command(t.Context(), env)
	stderr, err := cmd.StderrPipe()
	must(t, err)
	must(t, cmd.Start())
	d := &daemon{cmd: cmd, ended: make(chan struct{})}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	serving := make(chan string, 1)
	go d.follow(stderr, serving)
	select {
	case d.listen = <-serving:
	case <-d.ended:
		t.Fatalf("chatd ended: %s", d.lines())
	}
	return d
}

func (d *daemon) follow(stderr io.Reader, serving chan<- string) {
	defer close(d.ended)
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		var line struct{ Msg, Listen string }
		_ = json.Unmarshal(lines.Bytes(), &line) // a line of another kind says nothing here
		d.mu.Lock()
		d.log = append(d.log, lines.Text())
		d.mu.Unlock()
		if line.Msg == "serving" {
			serving <- line.Listen
		}
	}
}

func (d *daemon) lines() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return strings.Join(d.log, "\n")
}

// terminate sends SIGTERM and gives the exit code and how long it took.
func (d *daemon) terminate(t *testing.T) (code int, took time.Duration) {
	t.Helper()
	began := time.Now()
	must(t, d.cmd.Process.Signal(syscall.SIGTERM))
	<-d.ended
	_ = d.cmd.Wait() // the code says it
	return d.cmd.ProcessState.ExitCode(), time.Since(began)
}

func (d *daemon) kill(t *testing.T) {
	t.Helper()
	must(t, d.cmd.Process.Kill())
	<-d.ended
	_ = d.cmd.Wait() // it was killed
}

// enter joins a room through TCP or the unix socket.
func (d *daemon) enter(t *testing.T, room string, cursor *int64, header http.Header) *chattest.Client {
	t.Helper()
	dialer := &websocket.Dialer{NetDialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		if strings.HasPrefix(d.listen, "/") {
			return new(net.Dialer).DialContext(ctx, "unix", d.listen)
		}
		return new(net.Dialer).DialContext(ctx, "tcp", d.listen)
	}}
	c, _, err := chattest.DialWith(t.Context(), dialer, "http://chat.test/ws", header)
	must(t, err)
	t.Cleanup(c.Close)
	must(t, c.Hello("Ann", map[string]*int64{room: cursor}))
	_, err = c.AwaitType("joined")
	must(t, err)
	return c
}

// TestTerminate stops while there are clients who do not go when they are asked.
func TestTerminate(t *testing.T) {
	d := serve(t, "CHATD_LISTEN=127.0.0.1:0", "CHATD_DATA="+folder(t), "CHATD_DRAIN=2s")
	const clients = 30
	codes := make(chan error, clients)
	for range clients {
		c := d.enter(t, "a", nil, nil)
		go func() {
			_, err := c.Await(func(chattest.Reply) bool { return false })
			codes <- err
			c.Close()
		}()
	}
	code, took := d.terminate(t)
	if code != 0 {
		t.Errorf("exit code %d: %s", code, d.lines())
	}
	if took > 5*time.Second {
		t.Errorf("stopping took %v", took)
	}
	for range clients {
		err := <-codes
		var closed *websocket.CloseError
		if !websocket.IsCloseError(err, 1012) {
			t.Errorf("a client ended with %v", err)
		} else if closed, _ = err.(*websocket.CloseError); closed.Text != "service restart" {
			t.Errorf("the reason is %q", closed.Text)
		}
	}
}

// TestTerminateWithSilentClient stops although a client never answers.
func TestTerminateWithSilentClient(t *testing.T) {
	d := serve(t, "CHATD_LISTEN=127.0.0.1:0", "CHATD_DATA="+folder(t), "CHATD_DRAIN=2s")
	d.enter(t, "a", nil, nil) // and reads no more
	code, took := d.terminate(t)
	if code != 0 || took > 4*time.Second {
		t.Errorf("exit code %d after %v: %s", code, took, d.lines())
	}
}

// TestKill kills the server in the middle of talk and starts it anew on the
// same unix socket: the client sends again what was not acknowledged, and in
// the end everything is there once.
func TestKill(t *testing.T) {
	dir := folder(t)
	env := []string{"CHATD_LISTEN=unix:" + filepath.Join(dir, "chat.sock"), "CHATD_DATA=" + filepath.Join(dir, "data"), "CHATD_RATE=100000", "CHATD_BURST=100000"}
	header := http.Header{"Cookie": {"chat_identity=AAAAAAAAAAAAAAAAAAAAAAAAAA"}}
	const total = 600
	acked := map[string]int64{}
	for round := range 4 {
		d := serve(t, env...)
		c := d.enter(t, "a", nil, header)
		go func() {
			for n := range total {
				if c.Send("a", fmt.Sprint("c", n), fmt.Sprint("text ", n)) != nil {
					return // killed
				}
			}
		}()
		target := min(total, len(acked)+150)
		if round == 3 {
			target = total
		}
		for len(acked) < target {
			r, err := c.AwaitType("ack")
			must(t, err)
			if seq, ok := acked[r.CID]; ok && seq != r.Seq {
				t.Errorf("%s was acknowledged as %d, then as %d", r.CID, seq, r.Seq)
			}
			acked[r.CID] = r.Seq
		}
		d.kill(t)
		c.Close()
	}
	d := serve(t, env...)
	all, err := d.enter(t, "a", chattest.At(0), header).Follow(0, total)
	must(t, err)
	for n, m := range all {
		if m.CID != fmt.Sprint("c", n) || acked[m.CID] != m.Seq {
			t.Fatalf("number %d is %s, acknowledged as %d", m.Seq, m.CID, acked[m.CID])
		}
	}
}

func TestUnixSocket(t *testing.T) {
	dir := folder(t)
	socket := filepath.Join(dir, "chat.sock")
	env := []string{"CHATD_LISTEN=unix:" + socket, "CHATD_DATA=" + filepath.Join(dir, "data"), "CHATD_RELEASE=r7"}
	d := serve(t, env...)
	info, err := os.Stat(socket)
	must(t, err)
	if info.Mode().Perm() != 0o666 {
		t.Errorf("the socket has mode %v", info.Mode())
	}
	d.enter(t, "a", nil, http.Header{"X-Real-Ip": {"203.0.113.9"}, "X-Forwarded-For": {"10.0.0.1, 203.0.113.8"}})
	if log := d.lines(); !strings.Contains(log, `"addr":"203.0.113.9"`) {
		t.Errorf("the client's address is not in the log:\n%s", log)
	}
	if got := run(t, env, "health"); got.code != 0 || got.stdout != "ready\n" {
		t.Errorf("health: %+v", got)
	}
	second := run(t, append(env, "CHATD_DATA="+filepath.Join(dir, "other")))
	if second.code != 1 || second.stderr != "chatd: listen on "+socket+": another process listens there\n" {
		t.Errorf("a second server: %+v", second)
	}
	if code, _ := d.terminate(t); code != 0 {
		t.Errorf("exit code %d: %s", code, d.lines())
	}
	if _, err := os.Stat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket is still there: %v", err)
	}
	if got := run(t, env, "health"); got.code != 1 || !strings.HasPrefix(got.stderr, "chatd: ask unix:"+socket) {
		t.Errorf("health of nobody: %+v", got)
	}
}

func TestNotASocket(t *testing.T) {
	dir := folder(t)
	path := filepath.Join(dir, "chat.sock")
	must(t, os.WriteFile(path, []byte("precious"), 0o600))
	got := run(t, []string{"CHATD_LISTEN=unix:" + path, "CHATD_DATA=" + dir})
	if got.code != 1 || got.stderr != "chatd: listen on "+path+": there is a file that is not a socket\n" {
		t.Errorf("got %+v", got)
	}
	if content, err := os.ReadFile(path); err != nil || string(content) != "precious" {
		t.Errorf("the file is gone: %q, %v", content, err)
	}
}

func TestBadSettings(t *testing.T) {
	dir := folder(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer taken.Close()
	readOnly := filepath.Join(dir, "read-only")
	must(t, os.Mkdir(readOnly, 0o500))
	file := filepath.Join(dir, "file")
	must(t, os.WriteFile(file, nil, 0o600))
	cases := []struct {
		env  []string
		args []string
		code int
		want string // what the one line says
	}{
		{[]string{"CHATD_LISTEN=8080"}, nil, 3, `CHATD_LISTEN="8080"`},
		{[]string{"CHATD_LISTEN=unix:"}, nil, 3, "CHATD_LISTEN"},
		{[]string{"CHATD_LISTEN=localhost:99999"}, nil, 3, "CHATD_LISTEN"},
		{[]string{"CHATD_ORIGINS=chat.example.org"}, nil, 3, "CHATD_ORIGINS"},
		{[]string{"CHATD_ORIGINS=https://chat.example.org/path"}, nil, 3, "CHATD_ORIGINS"},
		{[]string{"CHATD_TRUSTED=10.0.0.0/99"}, nil, 3, "CHATD_TRUSTED"},
		{[]string{"CHATD_DRAIN=soon"}, nil, 3, "CHATD_DRAIN"},
		{[]string{"CHATD_RATE=-1"}, nil, 3, "CHATD_RATE"},
		{[]string{"CHATD_BURST=x"}, nil, 3, "CHATD_BURST"},
		{[]string{"CHATD_SESSIONS=0"}, nil, 3, "CHATD_SESSIONS"},
		{[]string{"CHATD_RELEASE=a\tb"}, nil, 3, "CHATD_RELEASE"},
		{nil, []string{"dance"}, 2, `"dance"`},
		{nil, []string{"-what"}, 2, "what"},
		{nil, []string{"serve", "more"}, 2, `"more"`},
		{nil, []string{"serve", "-listen", "x"}, 2, "listen"},
		{[]string{"CHATD_LISTEN=" + taken.Addr().String(), "CHATD_DATA=" + dir}, nil, 1, taken.Addr().String() + ": address already in use"},
		{[]string{"CHATD_LISTEN=127.0.0.1:0", "CHATD_DATA=" + readOnly}, nil, 1, readOnly},
		{[]string{"CHATD_LISTEN=127.0.0.1:0", "CHATD_DATA=" + file}, nil, 1, file},
		{[]string{"CHATD_LISTEN=unix:" + dir + "/none/chat.sock", "CHATD_DATA=" + dir}, nil, 1, dir + "/none/chat.sock: no such file or directory"},
	}
	for _, c := range cases {
		got := run(t, c.env, c.args...)
		lines := strings.Split(strings.TrimSuffix(got.stderr, "\n"), "\n")
		hinted := len(lines) == 2 && strings.HasPrefix(lines[1], "hint: ")
		if got.code != c.code || !strings.HasPrefix(lines[0], "chatd: ") || !strings.Contains(lines[0], c.want) || len(lines) > 1 && !hinted {
			t.Errorf("%v %v: exit code %d, want %d with %q:\n%s", c.env, c.args, got.code, c.code, c.want, got.stderr)
		}
	}
}

func TestVersionAndHelp(t *testing.T) {
	if got := run(t, []string{"CHATD_RELEASE=r7"}, "version"); got.code != 0 || !strings.HasPrefix(got.stdout, "chatd ") || !strings.HasSuffix(got.stdout, "r7\n") {
		t.Errorf("version: %+v", got)
	}
	help := run(t, nil, "-help")
	for _, want := range []string{"chatd health", "$CHATD_LISTEN", "$CHATD_DATA", "$CHATD_ORIGINS", "$CHATD_DRAIN"} {
		if help.code != 0 || !strings.Contains(help.stdout, want) {
			t.Errorf("help lacks %q: %+v", want, help)
		}
	}
}

// TestTakeOver runs two servers on the same data, as a release does, and stops
// the first in the middle of talk.
func TestTakeOver(t *testing.T) {
	dir := folder(t)
	server := func(name string) *daemon {
		return serve(t, "CHATD_LISTEN=unix:"+filepath.Join(dir, name+".sock"), "CHATD_DATA="+filepath.Join(dir, "data"), "CHATD_RATE=100000", "CHATD_BURST=100000")
	}
	identity := func(letter string) http.Header {
		return http.Header{"Cookie": {"chat_identity=" + strings.Repeat(letter, 26)}}
	}
	old, next := server("old"), server("next")
	const each = 200
	stay := next.enter(t, "a", chattest.At(0), identity("B"))
	moves := old.enter(t, "a", chattest.At(0), identity("C"))
	sent, unacked := 0, map[string]bool{}
	say := func(c *chattest.Client) {
		cid := fmt.Sprint("c", sent)
		unacked[cid] = true
		sent++
		if err := c.Send("a", cid, "moving"); err != nil {
			return // it is sent again
		}
	}
	for range each / 2 {
		say(moves)
		must(t, stay.Send("a", fmt.Sprint("s", sent), "staying"))
	}
	must(t, old.cmd.Process.Signal(syscall.SIGTERM))
	_, err := moves.Await(func(r chattest.Reply) bool {
		delete(unacked, r.CID)
		return false
	})
	if !websocket.IsCloseError(err, 1012) {
		t.Fatalf("the first server ended with %v", err)
	}
	moves.Close()
	moves = next.enter(t, "a", chattest.At(0), identity("C"))
	for cid := range unacked {
		must(t, moves.Send("a", cid, "moving"))
	}
	for range each / 2 {
		say(moves)
		must(t, stay.Send("a", fmt.Sprint("s", sent), "staying"))
	}
	for _, c := range []*chattest.Client{stay, moves} {
		all, err := c.Follow(0, 2*each)
		must(t, err)
		cids := map[string]bool{}
		for _, m := range all {
			cids[m.User+m.CID] = true
		}
		if len(cids) != 2*each {
			t.Errorf("%d different messages, want %d", len(cids), 2*each)
		}
	}
	<-old.ended
	_ = old.cmd.Wait() // the code says it
	if code := old.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("the first server ended with %d: %s", code, old.lines())
	}
}

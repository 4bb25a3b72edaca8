package main_test

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"bareboat/builder"
	"bareboat/internal/cli"
	"bareboat/registry/embedded"
	"bareboat/registry/embedded/program"
)

func TestMain(m *testing.M) {
	if builder.Init() {
		return
	}
	testscript.Main(m, map[string]func(){
		"bareboat":   func() { os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
		program.Name: func() { os.Exit(program.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}

// The scripts hold commands as people type them, with what they print and
// their exit codes.
func TestScripts(t *testing.T) {
	goEnv := goCaches(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":   exits,
			"waitfor": waitFor,
		},
		Setup: func(e *testscript.Env) error { return setup(e, goEnv) },
	})
}

func setup(e *testscript.Env, goEnv []string) error {
	// The store is one of the script's own; what Podman runs is the account's.
	home := filepath.Join(e.WorkDir, "home")
	if err := os.MkdirAll(home, 0o755); err != nil {
		return err
	}
	e.Vars = append(e.Vars, goEnv...)
	for _, name := range []string{"XDG_RUNTIME_DIR", "USER", "LOGNAME"} {
		e.Setenv(name, os.Getenv(name))
	}
	e.Setenv("HOME", home)
	e.Setenv("EXAMPLES", mustAbs("../../docs/examples"))
	e.Setenv("STORE", "--root="+filepath.Join(e.WorkDir, "store")+" --runroot="+filepath.Join(e.WorkDir, "run"))
	e.Setenv("ROOT", filepath.Join(e.WorkDir, "store"))
	e.Setenv("RUNROOT", filepath.Join(e.WorkDir, "run"))

	private := httptest.NewServer(http.HandlerFunc(askForPassword))
	e.Defer(private.Close)
	e.Setenv("PRIVATE", strings.TrimPrefix(private.URL, "http://"))

	store, err := embedded.Open(filepath.Join(e.WorkDir, "selfsigned"))
	if err != nil {
		return err
	}
	selfSigned := httptest.NewTLSServer(store)
	selfSigned.Config.ErrorLog = log.New(io.Discard, "", 0)
	e.Defer(func() {
		selfSigned.Close()
		store.Close()
	})
	e.Setenv("SELFSIGNED", strings.TrimPrefix(selfSigned.URL, "https://"))

	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	e.Defer(func() { taken.Close() })
	e.Setenv("TAKEN", taken.Addr().String())

	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	e.Setenv("NOBODY", free.Addr().String())
	e.Setenv("EVERYWHERE", strings.Replace(free.Addr().String(), "127.0.0.1", "0.0.0.0", 1))
	e.Defer(func() { makeRemovable(filepath.Join(e.WorkDir, "store")) })
	return free.Close()
}

// askForPassword is a registry to which nobody is let in.
func askForPassword(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("WWW-Authenticate", `Basic realm="private"`)
	w.WriteHeader(http.StatusUnauthorized)
}

// makeRemovable opens the folders that only a user namespace could.
func makeRemovable(dir string) {
	_ = filepath.WalkDir(dir, func(p string, d os.DirEntry, _ error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(p, 0o700)
		}
		return nil
	})
}

func mustAbs(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		panic(err) // the working folder is gone
	}
	return abs
}

// goCaches lets the go command in a script find what is compiled already.
func goCaches(t *testing.T) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "env", "GOCACHE", "GOMODCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	dirs := strings.Split(strings.TrimSpace(string(out)), "\n")
	return []string{"GOCACHE=" + dirs[0], "GOMODCACHE=" + dirs[1], "GOFLAGS=-buildvcs=false"}
}

// exits CODE COMMAND… runs a command that has to end with that exit code.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Check(err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("ends with %d, not %d", got, want)
	}
}

// waitfor HOST:PORT returns when somebody listens there.
func waitFor(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: waitfor HOST:PORT")
	}
	ts.Check(listening(args[0]))
}

func listening(address string) error {
	deadline := time.Now().Add(30 * time.Second)
	for {
		c, err := net.Dial("tcp", address)
		if err == nil {
			return c.Close()
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("nobody listens: %w", err)
		}
		time.Sleep(10 * time.Millisecond) // between two looks
	}
}

// Package program is the command line of the embedded registry, a program of its
// own beside bareboat: the library that it stands on takes longer to start than
// most of what bareboat does, and only this program pays for it.
package program

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os/signal"
	"syscall"

	"bareboat/registry/embedded"
	"bareboat/registry/store"
)

// Name is what the program is called.
const Name = "bareboat-registry"

// The exit codes, as bareboat has them.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// Main serves a store until it is interrupted, or, with --lend, until its
// standard input ends: then it does not outlive whoever started it. Its address
// is the one line on standard output.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	f := flag.NewFlagSet(Name, flag.ContinueOnError)
	f.SetOutput(stderr)
	dir := f.String("dir", "", "`folder` of the registry")
	listen := f.String("listen", "127.0.0.1:0", "`address` to listen on")
	lend := f.Bool("lend", false, "end when standard input does")
	if err := f.Parse(args); err != nil || *dir == "" || f.NArg() > 0 {
		fmt.Fprintln(stderr, "error: wants --dir FOLDER\n  hint: bareboat registry serve --help")
		return exitUsage
	}
	if *lend {
		ctx = untilEnd(ctx, stdin)
	}
	if err := serve(ctx, *dir, *listen, *lend, stdout, stderr); err != nil && !errors.Is(err, context.Canceled) {
		fmt.Fprintln(stderr, "error:", err)
		var locked *store.LockedError
		if *lend && errors.As(err, &locked) {
			return store.ExitLocked
		}
		var port *portError
		if errors.As(err, &port) {
			fmt.Fprintln(stderr, "  hint: choose another: --listen 127.0.0.1:0")
		}
		return exitFailed
	}
	return exitDone
}

// untilEnd ends its context when in ends.
func untilEnd(ctx context.Context, in io.Reader) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, in)
		cancel()
	}()
	return ctx
}

func serve(ctx context.Context, dir, listen string, lend bool, stdout, stderr io.Writer) (err error) {
	// The port first: without it the store is not touched.
	l, err := net.Listen("tcp", listen)
	if errors.Is(err, syscall.EADDRINUSE) {
		return &portError{listen}
	}
	if err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	server, err := embedded.Open(dir, embedded.WithLog(log))
	if err != nil {
		return errors.Join(err, l.Close())
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	fmt.Fprintf(stdout, "http://%s\n", l.Addr())
	if !lend {
		fmt.Fprintf(stderr, "registry: serving %s; Ctrl-C ends it\n", dir)
	}
	return server.Serve(ctx, l)
}

// portError says that the port is taken.
type portError struct{ listen string }

func (e *portError) Error() string { return "listen on " + e.listen + ": the port is in use" }

package chat

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"bareboat/chat/protocol"
)

// Exit codes of the command.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
	exitConfig = 3
)

const usage = `chatd is a chat server.

Usage:
  chatd [serve] [flags]   serve until SIGTERM or SIGINT
  chatd health [flags]    ask the server at the same address whether it is ready
  chatd version           print the version

Flags, each also an environment variable:
`

// Main is the command: it runs until ctx ends and gives the exit code.
func Main(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	name := "serve"
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		name, args = args[0], args[1:]
	}
	commands := map[string]func(context.Context, Config, io.Writer, io.Writer) error{
		"serve": serveCommand, "health": healthCommand, "version": versionCommand,
	}
	run, known := commands[name]
	if !known {
		fmt.Fprintf(stderr, "chatd: unknown command %q\nhint: chatd -help lists the commands\n", name)
		return exitUsage
	}
	flags := flag.NewFlagSet("chatd", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	config, err := LoadConfig(args, getenv, flags)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stdout, usage)
		flags.SetOutput(stdout)
		flags.PrintDefaults()
		return exitDone
	}
	if err != nil {
		return complainOfUsage(stderr, err)
	}
	if err := run(ctx, config, stdout, stderr); err != nil {
		fmt.Fprintf(stderr, "chatd: %s\n", oneLine(err))
		return exitFailed
	}
	return exitDone
}

func complainOfUsage(stderr io.Writer, err error) int {
	fmt.Fprintf(stderr, "chatd: %s\n", oneLine(err))
	if errors.Is(err, ErrConfig) {
		return exitConfig
	}
	fmt.Fprintln(stderr, "hint: chatd -help lists the flags")
	return exitUsage
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

func versionCommand(_ context.Context, c Config, stdout, _ io.Writer) error {
	_, err := fmt.Fprintln(stdout, strings.TrimSpace(fmt.Sprintf("chatd %s %s %s %s", version(), protocol.Name, runtime.Version(), c.Release)))
	return err
}

func serveCommand(ctx context.Context, c Config, _, stderr io.Writer) error {
	log := slog.New(slog.NewJSONHandler(stderr, nil))
	return Serve(ctx, c, log)
}

// Serve listens and serves until ctx ends. Then it drains: it reports that it is
// not ready, asks every client to dial anew, serves each until it has, closes
// what is left with 1012, and closes the data. On SIGUSR1 it asks every client to
// dial anew, too, and goes on serving: whoever runs it has led the way to another
// server, or to this one by another road.
func Serve(ctx context.Context, c Config, log *slog.Logger) error {
	server, err := NewServer(ctx, c, log)
	if err != nil {
		return err
	}
	listener, err := listen(ctx, c.Listen)
	if err != nil {
		return errors.Join(err, server.Close())
	}
	front := newHTTPServer(server.Handler(), log)
	failed := make(chan error, 1)
	go func() { failed <- front.Serve(listener) }()
	log.Info("serving", "listen", listener.Addr().String(), "data", c.Data, "release", c.Release, "version", version())
	move := make(chan os.Signal, 1)
	signal.Notify(move, syscall.SIGUSR1)
	defer signal.Stop(move)
	for {
		select {
		case err := <-failed:
			return errors.Join(fmt.Errorf("serve on %s: %w", c.Listen, err), server.Close())
		case <-move:
			spread := server.spread(c.Drain)
			log.Info("asking clients to dial anew", "seconds", spread.Seconds())
			server.Go(ctx, spread)
		case <-ctx.Done():
			return stop(server, front, c.Drain, log)
		}
	}
}

// spread is how long to take to send clients away, so that not all come to the
// next server in the same moment.
func (s *Server) spread(limit time.Duration) time.Duration {
	return min(limit/4, time.Duration(s.hub.Stats().Sessions)*spreadEach)
}

// spreadEach is more than a server needs to welcome a client.
const spreadEach = 2 * time.Millisecond

// newHTTPServer bounds each step of a request. The idle time is longer than
// that of proxies, so that it is the proxy who closes idle connections.
func newHTTPServer(handler http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      15 * time.Second,
		IdleTimeout:       90 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ConnContext:       noteUnix,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
	}
}

// stop takes at most limit: a quarter to ask all clients to dial anew, as much
// for them to do so, a quarter to close what is left.
func stop(server *Server, front *http.Server, limit time.Duration, log *slog.Logger) error {
	began := time.Now()
	log.Info("draining")
	ctx, cancel := context.WithTimeout(context.Background(), limit*3/4)
	defer cancel()
	server.Drain(ctx, server.spread(limit), limit/2)

	last, cancel := context.WithDeadline(context.Background(), began.Add(limit))
	defer cancel()
	err := front.Shutdown(last)
	if errors.Is(err, context.DeadlineExceeded) {
		err = front.Close()
	}
	err = errors.Join(err, server.Close())
	log.Info("stopped", "seconds", time.Since(began).Seconds())
	return err
}

// healthCommand asks the server as its proxy would. A container that holds
// nothing but this program uses it as its health check.
func healthCommand(ctx context.Context, c Config, stdout, _ io.Writer) error {
	network, address := dialAddress(c.Listen)
	client := http.Client{
		Timeout: 2 * readyTimeout,
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		}},
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://chatd/readyz", nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("ask %s: %w", c.Listen, root(err))
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<10))
	if err != nil {
		return fmt.Errorf("ask %s: %w", c.Listen, err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s is not ready: %s", c.Listen, strings.TrimSpace(string(text)))
	}
	_, err = fmt.Fprint(stdout, string(text))
	return err
}

// dialAddress is where to reach a server that listens on address.
func dialAddress(address string) (network, dial string) {
	if path, unix := strings.CutPrefix(address, "unix:"); unix {
		return "unix", path
	}
	host, port, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err == nil && (host == "" || ip.IsUnspecified()) {
		host = "localhost"
	}
	return "tcp", net.JoinHostPort(host, port)
}

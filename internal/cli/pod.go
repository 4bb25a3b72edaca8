package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"bareboat/internal/pipeline"
	"bareboat/pods"
)

func (a *app) ps() *cobra.Command {
	var asJSON, all bool
	c := &cobra.Command{
		Use:   "ps [SERVICE…]",
		Short: "List the project's pods; with --all also those that are kept for a rollback",
		RunE: func(c *cobra.Command, args []string) error {
			p, _, err := a.pipeline(c.Context())
			if err != nil {
				return err
			}
			list, err := p.PS(c.Context(), args, all)
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(orEmpty(list))
			}
			w := table(a.stdout)
			fmt.Fprintln(w, "SERVICE\tRELEASE\tPOD\tSTATE\tHEALTH\tIMAGE\tSINCE")
			for _, r := range list {
				fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\t%s\n", r.Service, r.Release, r.Pod, r.State,
					dash(r.Health), shortImage(r.Image), created(r.Started))
			}
			return w.Flush()
		},
	}
	c.Flags().BoolVarP(&all, "all", "a", false, "also pods that are kept, stopped, for a rollback")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return a.services(c, 0)
}

// orEmpty has a list without items be one in JSON, too.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// shortImage is NAME@sha256:… with the digest cut as people compare it.
func shortImage(pinned string) string {
	name, sum, ok := strings.Cut(pinned, "@sha256:")
	if !ok {
		return dash(pinned)
	}
	return name + "@" + short(sum)
}

func (a *app) logs() *cobra.Command {
	var opts pods.LogOptions
	var since string
	c := &cobra.Command{
		Use:   "logs [SERVICE…]",
		Short: "Show what services print",
		RunE: func(c *cobra.Command, args []string) error {
			var err error
			if opts.Since, err = parseSince(since, time.Now()); err != nil {
				return &usageError{err: err, command: c.CommandPath()}
			}
			p, _, err := a.pipeline(c.Context())
			if err != nil {
				return err
			}
			out, flush := a.output(len(args) == 1)
			err = p.Logs(c.Context(), args, opts, out)
			flush()
			if opts.Follow && c.Context().Err() != nil {
				return nil // Ctrl-C is how one ends following
			}
			return err
		},
	}
	f := c.Flags()
	f.BoolVarP(&opts.Follow, "follow", "f", false, "go on until the services end")
	f.StringVar(&since, "since", "", "only what is newer: a `time` (RFC 3339) or an age such as 10m")
	f.IntVarP(&opts.Tail, "tail", "n", 0, "only the last `lines` (0: all)")
	f.BoolVarP(&opts.Timestamps, "timestamps", "t", false, "with the time of each line")
	return a.services(c, 0)
}

// parseSince reads a time or an age, as podman logs does.
func parseSince(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if age, err := time.ParseDuration(s); err == nil && age >= 0 {
		return now.Add(-age), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("--since %q is neither a time such as 2006-01-02T15:04:05 nor an age such as 10m", s)
}

// output writes each service's lines behind its name, unless there is but one.
// What a program printed last may not end a line: flush writes that.
func (a *app) output(plain bool) (out pipeline.Output, flush func()) {
	var mu sync.Mutex
	var all []*prefixed
	out = func(service string) (io.Writer, io.Writer) {
		if plain {
			return a.stdout, a.stderr
		}
		stdout := &prefixed{mu: &mu, w: a.stdout, prefix: service + " | "}
		stderr := &prefixed{mu: &mu, w: a.stderr, prefix: service + " | "}
		all = append(all, stdout, stderr)
		return stdout, stderr
	}
	return out, func() {
		for _, p := range all {
			if len(p.rest) > 0 {
				_, _ = p.Write([]byte("\n")) // nobody is left to be told
			}
		}
	}
}

// prefixed writes whole lines, each behind a prefix.
type prefixed struct {
	mu     *sync.Mutex
	w      io.Writer
	prefix string
	rest   []byte
}

func (p *prefixed) Write(b []byte) (int, error) {
	p.rest = append(p.rest, b...)
	for {
		i := bytes.IndexByte(p.rest, '\n')
		if i < 0 {
			return len(b), nil
		}
		p.mu.Lock()
		_, err := fmt.Fprintf(p.w, "%s%s", p.prefix, p.rest[:i+1])
		p.mu.Unlock()
		if err != nil {
			return 0, err
		}
		p.rest = p.rest[i+1:]
	}
}

func (a *app) exec() *cobra.Command {
	var noTTY bool
	var env []string
	opts := pods.ExecOptions{}
	c := &cobra.Command{
		Use:   "exec SERVICE COMMAND [ARG…]",
		Short: "Run a command in a service's container",
		Long: `Run a command in a service's container, with a terminal if standard input and
output are one. The exit code is the command's.`,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) < 2 {
				return &usageError{err: errors.New("wants a service and a command"), command: c.CommandPath()}
			}
			var err error
			if opts.Env, err = environment(env); err != nil {
				return &usageError{err: err, command: c.CommandPath()}
			}
			p, _, err := a.pipeline(c.Context())
			if err != nil {
				return err
			}
			opts.Cmd = args[1:]
			opts.Stdin, opts.Stdout, opts.Stderr = a.stdin, a.stdout, a.stderr
			opts.TTY = !noTTY && isTerminalReader(a.stdin) && isTerminal(a.stdout)
			code, err := p.Exec(c.Context(), args[0], opts)
			if err == nil && code != 0 {
				err = &exitError{code: code}
			}
			return err
		},
	}
	f := c.Flags()
	f.SetInterspersed(false)
	f.BoolVarP(&noTTY, "no-tty", "T", false, "no terminal, even where there is one")
	f.StringArrayVarP(&env, "env", "e", nil, "set a variable, as `NAME=VALUE`")
	f.StringVarP(&opts.User, "user", "u", "", "run as this `user`")
	f.StringVarP(&opts.WorkDir, "workdir", "w", "", "run in this `folder`")
	return a.services(c, 1)
}

func isTerminalReader(r io.Reader) bool {
	f, ok := r.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func environment(list []string) (map[string]string, error) {
	out := map[string]string{}
	for _, kv := range list {
		name, value, ok := strings.Cut(kv, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("--env %q is not NAME=VALUE", kv)
		}
		out[name] = value
	}
	return out, nil
}

func (a *app) stop() *cobra.Command {
	c := &cobra.Command{
		Use:   "stop [SERVICE…]",
		Short: "Stop pods; they and their data stay",
		RunE: func(c *cobra.Command, args []string) error {
			p, _, err := a.pipeline(c.Context())
			if err != nil {
				return err
			}
			return a.printLines(p.Stop(c.Context(), args))
		},
	}
	return a.services(c, 0)
}

func (a *app) start() *cobra.Command {
	c := &cobra.Command{
		Use:   "start [SERVICE…]",
		Short: "Start stopped pods again",
		RunE: func(c *cobra.Command, args []string) error {
			p, _, err := a.pipeline(c.Context())
			if err != nil {
				return err
			}
			return a.printLines(p.Start(c.Context(), args))
		},
	}
	return a.services(c, 0)
}

// confirm asks on the terminal; elsewhere nobody could answer.
func (a *app) confirm(ctx context.Context, question string) (bool, error) {
	if !isTerminalReader(a.stdin) {
		return false, &usageError{err: errors.New("this removes data, and nobody can be asked: add --yes"), command: "bareboat down"}
	}
	fmt.Fprintf(a.stderr, "%s [y/N] ", question)
	answers := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(a.stdin).ReadString('\n') // what cannot be read is no
		answers <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case answer := <-answers:
		return answer == "y" || answer == "yes", nil
	case <-ctx.Done():
		fmt.Fprintln(a.stderr)
		return false, ctx.Err()
	}
}

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"bareboat/internal/pipeline"
	"bareboat/pods"
)

func (a *app) releases() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "releases",
		Short: "List what was released, when and by whom, and what one can go back to",
		Long: `List what was released, the latest first: the release that serves, those that are
kept, to which bareboat rollback RELEASE goes back in a second or two, those that
are gone, and those that failed.

The list comes from the project's journal, whose lines carry the hash of the line
before: one that was changed is told of.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			p, progress, err := a.pipeline(c.Context())
			if err != nil {
				return err
			}
			list, err := p.Releases(c.Context())
			progress.Close()
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(orEmpty(list))
			}
			w := table(a.stdout)
			fmt.Fprintln(w, "RELEASE\tSTATE\tWHEN\tWHO\tWHAT\tREVISION\tIMAGES\tSECONDS")
			for _, r := range list {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", dash(count(r.Release)), r.State, created(r.Time), dash(r.Who),
					dash(strings.TrimPrefix(r.Command, "bareboat ")), dash(r.Revision), dash(digests(r.Images)), seconds(r.Seconds))
			}
			return w.Flush()
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return c
}

func count(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

func seconds(s float64) string {
	if s == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f", s)
}

// digests names the images of a release as people compare them.
func digests(images map[string]string) string {
	var list []string
	for _, service := range slices.Sorted(maps.Keys(images)) {
		_, sum, _ := strings.Cut(images[service], "@sha256:")
		list = append(list, service+"@"+short(sum))
	}
	return strings.Join(list, " ")
}

func (a *app) status() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "status",
		Short: "Say what serves, whether it is well, and what a deploy would do",
		Long: `Say which release serves, whether its pods run and the edge answers, what can be
gone back to, who is at it now, and what bareboat deploy would do. The exit code
is 1 if something that should run does not.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			p, progress, err := a.pipeline(c.Context())
			if err != nil {
				return err
			}
			s, err := p.Status(c.Context())
			progress.Close()
			if err != nil {
				return err
			}
			if asJSON {
				err = a.printJSON(s)
			} else {
				err = a.printStatus(s)
			}
			if err == nil && !s.Well() {
				err = errors.New(unwell(s))
			}
			return err
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return c
}

func (a *app) printStatus(s pipeline.Status) error {
	w := table(a.stdout)
	serves := "nothing"
	if s.Release != 0 {
		serves = fmt.Sprint("release ", s.Release)
	}
	fmt.Fprintf(w, "project\t%s\nserves\t%s\n", s.Project, serves)
	if s.URL != "" {
		answers := "answers"
		if !s.Answers {
			answers = "does not answer"
		}
		fmt.Fprintf(w, "edge\t%s %s\n", s.URL, answers)
	}
	for _, r := range s.Pods {
		fmt.Fprintf(w, "%s\t%s, %s, since %s\n", r.Service, r.Pod, r.State, created(r.Started))
	}
	kept := make([]string, len(s.Kept))
	for i, n := range s.Kept {
		kept[i] = fmt.Sprint(n)
	}
	fmt.Fprintf(w, "kept\t%s\n", dash(strings.Join(kept, ", ")))
	if s.Lock != "" {
		fmt.Fprintf(w, "locked\t%s\n", s.Lock)
	}
	todo := "nothing: what runs is what the file and the registry say"
	if len(s.Todo) > 0 {
		todo = s.Todo[0]
	}
	fmt.Fprintf(w, "deploy\t%s\n", todo)
	for _, line := range s.Todo[min(1, len(s.Todo)):] {
		fmt.Fprintf(w, "\t%s\n", line)
	}
	return w.Flush()
}

func unwell(s pipeline.Status) string {
	switch {
	case len(s.Missing) > 0:
		return "these services should run and do not: " + strings.Join(s.Missing, ", ")
	case s.Release == 0:
		return "nothing of the project serves"
	}
	return "the edge does not answer at " + s.URL
}

func (a *app) restart() *cobra.Command {
	c := &cobra.Command{
		Use:   "restart [SERVICE…]",
		Short: "Stop pods and start them again",
		Long: `Stop the pods of services, or of all, and start them again, one after the other.
People notice: they do not of a release.`,
		RunE: func(c *cobra.Command, args []string) error {
			p, _, err := a.pipeline(c.Context())
			if err != nil {
				return err
			}
			return a.printLines(p.Restart(c.Context(), args))
		},
	}
	return a.services(c, 0)
}

func (a *app) top() *cobra.Command {
	c := &cobra.Command{
		Use:   "top [SERVICE…]",
		Short: "List the processes in the containers",
		RunE: func(c *cobra.Command, args []string) error {
			p, _, err := a.pipeline(c.Context())
			if err != nil {
				return err
			}
			all, err := p.Top(c.Context(), args)
			if err != nil {
				return err
			}
			for _, name := range slices.Sorted(maps.Keys(all)) {
				fmt.Fprintln(a.stdout, name)
				w := table(a.stdout)
				for _, line := range all[name] {
					fmt.Fprintln(w, "  "+line)
				}
				if err := w.Flush(); err != nil {
					return err
				}
			}
			return nil
		},
	}
	return a.services(c, 0)
}

func (a *app) stats() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "stats [SERVICE…]",
		Short: "Show what the containers use now",
		RunE: func(c *cobra.Command, args []string) error {
			p, _, err := a.pipeline(c.Context())
			if err != nil {
				return err
			}
			list, err := p.Stats(c.Context(), args)
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(orEmpty(list))
			}
			w := table(a.stdout)
			fmt.Fprintln(w, "CONTAINER\tCPU %\tMEMORY\tLIMIT\tNET IN\tNET OUT\tPIDS")
			for _, s := range list {
				fmt.Fprintf(w, "%s\t%.1f\t%s\t%s\t%s\t%s\t%d\n", s.Container, s.CPU, size(s.Memory), size(s.MemoryLimit), size(s.NetIn), size(s.NetOut), s.PIDs)
			}
			return w.Flush()
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return a.services(c, 0)
}

func size(n uint64) string { return units.HumanSize(float64(n)) }

func (a *app) events() *cobra.Command {
	var since string
	var asJSON, follow bool
	c := &cobra.Command{
		Use:   "events",
		Short: "Tell what Podman does to the project's containers",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			from, err := parseSince(since, time.Now())
			if err != nil {
				return &usageError{err: err, command: c.CommandPath()}
			}
			p, _, err := a.pipeline(c.Context())
			if err != nil {
				return err
			}
			err = p.Events(c.Context(), from, follow, func(h pods.Happening) {
				if asJSON {
					_ = json.NewEncoder(a.stdout).Encode(h) // whoever read it has gone
					return
				}
				fmt.Fprintf(a.stdout, "%s %s %s %s\n", h.Time.Format(time.RFC3339), h.Type, h.Action, h.Name)
			})
			if c.Context().Err() != nil {
				return nil // Ctrl-C is how one ends listening
			}
			return err
		},
	}
	f := c.Flags()
	f.StringVar(&since, "since", "", "from a `time` (RFC 3339) or an age such as 10m on")
	f.BoolVarP(&follow, "follow", "f", true, "go on; =false: only what was, with --since")
	f.BoolVar(&asJSON, "json", false, "print one JSON document a line")
	return c
}

func (a *app) run() *cobra.Command {
	var noTTY, keep bool
	var env []string
	var o pipeline.RunOptions
	c := &cobra.Command{
		Use:   "run SERVICE [COMMAND [ARG…]]",
		Short: "Run a one-off of a service beside it",
		Long: `Run a service once more, in a pod of its own, with another command if one is
given: with its image, variables, volumes, networks and secrets, but without its
ports; the edge leads nobody there. The exit code is the command's, and the pod is
removed when it ends.`,
		RunE: func(c *cobra.Command, args []string) error {
			variables, err := environment(env)
			if err != nil {
				return &usageError{err: err, command: c.CommandPath()}
			}
			p, progress, err := a.pipeline(c.Context())
			if err != nil {
				return err
			}
			progress.Close()
			o.Command, o.Env, o.Keep = args[1:], variables, keep
			o.Stdin, o.Stdout, o.Stderr = a.stdin, a.stdout, a.stderr
			o.TTY = !noTTY && isTerminalReader(a.stdin) && isTerminal(a.stdout)
			code, err := p.Run(c.Context(), args[0], o)
			if err == nil && code != 0 {
				err = &exitError{code: code}
			}
			return err
		},
	}
	f := c.Flags()
	f.SetInterspersed(false)
	f.BoolVarP(&noTTY, "no-tty", "T", false, "no terminal, even where there is one")
	f.BoolVar(&keep, "keep", false, "leave the pod when it has ended")
	f.StringArrayVarP(&env, "env", "e", nil, "set a variable, as `NAME=VALUE`")
	f.StringVarP(&o.User, "user", "u", "", "run as this `user`")
	f.StringVarP(&o.WorkDir, "workdir", "w", "", "run in this `folder`")
	return a.services(c, 1)
}

// watching releases the project, and again whenever what it is made of is saved,
// until ctx ends. A release that fails is told, and the next is tried.
func (a *app) watching(ctx context.Context, p *pipeline.Pipeline, once func() error) error {
	changed, err := p.Watch(ctx)
	if err != nil {
		return err
	}
	for {
		if err := once(); err != nil && ctx.Err() == nil {
			report(a.stderr, err)
		}
		if ctx.Err() != nil {
			return nil // Ctrl-C is how one ends watching
		}
		a.printer().Say("watching for changes; Ctrl-C ends it")
		select {
		case <-ctx.Done():
			return nil
		case what := <-changed:
			a.printer().Say("changed: " + what)
		}
	}
}

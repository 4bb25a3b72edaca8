package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bareboat/internal/downtime"
)

// verification is what the command line says of a measurement.
type verification struct {
	downtime.Options
	site     string
	duration time.Duration
	repeat   int
	strict   bool
	json     bool
}

func (a *app) verifyDowntime() *cobra.Command {
	var v verification
	c := &cobra.Command{
		Use:   "zero-downtime [flags] [-- COMMAND [ARG…]]",
		Short: "Put a load on a site while COMMAND runs, and count what people would notice",
		Long: `Put a load on a site while COMMAND runs, and count what people would notice: failed
requests, messages that are lost, doubled or out of order, connections that end
without a word or hang. Any site will do.

  bareboat verify zero-downtime --chat /ws -- bareboat deploy

The load is open: each request has an intended time, from which its latency
counts. A third of the rate each goes to clients that keep connections and never
retry (strict), to clients that retry once a GET whose reused connection turns
out to be closed, as browsers do, and to clients with a connection for each
request. With none failed of n the true share is below 3/n at 95 % confidence,
which is printed as the bound.

The exit code is 1 if people would have noticed; the strict clients, of which
there are none among browsers, count only with --strict.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 && c.ArgsLenAtDash() != 0 {
				return &usageError{err: fmt.Errorf("the command comes after --: -- %s", strings.Join(args, " ")), command: "bareboat verify zero-downtime"}
			}
			return a.verifySite(c.Context(), v, args)
		},
	}
	f := c.Flags()
	f.StringVar(&v.site, "url", "", "the site, http[s]://HOST[:PORT] (default: the project's); SSL_CERT_FILE names the authority of a certificate of one's own")
	f.DurationVar(&v.duration, "duration", 0, "how long, where there is no COMMAND")
	f.IntVar(&v.repeat, "repeat", 1, "how often COMMAND is run, one after the other")
	f.Float64Var(&v.Rate, "rate", 200, "requests a second")
	f.StringSliceVar(&v.Paths, "get", []string{"/"}, "paths to ask for")
	f.StringVar(&v.Slow, "slow", "", "a path that takes its time to answer")
	f.StringVar(&v.Upload, "upload", "", "a path that takes a body, which is sent slowly")
	f.StringVar(&v.Post, "post", "", "a path that counts requests, told apart by Idempotency-Key")
	f.StringVar(&v.Posted, "posted", "", "a path that tells which keys were counted, one a line")
	f.StringVar(&v.Echo, "websocket", "", "the path of a WebSocket that sends back what it gets")
	f.StringVar(&v.Chat, "chat", "", "the path of a WebSocket that speaks chat.v1")
	f.IntVar(&v.Clients, "clients", 200, "WebSockets of each kind")
	f.IntVar(&v.Rooms, "rooms", 10, "rooms of the chat that they are in")
	f.Float64Var(&v.Talk, "messages", 100, "messages a second that they say in the chat")
	f.StringVar(&v.Source, "source", "", "address that the clients come from, such as 127.0.0.2")
	f.BoolVar(&v.strict, "strict", false, "count what strict clients meet, too")
	f.BoolVar(&v.json, "json", false, "print one JSON document")
	return c
}

func (a *app) verifySite(ctx context.Context, v verification, command []string) error {
	usage := func(format string, args ...any) error {
		return &usageError{err: fmt.Errorf(format, args...), command: "bareboat verify zero-downtime"}
	}
	switch {
	case (len(command) == 0) == (v.duration == 0):
		return usage("say what is done meanwhile: either -- COMMAND, or --duration for nothing")
	case v.Source != "" && net.ParseIP(v.Source) == nil:
		return usage("--source %q is no IP address", v.Source)
	case v.Rate <= 0 || v.Talk <= 0 || v.Clients < 1 || v.Rooms < 1 || v.repeat < 1:
		return usage("--rate, --messages, --clients, --rooms and --repeat are above 0")
	}
	if v.site == "" {
		p, _, err := a.pipeline(ctx)
		if err != nil {
			return err
		}
		v.site = p.URL()
	}
	site, err := url.Parse(v.site)
	if err != nil || site.Scheme != "http" && site.Scheme != "https" || site.Host == "" {
		return usage("--url %q is not http[s]://HOST[:PORT]", v.site)
	}
	v.URL, v.Echoes = site, v.Clients
	report, err := downtime.Run(ctx, v.Options, func(ctx context.Context) error { return v.during(ctx, command) })
	if len(report.Lines) == 0 {
		return err
	}
	return a.tell(report, v, err)
}

// tell prints the report, also when the command failed: what people met of that is
// what one wants to know.
func (a *app) tell(report downtime.Report, v verification, failed error) error {
	write := report.Write
	if v.json {
		write = func(io.Writer) error { return a.printJSON(report) }
	}
	if err := write(a.stdout); err != nil {
		return err
	}
	noticed := report.Noticed(v.strict)
	switch words := "people would have noticed: " + strings.Join(noticed, "; "); {
	case len(noticed) == 0:
		return failed
	case failed != nil:
		return fmt.Errorf("%w; %s", failed, words)
	default:
		return errors.New(words)
	}
}

// during runs the command, or waits.
func (v verification) during(ctx context.Context, command []string) error {
	if len(command) == 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(v.duration):
			return nil
		}
	}
	for range v.repeat {
		cmd := exec.CommandContext(ctx, command[0], command[1:]...)
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("%s: %w", strings.Join(command, " "), err)
		}
	}
	return nil
}

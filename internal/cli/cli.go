// Package cli is bareboat's command line: commands, output, exit codes.
//
// A command turns flags into one call of the pipeline. The result goes to
// standard output and nothing else does; progress and errors go to standard
// error. An error is one line that names the thing, followed by hints, and ends
// the program with an exit code that tells its kind.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"bareboat/builder"
	"bareboat/builder/debian"
	"bareboat/internal/config"
	"bareboat/internal/oci"
	"bareboat/internal/pipeline"
)

// Main runs the command line and gives the exit code. The first Ctrl-C or
// SIGTERM ends what is under way in good order; a second one ends the program.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	go func() {
		<-ctx.Done()
		stop()
	}()
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr}
	root := a.root()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return report(stderr, root.ExecuteContext(ctx))
}

// app is what the commands share: the streams and the global flags.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer

	files      []string
	project    string
	profiles   []string
	host       string
	storeRoot  string
	runRoot    string
	registry   string
	tlsVerify  bool
	noProgress bool
	log        string // text or json

	command string // that runs: "bareboat build"
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "bareboat",
		Short: "Build container images from scratch and run them as rootless Podman pods",
		Long: `Bareboat builds container images layer by layer from scratch, pushes them to a
registry and runs them as rootless Podman pods behind nginx: no daemon, no root.

It reads the Compose file of the folder that it is called in.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 invalid configuration, 4 registry
or credentials, 5 release failed and the old one still serves, 6 another release
holds the lock.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },

		PersistentPreRun: func(c *cobra.Command, _ []string) { a.command = c.CommandPath() },
	}
	f := root.PersistentFlags()
	f.StringArrayVar(&a.files, "file", nil, "Compose `file`, also -f before the command; may be given more than once (default: found as Compose finds it)")
	f.StringVarP(&a.project, "project-name", "p", "", "`name` of the project (default: the file's, else its folder's)")
	f.StringArrayVar(&a.profiles, "profile", nil, "Compose `profile` to enable; may be given more than once")
	f.StringVar(&a.host, "host", "", "Podman service, as unix:// or ssh:// `URL` (default: CONTAINER_HOST, else the user's own)")
	f.StringVar(&a.storeRoot, "root", "", "`folder` of another image store, as in Podman")
	f.StringVar(&a.runRoot, "runroot", "", "`folder` of that store's run-time state")
	f.StringVar(&a.registry, "registry", "", "registry to push to, as `HOST[:PORT][/PATH]` (default: the Compose file's, else the embedded one)")
	f.BoolVar(&a.tlsVerify, "tls-verify", true, "with =false, speak to registries without TLS or with certificates that cannot be verified")
	f.StringVar(&a.log, "log", "text", "how progress is told on standard error: text, or json for one line a step")
	f.BoolVarP(&a.noProgress, "quiet", "q", false, "no progress on standard error")
	// After a command -f is the command's own (logs -f follows), so that the
	// short form of --file stands before it, as in Compose.
	root.TraverseChildren = true
	root.Flags().StringArrayVarP(&a.files, "f", "f", nil, "")
	if err := root.Flags().MarkHidden("f"); err != nil {
		panic(err) // the flag was defined the line before
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return &usageError{err: err, command: c.CommandPath()}
	})
	root.AddCommand(
		a.build(), a.push(), a.up(), a.deploy(), a.rollback(), a.down(), a.lock(),
		a.releases(), a.status(),
		a.ps(), a.logs(), a.exec(), a.run(), a.stop(), a.start(), a.restart(), a.top(), a.stats(), a.events(),
		a.pull(), a.tag(), a.untag(), a.rmi(), a.save(), a.loadImages(),
		a.images(), a.inspect(), a.diff(), a.history(), a.info(), a.version(), a.registryCommand(), a.cacheCommand(),
		a.initCommand(),
		a.key(), a.verify(), a.sbom(), a.tree(),
		a.login(), a.logout(),
	)
	return root
}

// services makes the arguments of a command names of services.
func (a *app) services(c *cobra.Command, least int) *cobra.Command {
	c.Args = func(c *cobra.Command, args []string) error {
		if len(args) < least {
			return &usageError{err: errors.New("names no service"), command: c.CommandPath()}
		}
		return nil
	}
	c.ValidArgsFunction = func(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		p, err := a.load(c.Context())
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var names []string
		for _, s := range p.Services {
			names = append(names, s.Name)
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
	return c
}

// noArgs is cobra's, with our exit code.
func noArgs(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return &usageError{err: fmt.Errorf("unexpected argument %q", args[0]), command: c.CommandPath()}
	}
	return nil
}

// load reads the Compose file.
func (a *app) load(ctx context.Context) (*config.Project, error) {
	return config.Load(ctx, config.Options{
		Files: a.files, ProjectName: a.project, Env: os.Environ(), Profiles: a.profiles,
	})
}

// checkRegistry refuses a --registry that is none before anything is built.
func (a *app) checkRegistry() error {
	if a.registry == "" {
		return nil
	}
	if _, err := (oci.Reference{Registry: oci.LocalRegistry, Repository: "x"}).At(a.registry); err != nil {
		return &usageError{err: fmt.Errorf("--registry %q is not HOST[:PORT][/PATH]", a.registry), command: "bareboat"}
	}
	return nil
}

// pipeline is what the commands call, for the Compose file. The Printer must
// be closed before the command prints its result.
func (a *app) pipeline(ctx context.Context) (*pipeline.Pipeline, *Printer, error) {
	if err := a.checkRegistry(); err != nil {
		return nil, nil, err
	}
	if a.log != "text" && a.log != logJSON {
		return nil, nil, &usageError{err: fmt.Errorf("--log %q is neither text nor json", a.log), command: "bareboat"}
	}
	project, err := a.load(ctx)
	if err != nil {
		return nil, nil, err
	}
	b, err := a.builder()
	if err != nil {
		return nil, nil, err
	}
	printer := a.printer()
	for _, w := range project.Warnings {
		printer.Warn(w)
	}
	return &pipeline.Pipeline{
		Project: project, Builder: b, Registry: a.registry, Insecure: !a.tlsVerify,
		Host: a.host, Notify: printer.Event, Versions: versions().parts(),
	}, printer, nil
}

const logJSON = "json"

func (a *app) printer() *Printer {
	switch {
	case a.noProgress:
		return NewPrinter(io.Discard, "")
	case a.log == logJSON:
		return NewLogger(a.stderr)
	}
	return NewPrinter(a.stderr, a.command)
}

// The variables that name other Debian mirrors.
const (
	envMirror         = "BAREBOAT_DEBIAN_MIRROR"
	envSecurityMirror = "BAREBOAT_DEBIAN_SECURITY_MIRROR"
)

func (a *app) builder() (*builder.Builder, error) {
	mirrors, err := debian.HostMirrors("/")
	if err != nil {
		return nil, fmt.Errorf("read the host's apt sources: %w", err)
	}
	if m := os.Getenv(envMirror); m != "" {
		mirrors.Main = []string{m}
	}
	if m := os.Getenv(envSecurityMirror); m != "" {
		mirrors.Security = []string{m}
	}
	epoch, err := sourceDateEpoch()
	if err != nil {
		return nil, err
	}
	return &builder.Builder{Root: a.storeRoot, RunRoot: a.runRoot, Mirrors: mirrors, Epoch: epoch}, nil
}

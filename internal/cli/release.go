package cli

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"bareboat/internal/pipeline"
)

func (a *app) up() *cobra.Command {
	var opts releaseOptions
	var watch bool
	c := &cobra.Command{
		Use:   "up",
		Short: "Build, push and release the project, and print its URL",
		Long: `Build the images of services that have a recipe, push them to the registry, and
release the project: new pods start beside the old, are asked until they are
healthy, get the traffic, and only then the old ones end. What has not changed is
not touched. If a new pod does not become healthy the old ones go on serving, and
the exit code is 5.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			p, progress, err := a.pipeline(c.Context())
			if err != nil {
				return err
			}
			p.Builder.Locked = opts.locked
			if opts.dryRun {
				return a.printLines(p.PlanUp(c.Context()))
			}
			signer, err := a.signer(opts.key)
			if err != nil {
				return err
			}
			p.Attest = opts.attest
			p.Attest.Signer = signer
			if !watch {
				return a.release(c.Context(), opts, progress, p.Up)
			}
			return a.watching(c.Context(), p, func() error { return a.reload(c.Context(), opts, p.Attest) })
		},
	}
	c.Flags().BoolVarP(&watch, "watch", "w", false, "build and release again whenever a file is saved")
	lockedFlag(c, &opts.locked)
	attestFlags(c, &opts.attest, &opts.key)
	metadataFlag(c, &opts.metadataFile)
	return opts.flags(c)
}

// reload does up with the Compose file as it is now.
func (a *app) reload(ctx context.Context, opts releaseOptions, attest pipeline.Attest) error {
	p, progress, err := a.pipeline(ctx)
	if err != nil {
		return err
	}
	p.Builder.Locked, p.Attest = opts.locked, attest
	err = a.release(ctx, opts, progress, p.Up)
	progress.Close()
	return err
}

func (a *app) deploy() *cobra.Command {
	var opts releaseOptions
	c := &cobra.Command{
		Use:   "deploy",
		Short: "Release the project with the images that the registry has",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			p, progress, err := a.pipeline(c.Context())
			if err != nil {
				return err
			}
			if opts.dryRun {
				return a.printLines(p.PlanDeploy(c.Context()))
			}
			return a.release(c.Context(), opts, progress, p.Deploy)
		},
	}
	return opts.flags(c)
}

func (a *app) rollback() *cobra.Command {
	var opts releaseOptions
	c := &cobra.Command{
		Use:   "rollback [RELEASE]",
		Short: "Go back to the release before, or to RELEASE, by the pods that are kept of it",
		Long: `Go back to the release before the one that serves, or to RELEASE: its pods, which
are kept stopped, are started again and asked until they are healthy, get the
traffic, and then those that served are stopped, and kept in their turn. Nothing
is built or pulled. If it fails, what served goes on serving, and the exit code
is 5.

How many releases are kept says x-bareboat.keep in the Compose file; 3 if it says
nothing. bareboat releases lists them.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			to := 0
			if len(args) > 0 {
				n, err := strconv.Atoi(args[0])
				if err != nil || n < 1 {
					return &usageError{err: fmt.Errorf("release %q: want a number, such as 4", args[0]), command: "bareboat rollback"}
				}
				to = n
			}
			p, progress, err := a.pipeline(c.Context())
			if err != nil {
				return err
			}
			if opts.dryRun {
				return a.printLines(p.PlanRollback(c.Context(), to))
			}
			return a.release(c.Context(), opts, progress, func(ctx context.Context) (pipeline.Released, error) { return p.Rollback(ctx, to) })
		},
	}
	return opts.flags(c)
}

type releaseOptions struct {
	locked, dryRun, json bool
	metadataFile         string
	attest               pipeline.Attest
	key                  string
}

func (o *releaseOptions) flags(c *cobra.Command) *cobra.Command {
	c.Flags().BoolVar(&o.dryRun, "dry-run", false, "print the plan")
	c.Flags().BoolVar(&o.json, "json", false, "print one JSON document")
	return c
}

func (a *app) release(ctx context.Context, opts releaseOptions, progress *Printer, do func(context.Context) (pipeline.Released, error)) error {
	if err := checkMetadataFile(opts.metadataFile); err != nil {
		return err
	}
	done, err := do(ctx)
	progress.Close()
	if err != nil {
		return err
	}
	if err := a.writeMetadata(opts.metadataFile, done.Images); err != nil {
		return err
	}
	if opts.json {
		return a.printJSON(done)
	}
	if done.Changed {
		progress.Say(fmt.Sprintf("release %d serves", done.Release))
	} else {
		progress.Say(fmt.Sprintf("nothing to do: release %d is what is wanted", done.Release))
	}
	if done.URL != "" {
		fmt.Fprintln(a.stdout, done.URL)
	}
	return nil
}

func (a *app) down() *cobra.Command {
	var volumes, yes, dryRun bool
	c := &cobra.Command{
		Use:   "down",
		Short: "Remove the project's pods and networks, and with --volumes its data",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			p, progress, err := a.pipeline(c.Context())
			if err != nil {
				return err
			}
			if dryRun {
				return a.printLines(p.PlanDown(c.Context(), volumes))
			}
			if volumes && !yes {
				ok, err := a.confirm(c.Context(), fmt.Sprintf("Remove the volumes of %s with all data in them?", p.Project.Name))
				if err != nil || !ok {
					return err
				}
			}
			err = p.Down(c.Context(), volumes)
			progress.Close()
			return err
		},
	}
	c.Flags().BoolVar(&volumes, "volumes", false, "also remove the volumes and the data in them; asks first")
	c.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "print the plan")
	return c
}

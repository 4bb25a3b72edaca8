package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"bareboat/builder"
)

func (a *app) build() *cobra.Command {
	var asJSON, locked, dryRun bool
	c := &cobra.Command{
		Use:   "build [SERVICE…]",
		Short: "Build images from their recipes, into the local store",
		Long: `Build the images of services that have a recipe (x-bareboat.recipe), or of those
named. The images go to the local store, which Podman and Buildah share. Each is
printed as NAME@DIGEST: the digest is the one that any registry will have.`,
		RunE: func(c *cobra.Command, args []string) error {
			p, progress, err := a.pipeline(c.Context())
			if err != nil {
				return err
			}
			p.Builder.Locked = locked
			if dryRun {
				return a.printPlan(p.PlanBuild(args))
			}
			images, err := p.Build(c.Context(), args)
			progress.Close()
			if err != nil {
				return err
			}
			return a.printPinned(images, asJSON)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	c.Flags().BoolVar(&locked, "locked", false, "fail when image.lock can no longer be followed, as CI wants it")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "print what would be built")
	return a.services(c, 0)
}

func (a *app) push() *cobra.Command {
	var asJSON, locked, dryRun bool
	c := &cobra.Command{
		Use:   "push [SERVICE…]",
		Short: "Build images and push them to the registry",
		Long: `Build the images of services that have a recipe, or of those named, and push them
to the registry: --registry, else x-bareboat.registry, else the one that the
image's name says, else the embedded registry of this machine. What the registry
has already is not sent again.`,
		RunE: func(c *cobra.Command, args []string) error {
			p, progress, err := a.pipeline(c.Context())
			if err != nil {
				return err
			}
			p.Builder.Locked = locked
			if dryRun {
				return a.printPlan(p.PlanPush(args))
			}
			images, err := p.Push(c.Context(), args)
			progress.Close()
			if err != nil {
				return err
			}
			return a.printPinned(images, asJSON)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	c.Flags().BoolVar(&locked, "locked", false, "fail when image.lock can no longer be followed, as CI wants it")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "print what would be pushed, and where")
	return a.services(c, 0)
}

func (a *app) lock() *cobra.Command {
	c := &cobra.Command{
		Use:   "lock [SERVICE…]",
		Short: "Resolve Debian packages anew and write image.lock",
		Long: `Resolve the Debian packages of recipes anew, from the suite's signed index, and pin
them in the image.lock beside each recipe. What changed is printed.`,
		RunE: func(c *cobra.Command, args []string) error {
			p, progress, err := a.pipeline(c.Context())
			if err != nil {
				return err
			}
			changes, err := p.Lock(c.Context(), args)
			progress.Close()
			if err != nil {
				return err
			}
			return a.printPlan(changes, nil)
		},
	}
	return a.services(c, 0)
}

func (a *app) images() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "images",
		Short: "List the images of the local store",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			b, err := a.builder()
			if err != nil {
				return err
			}
			images, err := b.Images(c.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(images)
			}
			w := table(a.stdout)
			fmt.Fprintln(w, "NAME\tDIGEST\tIMAGE ID\tCREATED\tSIZE")
			for _, i := range images {
				for _, name := range namesOf(i) {
					fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", name, short(i.Digest.Encoded()), short(i.ID), created(i.Created), builder.HumanSize(i.Size))
				}
			}
			return w.Flush()
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return c
}

func namesOf(i builder.Stored) []string {
	if len(i.Names) == 0 {
		return []string{"<none>"}
	}
	return i.Names
}

// created says when; images that are a function of their content say 1970,
// which would be taken for an age.
func created(t time.Time) string {
	if t.Unix() <= 0 {
		return "-"
	}
	return t.Local().Format("2006-01-02 15:04")
}

func short(id string) string { return id[:min(12, len(id))] }

func table(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 0, 8, 2, ' ', 0) }

// printPlan prints lines, one step each.
func (a *app) printPlan(lines []string, err error) error {
	if err != nil {
		return err
	}
	for _, l := range lines {
		fmt.Fprintln(a.stdout, l)
	}
	return nil
}

func (a *app) printJSON(v any) error {
	e := json.NewEncoder(a.stdout)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

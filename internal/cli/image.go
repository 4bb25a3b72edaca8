package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"bareboat/builder"
	"bareboat/internal/pipeline"
)

func (a *app) build() *cobra.Command {
	return a.orContainerfile(a.makeImages(&cobra.Command{
		Use:   "build [SERVICE…] | -f CONTAINERFILE [CONTEXT]",
		Short: "Build images from their recipes, into the local store",
		Long: `Build the images of services that have a recipe (x-bareboat.recipe), or of those
named. The images go to the local store, which Podman and Buildah share. Each is
printed as NAME@DIGEST: the digest is the one that any registry will have.

What has not changed since it was built before is not made again; --explain says
why a layer is. --dry-run says what would be made and which digest would come of
it, and keeps nothing.

With -f (after the command), build the image of a Containerfile instead, from the
files of CONTEXT (default: this folder); it goes to the store under --tag. No
Compose file is read then. RUN needs no root and has the host's network.`,
	}, (*pipeline.Pipeline).Build, (*pipeline.Pipeline).PlanBuild))
}

func (a *app) push() *cobra.Command {
	return a.orImage(a.makeImages(&cobra.Command{
		Use:   "push [SERVICE…] | IMAGE [DESTINATION]",
		Short: "Build images and push them to the registry",
		Long: `Build the images of services that have a recipe, or of those named, and push them
to the registry: --registry, else x-bareboat.registry, else the one that the
image's name says, else the embedded registry of this machine. What the registry
has already is not sent again: with nothing changed it is asked once. --dry-run
says what would be made and sent.

An argument that names no service but an image of the local store is pushed as it
is there: to DESTINATION, else to where a service of that name would go.`,
	}, (*pipeline.Pipeline).Push, (*pipeline.Pipeline).PlanPush))
}

// makeImages completes a command that makes images of services and prints
// them pinned.
func (a *app) makeImages(
	c *cobra.Command,
	do func(*pipeline.Pipeline, context.Context, []string) ([]pipeline.Image, error),
	plan func(*pipeline.Pipeline, context.Context, []string) ([]pipeline.ImagePlan, error),
) *cobra.Command {
	opts := imageOptions{pushes: c.Name() == "push"}
	c.RunE = func(c *cobra.Command, args []string) error {
		p, progress, err := a.pipeline(c.Context())
		if err != nil {
			return err
		}
		if err := opts.apply(a, p, c); err != nil {
			return err
		}
		if opts.dryRun {
			plans, err := plan(p, c.Context(), args)
			progress.Close()
			return errors.Join(a.printPlans(plans, opts.json, err), p.Builder.Close())
		}
		images, err := do(p, c.Context(), args)
		progress.Close()
		if err != nil {
			return err
		}
		if err := a.writeMetadata(opts.metadataFile, images); err != nil {
			return err
		}
		if opts.json {
			return a.printJSON(images)
		}
		for _, i := range images {
			fmt.Fprintln(a.stdout, i.Pinned)
		}
		return nil
	}
	opts.flags(c)
	return a.services(c, 0)
}

// imageOptions are the flags of commands that make images.
type imageOptions struct {
	json, locked, dryRun, explain bool
	platforms                     []string
	compression                   string
	metadataFile                  string
	pushes                        bool // then what is pushed is told of
	attest                        pipeline.Attest
	key                           string
}

func (o *imageOptions) flags(c *cobra.Command) {
	f := c.Flags()
	f.BoolVar(&o.json, "json", false, "print one JSON document")
	f.BoolVar(&o.dryRun, "dry-run", false, "print what would be made, and its digest")
	f.BoolVar(&o.explain, "explain", false, "say why each layer is made that is not cached")
	platformFlag(c, &o.platforms)
	f.StringVar(&o.compression, "compression", builder.Compressions[0], "of the layers: `"+strings.Join(builder.Compressions, "|")+"`")
	metadataFlag(c, &o.metadataFile)
	lockedFlag(c, &o.locked)
	if o.pushes {
		attestFlags(c, &o.attest, &o.key)
	}
}

// apply puts the flags into the pipeline.
func (o *imageOptions) apply(a *app, p *pipeline.Pipeline, c *cobra.Command) error {
	if !slices.Contains(builder.Compressions, o.compression) {
		return &usageError{err: fmt.Errorf("--compression %q is not one of %s", o.compression, strings.Join(builder.Compressions, ", ")), command: c.CommandPath()}
	}
	if err := choosePlatforms(p, o.platforms, c); err != nil {
		return err
	}
	p.Builder.Compression, p.Builder.Locked, p.Explain = o.compression, o.locked, o.explain
	signer, err := a.signer(o.key)
	if err != nil {
		return err
	}
	p.Attest = o.attest
	p.Attest.Signer = signer
	return checkMetadataFile(o.metadataFile)
}

func platformFlag(c *cobra.Command, platforms *[]string) {
	c.Flags().StringSliceVar(platforms, "platform", nil, "`platform`, as linux/arm64, or several with commas: images become an index (default: this machine's)")
}

// choosePlatforms sets those that the builder is to build for.
func choosePlatforms(p *pipeline.Pipeline, names []string, c *cobra.Command) error {
	for _, s := range names {
		platform, err := builder.ParsePlatform(s)
		if err != nil {
			return &usageError{err: fmt.Errorf("--platform: %w", err), command: c.CommandPath()}
		}
		if !slices.Contains(p.Builder.Platforms, platform) {
			p.Builder.Platforms = append(p.Builder.Platforms, platform)
		}
	}
	return nil
}

// printPlans prints plans, unless there is an error instead.
func (a *app) printPlans(plans []pipeline.ImagePlan, asJSON bool, err error) error {
	if err != nil {
		return err
	}
	if asJSON {
		return a.printJSON(plans)
	}
	for _, p := range plans {
		if err := a.printLines(p.Lines(), nil); err != nil {
			return err
		}
	}
	return nil
}

func lockedFlag(c *cobra.Command, locked *bool) {
	c.Flags().BoolVar(locked, "locked", false, "fail when image.lock can no longer be followed, as CI wants it")
}

func (a *app) lock() *cobra.Command {
	var platforms []string
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
			if err := choosePlatforms(p, platforms, c); err != nil {
				return err
			}
			changes, err := p.Lock(c.Context(), args)
			progress.Close()
			if err != nil {
				return err
			}
			return a.printLines(changes, nil)
		},
	}
	platformFlag(c, &platforms)
	return a.services(c, 0)
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

// printLines prints lines, unless there is an error instead.
func (a *app) printLines(lines []string, err error) error {
	if err != nil {
		return err
	}
	for _, l := range lines {
		fmt.Fprintln(a.stdout, l)
	}
	return nil
}

func (a *app) printJSON(v any) error {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	// GitHub obeys this wherever it stands; outside of strings JSON has no #.
	_, err := a.stdout.Write(bytes.ReplaceAll(text.Bytes(), []byte(oldCommand), []byte(`\u0023#[`)))
	return err
}

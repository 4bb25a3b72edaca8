package cli

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/template"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"bareboat/builder"
	"bareboat/internal/contents"
	"bareboat/internal/pipeline"
)

// imagePipeline is for commands about images, which need no Compose file
// but may name services where there is one.
func (a *app) imagePipeline(c *cobra.Command) (*pipeline.Pipeline, error) {
	b, err := a.builder()
	if err != nil {
		return nil, err
	}
	p := &pipeline.Pipeline{Builder: b, Registry: a.registry, Insecure: !a.tlsVerify, Host: a.host}
	if project, err := a.load(c.Context()); err == nil {
		p.Project = project
	}
	return p, nil
}

const imageNames = `An image is named as people know it: a reference (HOST/NAME:TAG, NAME@sha256:…), a
service of the Compose file, an image of the local store, or a file or folder that
holds one (what save writes). A prefix says it outright:
` + pipeline.Sources + `.`

func wantImages(n int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != n {
			return &usageError{err: fmt.Errorf("wants %d image(s), got %d", n, len(args)), command: c.CommandPath()}
		}
		return nil
	}
}

func imagePlatformFlag(c *cobra.Command, platform *string) {
	c.Flags().StringVar(platform, "platform", builder.HostPlatform().String(), "`platform` to take out of an index")
}

// differs is the exit code of diff --exit-code, as git has it.
const differs = 1

func (a *app) diff() *cobra.Command {
	var platform string
	var asJSON, exitCode bool
	c := &cobra.Command{
		Use:   "diff IMAGE IMAGE",
		Short: "Show what differs between two images",
		Long: `Show what differs between two images: configuration, packages, modules, and files
by type, mode, owner, size and content.

` + imageNames,
		Args: wantImages(2),
		RunE: func(c *cobra.Command, args []string) error {
			p, err := a.imagePipeline(c)
			if err != nil {
				return err
			}
			var both [2]*contents.Image
			for i, name := range args {
				img, done, err := p.ReadImage(c.Context(), name, platform, true)
				if err != nil {
					return err
				}
				defer done()
				both[i] = img
			}
			d := contents.Compare(both[0], both[1])
			if asJSON {
				err = a.printJSON(d)
			} else {
				err = printDifference(a.stdout, d)
			}
			if err == nil && exitCode && !d.Same {
				return &exitError{code: differs}
			}
			return err
		},
	}
	imagePlatformFlag(c, &platform)
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	c.Flags().BoolVar(&exitCode, "exit-code", false, "end with 1 when they differ, and with 0 when not")
	return c
}

func printDifference(out io.Writer, d contents.Difference) error {
	if d.Same {
		_, err := fmt.Fprintln(out, "the same image:", d.A)
		return err
	}
	w := table(out)
	fmt.Fprintf(w, "digest\t%s\t→ %s\n", short(d.A.Encoded()), short(d.B.Encoded()))
	fmt.Fprintf(w, "size\t%s\t→ %s\n", humanize.Bytes(uint64(d.SizeA)), humanize.Bytes(uint64(d.SizeB)))
	fmt.Fprintf(w, "layers\t%d\t→ %d, %d shared\n", d.LayersA, d.LayersB, d.Shared)
	for _, part := range []struct {
		name    string
		changes []contents.Change
	}{{"config", d.Config}, {"package", d.Packages}, {"module", d.Modules}} {
		for _, c := range part.changes {
			fmt.Fprintf(w, "%s %s\t%s\t→ %s\n", part.name, c.Name, orNone(c.A), orNone(c.B))
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, c := range d.Files {
		if _, err := fmt.Fprintln(out, fileLine(c)); err != nil {
			return err
		}
	}
	return nil
}

// fileLine tells of one file, with git's and Docker's letter in front.
func fileLine(c contents.Change) string {
	switch {
	case c.A == "":
		return "A " + c.Name + "  " + c.B
	case c.B == "":
		return "D " + c.Name + "  " + c.A
	}
	line := "C " + c.Name + "  " + strings.Join(c.What, ", ")
	if c.A != c.B {
		line += ": " + c.A + " → " + c.B
	}
	return line
}

func orNone(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func (a *app) history() *cobra.Command {
	var platform string
	var asJSON, waste bool
	c := &cobra.Command{
		Use:   "history IMAGE",
		Short: "Show an image's layers, the top one first",
		Long: `Show an image's layers, the top one first: what each was made from and what it
takes, compressed. --waste reads the layers too, and says how much of each is hidden
by those above it.

` + imageNames,
		Args: wantImages(1),
		RunE: func(c *cobra.Command, args []string) error {
			p, err := a.imagePipeline(c)
			if err != nil {
				return err
			}
			img, done, err := p.ReadImage(c.Context(), args[0], platform, waste)
			if err != nil {
				return err
			}
			defer done()
			layers := slices.Clone(img.Layers)
			slices.Reverse(layers)
			if asJSON {
				return a.printJSON(layers)
			}
			return printHistory(a.stdout, layers, waste)
		},
	}
	imagePlatformFlag(c, &platform)
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	c.Flags().BoolVar(&waste, "waste", false, "also show what the layers hold, unpacked, and what of it is wasted")
	return c
}

func printHistory(out io.Writer, layers []contents.Layer, waste bool) error {
	w := table(out)
	head := "LAYER\tSIZE\tCREATED BY"
	if waste {
		head = "LAYER\tSIZE\tUNPACKED\tFILES\tWASTED\tCREATED BY"
	}
	fmt.Fprintln(w, head)
	for _, l := range layers {
		fmt.Fprintf(w, "%s\t%s\t", short(l.Digest.Encoded()), humanize.Bytes(uint64(l.Size)))
		if waste {
			fmt.Fprintf(w, "%s\t%d\t%s\t", humanize.Bytes(uint64(l.Unpacked)), l.Files, humanize.Bytes(uint64(l.Wasted)))
		}
		fmt.Fprintln(w, l.CreatedBy)
	}
	return w.Flush()
}

func (a *app) inspect() *cobra.Command {
	var platform, format string
	c := &cobra.Command{
		Use:   "inspect SERVICE|IMAGE…",
		Short: "Show a service's pods, or an image with config, layers and waste, as JSON",
		Long: `Show the pods of a service, if it has any, else an image: platform, config, layers
with size and source, and wasted bytes.

` + imageNames,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return &usageError{err: errors.New("wants a service or image"), command: c.CommandPath()}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			p, err := a.imagePipeline(c)
			if err != nil {
				return err
			}
			for _, name := range args {
				shown, err := a.inspected(c, p, name, platform)
				if err != nil {
					return err
				}
				if err := a.printAs(format, shown); err != nil {
					return err
				}
			}
			return nil
		},
	}
	imagePlatformFlag(c, &platform)
	c.Flags().StringVar(&format, "format", "", "print through a Go `template` instead of JSON, as {{.Digest}}")
	return c
}

// inspected gives the pods of a service, or an image.
func (a *app) inspected(c *cobra.Command, p *pipeline.Pipeline, name, platform string) (any, error) {
	if p.Project != nil {
		if _, ok := p.Project.Service(name); ok {
			pods, err := p.Inspect(c.Context(), name)
			if err != nil || len(pods) > 0 {
				return pods, err
			}
		}
	}
	img, done, err := p.ReadImage(c.Context(), name, platform, true)
	if err != nil {
		return nil, err
	}
	defer done()
	return img, nil
}

// printAs prints as JSON, or through a template.
func (a *app) printAs(format string, value any) error {
	if format == "" {
		return a.printJSON(value)
	}
	t, err := template.New("format").Parse(format + "\n")
	if err == nil {
		err = t.Execute(a.stdout, value)
	}
	if err != nil {
		return &usageError{err: fmt.Errorf("--format: %w", err), command: "bareboat inspect"}
	}
	return nil
}

// errRebuild says that a second build gave something else.
var errRebuild = errors.New("the rebuilt image is another")

// verifyRebuild builds again, elsewhere, and compares.
func (a *app) verifyRebuild(c *cobra.Command, services []string, asJSON bool) error {
	p, progress, err := a.pipeline(c.Context())
	if err != nil {
		return err
	}
	all, err := p.VerifyRebuild(c.Context(), services)
	progress.Close()
	if err != nil {
		return err
	}
	if asJSON {
		err = a.printJSON(all)
	}
	for _, r := range all {
		switch {
		case !r.Same():
			if !asJSON {
				err = errors.Join(err, printDifference(a.stdout, *r.Difference))
			}
			err = errors.Join(err, fmt.Errorf("%s: %w: built %s, rebuilt %s", r.Image, errRebuild, r.Built, r.Rebuilt))
		case !asJSON:
			fmt.Fprintf(a.stdout, "%s@%s\n", strings.TrimSuffix(r.Image, ":latest"), r.Built)
		}
	}
	return err
}

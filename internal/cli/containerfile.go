package cli

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"bareboat/builder"
	"bareboat/internal/oci"
	"bareboat/internal/pipeline"
)

// containerfileOptions are the flags of build that are about a Containerfile.
type containerfileOptions struct {
	path, tag, target string
	args, secrets     []string
	noCache           bool
}

// orContainerfile lets build take a Containerfile.
func (a *app) orContainerfile(c *cobra.Command) *cobra.Command {
	var o containerfileOptions
	f := c.Flags()
	f.StringVarP(&o.path, "containerfile", "f", "", "build this Containerfile; `path`")
	f.StringVarP(&o.tag, "tag", "t", "", "with -f: `name` of the image")
	f.StringArrayVar(&o.args, "build-arg", nil, "with -f: an ARG as `NAME=VALUE`, or NAME for the variable of that name; may be given more than once")
	f.StringArrayVar(&o.secrets, "secret", nil, "with -f: for RUN --mount=type=secret, as `id=ID,src=FILE` or id=ID,env=NAME; may be given more than once")
	f.StringVar(&o.target, "target", "", "with -f: the `stage` to build (default: the last)")
	f.BoolVar(&o.noCache, "no-cache", false, "with -f: make every layer anew")
	services := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		if o.path != "" {
			return a.buildContainerfile(c, o, args)
		}
		for _, name := range []string{"tag", "build-arg", "secret", "target", "no-cache"} {
			if c.Flags().Changed(name) {
				return &usageError{err: fmt.Errorf("--%s is about a Containerfile: add -f PATH", name), command: c.CommandPath()}
			}
		}
		return services(c, args)
	}
	return c
}

// request reads the flags; the registry's TLS is the app's matter.
func (o containerfileOptions) request(args []string) (builder.ContainerfileRequest, error) {
	r := builder.ContainerfileRequest{Path: o.path, Context: ".", Target: o.target, NoCache: o.noCache}
	switch {
	case len(args) > 1:
		return r, fmt.Errorf("unexpected argument %q: -f wants one folder", args[1])
	case len(args) == 1:
		r.Context = args[0]
	}
	if o.tag == "" {
		return r, errors.New("the image has no name: add --tag NAME")
	}
	var err error
	if r.Name, err = oci.ParseLocal(o.tag); err != nil {
		return r, fmt.Errorf("--tag: %w", err)
	}
	if r.Name.Tag == "" {
		r.Name = r.Name.WithTag("latest")
	}
	if r.Args, err = buildArgs(o.args); err != nil {
		return r, err
	}
	for _, text := range o.secrets {
		s, err := builder.ParseSecret(text)
		if err != nil {
			return r, err
		}
		r.Secrets = append(r.Secrets, s)
	}
	return r, nil
}

func (a *app) buildContainerfile(c *cobra.Command, o containerfileOptions, args []string) error {
	r, err := o.request(args)
	if err != nil {
		return &usageError{err: err, command: c.CommandPath()}
	}
	r.Insecure = !a.tlsVerify
	platforms, err := c.Flags().GetStringSlice("platform")
	if err != nil {
		return err
	}
	if dry, err := c.Flags().GetBool("dry-run"); err != nil || dry {
		return errors.Join(err, &usageError{err: errors.New("--dry-run cannot tell what a Containerfile gives"), command: c.CommandPath()})
	}
	b, err := a.builder()
	if err != nil {
		return err
	}
	for _, text := range platforms {
		p, err := builder.ParsePlatform(text)
		if err != nil {
			return &usageError{err: fmt.Errorf("--platform: %w", err), command: c.CommandPath()}
		}
		b.Platforms = append(b.Platforms, p)
	}
	printer := a.printer()
	b.Notify = func(e builder.Event) {
		printer.Event(pipeline.Event{Subject: r.Name.Repository, Text: e.Note, Warn: e.Warn, Lasting: e.Step == "containerfile"})
	}
	img, err := b.BuildContainerfile(c.Context(), r)
	if err == nil {
		_, err = b.Add(c.Context(), img)
	}
	printer.Close()
	if err != nil {
		return err
	}
	fmt.Fprintln(a.stdout, img.Pinned())
	return nil
}

// buildArgs reads NAME=VALUE. A NAME alone takes the variable of that name, if it
// is set, so that a value need not stand on the command line.
func buildArgs(list []string) (map[string]string, error) {
	out := map[string]string{}
	for _, text := range list {
		name, value, given := strings.Cut(text, "=")
		if name == "" {
			return nil, fmt.Errorf("--build-arg %q is not NAME=VALUE", text)
		}
		if !given {
			if value, given = os.LookupEnv(name); !given {
				continue
			}
		}
		out[name] = value
	}
	return out, nil
}

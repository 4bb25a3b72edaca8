package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"bareboat/builder"
	"bareboat/internal/config"
	"bareboat/internal/oci"
	"bareboat/internal/pipeline"
)

// minArgs asks for arguments of a kind.
func minArgs(n int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) < n {
			return &usageError{err: errors.New("wants " + what), command: c.CommandPath()}
		}
		return nil
	}
}

func (a *app) images() *cobra.Command {
	var asJSON, all, idsOnly, digests bool
	c := &cobra.Command{
		Use:   "images [NAME]",
		Short: "List the images of the local store",
		Long: `List the images of the local store, which Podman and Buildah share; no service is
asked. NAME is a name with or without its tag, the end of one (chat for
localhost/team/chat), or a pattern such as 'localhost/*/chat:*'. Images without a
name that others are built on are left out, unless --all is given.`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				return &usageError{err: fmt.Errorf("unexpected argument %q", args[1]), command: c.CommandPath()}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			b, err := a.builder()
			if err != nil {
				return err
			}
			images, err := b.Images(c.Context())
			if err != nil {
				return err
			}
			images = slices.DeleteFunc(images, func(i builder.Stored) bool { return i.Intermediate && !all })
			if len(args) > 0 {
				images = named(images, args[0])
			}
			switch {
			case idsOnly:
				return a.printIDs(images)
			case asJSON:
				return a.printJSON(images)
			}
			return a.printImages(images, digests)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	c.Flags().BoolVarP(&all, "all", "a", false, "also what others are built on")
	c.Flags().BoolVarP(&idsOnly, "quiet", "q", false, "print IDs alone")
	c.Flags().BoolVar(&digests, "digests", false, "print digests in full")
	return c
}

// named leaves of images, and of their names, what somebody means by a name.
func named(images []builder.Stored, asked string) []builder.Stored {
	var out []builder.Stored
	for _, i := range images {
		if fit := slices.DeleteFunc(slices.Clone(i.Names), func(name string) bool { return !means(asked, name) }); len(fit) > 0 {
			i.Names = fit
			out = append(out, i)
		} else if len(asked) >= 3 && strings.HasPrefix(i.ID, asked) {
			out = append(out, i)
		}
	}
	return out
}

// means tells whether a name of the store is one that somebody would shorten so.
func means(asked, name string) bool {
	ref, err := oci.ParseReference(name)
	if err != nil {
		return false
	}
	for _, whole := range []string{name, ref.Name()} {
		for {
			if ok, err := path.Match(asked, whole); ok && err == nil {
				return true
			}
			_, rest, ok := strings.Cut(whole, "/")
			if !ok {
				break
			}
			whole = rest
		}
	}
	return false
}

func (a *app) printIDs(images []builder.Stored) error {
	for _, i := range images {
		fmt.Fprintln(a.stdout, short(i.ID))
	}
	return nil
}

func (a *app) printImages(images []builder.Stored, digests bool) error {
	w := table(a.stdout)
	fmt.Fprintln(w, "NAME\tDIGEST\tIMAGE ID\tCREATED\tSIZE")
	for _, i := range images {
		digest := short(i.Digest.Encoded())
		if digests {
			digest = i.Digest.String()
		}
		for _, name := range namesOf(i) {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", name, digest, short(i.ID), created(i.Created), humanize.Bytes(uint64(i.Size)))
		}
	}
	return w.Flush()
}

func namesOf(i builder.Stored) []string {
	if len(i.Names) == 0 {
		return []string{"<none>"}
	}
	return i.Names
}

// localNames reads names that an image of this machine is to have.
func localNames(c *cobra.Command, args []string) ([]oci.Reference, error) {
	var out []oci.Reference
	for _, arg := range args {
		ref, err := oci.ParseLocal(arg)
		if err == nil && ref.Digest != "" {
			err = errors.New("a digest cannot be given away")
		}
		if err != nil {
			return nil, &usageError{err: fmt.Errorf("name %q: %w", arg, err), command: c.CommandPath()}
		}
		out = append(out, ref)
	}
	return out, nil
}

func (a *app) tag() *cobra.Command {
	return a.renaming(&cobra.Command{
		Use:   "tag IMAGE NAME…",
		Short: "Give an image of the local store further names",
		Long: `Give an image of the local store further names. A NAME without a host is
localhost/NAME, without a tag it is latest. Another image that had the name loses it.`,
		Args: minArgs(2, "an image and a name for it"),
	}, (*builder.Builder).Tag)
}

func (a *app) untag() *cobra.Command {
	return a.renaming(&cobra.Command{
		Use:   "untag IMAGE [NAME…]",
		Short: "Take names from an image of the local store",
		Long:  `Take names from an image of the local store, or all of them. The image stays.`,
		Args:  minArgs(1, "an image"),
	}, (*builder.Builder).Untag)
}

func (a *app) renaming(c *cobra.Command, do func(*builder.Builder, context.Context, string, []oci.Reference) error) *cobra.Command {
	c.RunE = func(c *cobra.Command, args []string) error {
		refs, err := localNames(c, args[1:])
		if err != nil {
			return err
		}
		b, err := a.builder()
		if err != nil {
			return err
		}
		return do(b, c.Context(), args[0], refs)
	}
	return c
}

func (a *app) rmi() *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:   "rmi IMAGE…",
		Short: "Remove images from the local store",
		Long: `Remove images from the local store. Of an image with several names only the name
given goes. An image that a container is made of stays, unless --force removes
these containers too. What was untagged and deleted is printed, as Podman does.`,
		Args: minArgs(1, "an image"),
		RunE: func(c *cobra.Command, args []string) error {
			b, err := a.builder()
			if err != nil {
				return err
			}
			var failed error
			for _, name := range args {
				done, err := b.Remove(c.Context(), name, force)
				failed = errors.Join(failed, err)
				for _, n := range done.Untagged {
					fmt.Fprintln(a.stdout, "Untagged:", n)
				}
				if done.Deleted != "" {
					fmt.Fprintln(a.stdout, "Deleted:", done.Deleted)
				}
			}
			return failed
		},
	}
	c.Flags().BoolVarP(&force, "force", "f", false, "also remove containers that are made of it, and an ID with several names")
	return c
}

func (a *app) save() *cobra.Command {
	var output, format string
	var many bool
	c := &cobra.Command{
		Use:   "save IMAGE…",
		Short: "Write images of the local store to an archive",
		Long: `Write images of the local store to a file, or to standard output where that is no
terminal. As with Podman, the format is docker-archive, which podman load, docker
load and skopeo read, and which alone holds several images; oci-archive and oci-dir
keep the image's digest. The same images give the same bytes. The file appears when
all is written.`,
		Args: minArgs(1, "an image"),
		RunE: func(c *cobra.Command, args []string) error {
			if !slices.Contains(builder.Formats, format) {
				return &usageError{err: fmt.Errorf("--format %q is not one of %s", format, strings.Join(builder.Formats, ", ")), command: c.CommandPath()}
			}
			toStdout := output == "" || output == "-"
			if toStdout && (format == "oci-dir" || isTerminal(a.stdout)) {
				return &usageError{err: errors.New("where to write it is not said: add --output PATH"), command: c.CommandPath()}
			}
			b, err := a.builder()
			if err != nil {
				return err
			}
			if !toStdout {
				return b.Save(c.Context(), args, format, output)
			}
			return a.saveToStdout(c.Context(), b, args, format)
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "`path` to write to (default: standard output)")
	c.Flags().StringVar(&format, "format", builder.Formats[0], "`"+strings.Join(builder.Formats, "|")+"`")
	c.Flags().BoolVarP(&many, "multi-image-archive", "m", false, "nothing more, and known to podman save: several images are saved without it too")
	return c
}

func (a *app) saveToStdout(ctx context.Context, b *builder.Builder, names []string, format string) (err error) {
	dir, err := os.MkdirTemp("", "bareboat-save-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	file := path.Join(dir, "saved")
	if err := b.Save(ctx, names, format, file); err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(a.stdout, f)
	return err
}

func (a *app) loadImages() *cobra.Command {
	var input string
	c := &cobra.Command{
		Use:   "load",
		Short: "Put the images of an archive into the local store",
		Long: `Put the images of an archive into the local store, under the names that they have
in it, and print each as NAME@DIGEST. The archive is one that podman save, docker
save or skopeo wrote (docker-archive or oci-archive, also compressed), or the folder
of an OCI layout. Without --input it is read from standard input.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			b, err := a.builder()
			if err != nil {
				return err
			}
			if input != "" && input != "-" {
				return a.loadFrom(c.Context(), b, input)
			}
			if isTerminalReader(a.stdin) {
				return &usageError{err: errors.New("what to read is not said: add --input PATH"), command: c.CommandPath()}
			}
			return a.loadFromStdin(c.Context(), b)
		},
	}
	c.Flags().StringVarP(&input, "input", "i", "", "`path` of the archive (default: standard input)")
	return c
}

func (a *app) loadFrom(ctx context.Context, b *builder.Builder, file string) error {
	images, err := b.Load(ctx, file)
	if err != nil {
		return err
	}
	for _, i := range images {
		if i.Name == (oci.Reference{}) {
			fmt.Fprintln(a.stdout, i.Digest)
		} else {
			fmt.Fprintln(a.stdout, i.Pinned())
		}
	}
	return nil
}

// loadFromStdin needs a file: an archive is not read from front to back.
func (a *app) loadFromStdin(ctx context.Context, b *builder.Builder) (err error) {
	f, err := os.CreateTemp("", "bareboat-load-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	_, err = io.Copy(f, a.stdin)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("read standard input: %w", err)
	}
	return a.loadFrom(ctx, b, f.Name())
}

func (a *app) pull() *cobra.Command {
	var platform string
	c := &cobra.Command{
		Use:   "pull IMAGE…",
		Short: "Bring images from registries into the local store",
		Long: `Bring images from their registries into the local store, and print each as
NAME@DIGEST. A name without a host is of Docker Hub. Credentials, mirrors and the
signature policy are those of Podman's files. No service is asked.`,
		Args: minArgs(1, "an image"),
		RunE: func(c *cobra.Command, args []string) error {
			r := builder.PullRequest{Insecure: !a.tlsVerify}
			var err error
			if platform != "" {
				if r.Platform, err = builder.ParsePlatform(platform); err != nil {
					return &usageError{err: fmt.Errorf("--platform: %w", err), command: c.CommandPath()}
				}
			}
			b, err := a.builder()
			if err != nil {
				return err
			}
			for _, arg := range args {
				if r.Ref, err = oci.ParseReference(strings.TrimPrefix(arg, "docker://")); err != nil {
					return &usageError{err: err, command: c.CommandPath()}
				}
				img, err := b.Pull(c.Context(), r)
				if err != nil {
					return err
				}
				fmt.Fprintln(a.stdout, img.Pinned())
			}
			return nil
		},
	}
	c.Flags().StringVar(&platform, "platform", "", "`platform` of the image, as linux/arm64 (default: this machine's)")
	return c
}

// orImage lets push take an image of the store.
func (a *app) orImage(c *cobra.Command) *cobra.Command {
	services := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		project, image, err := a.namesImage(c.Context(), args)
		if err != nil {
			return err
		}
		if !image {
			return services(c, args)
		}
		return a.pushImage(c.Context(), project, args)
	}
	return c
}

// namesImage tells whether the arguments of push name an image of the store, and
// gives the project, which may be empty.
func (a *app) namesImage(ctx context.Context, args []string) (*config.Project, bool, error) {
	if len(args) == 0 || len(args) > 2 {
		return nil, false, nil
	}
	project, err := a.load(ctx)
	if err != nil {
		project = &config.Project{} // an image needs no Compose file
	}
	if _, service := project.Service(args[0]); service {
		return nil, false, nil
	}
	if strings.ContainsAny(args[0], ":/") {
		return project, true, nil
	}
	b, err := a.builder()
	if err != nil {
		return nil, false, err
	}
	_, err = b.Inspect(ctx, args[0])
	if errors.Is(err, builder.ErrNoImage) {
		return nil, false, nil
	}
	return project, err == nil, err
}

func (a *app) pushImage(ctx context.Context, project *config.Project, args []string) error {
	if err := a.checkRegistry(); err != nil {
		return err
	}
	b, err := a.builder()
	if err != nil {
		return err
	}
	printer := a.printer()
	p := &pipeline.Pipeline{Project: project, Builder: b, Registry: a.registry, Insecure: !a.tlsVerify, Notify: printer.Event}
	to := ""
	if len(args) > 1 {
		to = strings.TrimPrefix(args[1], "docker://")
	}
	img, err := p.PushImage(ctx, args[0], to)
	printer.Close()
	if err != nil {
		return err
	}
	fmt.Fprintln(a.stdout, img.Pinned)
	return nil
}

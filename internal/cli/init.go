package cli

import (
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"bareboat/internal/scaffold"
)

func (a *app) initCommand() *cobra.Command {
	var mains []string
	var force, dryRun bool
	c := &cobra.Command{
		Use:   "init [DIR]",
		Short: "Write a recipe and a Compose file for a Go module",
		Long: `Look at the Go module in DIR (default: this folder) and write image.yaml and
compose.yaml for it: its main packages, the port that each listens on, what it
embeds, whether it needs certificates or time zones, how it is checked and ended.
What was found, and where, stands in the files as comments; read and change them.
Several main packages become a service each, with a recipe in their own folders.

A file that is there already is not replaced. Each one written is printed.`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				return &usageError{err: fmt.Errorf("unexpected argument %q", args[1]), command: c.CommandPath()}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			dir := "."
			if len(args) > 0 {
				dir = args[0]
			}
			m, err := scaffold.Inspect(c.Context(), dir, mains...)
			if err != nil {
				return err
			}
			files, err := m.Files()
			if err != nil {
				return err
			}
			if !dryRun {
				if err := scaffold.Write(dir, files, force); err != nil {
					return err
				}
			}
			for _, f := range files {
				if dryRun {
					fmt.Fprintf(a.stdout, "# %s\n%s\n", filepath.Join(dir, f.Path), f.Content)
				} else {
					fmt.Fprintln(a.stdout, filepath.Join(dir, f.Path))
				}
			}
			return nil
		},
	}
	c.Flags().StringArrayVar(&mains, "main", nil, "only this main package, as a `path` such as ./cmd/app; may be given more than once")
	c.Flags().BoolVar(&force, "force", false, "replace files that are there already")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "print the files instead of writing them")
	return c
}

package cli

import (
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"
)

func (a *app) cacheCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "cache",
		Short: "Show or prune what builds keep",
		Args:  noArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.cacheShow(), a.cachePrune())
	return c
}

func (a *app) cacheShow() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "show",
		Short: "Show where the cache is and what it takes",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			b, err := a.builder()
			if err != nil {
				return err
			}
			dir, err := b.CacheDir()
			if err != nil {
				return err
			}
			parts, err := b.CacheUsage()
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(map[string]any{"folder": dir, "parts": parts})
			}
			w := table(a.stdout)
			fmt.Fprintf(w, "folder\t%s\n", dir)
			for _, u := range parts {
				fmt.Fprintf(w, "%s\t%s in %d files\n", u.What, humanize.Bytes(uint64(u.Bytes)), u.Files)
			}
			return w.Flush()
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return c
}

func (a *app) cachePrune() *cobra.Command {
	var asJSON, all, packages, dryRun bool
	var unused time.Duration
	c := &cobra.Command{
		Use:   "prune",
		Short: "Remove from the cache what has not been used for a while",
		Long: `Remove from the cache what no build has used for 30 days, or for --unused. What is
removed is made again when it is needed; images in the store and at registries are
not touched. Debian packages stay unless --packages is given: mirrors drop old ones,
and then only the cache has what image.lock pins. Builds that are under way make the
command fail instead.`,
		Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			b, err := a.builder()
			if err != nil {
				return err
			}
			if all {
				unused = 0
			}
			done, err := b.PruneCache(unused, packages, dryRun)
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(done)
			}
			verb := "removed"
			if dryRun {
				verb = "would remove"
			}
			fmt.Fprintf(a.stdout, "%s %s in %d files\n", verb, humanize.Bytes(uint64(done.Bytes)), done.Files)
			return nil
		},
	}
	c.Flags().DurationVar(&unused, "unused", 30*24*time.Hour, "how long something must not have been used")
	c.Flags().BoolVar(&all, "all", false, "remove all of it")
	c.Flags().BoolVar(&packages, "packages", false, "remove the Debian packages as well")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be removed")
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return c
}

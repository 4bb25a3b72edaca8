package cli

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"bareboat/internal/pipeline"
	"bareboat/pods"
)

// revision is the commit that this program was built from; the linker sets it.
var revision = "unknown"

func (a *app) version() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "version",
		Short: "Show the version of bareboat and of the libraries it stands on",
		Args:  noArgs,
		RunE: func(*cobra.Command, []string) error {
			v := versions()
			if asJSON {
				return a.printJSON(v)
			}
			return a.printRows(v.rows())
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return c
}

type versionInfo struct {
	Bareboat string `json:"bareboat"`
	Buildah  string `json:"buildah"`
	Bindings string `json:"podmanBindings"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func (v versionInfo) rows() [][2]string {
	return [][2]string{
		{"bareboat", v.Bareboat}, {"buildah library", v.Buildah}, {"podman bindings", v.Bindings},
		{"go", v.Go}, {"platform", v.Platform},
	}
}

// parts are the versions by what they are of.
func (v versionInfo) parts() map[string]string {
	out := map[string]string{}
	for _, row := range v.rows() {
		if row[1] != "" {
			out[row[0]] = row[1]
		}
	}
	return out
}

func versions() versionInfo {
	v := versionInfo{Bareboat: revision, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	for _, m := range info.Deps {
		switch m.Path {
		case "github.com/containers/buildah":
			v.Buildah = m.Version
		case "github.com/containers/podman/v5":
			v.Bindings = m.Version
		}
	}
	return v
}

func (a *app) info() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "info",
		Short: "Show what Podman, store and registry bareboat works with here",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			about, err := a.about(c.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(about)
			}
			return a.printRows(about.rows())
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print one JSON document")
	return c
}

// printRows prints names and values.
func (a *app) printRows(rows [][2]string) error {
	w := table(a.stdout)
	for _, row := range rows {
		fmt.Fprintf(w, "%s\t%s\n", row[0], row[1])
	}
	return w.Flush()
}

// aboutInfo is what `info` shows.
type aboutInfo struct {
	Version  versionInfo `json:"version"`
	Podman   pods.Info   `json:"podman"`
	Registry string      `json:"embeddedRegistry"`
}

func (i aboutInfo) rows() [][2]string {
	rows := i.Version.rows()
	return append(rows,
		[2]string{"podman", i.Podman.Version},
		[2]string{"rootless", fmt.Sprint(i.Podman.Rootless)},
		[2]string{"runtime", i.Podman.OCIRuntime},
		[2]string{"network", i.Podman.NetworkBackend},
		[2]string{"cgroups", i.Podman.CgroupVersion + ", " + i.Podman.CgroupManager},
		[2]string{"image store", i.Podman.GraphRoot + " (" + i.Podman.StorageDriver + ")"},
		[2]string{"embedded registry", i.Registry},
	)
}

func (a *app) about(ctx context.Context) (aboutInfo, error) {
	dir, err := pipeline.RegistryDir()
	if err != nil {
		return aboutInfo{}, err
	}
	p := &pipeline.Pipeline{Host: a.host}
	podman, err := p.Info(ctx)
	return aboutInfo{Version: versions(), Podman: podman, Registry: dir}, err
}

func (a *app) registryCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "registry",
		Short: "Run the embedded registry",
		Args:  noArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.registryServe())
	return c
}

func (a *app) registryServe() *cobra.Command {
	var listen, dir string
	c := &cobra.Command{
		Use:   "serve",
		Short: "Serve the embedded registry until interrupted",
		Long: `Serve the embedded registry, the one that build and up use on this machine, until
interrupted. Other bareboat commands go through it meanwhile. It asks nobody for a
password, so it listens on the loopback unless told otherwise.`,
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if dir == "" {
				var err error
				if dir, err = pipeline.RegistryDir(); err != nil {
					return err
				}
			}
			return pipeline.ServeRegistry(dir, listen)
		},
	}
	c.Flags().StringVar(&listen, "listen", "127.0.0.1:5077", "`address` to listen on")
	c.Flags().StringVar(&dir, "dir", "", "`folder` of the registry (default: the one that bareboat uses)")
	return c
}

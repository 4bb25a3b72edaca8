// Command bareboat builds container images from scratch and runs them as
// rootless Podman pods.
package main

import (
	"os"

	"bareboat/builder"
	"bareboat/internal/cli"
)

func main() {
	if builder.Init() {
		return
	}
	os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

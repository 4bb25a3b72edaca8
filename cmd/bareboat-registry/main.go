// Command bareboat-registry is the registry that needs no set-up. Bareboat
// starts it when it is needed; `bareboat registry serve` runs it by itself.
package main

import (
	"os"

	"bareboat/registry/embedded/program"
)

func main() { os.Exit(program.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

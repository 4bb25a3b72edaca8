// Command bench measures bareboat beside its peers and prints a Markdown section.
// scripts/bench calls it and says what each topic needs.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) > 0 && args[0] == "release" {
		return releaseBench(ctx, args[1:], os.Stdout)
	}
	if len(args) == 0 || args[0] != "build" {
		return fmt.Errorf("topic %q is none: the topics are: build, release", args)
	}
	var o options
	f := flag.NewFlagSet("bench build", flag.ContinueOnError)
	f.IntVar(&o.rounds, "n", 5, "rounds")
	f.BoolVar(&o.coldGo, "cold-go", false, "one more row, once: with an empty Go build cache (minutes)")
	f.StringVar(&o.bareboat, "bareboat", "bareboat", "`program` to measure")
	f.StringVar(&o.cache, "cache", "", "`folder` that keeps the peers that are compiled here")
	f.StringVar(&o.dockerHost, "docker-host", "", "`URL` of a dockerd; without one BuildKit is left out")
	f.IntVar(&o.dockerPID, "docker-pid", 0, "`process` id of that dockerd")
	f.StringVar(&o.dockerNone, "docker-none", "left out: it needs a daemon that runs as root", "why there is no dockerd")
	if err := f.Parse(args[1:]); err != nil {
		return err
	}
	if o.rounds < 1 {
		return fmt.Errorf("-n %d: at least one round", o.rounds)
	}
	section, err := build(ctx, o)
	if err != nil {
		return err
	}
	_, err = section.WriteTo(os.Stdout)
	return err
}

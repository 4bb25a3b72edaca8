package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"bareboat/internal/bench/measure"
	"bareboat/internal/bench/report"
)

const (
	nameGo       = "`go build`"
	nameBareboat = "bareboat"
	koVersion    = "v0.19.1"
)

// tool is one that is measured. What it needs for a run stands in tree and home.
type tool struct {
	name, key  string
	repository string // that it pushes to; none for the floor
	daemons    []int
	prepare    func(context.Context) error // once
	reset      func(context.Context) error // empties caches that are not in its home
	commands   func(context.Context) []*exec.Cmd

	tree, home string
	goCold     bool
}

func (b *bench) allTools() []*tool {
	floor := &tool{name: nameGo, key: "go"}
	floor.commands = func(ctx context.Context) []*exec.Cmd { return []*exec.Cmd{b.goBuild(ctx, floor)} }
	return []*tool{floor, b.toolBareboat(), b.toolKo("ko", false), b.toolKo("ko with KOCACHE", true), b.toolBuildah(), b.toolBuildKit()}
}

// goBuild leaves the binary where it is, so that Go sees that it is up to date.
func (b *bench) goBuild(ctx context.Context, t *tool) *exec.Cmd {
	return b.command(ctx, t, nil, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", binary, "./"+program)
}

func (b *bench) command(ctx context.Context, t *tool, env []string, name string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, name, args...)
	c.Dir = t.tree
	c.Env = b.environment(t, env...)
	return c
}

func (b *bench) toolBareboat() *tool {
	t := &tool{name: nameBareboat, key: "bareboat", repository: "bench/bareboat"}
	t.commands = func(ctx context.Context) []*exec.Cmd {
		return []*exec.Cmd{b.command(ctx, t, nil, b.bareboat, "--file", "bench.yaml", "--registry", b.address, "push", "--sbom=false", "--provenance=false", "chat")}
	}
	return t
}

func (b *bench) toolKo(name string, cached bool) *tool {
	t := &tool{name: name, key: strings.ReplaceAll(strings.ToLower(name), " ", "-")}
	t.repository = "bench/" + t.key
	ko := filepath.Join(b.cache, "ko-"+koVersion, "ko")
	t.prepare = func(ctx context.Context) error { return install(ctx, ko, "github.com/google/ko@"+koVersion) }
	t.commands = func(ctx context.Context) []*exec.Cmd {
		env := []string{"KO_DOCKER_REPO=" + b.address + "/" + t.repository, "KO_DEFAULTBASEIMAGE=" + b.address + "/base:latest"}
		if cached {
			env = append(env, "KOCACHE="+filepath.Join(t.home, "kocache"))
		}
		return []*exec.Cmd{b.command(ctx, t, env, ko, "build", "--bare", "--sbom=none", "--platform=linux/"+goarch, "./"+program)}
	}
	return t
}

// install compiles a program unless it is there.
func install(ctx context.Context, file, module string) error {
	if _, err := os.Stat(file); err == nil {
		return nil
	}
	progress("go install %s", module)
	c := exec.CommandContext(ctx, "go", "install", module)
	c.Dir = os.TempDir() // outside of any module
	c.Env = append(os.Environ(), "GOBIN="+filepath.Dir(file), "GOFLAGS=")
	_, err := measure.Run(ctx, nil, c)
	return err
}

func (b *bench) toolBuildah() *tool {
	t := &tool{name: "buildah bud", key: "buildah", repository: "bench/buildah"}
	t.commands = func(ctx context.Context) []*exec.Cmd {
		ref := b.address + "/" + t.repository + ":latest"
		return []*exec.Cmd{
			b.goBuild(ctx, t),
			b.command(ctx, t, nil, "buildah", "bud", "--quiet", "--layers", "--tag", ref, program),
			b.command(ctx, t, nil, "buildah", "push", "--quiet", "--tls-verify=false", ref),
		}
	}
	return t
}

func (b *bench) toolBuildKit() *tool {
	t := &tool{name: "BuildKit", key: "buildkit", repository: "bench/buildkit", daemons: []int{b.dockerPID}}
	if b.dockerHost == "" {
		t.prepare = func(context.Context) error { return fmt.Errorf("%s", b.dockerNone) }
		return t
	}
	docker := func(ctx context.Context, args ...string) *exec.Cmd {
		return b.command(ctx, t, []string{"DOCKER_HOST=" + b.dockerHost, "DOCKER_BUILDKIT=1"}, dockerClient, args...)
	}
	t.reset = func(ctx context.Context) error {
		_, err := measure.Run(ctx, nil, docker(ctx, "system", "prune", "--all", "--force"), docker(ctx, "builder", "prune", "--all", "--force"))
		return err
	}
	t.commands = func(ctx context.Context) []*exec.Cmd {
		ref := b.address + "/" + t.repository + ":latest"
		return []*exec.Cmd{
			b.goBuild(ctx, t),
			docker(ctx, "build", "--quiet", "--tag", ref, "--file", program+"/Containerfile", program),
			docker(ctx, "push", "--quiet", ref),
		}
	}
	return t
}

// dockerClient is Debian's, which belongs to its dockerd: a newer one wants a
// plugin for BuildKit.
const dockerClient = "/usr/bin/docker"

func (b *bench) facts(ctx context.Context) []report.Fact {
	first := func(name string, args ...string) string { return firstLine(ctx, name, args...) }
	facts := []report.Fact{
		{Name: "date", Value: first("date", "-u", "+%F %R UTC")},
		{Name: "commit", Value: first("git", "describe", "--always", "--dirty")},
		{Name: "machine", Value: machine(ctx)},
		{Name: "rounds", Value: fmt.Sprint(b.rounds)},
		{Name: "Go", Value: first("go", "version")},
		{Name: "ko", Value: koVersion},
		{Name: "buildah", Value: first("buildah", "--version")},
		{Name: "registry", Value: first("docker-registry", "--version")},
	}
	if b.dockerHost != "" {
		facts = append(facts, report.Fact{Name: "BuildKit", Value: "in " + first("dockerd", "--version")})
	}
	return facts
}

// firstLine is the first line that a program prints, or why it does not.
func firstLine(ctx context.Context, name string, args ...string) string {
	out, err := exec.CommandContext(ctx, name, args...).Output()
	if err != nil {
		return err.Error()
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line
}

// machine says what the numbers were taken on.
func machine(ctx context.Context) string {
	model := firstLine(ctx, "sh", "-c", "grep -m1 'model name' /proc/cpuinfo | cut -d: -f2")
	return firstLine(ctx, "nproc") + " cores, " + model + ", Linux " + firstLine(ctx, "uname", "-r")
}

package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"bareboat/internal/bench/measure"
	"bareboat/internal/bench/report"
)

type options struct {
	rounds          int
	coldGo          bool
	bareboat, cache string
	dockerHost      string
	dockerPID       int
	dockerNone      string
}

// limit ends a program that hangs.
const limit = 5 * time.Minute

// situation is a row: what happens to the source before the tools run.
type situation struct {
	title, note string
	cold        bool // a registry, and caches of each tool, with nothing in them
	goCold      bool
	edit        func(tree, unique string) error
	changes     bool // that the image has to be another one than before
}

var situations = []situation{
	{title: "Cold", cold: true, note: "Empty caches of each tool and an empty registry; Go's build cache is warm."},
	{title: "No change", note: "The same again."},
	{title: "One line of Go edited", edit: editGo, changes: true, note: "In `chat/hub`."},
	{title: "One layer of many changed", edit: editStatic, changes: true, note: "One static file, in the fourth of eight layers of them."},
}

var coldGo = situation{title: "Cold, Go's build cache too", cold: true, goCold: true, note: "Once."}

// bench is a run of the benchmark.
type bench struct {
	options
	dir       string // all that it writes
	goEnv     map[string]string
	meter     measure.Meter
	address   string // of the meter
	tools     []*tool
	failures  map[string]string
	digests   map[string]string
	registry  *registry
	roundHome string
}

func build(ctx context.Context, o options) (*report.Section, error) {
	dir, err := os.MkdirTemp("", "bareboat-bench-")
	if err != nil {
		return nil, err
	}
	b := &bench{options: o, dir: dir, failures: map[string]string{}, digests: map[string]string{}}
	defer b.remove(dir)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: &b.meter, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(l) }() // Close ends it
	defer server.Close()
	b.address = l.Addr().String()
	if err := b.prepare(ctx); err != nil {
		return nil, err
	}
	defer func() { b.registry.stop() }()
	rows, err := b.measure(ctx)
	if err != nil {
		return nil, err
	}
	return &report.Section{Facts: b.facts(ctx), Baselines: []string{nameBareboat, nameGo}, Rows: rows}, nil
}

// prepare copies the source for each tool and compiles it once, so that Go's
// build cache is warm.
func (b *bench) prepare(ctx context.Context) error {
	var err error
	if b.goEnv, err = goEnvironment(ctx); err != nil {
		return err
	}
	b.tools = b.allTools()
	for _, t := range b.tools {
		t.tree = filepath.Join(b.dir, "src", t.key)
		if err := copySource(ctx, t.tree); err != nil {
			return err
		}
		if t.prepare == nil {
			continue
		}
		if err := t.prepare(ctx); err != nil {
			b.failures[t.name] = err.Error()
		}
	}
	progress("compiling chatd once")
	warm := b.tools[0]
	warm.home = filepath.Join(b.dir, "warm")
	if err := os.MkdirAll(filepath.Join(warm.home, "tmp"), 0o700); err != nil {
		return err
	}
	_, err = measure.Run(ctx, nil, b.goBuild(ctx, warm))
	return err
}

// measure runs the rounds. In each row of each round another tool is first.
func (b *bench) measure(ctx context.Context) ([]report.Row, error) {
	rows := make([]report.Row, 0, len(situations)+1)
	samples := map[string][]report.Sample{} // by row and tool
	for round := range b.rounds {
		for i, s := range situations {
			if err := b.row(ctx, s, round, i, samples); err != nil {
				return nil, err
			}
		}
	}
	all := situations
	if b.coldGo {
		all = append(all[:len(all):len(all)], coldGo)
		if err := b.row(ctx, coldGo, b.rounds, 0, samples); err != nil {
			return nil, err
		}
	}
	for _, s := range all {
		r := report.Row{Title: s.title, Note: s.note}
		for _, t := range b.tools {
			r.Entries = append(r.Entries, report.Entry{
				Tool: t.name, Samples: samples[s.title+t.name], Failure: b.failures[t.name],
			})
		}
		rows = append(rows, r)
	}
	return rows, nil
}

func (b *bench) row(ctx context.Context, s situation, round, shift int, samples map[string][]report.Sample) error {
	if s.cold {
		if err := b.empty(ctx, round); err != nil {
			return err
		}
	}
	for i := range b.tools {
		t := b.tools[(i+round+shift)%len(b.tools)]
		if b.failures[t.name] != "" {
			continue
		}
		sample, err := b.sample(ctx, s, t, round)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			b.failures[t.name] = fmt.Sprintf("failed in round %d, %s: %v", round+1, s.title, err)
			progress("%s, %s: %v", s.title, t.name, err)
			continue
		}
		progress("round %d, %s, %s: %.3f s", round+1, s.title, t.name, sample.Wall.Seconds())
		samples[s.title+t.name] = append(samples[s.title+t.name], sample)
	}
	return nil
}

// empty gives each tool a home with nothing in it, and all of them a new registry.
func (b *bench) empty(ctx context.Context, round int) error {
	b.registry.stop()
	if b.roundHome != "" {
		b.remove(b.roundHome)
	}
	b.roundHome = filepath.Join(b.dir, fmt.Sprintf("round-%d", round))
	var err error
	if b.registry, err = startRegistry(filepath.Join(b.roundHome, "registry")); err != nil {
		return err
	}
	b.meter.Forward(b.registry.url)
	if err := pushBase(ctx, b.registry.url.Host+"/base:latest"); err != nil {
		return err
	}
	clear(b.digests)
	for _, t := range b.tools {
		t.home = filepath.Join(b.roundHome, t.key)
		if err := writeHome(t.home); err != nil {
			return err
		}
	}
	return nil
}

// sample measures one tool once, and sees to it that what it says it pushed is there.
func (b *bench) sample(ctx context.Context, s situation, t *tool, round int) (report.Sample, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	t.goCold = s.goCold
	if s.edit != nil {
		if err := s.edit(t.tree, fmt.Sprintf("%s of round %d with %s", s.title, round, t.name)); err != nil {
			return report.Sample{}, err
		}
	}
	if s.cold {
		if err := os.RemoveAll(filepath.Join(t.tree, binary)); err != nil {
			return report.Sample{}, err
		}
		if t.reset != nil {
			if err := t.reset(ctx); err != nil {
				return report.Sample{}, err
			}
		}
	}
	b.meter.Take()
	usage, err := measure.Run(ctx, t.daemons, t.commands(ctx)...)
	if err != nil {
		return report.Sample{}, err
	}
	sample := report.Sample{Usage: usage, Traffic: b.meter.Take()}
	if t.repository == "" {
		return sample, nil
	}
	digest, err := headManifest(ctx, b.registry.url, t.repository)
	if err != nil {
		return report.Sample{}, err
	}
	if s.changes && digest == b.digests[t.name] {
		return report.Sample{}, errors.New("pushed the image of before, in spite of the change")
	}
	b.digests[t.name] = digest
	return sample, nil
}

// remove removes a folder in which files may belong to subordinate ids.
func (b *bench) remove(dir string) {
	if os.RemoveAll(dir) == nil {
		return
	}
	if out, err := exec.Command("podman", "unshare", "rm", "-rf", dir).CombinedOutput(); err != nil {
		progress("remove %s: %v: %s", dir, err, out)
	}
}

// environment is what each tool gets: nothing of the caller's but what finds
// programs, and Go's caches.
func (b *bench) environment(t *tool, more ...string) []string {
	env := maps.Clone(b.goEnv)
	if t.goCold {
		env["GOCACHE"] = filepath.Join(t.home, "go-build")
	}
	all := []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + t.home, "TMPDIR=" + filepath.Join(t.home, "tmp"),
		"USER=" + os.Getenv("USER"), "LOGNAME=" + os.Getenv("LOGNAME"),
		"XDG_RUNTIME_DIR=" + os.Getenv("XDG_RUNTIME_DIR"),
		"CONTAINERS_STORAGE_CONF=" + filepath.Join(t.home, "storage.conf"),
		"GOPROXY=off", "GOENV=off", "GOFLAGS=", "CGO_ENABLED=0",
	}
	for k, v := range env {
		all = append(all, k+"="+v)
	}
	return append(all, more...)
}

// writeHome makes a home with an image store of its own.
func writeHome(home string) error {
	if err := os.MkdirAll(filepath.Join(home, "tmp"), 0o700); err != nil {
		return err
	}
	conf := fmt.Sprintf("[storage]\ndriver = \"overlay\"\ngraphroot = %q\nrunroot = %q\n",
		filepath.Join(home, "storage"), filepath.Join(home, "run"))
	return os.WriteFile(filepath.Join(home, "storage.conf"), []byte(conf), 0o600)
}

func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...)
}

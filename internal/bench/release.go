package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"bareboat/internal/bench/report"
	"bareboat/internal/downtime"
)

// Exit code of a release that failed while the old one serves: internal/cli.
const exitRelease = 5

// releases is a run of the benchmark of releases.
type releases struct {
	n, broken, rollbacks int
	controls             bool
	only                 string
	bareboat, cache      string

	dir     string // a copy of the source, which controls change
	project string
	port    int

	mark     int
	took     []time.Duration // by releases that were to succeed
	back     []time.Duration // by rollbacks
	failures []string        // what went otherwise than it should
}

func releaseBench(ctx context.Context, args []string, out io.Writer) error {
	r := &releases{}
	f := flag.NewFlagSet("bench release", flag.ContinueOnError)
	f.IntVar(&r.n, "n", 50, "releases in a row")
	f.IntVar(&r.broken, "broken", 10, "of these, how many are broken on purpose")
	f.IntVar(&r.rollbacks, "rollbacks", 10, "rollbacks after them")
	f.BoolVar(&r.controls, "controls", true, "negative controls: what must be noticed")
	f.StringVar(&r.only, "only", "", "one `control` alone")
	f.StringVar(&r.bareboat, "bareboat", "bareboat", "`program` to measure")
	f.StringVar(&r.cache, "cache", "", "`folder` for a copy of the source")
	if err := f.Parse(args); err != nil {
		return err
	}
	if r.n < 1 || r.broken < 0 || r.broken >= r.n || r.rollbacks < 0 {
		return fmt.Errorf("-n %d -broken %d -rollbacks %d: want fewer broken releases than releases", r.n, r.broken, r.rollbacks)
	}
	if err := r.copySource(ctx); err != nil {
		return err
	}
	defer os.RemoveAll(r.dir)
	var text bytes.Buffer
	facts(ctx, &text)
	if r.only == "" {
		if err := r.measure(ctx, &text); err != nil {
			return err
		}
	}
	if r.controls || r.only != "" {
		if err := r.control(ctx, &text); err != nil {
			return err
		}
	}
	if _, err := out.Write(text.Bytes()); err != nil {
		return err
	}
	if len(r.failures) > 0 {
		return errors.New(strings.Join(r.failures, "; "))
	}
	return nil
}

func (r *releases) wrong(format string, args ...any) {
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

// copySource copies what git knows, so that a control can change it.
func (r *releases) copySource(ctx context.Context) error {
	var err error
	if r.dir, err = os.MkdirTemp(r.cache, "release-"); err != nil {
		return err
	}
	script := `git ls-files -z --cached --others --exclude-standard | tar -c --null --files-from=- | tar -x -C "$1"`
	if out, err := exec.CommandContext(ctx, "bash", "-o", "pipefail", "-c", script, "copy", r.dir).CombinedOutput(); err != nil {
		return fmt.Errorf("copy the source: %w: %s", err, out)
	}
	return nil
}

func facts(ctx context.Context, w io.Writer) {
	for _, fact := range []report.Fact{
		{Name: "date", Value: firstLine(ctx, "date", "-u", "+%F %R UTC")},
		{Name: "commit", Value: firstLine(ctx, "git", "describe", "--always", "--dirty")},
		{Name: "machine", Value: machine(ctx)},
		{Name: "Podman", Value: firstLine(ctx, "podman", "--version")},
	} {
		fmt.Fprintf(w, "- %s: %s\n", fact.Name, fact.Value)
	}
	fmt.Fprintln(w)
}

// run runs bareboat on the project and gives its exit code and what it said.
func (r *releases) run(ctx context.Context, env []string, args ...string) (code int, said string, took time.Duration) {
	files := []string{"-p", r.project, "-f", "podman-compose.yml", "-f", "internal/bench/release/compose.yaml"}
	cmd := exec.CommandContext(ctx, r.bareboat, append(files, args...)...)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), append(env, fmt.Sprint("PORT=", r.port))...)
	var all bytes.Buffer
	cmd.Stdout, cmd.Stderr = &all, &all
	began := time.Now()
	err := cmd.Run()
	took = time.Since(began)
	if err != nil && cmd.ProcessState == nil {
		return -1, err.Error(), took
	}
	return cmd.ProcessState.ExitCode(), all.String(), took
}

// changed is an environment that makes a release.
func (r *releases) changed(fault string) []string {
	r.mark++
	return []string{fmt.Sprint("MARK=", r.mark), "TARGET_FAULT=" + fault}
}

// The ports that sites are at: below those that Linux gives to connections, of which
// the load makes many, and those that bareboat leases.
const firstPort, lastPort = 18200, 19999

// freePort finds one that nobody listens on.
func freePort() (int, error) {
	for range lastPort - firstPort {
		port := firstPort + rand.IntN(lastPort-firstPort)
		if l, err := net.Listen("tcp", fmt.Sprint(":", port)); err == nil {
			return port, l.Close()
		}
	}
	return 0, fmt.Errorf("no port from %d to %d is free", firstPort, lastPort)
}

// up brings the project up under a name and a port of its own.
func (r *releases) up(ctx context.Context, name string) error {
	var err error
	if r.port, err = freePort(); err != nil {
		return err
	}
	r.project = fmt.Sprintf("bench-%s-%d", name, r.port)
	if code, said, _ := r.run(ctx, r.changed(""), "up"); code != 0 {
		return fmt.Errorf("bareboat up ends with %d: %s", code, said)
	}
	return nil
}

func (r *releases) down(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
	defer cancel()
	if code, said, _ := r.run(ctx, nil, "down", "--volumes", "--yes"); code != 0 {
		r.wrong("bareboat down ends with %d: %s", code, said)
	}
}

// load is what the issue of every release asks for; the client comes from another
// address than this program.
func (r *releases) load() downtime.Options {
	return downtime.Options{
		URL:  &url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", r.port)},
		Rate: 200, Paths: []string{"/r/lobby", "/t/"}, Slow: "/t/slow", Upload: "/t/upload", Post: "/t/post", Posted: "/t/posted",
		Echo: "/t/echo", Echoes: 20, Chat: "/ws", Clients: 200, Rooms: 4, Talk: 100, Source: "127.0.0.2",
	}
}

// measure does many releases, some broken, and rollbacks, under load.
func (r *releases) measure(ctx context.Context, w io.Writer) error {
	if err := r.up(ctx, "run"); err != nil {
		return err
	}
	defer r.down(ctx)
	report, err := downtime.Run(ctx, r.load(), r.releaseAndBack)
	if err != nil {
		return err
	}
	for _, noticed := range report.Noticed(false) {
		r.wrong("%s", noticed)
	}
	fmt.Fprintf(w, "### %d releases, %d of them broken, and %d rollbacks\n\n", r.n, r.broken, r.rollbacks)
	writeLines(w, report.Lines)
	fmt.Fprintf(w, "\n| | n | median s | max s |\n|---|--:|--:|--:|\n")
	for _, row := range []struct {
		what string
		took []time.Duration
	}{{"release, images present, watched for 2 s", r.took}, {"rollback", r.back}} {
		if len(row.took) > 0 {
			slices.Sort(row.took)
			fmt.Fprintf(w, "| %s | %d | %.2f | %.2f |\n", row.what, len(row.took), row.took[len(row.took)/2].Seconds(), row.took[len(row.took)-1].Seconds())
		}
	}
	return nil
}

// faults are how releases are broken, and what of it has to be said.
var faults = []struct{ fault, says string }{
	{"start", "it was told to crash"}, {"never", "it was told to be unwell"}, {"later", "it was told to be unwell"},
}

func (r *releases) releaseAndBack(ctx context.Context) error {
	broken := 0
	for i := range r.n {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		fault := ""
		// Spread evenly, and never the first.
		if broken < r.broken && (i+1)*r.broken/r.n > broken {
			fault = faults[broken%len(faults)].fault
			broken++
		}
		code, said, took := r.run(ctx, r.changed(fault), "deploy")
		fmt.Fprintf(os.Stderr, "release %d of %d%s: exit code %d after %.1f s\n", i+1, r.n, brokenBy(fault), code, took.Seconds())
		switch {
		case fault == "" && code != 0:
			r.wrong("release %d ends with %d: %s", i+1, code, said)
		case fault == "":
			r.took = append(r.took, took)
		case code != exitRelease:
			r.wrong("release %d, broken (%s), ends with %d: %s", i+1, fault, code, said)
		case !strings.Contains(said, faults[(broken-1)%len(faults)].says) || !strings.Contains(said, "still serves"):
			r.wrong("release %d, broken (%s), does not say why: %s", i+1, fault, said)
		}
	}
	for i := range r.rollbacks {
		// Back and forth: further back there are only as many as are kept.
		args := []string{"rollback"}
		if i%2 == 1 {
			args = append(args, fmt.Sprint(r.newest(ctx)))
		}
		code, said, took := r.run(ctx, nil, args...)
		fmt.Fprintf(os.Stderr, "rollback %d of %d: exit code %d after %.1f s\n", i+1, r.rollbacks, code, took.Seconds())
		if code != 0 {
			r.wrong("rollback %d ends with %d: %s", i+1, code, said)
			continue
		}
		r.back = append(r.back, took)
	}
	return nil
}

func brokenBy(fault string) string {
	if fault == "" {
		return ""
	}
	return ", broken: " + fault
}

// newest is the number of the newest release that there are pods of.
func (r *releases) newest(ctx context.Context) int {
	out, err := exec.CommandContext(ctx, "podman", "pod", "ps", "--filter", "label=bareboat.project="+r.project, "--format", `{{index .Labels "bareboat.release"}}`).Output()
	if err != nil {
		r.wrong("podman pod ps: %v", err)
	}
	newest := 0
	for _, word := range strings.Fields(string(out)) {
		var n int
		if _, err := fmt.Sscan(word, &n); err == nil {
			newest = max(newest, n)
		}
	}
	return newest
}

func writeLines(w io.Writer, lines []downtime.Line) {
	fmt.Fprintf(w, "| client | n | failed | bound, 95 %% | latency ms p50 / p99 / max | silence ms p50 / p99 / max | more |\n|---|--:|--:|--:|--:|--:|---|\n")
	for _, l := range lines {
		bound, silence := "–", ""
		if l.Failed == 0 {
			bound = fmt.Sprintf("< %.2g", l.Bound)
		}
		if s := l.Silence; s != nil {
			silence = fmt.Sprintf("%.0f / %.0f / %.0f", s.P50, s.P99, s.Max)
		}
		fmt.Fprintf(w, "| %s | %d %s | %d | %s | %.1f / %.1f / %.1f | %s | %s |\n", l.Client, l.Count, l.What, l.Failed, bound,
			l.Latency.P50, l.Latency.P99, l.Latency.Max, silence, strings.ReplaceAll(l.More(), "|", "/"))
	}
}

func (r *releases) path(names ...string) string {
	return filepath.Join(append([]string{r.dir}, names...)...)
}

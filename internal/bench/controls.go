package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"bareboat/internal/downtime"
)

// control is something that people notice. A harness that does not is broken.
type control struct {
	name string
	// prepare brings a site up; it gives what takes that down, and what is done
	// under load.
	prepare func(context.Context) (down func(), during func(context.Context) error, err error)
	whole   bool // the site is the whole project, and not the target alone
}

func (r *releases) allControls() []control {
	return []control{
		{name: "podman kube play --replace", prepare: r.kubePlay},
		{name: "podman-compose up --force-recreate", prepare: r.compose},
		{name: "podman pod stop of the old pod", prepare: r.podStop, whole: true},
		{name: "a drain cut short by worker_shutdown_timeout", prepare: r.cutShort, whole: true},
		{name: "an app that ignores SIGTERM", prepare: r.stubborn, whole: true},
	}
}

// control runs the controls and says of each what was noticed.
func (r *releases) control(ctx context.Context, w io.Writer) error {
	if r.only != "" { // else the measurement has built and pulled it
		if err := r.up(ctx, "image"); err != nil {
			return err
		}
		r.down(ctx)
	}
	fmt.Fprintf(w, "\n### Negative controls\n\nThe same load and the same clients. Each of these is noticed, as it should be.\n\n| what is done | noticed |\n|---|---|\n")
	for _, c := range r.allControls() {
		if r.only != "" && !strings.Contains(c.name, r.only) {
			continue
		}
		fmt.Fprintf(os.Stderr, "control: %s\n", c.name)
		noticed, err := r.controlOne(ctx, c)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			r.wrong("%s: %v", c.name, err)
			noticed = []string{"it could not be done"}
		}
		if len(noticed) == 0 {
			r.wrong("nothing was noticed of: %s", c.name)
			noticed = []string{"nothing, which cannot be"}
		}
		fmt.Fprintf(w, "| %s | %s |\n", c.name, strings.Join(noticed, "<br>"))
	}
	return nil
}

func (r *releases) controlOne(ctx context.Context, c control) ([]string, error) {
	down, during, err := c.prepare(ctx)
	if down != nil {
		defer down()
	}
	if err != nil {
		return nil, err
	}
	load := r.load()
	if !c.whole {
		load.Chat, load.Paths = "", []string{"/t/"}
	}
	report, err := downtime.Run(ctx, load, during)
	return report.Noticed(false), err
}

// bare is the target as a pod that others than bareboat run.
const bare = `apiVersion: v1
kind: Pod
metadata:
  name: %[1]s
spec:
  terminationGracePeriodSeconds: 10
  containers:
  - name: target
    image: localhost/bench/target:latest
    imagePullPolicy: Never
    ports:
    - {containerPort: 8000, hostPort: %[2]d}
`

func (r *releases) kubePlay(ctx context.Context) (func(), func(context.Context) error, error) {
	name, err := r.alone()
	if err != nil {
		return nil, nil, err
	}
	file := r.path("pod.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, bare, name, r.port), 0o600); err != nil {
		return nil, nil, err
	}
	down := func() {
		if err := command(context.WithoutCancel(ctx), nil, "podman", "kube", "down", file); err != nil {
			r.wrong("%v", err)
		}
	}
	if err := command(ctx, nil, "podman", "kube", "play", file); err != nil {
		return down, nil, err
	}
	return down, func(ctx context.Context) error { return command(ctx, nil, "podman", "kube", "play", "--replace", file) }, r.answers(ctx)
}

// service is the target as a project of one service.
const service = `services:
  target:
    image: localhost/bench/target:latest
    ports: ["%d:8000"]
    stop_grace_period: 10s
`

func (r *releases) compose(ctx context.Context) (func(), func(context.Context) error, error) {
	name, err := r.alone()
	if err != nil {
		return nil, nil, err
	}
	file := r.path("service.yaml")
	if err := os.WriteFile(file, fmt.Appendf(nil, service, r.port), 0o600); err != nil {
		return nil, nil, err
	}
	do := func(ctx context.Context, args ...string) error {
		return command(ctx, nil, "podman-compose", append([]string{"-f", file, "-p", name}, args...)...)
	}
	down := func() {
		if err := do(context.WithoutCancel(ctx), "down"); err != nil {
			r.wrong("%v", err)
		}
		// podman-compose 1.0.3 leaves its network behind; a later one does not.
		_ = command(context.WithoutCancel(ctx), nil, "podman", "network", "rm", name+"_default")
	}
	if err := do(ctx, "up", "-d"); err != nil {
		return down, nil, err
	}
	return down, func(ctx context.Context) error { return do(ctx, "up", "-d", "--force-recreate") }, r.answers(ctx)
}

// alone gives a name and a free port to what is no project of bareboat's.
func (r *releases) alone() (string, error) {
	var err error
	r.port, err = freePort()
	return fmt.Sprintf("bench-control-%d", r.port), err
}

// answers waits until the site does.
func (r *releases) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		if resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/t/", r.port)); err == nil {
			return resp.Body.Close()
		}
		select {
		case <-ctx.Done():
			return errors.New("the site does not answer")
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// podStop releases as bareboat does, but has Podman stop the old pod, as a script
// would, while the new one is watched.
func (r *releases) podStop(ctx context.Context) (func(), func(context.Context) error, error) {
	if err := r.up(ctx, "podstop"); err != nil {
		return func() { r.down(ctx) }, nil, err
	}
	old := r.project + "-target-r1"
	during := func(ctx context.Context) error {
		cmd := exec.CommandContext(ctx, r.bareboat, "-p", r.project, "-f", "podman-compose.yml", "-f", "internal/bench/release/compose.yaml", "deploy")
		cmd.Dir = r.dir
		cmd.Env = append(os.Environ(), append(r.changed(""), fmt.Sprint("PORT=", r.port))...)
		progress, err := cmd.StderrPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		for lines := bufio.NewScanner(progress); lines.Scan(); {
			if strings.Contains(lines.Text(), ": watch ") {
				err = command(ctx, nil, "podman", "pod", "stop", old)
			}
		}
		return errors.Join(err, cmd.Wait())
	}
	return func() { r.down(ctx) }, during, nil
}

// cutShort has nginx end its old workers almost at once.
func (r *releases) cutShort(ctx context.Context) (func(), func(context.Context) error, error) {
	file := r.path("pods", "proxy", "nginx", "nginx.conf")
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, err
	}
	const long, short = "worker_shutdown_timeout 10m;", "worker_shutdown_timeout 10ms;"
	if !strings.Contains(string(text), long) {
		return nil, nil, fmt.Errorf("%s: no %s", file, long)
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(text), long, short, 1)), 0o644); err != nil {
		return nil, nil, err
	}
	down := func() {
		r.down(ctx)
		if err := os.WriteFile(file, text, 0o644); err != nil {
			r.wrong("%v", err)
		}
	}
	if err := r.up(ctx, "cut"); err != nil {
		return down, nil, err
	}
	return down, r.deploy, nil
}

func (r *releases) deploy(ctx context.Context) error {
	if code, said, _ := r.run(ctx, r.changed(""), "deploy"); code != 0 {
		return fmt.Errorf("bareboat deploy ends with %d: %s", code, said)
	}
	return nil
}

func (r *releases) stubborn(ctx context.Context) (func(), func(context.Context) error, error) {
	down := func() { r.down(ctx) }
	if err := r.up(ctx, "stubborn"); err != nil {
		return down, nil, err
	}
	if code, said, _ := r.run(ctx, r.changed("stubborn"), "deploy"); code != 0 {
		return down, nil, fmt.Errorf("bareboat deploy ends with %d: %s", code, said)
	}
	return down, r.deploy, nil
}

func command(ctx context.Context, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.Join(strings.Fields(string(out)), " "))
	}
	return nil
}

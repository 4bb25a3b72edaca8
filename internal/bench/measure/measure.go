// Package measure runs programs and tells what they cost.
//
// A tree is a process with all that it started. A daemon is a process that
// works for a program without being part of its tree, such as dockerd. Wall
// time is what a person waits; CPU time is user and system time, of the tree and
// of the daemons; memory is the resident set of all these processes together at
// its highest, as seen by a look every five milliseconds. Pages that processes
// share count once for each of them.
package measure

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// interval is short enough to see a program that ends after 20 ms, and costs
// about a hundredth of a core.
const interval = 5 * time.Millisecond

// Usage is what a run costs.
type Usage struct {
	Wall, CPU time.Duration
	Memory    int64 // bytes
}

// A Failure is a command that did not end with 0.
type Failure struct {
	Command string // the program's name
	Err     error  // an *exec.ExitError, or what kept it from starting
	Output  string // the last line that it wrote to standard error
}

func (f *Failure) Error() string {
	if f.Output == "" {
		return fmt.Sprintf("%s: %v", f.Command, f.Err)
	}
	return fmt.Sprintf("%s: %v: %s", f.Command, f.Err, f.Output)
}

// Unwrap gives the cause.
func (f *Failure) Unwrap() error { return f.Err }

// Run runs the commands one after the other, and gives what they cost together
// with what the daemons, named by their process ids, did meanwhile. A command
// that fails ends the run with a *Failure. When the context ends, the command's
// whole process group is killed. Standard error is Run's to use, whatever the
// command says of it.
func Run(ctx context.Context, daemons []int, commands ...*exec.Cmd) (Usage, error) {
	var total Usage
	before := cpuOf(daemons)
	for _, c := range commands {
		u, err := run(ctx, daemons, c)
		if err != nil {
			return Usage{}, err
		}
		total.Wall += u.Wall
		total.CPU += u.CPU
		total.Memory = max(total.Memory, u.Memory)
	}
	total.CPU += cpuOf(daemons) - before
	return total, nil
}

func run(ctx context.Context, daemons []int, c *exec.Cmd) (Usage, error) {
	if err := ctx.Err(); err != nil {
		return Usage{}, err
	}
	var stderr bytes.Buffer
	c.Stderr = &stderr
	c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	start := time.Now()
	if err := c.Start(); err != nil {
		return Usage{}, &Failure{Command: filepath.Base(c.Path), Err: err}
	}
	kill := context.AfterFunc(ctx, func() { _ = syscall.Kill(-c.Process.Pid, syscall.SIGKILL) })
	peak := watch(append([]int{c.Process.Pid}, daemons...))
	err := c.Wait()
	wall := time.Since(start)
	memory := peak()
	kill()
	if ctx.Err() != nil {
		return Usage{}, ctx.Err()
	}
	if err != nil {
		return Usage{}, &Failure{Command: filepath.Base(c.Path), Err: err, Output: lastLine(stderr.String())}
	}
	return Usage{
		Wall:   wall,
		CPU:    c.ProcessState.UserTime() + c.ProcessState.SystemTime(),
		Memory: memory,
	}, nil
}

// watch looks at the memory of the trees until the function that it gives is
// called, which gives the highest sum.
func watch(roots []int) func() int64 {
	stop := make(chan struct{})
	result := make(chan int64)
	go func() {
		tick := time.NewTicker(interval)
		defer tick.Stop()
		peak := resident(roots)
		for {
			select {
			case <-stop:
				result <- peak
				return
			case <-tick.C:
				peak = max(peak, resident(roots))
			}
		}
	}()
	return func() int64 {
		close(stop)
		return <-result
	}
}

func resident(roots []int) int64 {
	var pages int64
	for _, pid := range tree(roots) {
		// The second number is the resident set. A process that has ended has no
		// file any more.
		if fields := procFields(pid, "statm"); len(fields) > 1 {
			n, _ := strconv.ParseInt(fields[1], 10, 64)
			pages += n
		}
	}
	return pages * int64(os.Getpagesize())
}

// cpuOf gives what the trees have used since they began, with the processes in
// them that have ended.
func cpuOf(roots []int) time.Duration {
	var ticks int64
	for _, pid := range tree(roots) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		// What follows the name, which may hold anything, in parentheses:
		// utime, stime, cutime and cstime are fields 14 to 17 of the whole.
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		for _, f := range fields[11:15] {
			n, _ := strconv.ParseInt(f, 10, 64)
			ticks += n
		}
	}
	const perSecond = 100 // USER_HZ, the same on every architecture that Go runs on
	return time.Duration(ticks) * time.Second / perSecond
}

// tree gives the processes and all that they started and that still run.
func tree(roots []int) []int {
	all := append([]int(nil), roots...)
	for i := 0; i < len(all); i++ {
		// A child is listed under the thread that started it.
		lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", all[i]))
		for _, list := range lists {
			text, _ := os.ReadFile(list)
			for _, f := range strings.Fields(string(text)) {
				if pid, err := strconv.Atoi(f); err == nil {
					all = append(all, pid)
				}
			}
		}
	}
	return all
}

func procFields(pid int, name string) []string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
	return strings.Fields(string(text))
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndexByte(text, '\n')+1:]
}

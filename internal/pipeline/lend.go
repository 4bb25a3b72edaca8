package pipeline

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"bareboat/pods"
	"bareboat/registry/store"
)

// registryProgram is the program of the embedded registry.
const registryProgram = "bareboat-registry"

// errQuicker says that another process has taken the store meanwhile.
var errQuicker = errors.New("another process has taken the registry's store")

// findRegistry gives the path of the registry's program: beside this one, else
// in PATH.
func findRegistry() (string, error) {
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), registryProgram)
		if info, err := os.Stat(beside); err == nil && info.Mode().IsRegular() {
			return beside, nil
		}
	}
	found, err := exec.LookPath(registryProgram)
	if err != nil {
		return "", &pods.HintError{
			Err:  fmt.Errorf("start the embedded registry: %s is neither beside bareboat nor in PATH", registryProgram),
			Hint: "go install ./cmd/bareboat-registry, or name a registry: --registry HOST[/PATH]",
		}
	}
	return found, nil
}

// startRegistry starts the embedded registry, which ends with this process, or
// by stop.
func startRegistry(ctx context.Context, dir string) (address string, stop func() error, err error) {
	program, err := findRegistry()
	if err != nil {
		return "", nil, err
	}
	cmd := exec.CommandContext(context.WithoutCancel(ctx), program, "--dir", dir, "--lend")
	// A terminal's Ctrl-C is for this process: it may have more to send.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return "", nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, fmt.Errorf("start the embedded registry: %w", err)
	}
	stop = func() error {
		if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
			return fmt.Errorf("end the embedded registry: %w: %s", err, bytes.TrimSpace(stderr.Bytes()))
		}
		return nil
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	address, ok := strings.CutPrefix(strings.TrimSpace(line), "http://")
	if err == nil && ok {
		return address, stop, nil
	}
	err = stop()
	if cmd.ProcessState.ExitCode() == store.ExitLocked {
		return "", nil, errQuicker
	}
	if err == nil {
		err = fmt.Errorf("start the embedded registry: it said %q", line)
	}
	return "", nil, err
}

// ServeRegistry turns this process into the embedded registry over dir. It
// returns only if that cannot be.
func ServeRegistry(dir, listen string) error {
	program, err := findRegistry()
	if err != nil {
		return err
	}
	err = syscall.Exec(program, []string{registryProgram, "--dir", dir, "--listen", listen}, os.Environ())
	return fmt.Errorf("start %s: %w", program, err)
}

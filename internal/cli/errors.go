package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"bareboat/builder"
	"bareboat/internal/config"
	"bareboat/internal/pipeline"
	"bareboat/pods/release"
	"bareboat/registry"
)

// The exit codes. Each says what kind of thing went wrong.
const (
	exitDone    = 0
	exitFailed  = 1
	exitUsage   = 2
	exitConfig  = 3 // the Compose file or a recipe
	exitAccess  = 4 // a registry or credentials
	exitRelease = 5 // the release failed and the old one still serves
	exitLocked  = 6 // another release holds the lock
)

// usageError is a command line that makes no sense.
type usageError struct {
	err     error
	command string
}

func (e *usageError) Error() string   { return e.err.Error() }
func (e *usageError) Unwrap() error   { return e.err }
func (e *usageError) Hints() []string { return []string{e.command + " --help"} }

// exitError ends with the code of a program that was run for the user.
type exitError struct{ code int }

func (e *exitError) Error() string { return fmt.Sprintf("ended with exit code %d", e.code) }

// report prints an error and its hints, and gives the exit code.
func report(w io.Writer, err error) int {
	var program *exitError
	if errors.As(err, &program) {
		return program.code
	}
	code := exitCode(err)
	if code == exitDone {
		return code
	}
	text := strings.Join(strings.Fields(err.Error()), " ")
	if errors.Is(err, context.Canceled) {
		text = "interrupted"
		var failed *release.FailedError
		if errors.As(err, &failed) && failed.Serving > 0 && failed.Undo == nil {
			text += fmt.Sprintf(": release %d of %s still serves", failed.Serving, failed.Project)
		}
	}
	out := newConsole(w)
	out.fail(text, positionOf(err))
	if code == exitUsage && len(hints(err)) == 0 {
		out.line("  hint: bareboat --help")
	}
	for _, h := range hints(err) {
		for line := range strings.Lines(h) {
			out.line("  hint: " + strings.TrimRight(line, "\n"))
		}
	}
	return code
}

func exitCode(err error) int {
	var (
		usage      *usageError
		conf       *config.Error
		lock       *builder.LockError
		access     *registry.Error
		locked     *release.LockedError
		failed     *release.FailedError
		unknownCmd = err != nil && strings.HasPrefix(err.Error(), "unknown command ")
	)
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &usage), unknownCmd:
		return exitUsage
	case errors.As(err, &conf), errors.As(err, &lock), errors.Is(err, builder.ErrRecipe), errors.Is(err, builder.ErrContainerfile):
		return exitConfig
	case errors.As(err, &access):
		return exitAccess
	case errors.As(err, &locked):
		return exitLocked
	case errors.As(err, &failed):
		return exitRelease
	}
	return exitFailed
}

// hints are what the error itself offers, and what is known of common causes.
func hints(err error) []string {
	var many interface{ Hints() []string }
	var one interface{ Hint() string }
	switch {
	case errors.As(err, &many):
		return many.Hints()
	case errors.As(err, &one) && one.Hint() != "":
		return []string{one.Hint()}
	case errors.Is(err, syscall.ENOSPC), strings.Contains(err.Error(), "no space left on device"):
		return []string{"free some disk space; `podman system df` shows what images take"}
	case errors.Is(err, builder.ErrNoSubIDs):
		return []string{"sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER; then: podman system migrate"}
	case errors.Is(err, builder.ErrNoGo):
		return []string{"install Go (https://go.dev/dl/), or add its bin folder to PATH"}
	case errors.Is(err, pipeline.ErrNoSBOM):
		return []string{"bareboat push --sign KEY attaches one; without --key, bareboat sbom makes it of the layers"}
	case errors.Is(err, builder.ErrNoImage):
		return []string{"bareboat images"}
	}
	return nil
}

// sourceDateEpoch reads SOURCE_DATE_EPOCH (https://reproducible-builds.org/specs/source-date-epoch/).
func sourceDateEpoch() (int64, error) {
	s := os.Getenv("SOURCE_DATE_EPOCH")
	if s == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0, &usageError{err: fmt.Errorf("SOURCE_DATE_EPOCH is %q, not a number of seconds since 1970", s), command: "bareboat"}
	}
	return n, nil
}

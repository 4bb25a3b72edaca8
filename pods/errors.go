package pods

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/containers/podman/v5/libpod/define"
	"github.com/containers/podman/v5/pkg/errorhandling"
)

// What callers tell apart.
var (
	ErrNoPodman = errors.New("podman is not installed")
	ErrNotFound = errors.New("not found")
)

// HintError is an error together with what a person can do about it.
type HintError struct {
	Err  error
	Hint string // one line
}

func (e *HintError) Error() string { return e.Err.Error() }

// Unwrap gives the error without its hint.
func (e *HintError) Unwrap() error { return e.Err }

// Hints gives the hint as a list, for whoever prints errors.
func (e *HintError) Hints() []string { return []string{e.Hint} }

// ConflictError says that something else already has the name.
type ConflictError struct {
	Kind string // pod, volume, network, container
	Name string
	Why  string // how it differs from what was asked for
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("%s %s exists already: %s", e.Kind, e.Name, e.Why)
}

// Hints names the way out.
func (e *ConflictError) Hints() []string {
	return []string{"if nothing needs it: podman " + e.Kind + " rm " + e.Name}
}

// fail says what was being done when Podman answered with err.
func fail(doing string, err error) error {
	if err == nil {
		return nil
	}
	if status(err) == http.StatusNotFound || vanished(err) {
		return fmt.Errorf("%s: %w: %s", doing, ErrNotFound, oneLine(err.Error()))
	}
	return fmt.Errorf("%s: %w", doing, flat{err})
}

// vanished tells that the thing was removed while Podman looked at it, which it
// answers as a fault of its own.
func vanished(err error) bool {
	var model *errorhandling.ErrorModel
	if !errors.As(err, &model) {
		return false
	}
	return model.Because == define.ErrNoSuchCtr.Error() || model.Because == define.ErrNoSuchPod.Error()
}

// status is the service's HTTP status, or zero.
func status(err error) int {
	var model *errorhandling.ErrorModel
	if errors.As(err, &model) {
		return model.ResponseCode
	}
	var conflict *errorhandling.PodConflictErrorModel
	if errors.As(err, &conflict) {
		return http.StatusConflict
	}
	return 0
}

// flat shows an error of Podman's, some of which have many lines, in one.
type flat struct{ error }

func (f flat) Error() string { return oneLine(f.error.Error()) }

func (f flat) Unwrap() error { return f.error }

func oneLine(s string) string {
	return strings.Join(strings.Fields(s), " ")
}

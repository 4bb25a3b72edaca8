package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
)

// defaultKeep is how many releases can be gone back to where the file does not
// say.
const defaultKeep = 3

// maxReplicas is more than one machine runs.
const maxReplicas = 1000

// The actions that failure_action may name.
const (
	FailureRollback = "rollback" // the default
	FailurePause    = "pause"
	FailureContinue = "continue"
)

// UpdateConfig says how the pods of a service are replaced.
type UpdateConfig struct {
	Parallelism   int           // replicas at a time; zero is all
	Delay         time.Duration // between batches
	Monitor       time.Duration // for which the new pods are watched after the switch
	FailureAction string
}

// Dependency is a service that has to be there before another.
type Dependency struct {
	Service   string
	Condition string // service_started, service_healthy or service_completed_successfully
}

// Drain is how a program is told to send its clients elsewhere.
type Drain struct {
	Signal string // such as SIGUSR1; or
	Method string // of a request,
	Path   string // and its path
}

// Check is what a new backend is asked before it gets requests.
type Check struct {
	Path      string
	WebSocket bool
	Protocol  string // of the WebSocket
}

// Hooks are commands that are run on the machine that Bareboat runs on, in the
// folder of the Compose file. A command of one word is given to sh -c.
type Hooks struct {
	BeforeBuild  []string
	BeforeSwitch []string
	AfterRelease []string
	OnFailure    []string
}

// Command is the hook of that name, as the Compose file has it; nil if there is
// none.
func (h Hooks) Command(name string) []string {
	switch name {
	case "before_build":
		return h.BeforeBuild
	case "before_switch":
		return h.BeforeSwitch
	case "after_release":
		return h.AfterRelease
	case "on_failure":
		return h.OnFailure
	}
	return nil
}

// deploy reads how many pods there are, and how they are replaced.
func (s *Service) deploy(in types.ServiceConfig) error {
	s.Replicas = 1
	if in.Scale != nil {
		s.Replicas = *in.Scale
	}
	var update, rollback *types.UpdateConfig
	if d := in.Deploy; d != nil {
		if d.Replicas != nil {
			s.Replicas = *d.Replicas
		}
		update, rollback = d.UpdateConfig, d.RollbackConfig
	}
	if s.Replicas < 1 || s.Replicas > maxReplicas {
		return &keyError{"deploy.replicas", fmt.Errorf("%d is not a number of pods (1 to %d); a profile leaves a service out", s.Replicas, maxReplicas)}
	}
	var err error
	if s.Update, err = updateConfig("deploy.update_config", update); err != nil {
		return err
	}
	s.Rollback, err = updateConfig("deploy.rollback_config", rollback)
	return err
}

func updateConfig(key string, in *types.UpdateConfig) (UpdateConfig, error) {
	u := UpdateConfig{FailureAction: FailureRollback}
	if in == nil {
		return u, nil
	}
	u.Delay, u.Monitor = time.Duration(in.Delay), time.Duration(in.Monitor)
	if in.Parallelism != nil {
		u.Parallelism = int(min(*in.Parallelism, maxReplicas))
	}
	u.FailureAction = cmp.Or(in.FailureAction, FailureRollback)
	actions := []string{FailureRollback, FailurePause, FailureContinue}
	if !slices.Contains(actions, u.FailureAction) {
		return u, &keyError{key + ".failure_action", fmt.Errorf("%q is none of %s", u.FailureAction, strings.Join(actions, ", "))}
	}
	return u, nil
}

// dependencies are those on services that are enabled.
func dependencies(p *types.Project, in types.DependsOnConfig) []Dependency {
	var out []Dependency
	for _, name := range slices.Sorted(maps.Keys(in)) {
		if _, enabled := p.Services[name]; enabled {
			out = append(out, Dependency{Service: name, Condition: in[name].Condition})
		}
	}
	return out
}

// replicate checks what several pods of a service cannot share.
func (s *Service) replicate() error {
	if s.Replicas == 1 {
		return nil
	}
	key := "deploy.replicas"
	switch {
	case s.Edge != nil:
		return &keyError{key, errors.New("there is one edge")}
	case s.Listen != nil && s.Listen.Socket != "" && !strings.Contains(s.Listen.Socket, ReplicaMark):
		return &keyError{extensionKey + ".listen.socket", fmt.Errorf("%q must hold %s, since there are %d replicas", s.Listen.Socket, ReplicaMark, s.Replicas)}
	}
	for _, p := range s.Ports {
		if p.Host != 0 {
			return &keyError{"ports", fmt.Errorf("%d replicas cannot all have port %d of the host", s.Replicas, p.Host)}
		}
	}
	return nil
}

// signalName is how Podman knows a signal.
var signalName = regexp.MustCompile(`^(SIG)?[A-Z0-9+-]+$`)

// drain reads {signal: NAME} or {request: "METHOD /PATH"}.
func drain(to **Drain) func(any) error {
	return func(v any) error {
		d := &Drain{}
		err := decode("drain", v, fields{
			"signal": func(v any) error {
				if err := text(&d.Signal)(v); err != nil {
					return err
				}
				if d.Signal = strings.ToUpper(d.Signal); !signalName.MatchString(d.Signal) {
					return fmt.Errorf("%q is not a signal's name, such as SIGUSR1", d.Signal)
				}
				return nil
			},
			"request": func(v any) error {
				var s string
				if err := text(&s)(v); err != nil {
					return err
				}
				method, path, ok := strings.Cut(s, " ")
				if !ok || !slices.Contains([]string{"POST", "PUT", "DELETE", "GET"}, method) {
					return fmt.Errorf("%q is not a request, such as POST /drain", s)
				}
				d.Method = method
				return routePath(&d.Path)(path)
			},
		})
		if err != nil {
			return err
		}
		if (d.Signal == "") == (d.Method == "") {
			return &keyError{"drain", errors.New("needs either signal or request")}
		}
		*to = d
		return nil
	}
}

// check reads {path: /readyz, websocket: true, protocol: chat.v1}.
func check(to **Check) func(any) error {
	return func(v any) error {
		c := &Check{}
		err := decode("check", v, fields{
			"path":      routePath(&c.Path),
			"websocket": boolean(&c.WebSocket),
			"protocol":  text(&c.Protocol),
		})
		switch {
		case err != nil:
			return err
		case c.Path == "":
			return &keyError{"check", errors.New("needs path")}
		case c.Protocol != "" && !c.WebSocket:
			return &keyError{"check.protocol", errors.New("needs websocket: true beside it")}
		}
		*to = c
		return nil
	}
}

// hooks reads what x-bareboat of the project has run.
func hooks(to *Hooks) func(any) error {
	return func(v any) error {
		return decode("hooks", v, fields{
			"before_build":  words(&to.BeforeBuild),
			"before_switch": words(&to.BeforeSwitch),
			"after_release": words(&to.AfterRelease),
			"on_failure":    words(&to.OnFailure),
		})
	}
}

// words reads a command: a string, or a list of words.
func words(to *[]string) func(any) error {
	return func(v any) error {
		list, isList := v.([]any)
		if !isList {
			var line string
			if err := text(&line)(v); err != nil {
				return err
			}
			*to = []string{line}
			return nil
		}
		for _, item := range list {
			word, ok := item.(string)
			if !ok {
				return fmt.Errorf("must be a list of strings, with %s in it", kindOf(item))
			}
			*to = append(*to, word)
		}
		if len(*to) == 0 || (*to)[0] == "" {
			return errors.New("names no command")
		}
		return nil
	}
}

// count reads a whole number from 0 on; a variable leaves it as a string.
func count(to *int) func(any) error {
	return func(v any) error {
		n, err := strconv.ParseUint(fmt.Sprint(v), 10, 16)
		if err != nil {
			return fmt.Errorf("%v is not a whole number from 0 to %d", v, math.MaxUint16)
		}
		*to = int(n)
		return nil
	}
}

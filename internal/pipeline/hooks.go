package pipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// The hooks, by their keys in the Compose file.
const (
	hookBeforeBuild  = "before_build"
	hookBeforeSwitch = "before_switch"
	hookAfterRelease = "after_release"
	hookOnFailure    = "on_failure"
)

// hookFacts are what a hook is told of the release, in its environment.
type hookFacts struct {
	release int
	serving int
	images  []Image
	err     error
}

// hook runs a hook of the project, if it has that: on this machine, in the folder of
// the Compose file. What it prints goes to standard error, since standard output is
// for results.
func (p *Pipeline) hook(ctx context.Context, name string, f hookFacts) error {
	words := p.Project.Hooks.Command(name)
	if len(words) == 0 {
		return nil
	}
	p.notify(Event{Subject: p.Project.Name, Text: "run hook " + name})
	if len(words) == 1 {
		words = []string{"sh", "-c", words[0]}
	}
	images := map[string]string{}
	for _, i := range f.images {
		images[i.Service] = i.Pinned
	}
	list, err := json.Marshal(images)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Dir = p.Project.Dir
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.Env = append(os.Environ(),
		"BAREBOAT_HOOK="+name,
		"BAREBOAT_PROJECT="+p.Project.Name,
		"BAREBOAT_RELEASE="+number(f.release),
		"BAREBOAT_SERVING="+number(f.serving),
		"BAREBOAT_REVISION="+p.revision(ctx),
		"BAREBOAT_URL="+p.URL(),
		"BAREBOAT_IMAGES="+string(list),
	)
	if f.err != nil {
		cmd.Env = append(cmd.Env, "BAREBOAT_ERROR="+strings.Join(strings.Fields(f.err.Error()), " "))
	}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("hook %s: %w", name, err)
	}
	return nil
}

// number is empty where there is none.
func number(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

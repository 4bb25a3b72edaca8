package pods

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containers/podman/v5/pkg/bindings/containers"
	"github.com/containers/podman/v5/pkg/bindings/images"
	"github.com/containers/podman/v5/pkg/bindings/pods"
	"github.com/containers/podman/v5/pkg/domain/entities/types"
	"github.com/containers/podman/v5/pkg/specgen"
)

// labelSpec holds the hash of the spec that a pod was made from.
const labelSpec = "bareboat.spec"

// cleanUpTimeout is for taking back what was made, after the caller's context
// has ended perhaps.
const cleanUpTimeout = 30 * time.Second

// CreatePod makes the pod and its containers and starts nothing. A pod of that
// name that was made from an equal spec is kept, what it lacks is added; one made
// from another spec is a [ConflictError]. When it fails, a pod that never ran is
// removed again.
func (p *Podman) CreatePod(ctx context.Context, spec Spec) (Pod, error) {
	pod, err := p.createPod(ctx, spec)
	if err != nil {
		return Pod{}, fmt.Errorf("create pod %s: %w", spec.Name, err)
	}
	return pod, nil
}

func (p *Podman) createPod(ctx context.Context, spec Spec) (Pod, error) {
	hash, err := spec.hash()
	if err != nil {
		return Pod{}, err
	}
	limits, err := p.limits(ctx, spec)
	if err != nil {
		return Pod{}, err
	}
	// All is mapped before the first thing is made: what is wrong with a spec leaves no trace.
	generators, err := containerGenerators(spec, limits)
	if err != nil {
		return Pod{}, err
	}
	for i, c := range spec.Containers {
		if err := p.withoutRoot(ctx, c, generators[i]); err != nil {
			return Pod{}, err
		}
	}
	pod, err := p.ensurePod(ctx, spec, hash)
	if err != nil {
		return Pod{}, err
	}
	for _, g := range generators {
		if slices.ContainsFunc(pod.Containers, func(c ContainerState) bool { return c.Name == g.Name }) {
			continue
		}
		g.Pod = pod.ID
		if _, err := containers.CreateWithSpec(p.call(ctx), g, nil); err != nil {
			return Pod{}, errors.Join(fail("create container "+g.Name, err), p.takeBack(ctx, pod))
		}
	}
	return p.Pod(ctx, spec.Name)
}

// withoutRoot runs a container as nobody in particular that must not be root, where
// its image would have it so.
func (p *Podman) withoutRoot(ctx context.Context, c Container, g *specgen.SpecGenerator) error {
	if !c.NonRoot || c.User != "" {
		return nil
	}
	image, err := images.GetImage(p.call(ctx), c.Image, nil)
	if err != nil {
		return fail("look at image "+c.Image, err)
	}
	user, _, _ := strings.Cut(image.User, ":")
	if user != "" && user != "0" && user != "root" {
		return nil
	}
	g.User = NonRootUser
	p.warn(`container %s runs as %s, though its image says root; user: "0" lets it`, c.Name, NonRootUser)
	return nil
}

// ensurePod gives the pod without its containers, or as far as it got before.
func (p *Podman) ensurePod(ctx context.Context, spec Spec, hash string) (Pod, error) {
	pod, err := p.samePod(ctx, spec.Name, hash)
	if !errors.Is(err, ErrNotFound) {
		return pod, err
	}
	g := podGenerator(spec)
	g.Labels[labelSpec] = hash
	_, createErr := pods.CreatePodFromSpec(p.call(ctx), &types.PodSpec{PodSpecGen: *g})
	pod, err = p.samePod(ctx, spec.Name, hash)
	if createErr != nil && errors.Is(err, ErrNotFound) {
		return Pod{}, flat{createErr}
	}
	return pod, err
}

func (p *Podman) samePod(ctx context.Context, name, hash string) (Pod, error) {
	pod, err := p.Pod(ctx, name)
	if err != nil {
		return Pod{}, err
	}
	if pod.Labels[labelSpec] != hash {
		return Pod{}, &ConflictError{Kind: "pod", Name: name, Why: "it was made from another spec"}
	}
	return pod, nil
}

// takeBack removes a pod that is half made, unless it is in use.
func (p *Podman) takeBack(ctx context.Context, pod Pod) error {
	for _, c := range pod.Containers {
		if c.State != StateCreated {
			return nil
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTimeout)
	defer cancel()
	return p.RemovePod(ctx, pod.Name)
}

// hash is equal for equal specs: JSON sorts the keys of maps.
func (s Spec) hash() (string, error) {
	text, err := json.Marshal(s)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), nil
}

// limits tells which of the limits that the spec asks for can be set: those
// whose cgroup controller this user has. Podman would create the container all
// the same, and fail when it starts it.
func (p *Podman) limits(ctx context.Context, spec Spec) (limitSet, error) {
	asked := limitSet{}
	for _, c := range spec.Containers {
		asked.memory = asked.memory || c.Memory > 0
		asked.cpu = asked.cpu || c.CPUs > 0
		asked.pids = asked.pids || c.PIDs > 0
	}
	if asked == (limitSet{}) {
		return asked, nil
	}
	info, err := p.Info(ctx)
	if err != nil {
		return limitSet{}, err
	}
	have := func(asked bool, controller string) bool {
		ok := slices.Contains(info.CgroupControllers, controller)
		if asked && !ok {
			p.warn("pod %s runs without its %s limit: this user has no %s cgroup controller", spec.Name, controller, controller)
		}
		return asked && ok
	}
	return limitSet{memory: have(asked.memory, "memory"), cpu: have(asked.cpu, "cpu"), pids: have(asked.pids, "pids")}, nil
}

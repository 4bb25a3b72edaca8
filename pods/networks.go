package pods

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/containers/podman/v5/pkg/bindings/network"
	"go.podman.io/common/libnetwork/types"
)

// NetworkState is what Podman says about a network.
type NetworkState struct {
	Name     string
	ID       string
	Labels   map[string]string
	Internal bool // without a way out
	Created  time.Time
}

// EnsureNetwork makes a bridge network, on which pods find each other by name,
// if it is not there. An internal one has no way out. One that is there but
// differs in that is a [ConflictError].
func (p *Podman) EnsureNetwork(ctx context.Context, name string, labels map[string]string, internal bool) error {
	doing := "create network " + name
	ok, err := p.sameNetwork(ctx, name, internal)
	if ok || err != nil {
		return err
	}
	_, err = network.Create(p.call(ctx), &types.Network{
		Name: name, Driver: "bridge", Labels: labels, Internal: internal, DNSEnabled: true,
	})
	if err != nil {
		if ok, _ := p.sameNetwork(ctx, name, internal); ok {
			return nil
		}
	}
	return fail(doing, err)
}

// sameNetwork tells whether the network is there. Podman before 5 ignores
// ignoreIfExists, so that it has to be asked.
func (p *Podman) sameNetwork(ctx context.Context, name string, internal bool) (bool, error) {
	n, err := network.Inspect(p.call(ctx), name, nil)
	if status(err) == http.StatusNotFound {
		return false, nil
	}
	if err != nil {
		return false, fail("look at network "+name, err)
	}
	if n.Internal != internal {
		return false, &ConflictError{Kind: "network", Name: name, Why: fmt.Sprintf("internal is %t, not %t", n.Internal, internal)}
	}
	return true, nil
}

// Networks lists the networks that carry all the labels, by name.
func (p *Podman) Networks(ctx context.Context, labels map[string]string) ([]NetworkState, error) {
	list, err := network.List(p.call(ctx), new(network.ListOptions).WithFilters(labelFilter(labels)))
	if err != nil {
		return nil, fail("list networks", err)
	}
	var out []NetworkState
	for _, n := range list {
		if carries(n.Labels, labels) {
			out = append(out, NetworkState{Name: n.Name, ID: n.ID, Labels: n.Labels, Internal: n.Internal, Created: n.Created})
		}
	}
	sortBy(out, func(n NetworkState) string { return n.Name })
	return out, nil
}

// RemoveNetwork removes the network. That it is not there is no error; that a
// container uses it is.
func (p *Podman) RemoveNetwork(ctx context.Context, name string) error {
	reports, err := network.Remove(p.call(ctx), name, nil)
	if status(err) == http.StatusNotFound {
		return nil
	}
	for _, r := range reports {
		if err == nil {
			err = r.Err
		}
	}
	return fail("remove network "+name, err)
}

package pods

import (
	"bytes"
	"context"
	"net/http"

	"github.com/containers/podman/v5/pkg/bindings/secrets"
)

// Secret is a secret of Podman's. What it holds is never asked for.
type Secret struct {
	Name   string
	Labels map[string]string
}

// EnsureSecret makes the secret if none has its name. One that is there stays as
// it is: names tell contents apart.
func (p *Podman) EnsureSecret(ctx context.Context, name string, data []byte, labels map[string]string) error {
	there, err := p.hasSecret(ctx, name)
	if there || err != nil {
		return err
	}
	options := new(secrets.CreateOptions).WithName(name).WithLabels(labels)
	if _, err := secrets.Create(p.call(ctx), bytes.NewReader(data), options); err != nil {
		// The bindings repeat a request whose answer was lost.
		if there, _ := p.hasSecret(ctx, name); there {
			return nil
		}
		return fail("create secret "+name, err)
	}
	return nil
}

// hasSecret looks through the list: Podman before 4.4 says of every secret that
// it does not exist.
func (p *Podman) hasSecret(ctx context.Context, name string) (bool, error) {
	list, err := p.Secrets(ctx, nil)
	for _, s := range list {
		if s.Name == name {
			return true, err
		}
	}
	return false, err
}

// Secrets lists the secrets that carry all the labels, by name.
func (p *Podman) Secrets(ctx context.Context, labels map[string]string) ([]Secret, error) {
	list, err := secrets.List(p.call(ctx), nil)
	if err != nil {
		return nil, fail("list secrets", err)
	}
	var out []Secret
	for _, s := range list {
		if s.Spec.Labels == nil { // Podman before 4.7 lists none
			one, err := secrets.Inspect(p.call(ctx), s.ID, nil)
			if status(err) == http.StatusNotFound {
				continue // gone since the list was made
			}
			if err != nil {
				return nil, fail("look at secret "+s.Spec.Name, err)
			}
			s = one
		}
		if carries(s.Spec.Labels, labels) {
			out = append(out, Secret{Name: s.Spec.Name, Labels: s.Spec.Labels})
		}
	}
	sortBy(out, func(s Secret) string { return s.Name })
	return out, nil
}

// RemoveSecret removes the secret. That it is not there is no error.
func (p *Podman) RemoveSecret(ctx context.Context, name string) error {
	err := secrets.Remove(p.call(ctx), name)
	if status(err) == http.StatusNotFound {
		return nil
	}
	return fail("remove secret "+name, err)
}

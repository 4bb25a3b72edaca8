package pods

import (
	"context"
	"net/http"
	"time"

	"github.com/containers/podman/v5/pkg/bindings/volumes"
	"github.com/containers/podman/v5/pkg/domain/entities/types"
)

// Volume is a named volume of Podman's.
type Volume struct {
	Name       string
	Labels     map[string]string
	Mountpoint string // on the service's host
	Created    time.Time
}

// EnsureVolume makes the volume if it is not there. One that is there stays as
// it is, whatever its labels: it holds somebody's data.
func (p *Podman) EnsureVolume(ctx context.Context, name string, labels map[string]string) error {
	doing := "create volume " + name
	ok, err := volumes.Exists(p.call(ctx), name, nil)
	if err != nil {
		return fail(doing, err)
	}
	if ok {
		return nil
	}
	_, err = volumes.Create(p.call(ctx), types.VolumeCreateOptions{Name: name, Label: labels, Labels: labels}, nil)
	if err != nil {
		// The bindings repeat a request whose answer was lost.
		if ok, _ := volumes.Exists(p.call(ctx), name, nil); ok {
			return nil
		}
	}
	return fail(doing, err)
}

// Volumes lists the volumes that carry all the labels, by name.
func (p *Podman) Volumes(ctx context.Context, labels map[string]string) ([]Volume, error) {
	list, err := volumes.List(p.call(ctx), new(volumes.ListOptions).WithFilters(labelFilter(labels)))
	if err != nil {
		return nil, fail("list volumes", err)
	}
	var out []Volume
	for _, v := range list {
		if carries(v.Labels, labels) {
			out = append(out, Volume{Name: v.Name, Labels: v.Labels, Mountpoint: v.Mountpoint, Created: v.CreatedAt})
		}
	}
	sortBy(out, func(v Volume) string { return v.Name })
	return out, nil
}

// RemoveVolume removes the volume with all that is in it. That it is not there
// is no error; that a container uses it is.
func (p *Podman) RemoveVolume(ctx context.Context, name string) error {
	err := volumes.Remove(p.call(ctx), name, nil)
	if status(err) == http.StatusNotFound {
		return nil
	}
	return fail("remove volume "+name, err)
}

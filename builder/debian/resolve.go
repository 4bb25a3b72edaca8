package debian

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"
)

// Resolve pins the closure of a request from the suite, its updates and its
// security updates, all verified. Recommended packages are not followed.
func (a *Archive) Resolve(ctx context.Context, req Request, architecture string) (Lock, error) {
	return a.Renew(ctx, req, Lock{Architecture: architecture})
}

// Renew resolves a request as Resolve does, and refuses a mirror whose suites
// are older than those that the old lock was made from.
func (a *Archive) Renew(ctx context.Context, req Request, old Lock) (Lock, error) {
	if err := a.check(); err != nil {
		return Lock{}, err
	}
	if err := req.Validate(); err != nil {
		return Lock{}, err
	}
	req = req.WithDefaults()
	arch := old.Architecture
	if _, ok := triplets[arch]; !ok {
		return Lock{}, fmt.Errorf("debian: architecture %q is not known", arch)
	}
	u, sources, err := a.load(ctx, req, arch)
	if err != nil {
		return Lock{}, err
	}
	if err := checkNewer(old.Sources, sources); err != nil {
		return Lock{}, err
	}
	packages, excluded, err := u.resolve(req)
	if err != nil {
		return Lock{}, err
	}
	return Lock{
		Request:      req.Hash(),
		Suite:        req.Suite,
		Architecture: arch,
		Sources:      sources,
		Packages:     packages,
		Excluded:     excluded,
	}, nil
}

// load reads the indices of a suite and its companions, which are independent
// of one another and so read at once.
func (a *Archive) load(ctx context.Context, req Request, arch string) (*universe, []Source, error) {
	suites := []string{req.Suite, req.Suite + "-updates", req.Suite + "-security"}
	sources := make([]Source, len(suites))
	indices := make([][]*candidate, len(suites))
	g, ctx := errgroup.WithContext(ctx)
	for i, suite := range suites {
		g.Go(func() (err error) {
			sources[i], indices[i], err = a.loadSuite(ctx, suite, req.Components, arch)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	u, err := newUniverse(arch, indices...)
	return u, sources, err
}

func (a *Archive) loadSuite(ctx context.Context, suite string, components []string, arch string) (Source, []*candidate, error) {
	r, src, err := a.loadRelease(ctx, suite)
	if err != nil {
		return Source{}, nil, err
	}
	var all []*candidate
	for _, component := range components {
		name, file, err := a.fetchIndex(ctx, r, suite, component, arch)
		if err != nil {
			return Source{}, nil, err
		}
		f, err := a.openIndex(name, file)
		if err != nil {
			return Source{}, nil, err
		}
		list, err := readIndex(contextReader{ctx, f}, suite)
		f.Close()
		if err != nil {
			return Source{}, nil, err
		}
		all = append(all, list...)
	}
	return src, all, nil
}

package debian

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"bareboat/builder/layer"
)

// split cuts the plan into layers. Each has the folders above its files with
// the plan's metadata, so that no layer changes what another says of a folder.
func (p *plan) split() []layer.Layer {
	groups := p.groups()
	owner := map[string]int{}
	for i, g := range groups {
		for _, d := range g {
			owner[d.Name] = i + 1
		}
	}
	layers := make([]layer.Layer, len(groups)+1)
	layers[0] = layer.Layer{Name: "debian:base", CreatedBy: fmt.Sprintf("debian %s: folders, links and accounts", p.lock.Suite)}
	for i, g := range groups {
		layers[i+1] = p.describe(g)
	}
	members := make([]map[string]bool, len(layers))
	for i := range members {
		members[i] = map[string]bool{}
	}
	for name, n := range p.nodes {
		in := []int{owner[n.owner]}
		for _, s := range p.sharers[name] {
			in = append(in, owner[s])
		}
		for _, i := range in {
			for at := name; at != ""; at = parent(at) {
				members[i][at] = true
			}
		}
	}
	for i := range layers {
		for _, name := range sortedKeys(members[i]) {
			layers[i].Files = append(layers[i].Files, p.nodes[name].File)
		}
	}
	return layers
}

// groups gives the packages of each layer after the first: one for each, or
// for each source package, or at last the small ones together.
func (p *plan) groups() [][]*deb {
	groups := groupBy(p.debs, func(d *deb) string { return d.Name })
	if len(groups) < maxLayers {
		return groups
	}
	groups = groupBy(p.debs, func(d *deb) string { return d.Source })
	if len(groups) < maxLayers {
		return groups
	}
	slices.SortStableFunc(groups, func(a, b []*deb) int { return cmp.Compare(size(b), size(a)) })
	rest := slices.Concat(groups[maxLayers-2:]...)
	return append(groups[:maxLayers-2:maxLayers-2], rest)
}

func groupBy(debs []*deb, key func(*deb) string) [][]*deb {
	var out [][]*deb
	at := map[string]int{}
	for _, d := range debs {
		k := key(d)
		i, ok := at[k]
		if !ok {
			i = len(out)
			at[k] = i
			out = append(out, nil)
		}
		out[i] = append(out[i], d)
	}
	return out
}

func size(g []*deb) (n int64) {
	for _, d := range g {
		n += d.Size
	}
	return n
}

func (p *plan) describe(g []*deb) layer.Layer {
	var names []string
	for _, d := range g {
		names = append(names, d.Name+" "+d.Version)
	}
	name := g[0].Name
	if len(g) > 1 {
		name = g[0].Source
		if slices.ContainsFunc(g, func(d *deb) bool { return d.Source != name }) {
			name = "others"
		}
	}
	return layer.Layer{
		Name:      "debian:" + name,
		CreatedBy: fmt.Sprintf("debian %s %s: %s", p.lock.Suite, p.lock.Architecture, strings.Join(names, ", ")),
	}
}

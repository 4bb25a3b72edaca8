package debian

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"bareboat/builder/layer"
)

// addStatus writes what scanners look for in images without dpkg: the control
// file of each package, and the MD5 sums of the files that are really there.
func (p *plan) addStatus() error {
	for _, d := range p.debs {
		base := path.Join("var/lib/dpkg/status.d", d.Name)
		text := append(slices.Clip(slices.Clone(d.text)), '\n')
		if len(d.text) > 0 && d.text[len(d.text)-1] == '\n' {
			text = d.text
		}
		if err := p.set(d.Name, layer.Bytes(base, 0o644, text)); err != nil {
			return err
		}
		sums, err := p.sums(d)
		if err != nil {
			return err
		}
		if sums == "" {
			continue
		}
		if err := p.set(d.Name, layer.Bytes(base+".md5sums", 0o644, []byte(sums))); err != nil {
			return err
		}
	}
	return nil
}

func (p *plan) sums(d *deb) (string, error) {
	var out strings.Builder
	for line := range strings.Lines(d.md5sums) {
		sum, name, ok := strings.Cut(strings.TrimSpace(line), "  ")
		if !ok {
			continue
		}
		where, err := p.place(name)
		if err != nil {
			return "", err
		}
		if n := p.nodes[where]; n != nil && n.owner == d.Name && n.Mode.IsRegular() {
			fmt.Fprintf(&out, "%s  %s\n", sum, where)
		}
	}
	return out.String(), nil
}

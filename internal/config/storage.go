package config

import (
	"fmt"
	"math"
	"path"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/docker/go-units"
)

// mounts are a service's volumes and tmpfs.
func mounts(p *types.Project, in types.ServiceConfig) ([]Mount, error) {
	var out []Mount
	for _, v := range in.Volumes {
		m := Mount{Kind: MountKind(v.Type), Source: v.Source, Target: v.Target, ReadOnly: v.ReadOnly}
		switch v.Type {
		case types.VolumeTypeVolume:
			if v.Source == "" {
				return nil, &keyError{"volumes", fmt.Errorf("%s needs a name, so that a release finds it again", v.Target)}
			}
			m.Source = p.Volumes[v.Source].Name
		case types.VolumeTypeBind:
		case types.VolumeTypeTmpfs:
			if v.Tmpfs != nil {
				m.Size, m.Mode = int64(v.Tmpfs.Size), v.Tmpfs.Mode
			}
		default:
			return nil, &keyError{"volumes", fmt.Errorf("%s has type %s, which bareboat does not know", v.Target, v.Type)}
		}
		out = append(out, m)
	}
	for _, t := range in.Tmpfs {
		m, err := tmpfs(t)
		if err != nil {
			return nil, &keyError{"tmpfs", err}
		}
		out = append(out, m)
	}
	for _, m := range out {
		if !path.IsAbs(m.Target) {
			return nil, &keyError{"volumes", fmt.Errorf("%q is not an absolute path in the container", m.Target)}
		}
	}
	return out, nil
}

// tmpfs reads the short form, PATH[:OPTION,…], of which size and mode are
// honoured; others are Podman's own defaults already or an error.
func tmpfs(s string) (Mount, error) {
	target, options, _ := strings.Cut(s, ":")
	m := Mount{Kind: MountTmpfs, Target: path.Clean(target)}
	for option := range strings.SplitSeq(options, ",") {
		key, value, _ := strings.Cut(option, "=")
		var err error
		switch key {
		case "size":
			m.Size, err = units.RAMInBytes(value)
		case "mode":
			var mode uint64
			mode, err = strconv.ParseUint(value, 8, 12)
			m.Mode = uint32(mode)
		case "ro":
			m.ReadOnly = true
		case "", "rw", "nosuid", "nodev", "noexec": // what a tmpfs is in any case
		default:
			return m, fmt.Errorf("%s: option %q is none of size, mode, ro, rw, nosuid, nodev, noexec", target, option)
		}
		if err != nil {
			return m, fmt.Errorf("%s: %s is not a %s", target, value, key)
		}
	}
	return m, nil
}

// ports are the published ports, in the file's order.
func ports(in []types.ServicePortConfig) ([]Port, error) {
	var out []Port
	for _, c := range in {
		p := Port{HostIP: c.HostIP, Protocol: c.Protocol}
		if p.Protocol == "" {
			p.Protocol = "tcp"
		}
		if p.Protocol != "tcp" && p.Protocol != "udp" {
			return nil, &keyError{"ports", fmt.Errorf("protocol %q is neither tcp nor udp", c.Protocol)}
		}
		if c.Target == 0 || c.Target > math.MaxUint16 {
			return nil, &keyError{"ports", fmt.Errorf("%d is not a port (1 to %d)", c.Target, math.MaxUint16)}
		}
		p.Container = uint16(c.Target)
		if c.Published != "" {
			n, err := strconv.ParseUint(c.Published, 10, 16)
			if err != nil {
				return nil, &keyError{"ports", fmt.Errorf("published %q is not one port (0 to %d)", c.Published, math.MaxUint16)}
			}
			p.Host = uint16(n)
		}
		out = append(out, p)
	}
	return out, nil
}

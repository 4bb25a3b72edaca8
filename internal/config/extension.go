package config

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"bareboat/internal/oci"
)

// extensionKey is where Bareboat's own settings stand.
const extensionKey = "x-bareboat"

// extension is x-bareboat of a service.
type extension struct {
	recipe  string
	edge    bool
	network string
	listen  *Listen
	route   *Route
	env     map[string]string
	drain   *Drain
	check   *Check
}

// keyError is a fault at a dotted key.
type keyError struct {
	key string
	err error
}

func (e *keyError) Error() string { return e.key + ": " + e.err.Error() }
func (e *keyError) Unwrap() error { return e.err }

// fields says how the value of each key of a mapping is read.
type fields map[string]func(value any) error

// decode reads a mapping strictly: a key that fields does not know is an error
// that names it and the keys there are.
func decode(key string, value any, f fields) error {
	m, ok := value.(map[string]any)
	if !ok {
		return &keyError{key, fmt.Errorf("must be a mapping, not %s", kindOf(value))}
	}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		read, known := f[k]
		if !known {
			return &keyError{key, fmt.Errorf("unknown key %q (allowed: %s)", k, strings.Join(slices.Sorted(maps.Keys(f)), ", "))}
		}
		if err := read(m[k]); err != nil {
			var deeper *keyError
			if errors.As(err, &deeper) {
				return &keyError{key + "." + deeper.key, deeper.err}
			}
			return &keyError{key + "." + k, err}
		}
	}
	return nil
}

func kindOf(v any) string {
	switch v.(type) {
	case nil:
		return "nothing"
	case map[string]any:
		return "a mapping"
	case []any:
		return "a list"
	case string:
		return "a string"
	case bool:
		return "a boolean"
	}
	return "a number"
}

// decode reads x-bareboat of the project.
func (p *Project) decode(value any) error {
	p.Keep = defaultKeep
	if value == nil {
		return nil
	}
	return decode(extensionKey, value, fields{
		"registry": func(v any) error {
			if err := text(&p.Registry)(v); err != nil {
				return err
			}
			_, err := oci.Reference{Registry: oci.LocalRegistry, Repository: "x"}.At(p.Registry)
			if err != nil {
				return fmt.Errorf("%q is not HOST[:PORT][/PATH]", p.Registry)
			}
			return nil
		},
		"keep":  count(&p.Keep),
		"hooks": hooks(&p.Hooks),
	})
}

func decodeService(value any) (extension, error) {
	var e extension
	if value == nil {
		return e, nil
	}
	err := decode(extensionKey, value, fields{
		"recipe": text(&e.recipe),
		"edge":   boolean(&e.edge),
		"network": func(v any) error {
			if v != string(NetworkNone) {
				return fmt.Errorf("%v is not %s, which is all that can be said here", v, NetworkNone)
			}
			e.network = string(NetworkNone)
			return nil
		},
		"listen": func(v any) error {
			e.listen = &Listen{}
			return decode("listen", v, fields{
				"socket": socket(&e.listen.Socket),
				"port":   port(&e.listen.Port),
			})
		},
		"environment": variables(&e.env),
		"drain":       drain(&e.drain),
		"check":       check(&e.check),
		"route": func(v any) error {
			e.route = &Route{}
			return decode("route", v, fields{"hosts": hosts(&e.route.Hosts), "path": routePath(&e.route.Path)})
		},
	})
	return e, err
}

// text reads a string that is not empty.
func text(to *string) func(any) error {
	return func(v any) error {
		s, ok := v.(string)
		if !ok || s == "" {
			return fmt.Errorf("must be a string that is not empty, not %s", kindOf(v))
		}
		*to = s
		return nil
	}
}

// boolean reads true or false; a variable leaves it as a string.
func boolean(to *bool) func(any) error {
	return func(v any) error {
		b, err := strconv.ParseBool(fmt.Sprint(v))
		if err != nil {
			return fmt.Errorf("must be true or false, not %s", kindOf(v))
		}
		*to = b
		return nil
	}
}

// port reads 1 to 65535; a variable leaves it as a string.
func port(to *uint16) func(any) error {
	return func(v any) error {
		n, err := strconv.ParseUint(fmt.Sprint(v), 10, 64)
		if err != nil || n == 0 || n > math.MaxUint16 {
			return fmt.Errorf("%v is not a port (1 to %d)", v, math.MaxUint16)
		}
		*to = uint16(n)
		return nil
	}
}

// maxSocket is the longest path that a unix socket's address holds on Linux,
// without its closing zero byte: unix(7).
const maxSocket = 107

func socket(to *string) func(any) error {
	return func(v any) error {
		var s string
		if err := text(&s)(v); err != nil {
			return err
		}
		switch {
		case !path.IsAbs(s) || path.Clean(s) != s:
			return fmt.Errorf("%q is not an absolute, clean path", s)
		case strings.Count(path.Base(s), ReleaseMark) != 1 || strings.Contains(path.Dir(s), ReplicaMark) || strings.Count(s, ReplicaMark) > 1 || strings.Contains(path.Dir(s), ReleaseMark):
			return fmt.Errorf("%q must hold %s once, in its last part, so that each release has its own", s, ReleaseMark)
		case !plainPath.MatchString(strings.NewReplacer(ReleaseMark, "", ReplicaMark, "").Replace(s)):
			return fmt.Errorf("%q may hold only letters, digits and / . _ -", s)
		case len(s) > maxSocket:
			return fmt.Errorf("%q is longer than the %d bytes of a socket's address", s, maxSocket)
		}
		*to = s
		return nil
	}
}

// maxHost is the longest name that DNS carries: RFC 1035, section 2.3.4.
const maxHost = 253

// edgePath is where the edge itself answers, on every host.
const edgePath = "/-/edge"

var (
	markLike     = regexp.MustCompile(`\{[a-z]*\}`)
	variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	hostName     = regexp.MustCompile(`^(\*\.)?[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$`)
	upstreamName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
	plainPath    = regexp.MustCompile(`^[A-Za-z0-9/._-]+$`)
	urlPath      = regexp.MustCompile(`^(/[A-Za-z0-9._~-]+)*/?$`)
)

// variables reads names and values. What looks like a mark but is none is an
// error, so that a slip does not end in a program's configuration.
func variables(to *map[string]string) func(any) error {
	return func(v any) error {
		m, ok := v.(map[string]any)
		if !ok {
			return fmt.Errorf("must be a mapping, not %s", kindOf(v))
		}
		*to = map[string]string{}
		for _, name := range slices.Sorted(maps.Keys(m)) {
			if !variableName.MatchString(name) {
				return fmt.Errorf("%q is not a variable's name", name)
			}
			value, ok := m[name].(string)
			if !ok {
				return fmt.Errorf("%s must be a string, not %s", name, kindOf(m[name]))
			}
			for _, mark := range markLike.FindAllString(value, -1) {
				if marks := []string{ReleaseMark, ReplicaMark, RevisionMark}; !slices.Contains(marks, mark) {
					return fmt.Errorf("%s holds %s, which is none of %s", name, mark, strings.Join(marks, ", "))
				}
			}
			(*to)[name] = value
		}
		return nil
	}
}

func hosts(to *[]string) func(any) error {
	return func(v any) error {
		list, ok := v.([]any)
		if !ok || len(list) == 0 {
			return fmt.Errorf("must be a list of host names, not %s", kindOf(v))
		}
		for _, item := range list {
			h, ok := item.(string)
			if !ok || !hostName.MatchString(h) || len(h) > maxHost {
				return fmt.Errorf("%v is not a host name", item)
			}
			*to = append(*to, strings.ToLower(h))
		}
		return nil
	}
}

func routePath(to *string) func(any) error {
	return func(v any) error {
		if err := text(to)(v); err != nil {
			return err
		}
		if !urlPath.MatchString(*to) || path.Clean(*to) != strings.TrimSuffix(*to, "/") && *to != "/" {
			return fmt.Errorf("%q is not a path that starts with / and holds only letters, digits and / . _ ~ -", *to)
		}
		if *to == edgePath || strings.HasPrefix(*to, edgePath+"/") {
			return fmt.Errorf("%q is the edge's own", *to)
		}
		return nil
	}
}

package config

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/schema"
	"github.com/compose-spec/compose-go/v2/tree"
)

var update = flag.Bool("update", false, "write the table of keys into docs/compose.md")

// The page lists each key of the specification, as the library has it, with what is
// done about it. A new version of the library, or a key that is honoured from now on,
// changes the table.
func TestEveryKeyIsInTheDocs(t *testing.T) {
	const file, begin, end = "../../docs/compose.md", "<!-- keys -->\n", "<!-- end of keys -->\n"
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	got, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no marks %q and %q", file, begin, end)
	}
	want := keyTable()
	if *update {
		if err := os.WriteFile(file, []byte(before+begin+want+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if got != want {
		t.Errorf("the table of keys in %s is not true any more: go test -run EveryKey -update writes it", file)
	}
}

// keyTable says of each key whether it has an effect.
func keyTable() string {
	paths := schema.AttributePaths()
	var b strings.Builder
	for _, of := range []struct{ title, prefix string }{
		{"The file", ""}, {"A service", "services.*."}, {"A network", "networks.*."}, {"A volume", "volumes.*."},
		{"A secret", "secrets.*."}, {"A config", "configs.*."},
	} {
		fmt.Fprintf(&b, "\n| %s | effect |\n|---|---|\n", of.title)
		for _, key := range keysBelow(paths, of.prefix) {
			if of.prefix == "" && slices.Contains([]string{"services", "networks", "volumes", "secrets", "configs"}, key) {
				continue // below
			}
			fmt.Fprintf(&b, "| `%s` | %s |\n", key, effect(paths, of.prefix+key))
		}
	}
	return b.String() + "\n"
}

// keysBelow are the keys right below a prefix.
func keysBelow(paths []tree.Path, prefix string) []string {
	var keys []string
	for _, p := range paths {
		rest, ok := strings.CutPrefix(string(p), prefix)
		if key, _, _ := strings.Cut(rest, "."); ok && key != "*" && key != "[]" && key != "" && !strings.HasPrefix(key, "x-") {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return slices.Compact(keys)
}

func effect(paths []tree.Path, key string) string {
	all, without := 0, []string{}
	for _, p := range paths {
		below, inside := strings.CutPrefix(string(p), key+".")
		if !inside || leads(paths, p) || strings.Contains(below, "x-") {
			continue
		}
		all++
		if !isHonoured(p) {
			without = append(without, "`"+strings.NewReplacer("*.", "", "[].", "", ".*", "", ".[]", "").Replace(below)+"`")
		}
	}
	slices.Sort(without)
	without = slices.Compact(without)
	switch {
	case !isHonoured(tree.Path(key)) && all == len(without):
		return "none, with a warning"
	case len(without) == 0 && someValues(key):
		return "some values; another is named in a warning"
	case len(without) == 0:
		return "as specified"
	}
	return "in part; without effect, with a warning: " + strings.Join(without, ", ")
}

// leads tells whether there are keys below a path.
func leads(paths []tree.Path, p tree.Path) bool {
	return slices.ContainsFunc(paths, func(other tree.Path) bool { return strings.HasPrefix(string(other), string(p)+".") })
}

// someValues tells whether only some values of the key have an effect.
func someValues(key string) bool {
	return slices.ContainsFunc(partly(), func(p loader.UnsupportedAttributePattern) bool {
		return string(p.Path) == key && !whole(tree.Path(key)) || strings.HasPrefix(string(p.Path), key+".[]")
	})
}

// whole tells whether a key is handed on as it is: to the library, or to the builder,
// which says itself what it does not take.
func whole(p tree.Path) bool {
	return slices.ContainsFunc([]string{"include", "services.*.build"}, func(key string) bool {
		return string(p) == key || strings.HasPrefix(string(p), key+".")
	})
}

// isHonoured tells whether the path, or something below it, has an effect.
func isHonoured(p tree.Path) bool {
	return whole(p) || slices.ContainsFunc(honoured(), func(h tree.Path) bool {
		parts, pattern := p.Parts(), h.Parts()
		if len(pattern) < len(parts) {
			return false
		}
		for i, part := range parts {
			if part != pattern[i] && pattern[i] != "*" && part != "*" {
				return false
			}
		}
		return true
	})
}

// Whatever stands under x-bareboat is read, or refused in one line that names a key.
func FuzzExtension(f *testing.F) {
	f.Add("keep", "3", "drain", "signal", "SIGUSR1")
	f.Add("hooks", "make", "check", "path", "/readyz")
	f.Add("registry", "::", "drain", "request", "POST /\n")
	f.Add("keep", "-1", "listen", "socket", "/run/{release}/{replica}.sock")
	f.Fuzz(func(t *testing.T, projectKey, projectValue, key, inner, value string) {
		p := &Project{}
		errs := []error{p.decode(map[string]any{projectKey: projectValue})}
		_, err := decodeService(map[string]any{key: map[string]any{inner: value}})
		errs = append(errs, err)
		_, err = decodeService(map[string]any{key: value})
		for _, err := range append(errs, err) {
			if err == nil {
				continue
			}
			if text := (&Error{Err: err}).Error(); strings.Contains(text, "\n") || !strings.Contains(text, extensionKey) {
				t.Errorf("error is %q", text)
			}
		}
	})
}

// The layout of docs/ARCHITECTURE.md, held by a test.
package bareboat_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// mayImport says which packages of this module each may import: those named
// and what lies below them. The longest matching key counts.
var mayImport = map[string][]string{
	"internal/oci":          {},
	"builder/layer":         {"internal/oci"},
	"builder/cache":         {"internal/oci"},
	"builder/debian":        {"builder/layer"},
	"builder":               {"builder/layer", "builder/debian", "builder/cache", "internal/oci"},
	"builder/provenance":    {"internal/oci"},
	"builder/sbom":          {"builder/debian", "internal/oci"},
	"registry":              {"internal/oci"},
	"registry/cosign":       {"registry", "internal/oci"},
	"registry/store":        {"internal/oci"},
	"registry/embedded":     {"registry/store", "internal/oci"},
	"pods":                  {"internal/oci"},
	"pods/proxy":            {},
	"pods/release":          {"pods", "pods/proxy", "internal/oci"},
	"internal/config":       {"internal/oci"},
	"internal/contents":     {"internal/oci"},
	"internal/pipeline":     {"builder", "registry", "pods", "internal/config", "internal/contents", "internal/oci"},
	"internal/scaffold":     {},
	"internal/cli":          {"internal/pipeline", "internal/downtime", "internal/contents", "internal/scaffold", "internal/config", "internal/oci", "builder", "registry", "pods"},
	"chat":                  {"chat"},
	"cmd/bareboat":          {"internal/cli", "builder"},
	"cmd/bareboat-registry": {"registry/embedded"},
	"cmd/chatd":             {"chat"},
	"internal/bench":        {"internal/downtime"},
	"internal/downtime":     {},
}

// onlyIn says which packages alone may import a library.
var onlyIn = map[string][]string{
	"github.com/containers/buildah":          {"builder"},
	"go.podman.io/storage":                   {"builder"},
	"github.com/containers/podman/v5":        {"pods"},
	"github.com/olareg/olareg":               {"registry/embedded"},
	"github.com/google/go-containerregistry": {"registry", "internal/bench"},
	"github.com/compose-spec/compose-go":     {"internal/config"},
	"github.com/spf13/cobra":                 {"internal/cli"},
	"github.com/gorilla/websocket":           {"chat", "pods/proxy", "internal/downtime", "internal/bench/target"},
	"modernc.org/sqlite":                     {"chat/store"},
	"github.com/ProtonMail/go-crypto":        {"builder/debian"},
	"github.com/secure-systems-lab":          {"registry/cosign"},
	"github.com/spdx/tools-golang":           {"builder/sbom"},
}

type listed struct {
	ImportPath string
	Imports    []string
}

func TestImports(t *testing.T) {
	for _, p := range packages(t) {
		name := strings.TrimPrefix(p.ImportPath, "bareboat/")
		rule, ok := longest(name)
		if !ok {
			t.Errorf("%s has no place in the layout", name)
			continue
		}
		for _, imported := range p.Imports {
			if own, ok := strings.CutPrefix(imported, "bareboat/"); ok {
				if ownRule, _ := longest(own); ownRule != rule && !below(own, mayImport[rule]...) {
					t.Errorf("%s may not import %s", name, own)
				}
				continue
			}
			for library, places := range onlyIn {
				if below(imported, library) && !below(name, places...) {
					t.Errorf("%s may not import %s: only %s may", name, imported, strings.Join(places, ", "))
				}
			}
		}
	}
}

// The registry client, the chat and the Debian reader can be used without cgo
// and without the containers libraries, also indirectly.
func TestLightPackages(t *testing.T) {
	for _, name := range []string{"./registry/...", "./chat/...", "./builder/debian", "./builder/sbom", "./builder/provenance", "./pods/proxy"} {
		out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", name).Output()
		if err != nil {
			t.Fatal(err)
		}
		for dep := range strings.Lines(string(out)) {
			dep = strings.TrimSpace(dep)
			for _, heavy := range []string{"github.com/containers/buildah", "go.podman.io/storage", "github.com/containers/podman"} {
				if below(dep, heavy) {
					t.Errorf("%s depends on %s", name, dep)
				}
			}
		}
	}
}

func packages(t *testing.T) []listed {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports",
		"-tags=containers_image_openpgp,exclude_graphdriver_btrfs", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	var all []listed
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		if p.ImportPath != "bareboat" {
			all = append(all, p)
		}
	}
}

func longest(name string) (rule string, ok bool) {
	for r := range mayImport {
		if below(name, r) && len(r) >= len(rule) {
			rule, ok = r, true
		}
	}
	return rule, ok
}

func below(name string, places ...string) bool {
	return slices.ContainsFunc(places, func(p string) bool { return name == p || strings.HasPrefix(name, p+"/") })
}

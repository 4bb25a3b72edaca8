package builder_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bareboat/builder"
)

const whole = `
base: scratch
layers:
  - accounts: {users: [{name: app, uid: 1000}], groups: [{name: g, gid: 5, members: [app]}]}
  - certificates: {}
  - timezones: {suite: bookworm}
  - debian: {packages: [nginx-light], exclude: [openssl]}
  - files: [{from: a/**/*.txt, to: /b, owner: "1:2", mode: "0640", exclude: [c]}, {dir: /d}, {link: /e, target: f}]
  - go: {package: ./cmd/app, path: /bin/app, tags: [a], ldflags: -X main.v=1}
config:
  entrypoint: [/bin/app]
  cmd: [x]
  env: {A: b}
  user: "1000"
  ports: ["80", 53/udp]
  volumes: [/v]
  workdir: /w
  stop_signal: SIGINT
  healthcheck: {test: [CMD, /x], interval: 5s, retries: 2}
  labels: {a: b}
  annotations: {a: b}
`

func TestDecodeRecipe(t *testing.T) {
	r, err := builder.DecodeRecipe([]byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Layers) != 6 || r.Config.Healthcheck.Interval != 5*time.Second || r.Layers[5].Go.Path != "/bin/app" {
		t.Errorf("got %+v", r)
	}
}

func TestDecodeRecipeRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                            "the file is empty",
		"layers: []":                  "layers: none given",
		"laiers: []":                  `line 1: unknown key "laiers"`,
		"layers: [{go: {pakage: x}}]": `unknown key "pakage"`,
		"layers: 5":                   "cannot unmarshal",
		"layers: [{}]":                "layers[0]: wants one of go,",
		"layers: [{go: {package: x}, certificates: {}}]":                                  "has certificates and go",
		"layers: [{go: {}}]":                                                              "go.package: not given",
		"layers: [{go: {package: -toolexec=x}}]":                                          "is not a package",
		"layers: [{files: [{from: a}]}]":                                                  "from a: wants to",
		"layers: [{files: [{from: a, dir: b}]}]":                                          "wants one of from, dir, link",
		"layers: [{files: [{link: a}]}]":                                                  "wants target",
		"layers: [{files: [{dir: a, mode: 9}]}]":                                          "octal mode",
		"layers: [{files: [{dir: a, owner: root}]}]":                                      "is not UID",
		"layers: [{files: [{from: 'a[', to: b}]}]":                                        "not a valid glob",
		"layers: [{accounts: {}}]":                                                        "names no user",
		"layers: [{accounts: {users: [{name: 'a:b', uid: 1}]}}]":                          "not a user's name",
		"layers: [{accounts: {users: [{name: a}]}}]":                                      "uid 0 is not above 0",
		"layers: [{accounts: {users: [{name: root, uid: 5}]}}]":                           "user root: there is one already",
		"layers: [{accounts: {users: [{name: a, uid: 5, gid: -1}]}}]":                     "gid -1 is below 0",
		"layers: [{accounts: {users: [{name: a, uid: 5}], groups: [{name: a, gid: 6}]}}]": "group a: there is one already",
		"layers: [{accounts: {groups: [{name: a, gid: 6, members: ['b:c']}]}}]":           "not a user's name",
		"layers: [{files: [{from: a, to: b, exclude: ['[']}]}]":                           "exclude [: not a valid glob",
		"layers: [{debian: {packages: []}}]":                                              "name at least one",
		"base: debian:13\nlayers: [{certificates: {}}]":                                   "not pinned",
		"layers: [{certificates: {}}]\nconfig: {ports: [http]}":                           "is not PORT",
		"layers: [{certificates: {}}]\nconfig: {workdir: w}":                              "not an absolute path",
		"layers: [{certificates: {}}]\nconfig: {env: {'A B': c}}":                         "not a variable's name",
		"layers: [{certificates: {}}]\nconfig: {healthcheck: {test: [/x]}}":               "wants CMD",
		"layers: [{certificates: {}}]\n---\nlayers: []":                                   "more than one YAML document",
		"layers: [{certificates: {}}]\nconfig: {volumes: [v]}":                            "config.volumes: \"v\" is not an absolute path",
		"layers: [{certificates: {}}]\nconfig: {volumes: ['']}":                           "config.volumes: \"\" is not an absolute path",
		"layers: [{certificates: {}}]\nconfig: {env: [A]}":                                "line 2: cannot unmarshal",
		"layers: [{go: x}]":                                                               "cannot unmarshal",
		"layers: [{go: {package: '@v1.0.0'}}]":                                            "is not PACKAGE@VERSION",
		"layers:\n\t- go: {}":                                                             "line 2: found character",
		"layers: [{debian: {packages: [a/b]}}]":                                           "packages",
		"layers: [{debian: {packages: [ab], suite: ../x}}]":                               "suite",
		"layers: [{debian: {packages: [ab], exclude: [ab]}}]":                             "both in packages and in exclude",
		"layers: [{timezones: {suit: x}}]":                                                "unknown key \"suit\"",
		"layers: &x [*x]":                                                                 "line 1: cannot unmarshal",
	} {
		_, err := builder.DecodeRecipe([]byte(text))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: got %v, want one line with %q", text, err, want)
		}
	}
}

// An image is a function of its content: what another module is called today
// and not tomorrow is no version.
func TestGoPackageWantsAnExactVersion(t *testing.T) {
	for version, exact := range map[string]bool{
		"v1.2.3": true, "v0.0.0-20240102030405-0123456789ab": true, "v2.0.0+incompatible": true, "v1.0.0-rc.1": true,
		"latest": false, "main": false, "v1": false, "v1.2": false, "": false, "0123456789ab": false, "upgrade": false, "v1.2.3@v1.2.3": false, ">v1.2.3": false,
	} {
		_, err := builder.DecodeRecipe([]byte("layers: [{go: {package: example.org/app@" + version + "}}]"))
		if exact && err != nil || !exact && (err == nil || !strings.Contains(err.Error(), "with an exact version")) {
			t.Errorf("@%s: %v", version, err)
		}
	}
}

// Errors name the line that a person has to look at.
func TestRecipeErrorsNameTheLine(t *testing.T) {
	for _, c := range []struct {
		text string
		line int
	}{
		{"layers:\n  - go:\n      pakage: x\n", 3},
		{"layers:\n  - go: {package: a}\n  - go:\n      path: /x\n      package: a@latest\n", 5},
		{"layers:\n  - files:\n      - {dir: /a}\n      - {dir: /a, mode: \"9\"}\n", 4},
		{"layers:\n  - accounts: {}\n", 2},
		{"layers:\n  - certificates: {}\nconfig:\n  env:\n    A: b\n    A B: c\n", 6},
		{"layers:\n  - certificates: {}\n\nconfig:\n  workdir: x\n", 5},
		{"# c\nbase: debian\nlayers:\n  - certificates: {}\n", 2},
		{"layers:\n  - &a\n    files: [{link: x}]\n  - *a\n", 3},
		{"layers:\n  - go: [\n", 2},
		{"base: scratch\n", 1},
	} {
		_, err := builder.DecodeRecipe([]byte(c.text))
		if at, ok := errors.AsType[*builder.LineError](err); !ok || at.Line != c.line {
			t.Errorf("%q: %v; want line %d", c.text, err, c.line)
		}
	}
	path := filepath.Join(t.TempDir(), "image.yaml")
	if err := os.WriteFile(path, []byte("layers: []"), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := builder.LoadRecipe(path)
	if at, ok := errors.AsType[*builder.RecipeError](err); !ok || at.Path != path || !errors.Is(err, builder.ErrRecipe) {
		t.Errorf("%v", err)
	}
}

func FuzzDecodeRecipe(f *testing.F) {
	f.Add(whole)
	for _, seed := range []string{
		"layers: [{files: [{from: a, to: b, mode: '0644'}]}]",
		"layers: [{go: {package: example.com/a@v1.2.3}}]",
		"layers: [&a {certificates: {}}, *a]",
		"layers: &a [*a]",
		"base: x@sha256:0\nlayers: [{timezones: }]",
		"layers: [{debian: {packages: [a], exclude_paths: ['[']}}]\nconfig: {healthcheck: {test: [NONE], interval: 1h}}",
		"? [a]\n: b", "- a", "---\n---\n", "a: b: c", "\t", "layers: !!binary aGVsbG8=", "layers: {<<: [a]}",
		"config: {ports: ['1\n2']}", "\xff\xfe",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := builder.DecodeRecipe([]byte(text))
		switch {
		case err == nil && len(r.Layers) == 0:
			t.Error("a recipe without layers is taken")
		case err != nil && strings.ContainsAny(err.Error(), "\n\r"):
			t.Errorf("more than one line: %q", err)
		}
	})
}

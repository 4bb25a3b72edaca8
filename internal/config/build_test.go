package config_test

import (
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"bareboat/internal/config"
)

func TestBuild(t *testing.T) {
	p, err := load(t, `
services:
  web:
    build:
      context: site
      dockerfile: Containerfile.web
      args: {A: "1"}
      target: final
      secrets: [key, {source: token, target: other}]
  recipe: {build: ., x-bareboat: {recipe: image.yaml}}
  bare: {build: .}
secrets: {key: {file: key.txt}, token: {environment: TOKEN}}
`)
	if err != nil {
		t.Fatal(err)
	}
	web, _ := p.Service("web")
	want := &config.Build{
		Context: filepath.Join(p.Dir, "site"), Containerfile: filepath.Join(p.Dir, "site", "Containerfile.web"),
		Args: map[string]string{"A": "1"}, Target: "final",
		Secrets: []config.BuildSecret{{ID: "key", File: filepath.Join(p.Dir, "key.txt")}, {ID: "other", Env: "TOKEN"}},
	}
	if !reflect.DeepEqual(web.Build, want) || !web.Built() || !web.Image.IsLocal() {
		t.Errorf("got %+v as %s, want %+v", web.Build, web.Image, want)
	}
	if s, _ := p.Service("recipe"); s.Build != nil || !s.Built() {
		t.Errorf("beside a recipe: %+v", s.Build)
	}
	if s, _ := p.Service("bare"); s.Build == nil || s.Build.Containerfile != "" {
		t.Errorf("without a file's name: %+v", s.Build)
	}
	if len(p.Warnings) > 0 {
		t.Errorf("warnings: %q", p.Warnings)
	}
	for text, says := range map[string]string{
		"services: {a: {build: {context: ., dockerfile_inline: FROM x}}}":                             "build.dockerfile_inline",
		"services: {a: {build: {context: 'https://example.org/x.git'}}}":                              "build.context",
		"services: {a: {build: {context: ., secrets: [k]}}}\nsecrets: {k: {external: true, name: k}}": "build.secrets",
	} {
		if _, err := load(t, text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

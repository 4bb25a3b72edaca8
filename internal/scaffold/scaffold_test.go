package scaffold_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bareboat/builder"
	"bareboat/internal/config"
	"bareboat/internal/scaffold"
)

// module writes the files of a module.
func module(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const (
	quiet = "package main\n\nfunc main() { println(`ahoy`) }\n"
	plain = "package main\n\nimport \"net/http\"\n\nfunc main() { http.ListenAndServe(\":9000\", nil) }\n"
)

func goMod(path string) string { return "module " + path + "\n\ngo 1.26\n" }

func inspect(t *testing.T, dir string, mains ...string) *scaffold.Module {
	t.Helper()
	m, err := scaffold.Inspect(t.Context(), dir, mains...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// load writes what is scaffolded and reads it as build and up do.
func load(t *testing.T, dir string, m *scaffold.Module) *config.Project {
	t.Helper()
	files, err := m.Files()
	if err != nil {
		t.Fatal(err)
	}
	if err := scaffold.Write(dir, files, false); err != nil {
		t.Fatal(err)
	}
	p, err := config.Load(t.Context(), config.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Warnings) > 0 {
		t.Errorf("warnings: %q", p.Warnings)
	}
	for _, s := range p.Services {
		if strings.HasPrefix(s.Recipe, config.BuiltinRecipe) {
			continue
		}
		if _, err := builder.LoadRecipe(s.Recipe); err != nil {
			t.Errorf("service %s: %v", s.Name, err)
		}
	}
	return p
}

func recipe(t *testing.T, p *config.Project, service string) *builder.Recipe {
	t.Helper()
	s, ok := p.Service(service)
	if !ok {
		t.Fatalf("no service %s in %v", service, p.Services)
	}
	r, err := builder.LoadRecipe(s.Recipe)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func program(imports, body string) string {
	text := "package main\n\nimport (\n"
	for i := range strings.FieldsSeq(imports) {
		text += "\t\"" + i + "\"\n"
	}
	return text + ")\n\nfunc main() {\n" + body + "\n}\n"
}

// Where a program listens is found, however it is told.
func TestPort(t *testing.T) {
	for name, c := range map[string]struct {
		main     string
		port     uint16 // 0: behind no proxy
		publish  uint16
		cmd, env string
	}{
		"nothing":              {main: quiet},
		"a client":             {main: program("net/http", `http.Get("http://localhost:8080/")`)},
		"address":              {main: plain, port: 9000},
		"all addresses":        {main: program("net/http", `http.ListenAndServe("0.0.0.0:9000", nil)`), port: 9000},
		"server":               {main: program("net/http", `s := http.Server{Addr: ":7000"}; s.ListenAndServe()`), port: 7000},
		"listener":             {main: program("net net/http", `l, _ := net.Listen("tcp", ":7001"); http.Serve(l, nil)`), port: 7001},
		"flag":                 {main: program("flag net/http", `a := flag.String("addr", ":7002", ""); flag.Parse(); http.ListenAndServe(*a, nil)`), port: 7002},
		"flag, loopback":       {main: program("flag net/http", `a := flag.String("listen", "127.0.0.1:7003", ""); flag.Parse(); http.ListenAndServe(*a, nil)`), port: 7003, cmd: "--listen=:7003"},
		"flag of a variable":   {main: program("flag net/http", `var a string; flag.StringVar(&a, "http", ":7004", ""); http.ListenAndServe(a, nil)`), port: 7004},
		"flag of a number":     {main: program("flag fmt net/http", `p := flag.Int("port", 7005, ""); flag.Parse(); http.ListenAndServe(fmt.Sprintf(":%d", *p), nil)`), port: 7005},
		"env":                  {main: program("net/http os", `http.ListenAndServe(":"+os.Getenv("PORT"), nil)`), port: 8080, env: "PORT"},
		"env with a default":   {main: program("net/http os", `p := os.Getenv("APP_PORT"); if p == "" { p = "7006" }; http.ListenAndServe(":"+p, nil)`), port: 7006, env: "APP_PORT"},
		"env of an address":    {main: program("net/http os", `a := os.Getenv("LISTEN"); if a == "" { a = ":7007" }; http.ListenAndServe(a, nil)`), port: 7007},
		"loopback alone":       {main: program("net/http", `http.ListenAndServe("localhost:7008", nil)`)},
		"TLS":                  {main: program("net/http", `http.ListenAndServeTLS(":7443", "c", "k", nil)`), publish: 7443},
		"not HTTP":             {main: program("net", `l, _ := net.Listen("tcp", ":7009"); l.Accept()`), publish: 7009},
		"a constant elsewhere": {main: "package main\n\nimport \"net/http\"\n\nconst where = \":7010\"\n\nfunc main() { http.ListenAndServe(where, nil) }\n", port: 7010},
	} {
		t.Run(name, func(t *testing.T) {
			dir := module(t, map[string]string{"go.mod": goMod("example.org/app"), "main.go": c.main})
			p := load(t, dir, inspect(t, dir))
			s, _ := p.Service("app")
			r := recipe(t, p, "app")
			_, proxy := p.Edge()
			switch {
			case proxy != (c.port != 0):
				t.Errorf("a proxy: %v", proxy)
			case c.port != 0 && (s.Listen == nil || s.Listen.Port != c.port):
				t.Errorf("listens %+v, want %d", s.Listen, c.port)
			case c.publish != 0 && (len(s.Ports) != 1 || s.Ports[0].Container != c.publish):
				t.Errorf("publishes %+v, want %d", s.Ports, c.publish)
			}
			if got := strings.Join(r.Config.Cmd, " "); got != c.cmd {
				t.Errorf("cmd %q, want %q", got, c.cmd)
			}
			if c.env != "" && r.Config.Env[c.env] == "" || c.env == "" && len(r.Config.Env) > 0 {
				t.Errorf("env %v, want %s", r.Config.Env, c.env)
			}
		})
	}
}

// What a program needs beside itself, and what it says of itself.
func TestFindings(t *testing.T) {
	for name, c := range map[string]struct {
		main string
		want func(scaffold.Program) bool
	}{
		"https":               {program("net/http", `http.Get("https://example.org/")`), func(p scaffold.Program) bool { return p.Roots != nil }},
		"a URL from outside":  {program("net/http os", `http.Get(os.Args[1])`), func(p scaffold.Program) bool { return p.Roots != nil }},
		"its own check alone": {program("net/http", `c := http.Client{}; c.Get("http://127.0.0.1:8000/")`), func(p scaffold.Program) bool { return p.Roots == nil }},
		"a server":            {plain, func(p scaffold.Program) bool { return p.Roots == nil && p.Zones == nil && p.Signals == nil }},
		"zones":               {program("time", `time.LoadLocation("Europe/Berlin")`), func(p scaffold.Program) bool { return p.Zones != nil && p.Zones.Where == "main.go:8" }},
		"zones of its own": {"package main\n\nimport (\n\t\"time\"\n\t_ \"time/tzdata\"\n)\n\nfunc main() { time.LoadLocation(`Europe/Berlin`) }\n",
			func(p scaffold.Program) bool { return p.Zones == nil }},
		"signals": {program("os os/signal syscall", `signal.Notify(make(chan os.Signal, 1), os.Interrupt, syscall.SIGTERM)`), func(p scaffold.Program) bool { return p.Signals != nil }},
		"Ctrl-C":  {program("os os/signal", `signal.Notify(make(chan os.Signal, 1), os.Interrupt)`), func(p scaffold.Program) bool { return p.Signals == nil }},
		"check":   {program("os", `switch os.Args[1] { case "serve": case "healthcheck": }`), func(p scaffold.Program) bool { return slices.Equal(p.Health, []string{"healthcheck"}) }},
		"endpoint": {program("net/http", `http.HandleFunc("GET /healthz", nil)`), func(p scaffold.Program) bool {
			return p.Endpoint != nil && p.Endpoint.What == "/healthz" && p.Health == nil
		}},
		"embeds": {"package main\n\nimport \"embed\"\n\n//go:embed www\nvar pages embed.FS\n\nfunc main() { _ = pages }\n", func(p scaffold.Program) bool { return slices.Equal(p.Embeds, []string{"www"}) }},
		"env":    {program("os", `os.Getenv("B"); os.LookupEnv("A"); os.Getenv("B")`), func(p scaffold.Program) bool { return slices.Equal(p.Env, []string{"A", "B"}) }},
	} {
		t.Run(name, func(t *testing.T) {
			dir := module(t, map[string]string{"go.mod": goMod("example.org/app"), "main.go": c.main, "www/index.html": "ahoy"})
			m := inspect(t, dir)
			if !c.want(m.Programs[0]) {
				t.Errorf("found %+v", m.Programs[0])
			}
			load(t, dir, m)
		})
	}
}

func TestWhere(t *testing.T) {
	other := strings.ReplaceAll(plain, "9000", "9001")
	for name, c := range map[string]struct {
		files    map[string]string
		in       string
		mains    []string
		services string
		recipes  string
	}{
		"a sub-folder":        {map[string]string{"go.mod": goMod("example.org/app"), "cmd/Web_Site/main.go": plain}, "", nil, "proxy web_site", "image.yaml"},
		"a major version":     {map[string]string{"go.mod": goMod("example.org/app/v2"), "main.go": plain}, "", nil, "app proxy", "image.yaml"},
		"two":                 {map[string]string{"go.mod": goMod("example.org/app"), "cmd/a/main.go": plain, "cmd/b/main.go": other}, "", nil, "a b proxy", "cmd/a/image.yaml cmd/b/image.yaml"},
		"two, one chosen":     {map[string]string{"go.mod": goMod("example.org/app"), "cmd/a/main.go": plain, "cmd/b/main.go": other}, "", []string{"./cmd/b"}, "b proxy", "image.yaml"},
		"two of one name":     {map[string]string{"go.mod": goMod("example.org/app"), "a/run/main.go": plain, "b/run/main.go": quiet}, "", nil, "proxy run run-2", "a/run/image.yaml b/run/image.yaml"},
		"a program proxy":     {map[string]string{"go.mod": goMod("example.org/proxy"), "main.go": plain}, "", nil, "edge-proxy proxy", "image.yaml"},
		"from a folder below": {map[string]string{"go.mod": goMod("example.org/app"), "cmd/a/main.go": plain, "lib/l.go": "package lib\n"}, "cmd", nil, "a proxy", "image.yaml"},
		"a name for none":     {map[string]string{"go.mod": goMod("example.org/9.app"), "main.go": quiet}, "", nil, "app-9-app", "image.yaml"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(module(t, c.files), c.in)
			p := load(t, dir, inspect(t, dir, c.mains...))
			var services, recipes []string
			for _, s := range p.Services {
				services = append(services, s.Name)
				if rel, err := filepath.Rel(p.Dir, s.Recipe); err == nil && filepath.IsAbs(s.Recipe) {
					recipes = append(recipes, rel)
				}
			}
			slices.Sort(services)
			slices.Sort(recipes)
			if strings.Join(services, " ") != c.services || strings.Join(recipes, " ") != c.recipes {
				t.Errorf("services %q with recipes %q; want %q with %q", services, recipes, c.services, c.recipes)
			}
		})
	}
}

func TestRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		mains []string
		want  string
	}{
		"no module":      {map[string]string{"main.go": plain}, nil, "it is in no Go module"},
		"no main":        {map[string]string{"go.mod": goMod("a"), "l.go": "package l\n"}, nil, "no main package here or below"},
		"an unknown one": {map[string]string{"go.mod": goMod("a"), "main.go": plain}, []string{"./cmd/x"}, "./cmd/x is no main package"},
		"cgo":            {map[string]string{"go.mod": goMod("a"), "main.go": "package main\n\nimport _ \"a/c\"\n\nfunc main() {}\n", "c/c.go": "package c\n\nimport \"C\"\n"}, nil, "a/c uses cgo (c.go)"},
		"does not parse": {map[string]string{"go.mod": goMod("a"), "main.go": "package main\n\nfunc main() {\n"}, nil, "main.go"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := scaffold.Inspect(t.Context(), module(t, c.files), c.mains...)
			if _, ok := errors.AsType[*scaffold.Error](err); !ok || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%v; want one line with %q", err, c.want)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := scaffold.Inspect(ctx, t.TempDir()); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
}

// A file of the user's is worth more than one of ours, and with one in the way
// none is written.
func TestWriteReplacesNothing(t *testing.T) {
	dir := module(t, map[string]string{"go.mod": goMod("a"), "main.go": plain, "compose.yaml": "mine"})
	files, err := inspect(t, dir).Files()
	if err != nil {
		t.Fatal(err)
	}
	exists, ok := errors.AsType[*scaffold.ExistsError](scaffold.Write(dir, files, false))
	if !ok || exists.Path != filepath.Join(dir, "compose.yaml") {
		t.Fatalf("%v", exists)
	}
	if _, err := os.Stat(filepath.Join(dir, "image.yaml")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("image.yaml was written: %v", err)
	}
	if err := scaffold.Write(dir, files, true); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(filepath.Join(dir, "compose.yaml")); err != nil || !strings.Contains(string(text), "bareboat:proxy") {
		t.Errorf("%q, %v", text, err)
	}
	if entries, _ := filepath.Glob(filepath.Join(dir, ".*")); len(entries) > 0 {
		t.Errorf("left behind: %q", entries)
	}
}

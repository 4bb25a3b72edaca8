package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"bareboat/internal/config"
)

// load reads a Compose file that holds text.
func load(t *testing.T, text string) (*config.Project, error) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "shop")
	write(t, filepath.Join(dir, "compose.yaml"), text)
	return config.Load(t.Context(), config.Options{Dir: dir})
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func service(t *testing.T, p *config.Project, name string) config.Service {
	t.Helper()
	s, ok := p.Service(name)
	if !ok {
		t.Fatalf("service %s is missing", name)
	}
	return s
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s = %#v, want %#v", what, got, want)
	}
}

func TestExample(t *testing.T) {
	dir, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	p, err := config.Load(t.Context(), config.Options{Files: []string{"testdata/compose.yaml"}, Env: []string{"PORT=9090"}})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "warnings", p.Warnings, []string(nil))
	equal(t, "name, dir, registry", []string{p.Name, p.Dir, p.Registry}, []string{"example", dir, "registry.example:5000/team"})
	var order []string
	for _, s := range p.Services {
		order = append(order, s.Name)
	}
	equal(t, "order", order, []string{"chat", "api", "mailer", "proxy"})
	equal(t, "volumes", p.Volumes, []config.Volume{{Key: "data", Name: "example_data"}, {Key: "run", Name: "example_run"}})
	equal(t, "networks", p.Networks, []config.Network{{Key: "inner", Name: "example_inner", Internal: true}})

	chat := service(t, p, "chat")
	equal(t, "image", chat.Image.String(), "localhost/example/chat:latest")
	equal(t, "recipe", chat.Recipe, filepath.Join(dir, "chat/image.yaml"))
	equal(t, "listen", chat.Listen, &config.Listen{
		Socket: "/run/chat/{release}.sock", EdgeSocket: "/run/chat/{release}.sock"})
	equal(t, "variables of the release", chat.ReleaseEnv, map[string]string{"CHAT_LISTEN": "unix:/run/chat/{release}.sock", "CHAT_VERSION": "{release} of {revision}"})
	equal(t, "route", chat.Route, config.Route{Hosts: []string{"chat.example", "*.chat.example"}, Path: "/"})
	equal(t, "mode", chat.NetworkMode, config.NetworkNone)
	equal(t, "mounts", chat.Mounts, []config.Mount{
		{Kind: config.MountVolume, Source: "example_data", Target: "/data"},
		{Kind: config.MountVolume, Source: "example_run", Target: "/run/chat"},
		{Kind: config.MountTmpfs, Target: "/tmp", Size: 16 << 20},
	})
	equal(t, "health", chat.Health, &config.Health{
		Test: []string{"CMD", "/usr/bin/chat", "health"}, Interval: 2 * time.Second, Timeout: 3 * time.Second, Retries: 10})
	equal(t, "grace", chat.StopGrace, 30*time.Second)
	equal(t, "restart", chat.Restart, "unless-stopped")
	equal(t, "limits", chat.Limits, config.Limits{Memory: 256 << 20, CPUs: 1.5, PIDs: 200})
	equal(t, "capabilities", chat.CapDrop, []string{"ALL"})
	equal(t, "privileges, read-only", []bool{chat.Privileges, chat.ReadOnly}, []bool{false, true})
	equal(t, "env", chat.Env, map[string]string{"CHAT_LISTEN": "unix:/run/chat/chat.sock"})

	api := service(t, p, "api")
	equal(t, "listen", api.Listen, &config.Listen{Port: 9000})
	equal(t, "networks", api.Networks, []config.Attachment{{Network: "example_inner", Aliases: []string{"api"}}})
	equal(t, "depends_on", api.DependsOn, []config.Dependency{{Service: "chat", Condition: "service_started"}})
	equal(t, "image", api.Image.String(), "registry.example:5000/team/api:2")

	mailer := service(t, p, "mailer")
	equal(t, "order", mailer.Order, config.OrderStopFirst)
	equal(t, "cap_add", mailer.CapAdd, []string{"NET_BIND_SERVICE"})
	equal(t, "route", mailer.Route, config.Route{})

	edge, ok := p.Edge()
	if !ok || edge.Name != "proxy" {
		t.Fatalf("edge = %v, %v", edge.Name, ok)
	}
	equal(t, "edge", edge.Edge, &config.Edge{Address: "127.0.0.1", Port: 9090})
	equal(t, "edge's network", edge.NetworkMode, config.NetworkHost)
	equal(t, "edge's ports", edge.Ports, []config.Port(nil))
}

const minimal = "services: {web: {image: docker.io/library/web}}\n"

func TestDefaults(t *testing.T) {
	p, err := load(t, minimal)
	if err != nil {
		t.Fatal(err)
	}
	web := service(t, p, "web")
	equal(t, "name", p.Name, "shop")
	equal(t, "image", web.Image.String(), "docker.io/library/web:latest")
	equal(t, "network", web.Networks, []config.Attachment{{Network: "shop_default", Aliases: []string{"web"}}})
	equal(t, "grace", web.StopGrace, 10*time.Second)
	equal(t, "restart", web.Restart, "no")
	equal(t, "dropped", web.CapDrop, []string{"ALL"})
	equal(t, "health", web.Health, (*config.Health)(nil))
	equal(t, "order", web.Order, config.OrderDefault)
}

func TestFind(t *testing.T) {
	for _, c := range []struct{ name, files, want string }{
		{"the specification's name before podman-compose's", "podman-compose.yml docker-compose.yml compose.yaml", "compose.yaml"},
		{"docker-compose before podman-compose", "podman-compose.yml docker-compose.yml", "docker-compose.yml"},
		{"podman-compose", "podman-compose.yaml", "podman-compose.yaml"},
		{"override", "compose.yaml compose.override.yaml", "compose.yaml compose.override.yaml"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for f := range strings.FieldsSeq(c.files) {
				write(t, filepath.Join(dir, f), minimal)
			}
			below := filepath.Join(dir, "a", "b")
			if err := os.MkdirAll(below, 0o755); err != nil {
				t.Fatal(err)
			}
			p, err := config.Load(t.Context(), config.Options{Dir: below})
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for f := range strings.FieldsSeq(c.want) {
				want = append(want, filepath.Join(dir, f))
			}
			equal(t, "files", p.Files, want)
			equal(t, "dir", p.Dir, dir)
		})
	}
}

func TestProjectName(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "My.Shop")
	write(t, filepath.Join(dir, "compose.yaml"), minimal)
	named := filepath.Join(dir, "named.yaml")
	write(t, named, "name: ${NAME:-byfile}\n"+minimal)
	for _, c := range []struct {
		o    config.Options
		want string
	}{
		{config.Options{}, "myshop"},
		{config.Options{Files: []string{"named.yaml"}}, "byfile"},
		{config.Options{Files: []string{named}, Env: []string{"NAME=byvariable"}}, "byvariable"},
		{config.Options{Env: []string{"COMPOSE_FILE=named.yaml"}}, "byfile"},
		{config.Options{Files: []string{named}, Env: []string{"COMPOSE_PROJECT_NAME=byenv"}}, "byenv"},
		{config.Options{ProjectName: "byflag", Env: []string{"COMPOSE_PROJECT_NAME=byenv"}}, "byflag"},
	} {
		c.o.Dir = dir
		p, err := config.Load(t.Context(), c.o)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "name", p.Name, c.want)
	}
}

func TestVariables(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, ".env"), "TAG=3\nWHO=file\n")
	write(t, filepath.Join(dir, "web.env"), "A=1\nB=2\n")
	write(t, filepath.Join(dir, "compose.yaml"), `
services:
  web:
    image: quay.io/web:${TAG}
    env_file: web.env
    environment: {B: "${WHO}", C: "${NOBODY}x", D: "${NOBODY:-d}", E: }
`)
	p, err := config.Load(t.Context(), config.Options{Dir: dir, Env: []string{"WHO=shell"}})
	if err != nil {
		t.Fatal(err)
	}
	web := service(t, p, "web")
	equal(t, "image", web.Image.String(), "quay.io/web:3")
	equal(t, "env", web.Env, map[string]string{"A": "1", "B": "shell", "C": "x", "D": "d"})
	equal(t, "warnings", p.Warnings, []string{"compose.yaml: variable ${NOBODY} is not set, an empty string stands for it"})
}

func TestProfiles(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "compose.yaml"), `
services:
  web: {image: quay.io/web}
  debug: {image: quay.io/debug, profiles: [dev], tty: true}
`)
	for _, c := range []struct {
		o    config.Options
		want int
	}{
		{config.Options{}, 1},
		{config.Options{Profiles: []string{"dev"}}, 2},
		{config.Options{Env: []string{"COMPOSE_PROFILES=dev"}}, 2},
	} {
		c.o.Dir = dir
		p, err := config.Load(t.Context(), c.o)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "services", len(p.Services), c.want)
		equal(t, "warnings", len(p.Warnings), c.want-1) // tty, where the service is enabled
	}
}

func TestWarnings(t *testing.T) {
	p, err := load(t, `
services:
  web:
    image: quay.io/web
    build: .
    platform: linux/arm64
    privileged: true
    tty: false
    security_opt: ["no-new-privileges:true", "seccomp=unconfined"]
    deploy: {replicas: 3, update_config: {order: start-first, delay: 5s}}
    healthcheck: {test: ["CMD", "true"], start_interval: 1s}
    volumes: ["vol:/v", {type: volume, source: vol, target: /w, volume: {nocopy: true}}]
    depends_on: {job.one: {condition: service_completed_successfully}}
    secrets: [s]
  job.one: {image: quay.io/job, deploy: {replicas: 1}, logging: {driver: none}}
volumes: {vol: {driver: nfs, driver_opts: {a: b}}}
secrets: {s: {file: compose.yaml}}
`)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, w := range []string{
		"service job.one: logging is not honoured",
		"service web: healthcheck.start_interval is not honoured",
		"service web: platform is not honoured",
		"service web: privileged: true is not honoured",
		"service web: security_opt: seccomp=unconfined is not honoured",
		"service web: volumes.volume is not honoured",
		"volumes.vol.driver: nfs is not honoured",
		"volumes.vol.driver_opts is not honoured",
	} {
		want = append(want, "compose.yaml: "+w)
	}
	equal(t, "warnings", strings.Join(p.Warnings, "\n"), strings.Join(want, "\n"))
}

func TestSecurity(t *testing.T) {
	p, err := load(t, `
services:
  web:
    image: quay.io/web
    cap_drop: [net_raw, CAP_CHOWN, NET_RAW]
    cap_add: [CAP_SYS_NICE]
    security_opt: ["no-new-privileges:false"]
`)
	if err != nil {
		t.Fatal(err)
	}
	web := service(t, p, "web")
	equal(t, "dropped", web.CapDrop, []string{"CHOWN", "NET_RAW"})
	equal(t, "added", web.CapAdd, []string{"SYS_NICE"})
	equal(t, "privileges", web.Privileges, true)
}

func TestEdgeSocketElsewhere(t *testing.T) {
	p, err := load(t, backend(`{socket: "/srv/run/a/{release}.sock"}`, "", ""))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "socket as the edge sees it", service(t, p, "web").Listen.EdgeSocket, "/sockets/a/{release}.sock")
}

// backend is a project of one backend and the edge.
func backend(listen, web, edge string) string {
	return `
services:
  web:
    image: quay.io/web
    volumes: ["all:/srv", "run:/srv/run", "other:/other"]
    tmpfs: [/tmp]
    x-bareboat: {listen: ` + listen + `}
    ` + web + `
  edge:
    image: quay.io/edge
    volumes: ["run:/sockets"]
    x-bareboat: {edge: true}
    ports: ["8080:80"]
    ` + edge + `
volumes: {all: , run: , other: }
`
}

func TestErrors(t *testing.T) {
	web := func(keys string) string { return "services:\n  web:\n    image: quay.io/web\n    " + keys + "\n" }
	for _, c := range []struct{ name, file, want string }{
		{"unknown key", web("imagee: x"), "services.web.imagee: unknown key"},
		{"unknown key at the top", "servces: {}\n" + minimal, "servces"},
		{"wrong type", web("volumes: 3"), "services.web.volumes must be a array"},
		{"not YAML", "services: [", "yaml:"},
		{"tab", "services:\n\tweb: {}", "yaml:"},
		{"empty", "", "empty compose file"},
		{"no services", "services: {}", "services: there is none to run"},
		{"undefined volume", web(`volumes: ["vol:/v"]`), `service "web" refers to undefined volume vol: invalid compose project`},
		{"circle", "services:\n  a: {image: a, depends_on: [b]}\n  b: {image: b, depends_on: [a]}", "dependency cycle detected"},
		{"required variable", web("hostname: ${HOST:?say where}"), "say where"},
		{"image", "services: {web: {image: 'quay.io/A B'}}", `service web: image: "quay.io/A B" is not an image's name`},
		{"anonymous volume", web("volumes: [/v]"), "service web: volumes: /v needs a name, so that a release finds it again"},
		{"mounted twice", web("tmpfs: [/v]\n    volumes: ['./a:/v']"), "target /v already mounted"},
		{"tmpfs option", web("tmpfs: ['/v:uid=3']"), `service web: tmpfs: /v: option "uid=3" is none of size, mode, ro, rw, nosuid, nodev, noexec`},
		{"tmpfs size", web("tmpfs: ['/v:size=big']"), `service web: tmpfs: /v: big is not a size`},
		{"ports range", web("ports: [{target: 80, published: 80-90}]"), `service web: ports: published "80-90" is not one port (0 to 65535)`},
		{"no network for a port", web("ports: ['80:80']\n    network_mode: none"), "service web: ports: there is none to publish without a network"},
		{"network mode", web("network_mode: bridge"), `service web: network_mode: "bridge" is not one that bareboat knows: none, host, service:NAME, or networks`},
		{"restart", web("restart: sometimes"), `service web: restart: "sometimes" is none of no, always, on-failure[:N], unless-stopped`},
		{"health", web("healthcheck: {interval: 1s}"), "service web: healthcheck.test: names no command"},
		{"order", web("deploy: {update_config: {order: both}}"), `services.web.deploy.update_config.order value must be one of 'start-first', 'stop-first'`},
		{"extension of the project", "x-bareboat: {registri: x}\n" + minimal, `x-bareboat: unknown key "registri" (allowed: hooks, keep, registry)`},
		{"registry", "x-bareboat: {registry: nowhere}\n" + minimal, `x-bareboat.registry: "nowhere" is not HOST[:PORT][/PATH]`},
		{"extension", web("x-bareboat: {recipee: x}"), `service web: x-bareboat: unknown key "recipee" (allowed: check, drain, edge, environment, listen, network, recipe, route)`},
		{"extension, deeper", web("x-bareboat: {listen: {prot: 1}}"), `service web: x-bareboat.listen: unknown key "prot" (allowed: port, socket)`},
		{"extension, type", web("x-bareboat: [recipe]"), "service web: x-bareboat: must be a mapping, not a list"},
		{"edge, type", web("x-bareboat: {edge: {}}"), "service web: x-bareboat.edge: must be true or false, not a mapping"},
		{"listen, type", web("x-bareboat: {listen: 80}"), "service web: x-bareboat.listen: must be a mapping, not a number"},
		{"network", web("x-bareboat: {network: bridge}"), "service web: x-bareboat.network: bridge is not none, which is all that can be said here"},
		{"edge without a port", web("x-bareboat: {edge: true}"), "service web: x-bareboat.edge: needs one entry in ports, HOST:CONTAINER, that says where people reach it"},
		{"edge with two ports", web("x-bareboat: {edge: true}\n    ports: ['80:80', '81:81']"), "service web: x-bareboat.edge: needs one entry in ports"},
		{"edge with any port", web("x-bareboat: {edge: true}\n    ports: ['80']"), "service web: x-bareboat.edge: needs one entry in ports"},
		{"edge with UDP", web("x-bareboat: {edge: true}\n    ports: ['80:80/udp']"), "service web: x-bareboat.edge: needs one entry in ports"},
		{"edge without a network", web("x-bareboat: {edge: true, network: none}"), "service web: x-bareboat.edge: the edge is on the host's network, so that network: none cannot be"},
		{"recipe, type", web("x-bareboat: {recipe: 3}"), "service web: x-bareboat.recipe: must be a string that is not empty, not a number"},
		{"port", web("x-bareboat: {listen: {port: 70000}}"), "service web: x-bareboat.listen.port: 70000 is not a port (1 to 65535)"},
		{"two edges", "services:\n  a: {image: a, ports: ['1:1'], x-bareboat: {edge: true}}\n  b: {image: b, ports: ['2:2'], x-bareboat: {edge: true}}", "service b: x-bareboat.edge: service a is the edge already"},
		{"no edge", web("x-bareboat: {listen: {port: 80}}"), "service web: x-bareboat.listen: no service of this file is the edge (x-bareboat.edge)"},
		{"both", backend(`{port: 80, socket: "/srv/run/{release}"}`, "", ""), "service web: x-bareboat.listen: needs either socket or port"},
		{"neither", backend("{}", "", ""), "service web: x-bareboat.listen: needs either socket or port"},
		{"variable", web("x-bareboat: {environment: {A-B: x}}"), `service web: x-bareboat.environment: "A-B" is not a variable's name`},
		{"value", web("x-bareboat: {environment: {A: 3}}"), `service web: x-bareboat.environment: A must be a string, not a number`},
		{"mark", web("x-bareboat: {environment: {A: '{relaese}'}}"), `service web: x-bareboat.environment: A holds {relaese}, which is none of {release}, {replica}, {revision}`},
		{"variables, type", web("x-bareboat: {environment: [A=3]}"), "service web: x-bareboat.environment: must be a mapping, not a list"},
		{"port without a network", backend("{port: 80}", "network_mode: none", ""), "service web: x-bareboat.listen.port: cannot be published on network none"},
		{"one socket for all", backend("{socket: /srv/run/x.sock}", "", ""), `service web: x-bareboat.listen.socket: "/srv/run/x.sock" must hold {release} once, in its last part, so that each release has its own`},
		{"long socket", backend(`{socket: "/srv/run/`+strings.Repeat("x", 110)+`{release}"}`, "", ""), "is longer than the 107 bytes of a socket's address"},
		{"quoted socket", backend(`{socket: "/srv/run/;{release}"}`, "", ""), "may hold only letters, digits and / . _ -"},
		{"socket in a tmpfs", backend(`{socket: "/tmp/{release}"}`, "", ""), "service web: x-bareboat.listen.socket: /tmp/{release} lies in none of the service's volumes"},
		{"socket that the edge has not", backend(`{socket: "/other/{release}"}`, "", ""), "service web: x-bareboat.listen.socket: the edge (service edge) does not mount shop_other"},
		{"route without listen", web("x-bareboat: {route: {path: /}}"), "service web: x-bareboat.route: needs listen beside it"},
		{"host", web("x-bareboat: {route: {hosts: ['a;b']}}"), "service web: x-bareboat.route.hosts: a;b is not a host name"},
		{"long host", web("x-bareboat: {route: {hosts: ['" + strings.Repeat("a.", 126) + "aa']}}"), "is not a host name"},
		{"long label", web("x-bareboat: {route: {hosts: ['" + strings.Repeat("a", 64) + ".example']}}"), "is not a host name"},
		{"path of the edge", web("x-bareboat: {route: {path: /-/edge/x}}"), `service web: x-bareboat.route.path: "/-/edge/x" is the edge's own`},
		{"socket at the edge", `
services:
  web: {image: a, volumes: ["run:/run/web"], x-bareboat: {listen: {socket: "/run/web/{release}"}}}
  edge: {image: e, volumes: ["run:/run/a web"], ports: ["1:1"], x-bareboat: {edge: true}}
volumes: {run: }
`, `service web: x-bareboat.listen.socket: as the edge (service edge) mounts it: "/run/a web/{release}" may hold only letters, digits and / . _ -`},
		{"names alike", `
services:
  Web: {image: a, x-bareboat: {listen: {port: 1}, route: {path: /a}}}
  web: {image: b, x-bareboat: {listen: {port: 1}}}
  edge: {image: e, ports: ["1:1"], x-bareboat: {edge: true}}
`, "service web: x-bareboat.listen: the edge cannot tell it from service Web"},
		{"name", `
services:
  _web: {image: a, x-bareboat: {listen: {port: 1}}}
  edge: {image: e, ports: ["1:1"], x-bareboat: {edge: true}}
`, "service _web: x-bareboat.listen: the name of a service that the edge reaches starts with a letter or digit"},
		{"path", web("x-bareboat: {route: {path: 'a b'}}"), `service web: x-bareboat.route.path: "a b" is not a path`},
		{"dotted path", web("x-bareboat: {route: {path: /a/../b}}"), `service web: x-bareboat.route.path: "/a/../b" is not a path`},
		{"address", web("x-bareboat: {edge: true}\n    ports: [{target: 1, published: 1, host_ip: localhost}]"), "invalid ip address: localhost"},
		{"same route", `
services:
  a: {image: a, x-bareboat: {listen: {port: 1}, route: {path: /a}}}
  b: {image: b, x-bareboat: {listen: {port: 1}, route: {path: /a/}}}
  edge: {image: e, ports: ["1:1"], x-bareboat: {edge: true}}
`, "service b: x-bareboat.route: service a has the same host and path"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(t, c.file)
			var e *config.Error
			if !errors.As(err, &e) {
				t.Fatalf("Load = %v, want a *config.Error", err)
			}
			got := err.Error()
			if !strings.HasPrefix(got, "compose.yaml: ") || !strings.Contains(got, c.want) {
				t.Errorf("error is\n\t%s\nwant\n\tcompose.yaml: %s", got, c.want)
			}
			if strings.Contains(got, "\n") {
				t.Errorf("error has several lines: %q", got)
			}
			if strings.HasPrefix(c.want, "service web: x-bareboat.") && (e.Service != "web" || !strings.HasPrefix(e.Key, "x-bareboat.")) {
				t.Errorf("error has service %q, key %q", e.Service, e.Key)
			}
		})
	}
}

func TestMissingFile(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		files []string
		want  string
	}{
		{nil, "no Compose file here or above (compose.yaml, compose.yml, docker-compose.yml, docker-compose.yaml, podman-compose.yml, podman-compose.yaml)"},
		{[]string{"gone.yml"}, "gone.yml: no such file or directory"},
		{[]string{dir}, dir + ": is a folder, not a Compose file"},
	} {
		_, err := config.Load(t.Context(), config.Options{Dir: dir, Files: c.files})
		var e *config.Error
		if !errors.As(err, &e) || !strings.HasSuffix(err.Error(), c.want) {
			t.Errorf("Load(%v) = %v, want %s", c.files, err, c.want)
		}
	}
}

func FuzzLoad(f *testing.F) {
	example, err := os.ReadFile("testdata/compose.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(example))
	f.Add(minimal)
	f.Add(backend(`{socket: "/srv/run/{release}"}`, "", ""))
	f.Add("services: {web: {image: x, ports: ['${P:-1}:1'], x-bareboat: {edge: true}}}")
	f.Fuzz(func(t *testing.T, text string) {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "compose.yaml"), text)
		p, err := config.Load(t.Context(), config.Options{Files: []string{filepath.Join(dir, "compose.yaml")}})
		if err != nil {
			if strings.ContainsAny(err.Error(), "\n\r") {
				t.Fatalf("error has several lines: %q", err)
			}
			return
		}
		for _, s := range p.Services {
			if s.Image.Tag == "" && s.Image.Digest == "" {
				t.Fatalf("service %s: image %s is not complete", s.Name, s.Image)
			}
			if s.Listen != nil && (s.Listen.Socket == "") != (s.Listen.EdgeSocket == "") {
				t.Fatalf("service %s: listen %+v", s.Name, s.Listen)
			}
		}
	})
}

// The deployment of this repository itself.
func TestOwnDeployment(t *testing.T) {
	p, err := config.Load(t.Context(), config.Options{Files: []string{"../../podman-compose.yml"}})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "warnings", p.Warnings, []string(nil))
	equal(t, "name", p.Name, "bareboat")
	equal(t, "networks", p.Networks, []config.Network(nil))
	chat, edge := service(t, p, "chat"), service(t, p, "proxy")
	equal(t, "chat's network", chat.NetworkMode, config.NetworkNone)
	equal(t, "socket", chat.Listen.EdgeSocket, "/run/chat/{release}.sock")
	equal(t, "edge", edge.Edge, &config.Edge{Port: 8080})
	for _, s := range p.Services {
		if _, err := os.Stat(s.Recipe); err != nil {
			t.Errorf("service %s: %v", s.Name, err)
		}
		equal(t, s.Name+" is read-only", s.ReadOnly, true)
	}
}

// How pods are replaced, and what they are given beside their image.
func TestDeploy(t *testing.T) {
	p, err := load(t, `
x-bareboat: {keep: "5", hooks: {before_build: make, before_switch: [./migrate, up]}}
services:
  web:
    image: quay.io/web
    depends_on: {job: {condition: service_completed_successfully}, db: {condition: service_healthy}}
    deploy:
      replicas: 3
      update_config: {parallelism: 2, delay: 1s, monitor: 5s, failure_action: pause}
      rollback_config: {monitor: 1s}
    secrets: [key, {source: cert, target: /etc/cert.pem, uid: "65532", gid: "65532", mode: 0400}]
    configs: [{source: conf, target: /etc/app.conf}, plain]
    volumes: ["run:/run/web"]
    x-bareboat:
      listen: {socket: "/run/web/{release}-{replica}.sock"}
      check: {path: /ws, websocket: true, protocol: chat.v1}
      drain: {request: POST /drain}
  job: {image: quay.io/job}
  db: {image: quay.io/db, scale: 2}
  log: {image: quay.io/log, network_mode: "service:web"}
  edge: {image: quay.io/edge, volumes: ["run:/run/web"], ports: ["8080:80"], x-bareboat: {edge: true}}
volumes: {run: }
secrets: {key: {environment: HOME}, cert: {external: true, name: theirs}}
configs: {conf: {content: "a=b"}, plain: {file: ./plain.conf}, unused: {file: ./nowhere}}
`)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "warnings", len(p.Warnings), 0)
	equal(t, "keep", p.Keep, 5)
	equal(t, "hooks", p.Hooks, config.Hooks{BeforeBuild: []string{"make"}, BeforeSwitch: []string{"./migrate", "up"}})
	web := service(t, p, "web")
	equal(t, "replicas", []int{web.Replicas, service(t, p, "db").Replicas, service(t, p, "job").Replicas}, []int{3, 2, 1})
	equal(t, "update", web.Update, config.UpdateConfig{Parallelism: 2, Delay: time.Second, Monitor: 5 * time.Second, FailureAction: config.FailurePause})
	equal(t, "rollback", web.Rollback, config.UpdateConfig{Monitor: time.Second, FailureAction: config.FailureRollback})
	equal(t, "depends_on", web.DependsOn, []config.Dependency{{Service: "db", Condition: "service_healthy"}, {Service: "job", Condition: "service_completed_successfully"}})
	equal(t, "check", web.Check, &config.Check{Path: "/ws", WebSocket: true, Protocol: "chat.v1"})
	equal(t, "drain", web.Drain, &config.Drain{Method: "POST", Path: "/drain"})
	equal(t, "socket", web.Listen.EdgeSocket, "/run/web/{release}-{replica}.sock")
	equal(t, "files", web.Files, []config.FileMount{
		{Kind: "secret", Key: "key", Target: "/run/secrets/key"},
		{Kind: "secret", Key: "cert", Target: "/etc/cert.pem", UID: 65532, GID: 65532, Mode: 0o400},
		{Kind: "config", Key: "conf", Target: "/etc/app.conf"},
		{Kind: "config", Key: "plain", Target: "/plain"},
	})
	equal(t, "sidecar", service(t, p, "log").Sidecar, "web")
	var sources []string
	for _, s := range p.Sources {
		sources = append(sources, s.Kind+" "+s.Key+" "+s.External)
	}
	equal(t, "sources", sources, []string{"secret cert theirs", "secret key ", "config conf ", "config plain "})
}

func TestDeployErrors(t *testing.T) {
	web := func(keys string) string { return "services:\n  web:\n    image: quay.io/web\n    " + keys + "\n" }
	for _, c := range []struct{ name, file, want string }{
		{"no replicas", web("deploy: {replicas: 0}"), "service web: deploy.replicas: 0 is not a number of pods"},
		{"failure action", web("deploy: {update_config: {failure_action: cry}}"), `deploy.update_config.failure_action: "cry" is none of rollback, pause, continue`},
		{"a port of the host for several", web(`deploy: {replicas: 2}
    ports: ["80:80"]`), "service web: ports: 2 replicas cannot all have port 80 of the host"},
		{"a socket for several", backend(`{socket: "/srv/run/{release}.sock"}`, "scale: 2", ""), `"/srv/run/{release}.sock" must hold {replica}, since there are 2 replicas`},
		{"several edges", backend(`{port: 80}`, "", "scale: 2"), "service edge: deploy.replicas: there is one edge"},
		{"drain of nothing", backend(`{port: 80}, drain: {}`, "", ""), "x-bareboat.drain: needs either signal or request"},
		{"signal", backend(`{port: 80}, drain: {signal: "a b"}`, "", ""), `x-bareboat.drain.signal: "A B" is not a signal's name`},
		{"request", backend(`{port: 80}, drain: {request: /drain}`, "", ""), `x-bareboat.drain.request: "/drain" is not a request`},
		{"check", backend(`{port: 80}, check: {websocket: true}`, "", ""), "x-bareboat.check: needs path"},
		{"check of a worker", web("x-bareboat: {check: {path: /}}"), "x-bareboat: drain and check need listen beside them"},
		{"keep", "x-bareboat: {keep: -1}\n" + minimal, "x-bareboat.keep: -1 is not a whole number from 0"},
		{"hook", "x-bareboat: {hooks: {before_build: [1]}}\n" + minimal, "x-bareboat.hooks.before_build: must be a list of strings"},
		{"sidecar of nobody", web(`network_mode: "service:x"`), "x"},
		{"sidecar of a sidecar", web(`network_mode: "service:b"`) + "  b: {image: quay.io/b, network_mode: 'service:c'}\n  c: {image: quay.io/c}\n", "service web: network_mode: service b has no pod of its own: it shares that of c"},
		{"sidecar with ports", web(`network_mode: "service:b"`) + "    ports: ['80']\n  b: {image: quay.io/b}\n", "ports"},
		{"secret without content", web("secrets: [s]") + "secrets: {s: {name: x}}\n", "secret"},
		{"mode of a secret", web("secrets: [{source: s, mode: 07777}]") + "secrets: {s: {file: x}}\n", "service web: secrets.s.mode: 7777 is not a file's mode"},
		{"owner of a secret", web("secrets: [{source: s, uid: me}]") + "secrets: {s: {file: x}}\n", `service web: secrets.s.uid: "me" is not a number`},
		{"two at one place", web("secrets: [s, {source: z, target: s}]") + "secrets: {s: {file: x}, z: {file: x}}\n", "service web: secrets.z.target: s is at /run/secrets/s already"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(t, c.file)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is\n\t%v\nwant\n\t%s", err, c.want)
			}
		})
	}
}

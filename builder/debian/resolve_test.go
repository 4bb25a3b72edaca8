package debian_test

import (
	"reflect"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"bareboat/builder/debian"
)

func TestResolve(t *testing.T) {
	p := func(name, fields string) pkg { return pkg{name: name, fields: fields} }
	tests := []struct {
		name     string
		packages []pkg
		request  debian.Request
		want     string // "name name": in install order
		excluded string // "name<who,who"
		err      string
	}{
		{
			name:     "closure in install order",
			packages: []pkg{p("app", "Depends: lib-b, lib-a\nRecommends: extra"), p("lib-a", "Pre-Depends: libc6"), p("lib-b", "Depends: lib-a"), p("libc6", ""), p("extra", "")},
			want:     "libc6 lib-a lib-b app",
		},
		{
			name:     "a circle",
			packages: []pkg{p("app", "Depends: lib-a"), p("lib-a", "Depends: lib-b"), p("lib-b", "Depends: lib-a")},
			want:     "lib-b lib-a app",
		},
		{
			name:     "the first alternative that is there",
			packages: []pkg{p("app", "Depends: nothere | lib-b | lib-a"), p("lib-a", ""), p("lib-b", "")},
			want:     "lib-b app",
		},
		{
			name:     "an alternative that another package brings",
			packages: []pkg{p("app", "Depends: lib-a | lib-b, tool"), p("tool", "Depends: lib-b"), p("lib-a", ""), p("lib-b", "")},
			want:     "lib-b tool app",
		},
		{
			name:     "the version decides between alternatives",
			packages: []pkg{p("app", "Depends: lib-a (>= 2) | lib-b"), p("lib-a", ""), p("lib-b", "")},
			want:     "lib-b app",
		},
		{
			name:     "a real package goes before one that provides its name",
			packages: []pkg{p("app", "Depends: lib-b"), p("aaa", "Provides: lib-b"), p("lib-b", "")},
			want:     "lib-b app",
		},
		{
			name:     "the only provider",
			packages: []pkg{p("app", "Depends: nginx-abi-1"), p("nginx", "Provides: httpd, nginx-abi-1")},
			want:     "nginx app",
		},
		{
			name:     "the provider of the highest priority",
			packages: []pkg{p("app", "Depends: awk-like"), p("gawk", "Provides: awk-like\nPriority: optional"), p("mawk", "Provides: awk-like\nPriority: required")},
			want:     "mawk app",
		},
		{
			name:     "a provider that is asked for",
			packages: []pkg{p("app", "Depends: mta"), p("exim", "Provides: mta"), p("postfix", "Provides: mta")},
			request:  debian.Request{Packages: []string{"app", "postfix"}},
			want:     "postfix app",
		},
		{
			name:     "several providers",
			packages: []pkg{p("app", "Depends: tool"), p("tool", "Depends: mta"), p("exim", "Provides: mta"), p("postfix", "Provides: mta")},
			err:      "app → tool wants mta, which any of exim, postfix gives: add the one to have to packages",
		},
		{
			name:     "a provider needs a version where one is asked for",
			packages: []pkg{p("app", "Depends: api (>= 2)"), p("impl", "Provides: api"), p("impl2", "Provides: api (= 2.1)")},
			want:     "impl2 app",
		},
		{
			name:     "unsatisfied",
			packages: []pkg{p("app", "Depends: tool"), p("tool", "Depends: lib-a (>= 2)"), p("lib-a", "")},
			err:      "app → tool wants lib-a (>= 2), which the suite does not have (it has lib-a 1.0)",
		},
		{
			name:     "unknown",
			packages: []pkg{p("other", "")},
			err:      "package app: trixie has none of that name for amd64",
		},
		{
			name:     "virtual",
			packages: []pkg{p("impl", "Provides: app")},
			err:      "package app: a virtual package of trixie; ask for one of impl",
		},
		{
			name:     "conflict",
			packages: []pkg{p("app", "Depends: lib-a, lib-b"), p("lib-a", "Conflicts: lib-b (<< 2)"), p("lib-b", "")},
			err:      "app → lib-a conflicts with app → lib-b (lib-b (<< 2))",
		},
		{
			name:     "no conflict with itself",
			packages: []pkg{p("app", "Provides: mta\nConflicts: mta")},
			want:     "app",
		},
		{
			name:     "script-only dependencies",
			packages: []pkg{p("app", "Depends: debconf (>= 0.5) | debconf-2.0, ca-certificates, openssl-user"), p("ca-certificates", "Depends: openssl (>= 1.1), debconf"), p("openssl-user", ""), p("debconf", ""), p("openssl", ""), p("cdebconf", "Provides: debconf-2.0")},
			want:     "ca-certificates openssl-user app",
			excluded: "debconf<app,ca-certificates openssl<ca-certificates",
		},
		{
			name:     "one who needs it for real",
			packages: []pkg{p("app", "Depends: ca-certificates, openssl"), p("ca-certificates", "Depends: openssl"), p("openssl", "")},
			want:     "openssl ca-certificates app",
		},
		{
			name:     "include takes back",
			packages: []pkg{p("app", "Depends: debconf"), p("debconf", "")},
			request:  debian.Request{Packages: []string{"app"}, Include: []string{"debconf"}},
			want:     "debconf app",
		},
		{
			name:     "exclude",
			packages: []pkg{p("app", "Depends: lib-a"), p("lib-a", "Depends: lib-b"), p("lib-b", "")},
			request:  debian.Request{Packages: []string{"app"}, Exclude: []string{"lib-a"}},
			want:     "app",
			excluded: "lib-a<app",
		},
		{
			name:     "the provider of an excluded name",
			packages: []pkg{p("app", "Depends: mta"), p("exim", "Provides: mta")},
			request:  debian.Request{Packages: []string{"app"}, Exclude: []string{"exim"}},
			want:     "app",
			excluded: "exim<app",
		},
		{
			name:     "a foreign architecture",
			packages: []pkg{p("app", "Depends: lib-a:any, lib-b:amd64"), p("lib-a", ""), p("lib-b", "")},
			want:     "lib-a lib-b app",
		},
		{
			name:     "a foreign architecture that is not here",
			packages: []pkg{p("app", "Depends: lib-a:i386"), p("lib-a", "")},
			err:      "app wants lib-a:i386",
		},
		{
			name:     "a foreign architecture of a package that is here",
			packages: []pkg{p("app", "Depends: lib-a, lib-a:i386"), p("lib-a", "")},
			err:      "app wants lib-a:i386",
		},
		{
			name:     "a broken field",
			packages: []pkg{p("app", "Depends: lib-a (>= 1")},
			err:      "package app: relation",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.request.Packages == nil {
				tt.request.Packages = []string{"app"}
			}
			l, err := newRepo(t, tt.packages...).archive(t).Resolve(t.Context(), tt.request, "amd64")
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("got %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := order(l); got != tt.want {
				t.Errorf("packages: got %q, want %q", got, tt.want)
			}
			if got := excluded(l); got != tt.excluded {
				t.Errorf("excluded: got %q, want %q", got, tt.excluded)
			}
		})
	}
}

func order(l debian.Lock) string {
	var names []string
	for _, p := range l.Packages {
		names = append(names, p.Name)
	}
	return strings.Join(names, " ")
}

func excluded(l debian.Lock) string {
	var out []string
	for _, e := range l.Excluded {
		out = append(out, e.Name+"<"+strings.Join(e.WantedBy, ","))
	}
	return strings.Join(out, " ")
}

// The order of the request decides nothing.
func TestResolveOrder(t *testing.T) {
	r := newRepo(t, pkg{name: "app1", fields: "Depends: x1 | x2"}, pkg{name: "app2", fields: "Depends: x2 | x1"}, pkg{name: "x1"}, pkg{name: "x2"})
	a := r.archive(t)
	first, err := a.Resolve(t.Context(), debian.Request{Packages: []string{"app1", "app2"}}, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	second, err := a.Resolve(t.Context(), debian.Request{Packages: []string{"app2", "app1"}}, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	if order(first) != order(second) || first.Request != second.Request {
		t.Errorf("%s and %s", order(first), order(second))
	}
}

func TestRequestValidate(t *testing.T) {
	tests := []struct {
		request debian.Request
		want    string
	}{
		{debian.Request{}, "packages: name at least one"},
		{debian.Request{Packages: []string{"../x"}}, `packages: "../x" is not a package name`},
		{debian.Request{Packages: []string{"aa"}, Suite: "../trixie"}, `suite "../trixie"`},
		{debian.Request{Packages: []string{"aa"}, Components: []string{"main/.."}}, "components"},
		{debian.Request{Packages: []string{"aa"}, Exclude: []string{"aa"}}, "both in packages and in exclude"},
		{debian.Request{Packages: []string{"aa"}, ExcludePaths: []string{"/usr"}}, `exclude_paths: "/usr"`},
		{debian.Request{Packages: []string{"aa"}, ExcludePaths: []string{"usr/[a"}}, "exclude_paths"},
	}
	for _, tt := range tests {
		if err := tt.request.Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: got %v, want %q", tt.request, err, tt.want)
		}
	}
}

// A recipe decodes the request strictly.
func TestRequestYAML(t *testing.T) {
	const text = "suite: bookworm\ncomponents: [main]\npackages: [nginx]\nexclude: [a1]\ninclude: [b1]\nexclude_paths: [usr/lib/*/gconv]\nacknowledge: [c1]\n"
	decode := func(text string) (debian.Request, error) {
		d := yaml.NewDecoder(strings.NewReader(text))
		d.KnownFields(true)
		var r debian.Request
		err := d.Decode(&r)
		return r, err
	}
	got, err := decode(text)
	if err != nil {
		t.Fatal(err)
	}
	if v := reflect.ValueOf(got); v.NumField() != strings.Count(text, "\n") {
		t.Error("a field of the request has no line above")
	} else {
		for i := range v.NumField() {
			if v.Field(i).IsZero() {
				t.Errorf("%s was not decoded", v.Type().Field(i).Name)
			}
		}
	}
	if _, err := decode("package: [nginx]\n"); err == nil {
		t.Error("an unknown key was accepted")
	}
}

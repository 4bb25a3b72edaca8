package proxy_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"bareboat/pods/proxy"
)

var update = flag.Bool("update", false, "write what is rendered into the cases")

// separator stands between a case's configuration and what is rendered from it.
const separator = "---\n"

func TestRender(t *testing.T) {
	cases, err := filepath.Glob("testdata/render/*.txt")
	if err != nil || len(cases) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range cases {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			input, want, _ := strings.Cut(string(text), separator)
			got := render(t, input)
			if *update {
				if err := os.WriteFile(file, []byte(input+separator+got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// render gives what is rendered, or the error.
func render(t *testing.T, input string) string {
	t.Helper()
	var c proxy.Config
	d := json.NewDecoder(strings.NewReader(input))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		t.Fatal(err)
	}
	out, err := proxy.Render(c)
	if err != nil {
		return "error: " + err.Error() + "\n"
	}
	back, err := proxy.Parse(out)
	if err != nil || !reflect.DeepEqual(back, c) {
		t.Errorf("read back: %+v, %v", back, err)
	}
	return string(out)
}

func TestTheImagesDefaultIsRendered(t *testing.T) {
	const file = "nginx/bareboat/default.conf"
	want, err := proxy.Render(proxy.Config{
		Release:   "default",
		Listen:    proxy.Listen{Port: 8080},
		Upstreams: []proxy.Upstream{{Service: "chat", Addresses: []string{"unix:/run/chat/chat.sock"}}},
		Sites:     []proxy.Site{{Path: "/", Service: "chat"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(file, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what is rendered: go test -run TheImagesDefault -update", file)
	}
}

// lines are all that may be rendered: no value can make another.
var lines = regexp.MustCompile(`^(` + strings.Join([]string{
	``,
	`# Written by bareboat for release [\w.-]+\. The next release writes it anew\.`,
	`# bareboat \{.*\}`,
	`# release [\w.-]+`,
	`add_header X-Release "[\w.-]+" always;`,
	`upstream [\w.-]+ \{`,
	`\tserver (unix:/[\w./-]+|[\d.]+:\d+|\[[\da-f:.]+\]:\d+) max_fails=0;`,
	`\tkeepalive 32;`,
	`\tkeepalive_timeout 30s;`,
	`server \{`,
	`\tlisten ([\d.]+:|\[[\da-f:.]+\]:)?\d+( default_server( ipv6only=off)?)?;`,
	`\tserver_name (_|(\*\.)?[a-z0-9.-]+);`,
	`map "" \$bareboat_config \{`,
	`\tdefault [0-9a-f]{16};`,
	`\tlocation ~ \^/-/edge/preview/[0-9a-f]+\(/\.\*\)\$ \{`,
	`\t\t(allow [\da-f:.]+|deny all|access_log off);`,
	`\t\tproxy_pass http://\$http_x_bareboat_upstream\$1\$is_args\$args;`,
	`\t(least_conn|server \S+ max_fails=1 fail_timeout=5s);`,
	`\tinclude server\.conf;`,
	`\tlocation (= )?/[\w.~/-]* \{`,
	`\t\tproxy_pass http://[\w.-]+;`,
	`\t\tclient_max_body_size \d+;`,
	`\t\tinclude proxy\.conf;`,
	`\t\treturn 404;`,
	`\t?\}`,
}, "|") + `)$`)

func FuzzRender(f *testing.F) {
	f.Add("1", "", "chat", "unix:/run/chat/1.sock", "chat.example", "/", token, uint16(8080))
	f.Add("1; }", "::", "a b", "127.0.0.1:80;", "*.x{}", "/a/;", "}", uint16(1))
	f.Add("1\n", "127.0.0.1\n", "c\n", "unix:/a\n", "h\n", "/\n", "a\n", uint16(1))
	f.Add("$r", "fe80::1%e;", "${s}", "[::1%a;]:1", "#", "/'", "$t", uint16(1))
	f.Fuzz(func(t *testing.T, release, address, service, upstream, host, path, token string, port uint16) {
		c := proxy.Config{
			Release: release, Token: token, Listen: proxy.Listen{Address: address, Port: port},
			Upstreams: []proxy.Upstream{{Service: service, Addresses: []string{upstream}, Release: release}},
			Sites:     []proxy.Site{{Hosts: []string{host}, Path: path, Service: service}},
		}
		out, err := proxy.Render(c)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("an error of several lines: %q", err)
			}
			return
		}
		for line := range strings.Lines(string(out)) {
			if !lines.MatchString(strings.TrimSuffix(line, "\n")) {
				t.Errorf("line %q", line)
			}
		}
		if back, err := proxy.Parse(out); err != nil || !reflect.DeepEqual(back, c) {
			t.Errorf("read back: %+v, %v", back, err)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("# bareboat {}\n"))
	f.Add([]byte(`# bareboat {"Release":"1","Listen":{"Port":1}}`))
	f.Add([]byte("server {}\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := proxy.Parse(text)
		if err != nil {
			return
		}
		if _, err := proxy.Render(c); err != nil && !strings.Contains(err.Error(), "same host and path") {
			t.Errorf("what was read cannot be rendered: %v", err)
		}
	})
}

func TestLocal(t *testing.T) {
	for want, l := range map[string]proxy.Listen{
		"127.0.0.1:80":     {Port: 80},
		"127.0.0.1:81":     {Address: "0.0.0.0", Port: 81},
		"127.0.0.1:82":     {Address: "::", Port: 82},
		"127.0.0.9:83":     {Address: "127.0.0.9", Port: 83},
		"[2001:db8::1]:84": {Address: "2001:db8::1", Port: 84},
	} {
		if got := l.Local(); got != want {
			t.Errorf("%+v: %s, want %s", l, got, want)
		}
	}
}

package proxy

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// mark precedes the configuration itself, as JSON, in what was rendered from it.
const mark = "# bareboat "

// Render writes the configuration in nginx's words, always in the same way, as a
// file that nginx.conf includes. What could not be meant is an error: a value
// with characters that nginx would read as its own, a site whose service has no
// upstream, two sites for the same requests.
func Render(c Config) ([]byte, error) {
	if err := c.validate(); err != nil {
		return nil, fmt.Errorf("render the edge's sites: %w", err)
	}
	servers, err := c.servers()
	if err != nil {
		return nil, fmt.Errorf("render the edge's sites: %w", err)
	}
	self, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("render the edge's sites: %w", err)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Written by bareboat for release %s. The next release writes it anew.\n", c.Release)
	fmt.Fprintf(&b, "%s%s\n\n", mark, self)
	fmt.Fprintf(&b, "add_header X-Release \"%s\" always;\n", c.Release)
	fmt.Fprintf(&b, "map \"\" $bareboat_config {\n\tdefault %s;\n}\n", sum(self))
	for _, u := range slices.SortedFunc(slices.Values(c.Upstreams), func(a, b Upstream) int {
		return strings.Compare(a.Service, b.Service)
	}) {
		u.render(&b)
	}
	for _, host := range slices.Sorted(maps.Keys(servers)) {
		c.renderServer(&b, host, servers[host])
	}
	return b.Bytes(), nil
}

// Parse gives the configuration that a file was rendered from.
func Parse(rendered []byte) (Config, error) {
	for line := range bytes.Lines(rendered) {
		self, ok := bytes.CutPrefix(line, []byte(mark))
		if !ok {
			continue
		}
		var c Config
		if err := json.Unmarshal(self, &c); err != nil {
			return Config{}, fmt.Errorf("read the edge's sites: %w", err)
		}
		return c, c.validate()
	}
	return Config{}, errors.New("read the edge's sites: not written by bareboat")
}

// servers sorts the sites by host, then by path. What is said for every host
// holds for a named one, too, where that says nothing else.
func (c Config) servers() (map[string]map[string]Site, error) {
	servers := map[string]map[string]Site{"": {}}
	for _, s := range c.Sites {
		hosts := s.Hosts
		if len(hosts) == 0 {
			hosts = []string{""}
		}
		path := cleanPath(s.Path)
		for _, host := range hosts {
			host = strings.ToLower(host)
			if servers[host] == nil {
				servers[host] = map[string]Site{}
			}
			if other, taken := servers[host][path]; taken {
				return nil, fmt.Errorf("services %s and %s have the same host and path %s%s", other.Service, s.Service, host, path)
			}
			servers[host][path] = s
		}
	}
	for _, sites := range servers {
		for path, s := range servers[""] {
			if _, taken := sites[path]; !taken {
				sites[path] = s
			}
		}
	}
	return servers, nil
}

// cleanPath is the path without its final slash, the root with it.
func cleanPath(path string) string {
	if path = strings.TrimSuffix(path, "/"); path == "" {
		return "/"
	}
	return path
}

func (u Upstream) render(b *bytes.Buffer) {
	b.WriteByte('\n')
	if u.Release != "" {
		fmt.Fprintf(b, "# release %s\n", u.Release)
	}
	fmt.Fprintf(b, "upstream %s {\n", u.Service)
	options := "max_fails=0" // one failure must not take away the only address there is
	if len(u.Addresses) > 1 {
		b.WriteString("\tleast_conn;\n")
		options = "max_fails=1 fail_timeout=5s"
	}
	for _, a := range u.Addresses {
		fmt.Fprintf(b, "\tserver %s %s;\n", a, options)
	}
	// Shorter than what backends keep an idle connection for.
	b.WriteString("\tkeepalive 32;\n\tkeepalive_timeout 30s;\n}\n")
}

func (c Config) renderServer(b *bytes.Buffer, host string, sites map[string]Site) {
	l := c.Listen
	b.WriteString("\nserver {\n")
	if host == "" {
		fmt.Fprintf(b, "\tlisten %s default_server%s;\n\tserver_name _;\n", l.nginx(), l.options())
	} else {
		fmt.Fprintf(b, "\tlisten %s;\n\tserver_name %s;\n", l.nginx(), host)
	}
	b.WriteString("\tinclude server.conf;\n")
	if c.Token != "" {
		c.renderPreview(b)
	}
	for _, path := range slices.Sorted(maps.Keys(sites)) {
		site := sites[path]
		if path != "/" {
			site.render(b, "= "+path)
			path += "/"
		}
		site.render(b, path)
	}
	if _, ok := sites["/"]; !ok {
		b.WriteString("\tlocation / {\n\t\treturn 404;\n\t}\n")
	}
	b.WriteString("}\n")
}

// renderPreview passes what comes from this host, and knows the token, on to the
// upstream that the request itself names.
func (c Config) renderPreview(b *bytes.Buffer) {
	fmt.Fprintf(b, "\tlocation ~ ^%s/preview/%s(/.*)$ {\n", edgePath, c.Token)
	b.WriteString("\t\tallow 127.0.0.1;\n\t\tallow ::1;\n")
	if ip, err := netip.ParseAddr(c.Listen.Address); err == nil && !ip.IsUnspecified() && !ip.IsLoopback() {
		fmt.Fprintf(b, "\t\tallow %s;\n", ip)
	}
	b.WriteString("\t\tdeny all;\n\t\taccess_log off;\n")
	b.WriteString("\t\tproxy_pass http://$http_x_bareboat_upstream$1$is_args$args;\n\t\tinclude proxy.conf;\n\t}\n")
}

// sum tells configurations apart.
func sum(self []byte) string {
	h := sha256.Sum256(self)
	return hex.EncodeToString(h[:8])
}

// Sum is a hash of the configuration, which an edge that has read it tells.
func (c Config) Sum() (string, error) {
	self, err := json.Marshal(c)
	return sum(self), err
}

func (s Site) render(b *bytes.Buffer, location string) {
	fmt.Fprintf(b, "\tlocation %s {\n\t\tproxy_pass http://%s;\n", location, s.Service)
	if s.MaxBody > 0 {
		fmt.Fprintf(b, "\t\tclient_max_body_size %d;\n", s.MaxBody)
	}
	b.WriteString("\t\tinclude proxy.conf;\n\t}\n")
}

func (l Listen) nginx() string {
	port := strconv.Itoa(int(l.Port))
	if l.Address == "" {
		return port
	}
	return net.JoinHostPort(l.Address, port)
}

// options are given once for each address.
func (l Listen) options() string {
	if ip, err := netip.ParseAddr(l.Address); err == nil && ip.Is6() && ip.IsUnspecified() {
		return " ipv6only=off"
	}
	return ""
}

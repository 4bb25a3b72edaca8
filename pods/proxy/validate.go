package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
)

// edgePath is the edge's own place in every site.
const edgePath = "/-/edge"

// The alphabets are those of which nginx's configuration language takes no
// notice, so that a value cannot end its directive and begin another.
var (
	releaseName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
	serviceName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)
	hostName    = regexp.MustCompile(`^(\*\.)?[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$`)
	urlPath     = regexp.MustCompile(`^(/[A-Za-z0-9._~-]+)*/?$`)
	tokenText   = regexp.MustCompile(`^[0-9a-f]{32,64}$`)
	filePath    = regexp.MustCompile(`^(/[A-Za-z0-9._-]+)+$`)
)

// maxSocket is what fits into a sockaddr_un, with its final zero.
const maxSocket = 107

func (c Config) validate() error {
	if !releaseName.MatchString(c.Release) {
		return fmt.Errorf("release %q: want letters, digits, dots and dashes", c.Release)
	}
	if c.Token != "" && !tokenText.MatchString(c.Token) {
		return errors.New("token: want 32 to 64 hexadecimal digits")
	}
	if err := c.Listen.validate(); err != nil {
		return err
	}
	services := map[string]bool{}
	for _, u := range c.Upstreams {
		// nginx takes no notice of case in the names of upstreams.
		name := strings.ToLower(u.Service)
		if services[name] {
			return fmt.Errorf("service %s has two upstreams", u.Service)
		}
		services[name] = true
		if err := u.validate(); err != nil {
			return err
		}
	}
	for _, s := range c.Sites {
		if err := s.validate(); err != nil {
			return fmt.Errorf("site of service %q: %w", s.Service, err)
		}
		if !services[strings.ToLower(s.Service)] {
			return fmt.Errorf("site of service %q: the service has no upstream", s.Service)
		}
	}
	return nil
}

func (l Listen) validate() error {
	if l.Port == 0 {
		return errors.New("no port to listen on")
	}
	if l.Address == "" {
		return nil
	}
	if ip, err := netip.ParseAddr(l.Address); err != nil || ip.Zone() != "" {
		return fmt.Errorf("listen address %q: want an IP address", l.Address)
	}
	return nil
}

func (u Upstream) validate() error {
	if !serviceName.MatchString(u.Service) {
		return fmt.Errorf("service %q: want letters, digits, dots and dashes", u.Service)
	}
	if u.Release != "" && !releaseName.MatchString(u.Release) {
		return fmt.Errorf("service %s: release %q: want letters, digits, dots and dashes", u.Service, u.Release)
	}
	if len(u.Addresses) == 0 {
		return fmt.Errorf("service %s: no address", u.Service)
	}
	for _, a := range u.Addresses {
		if err := validateAddress(a); err != nil {
			return fmt.Errorf("service %s: address %q: %w", u.Service, a, err)
		}
	}
	return nil
}

func validateAddress(a string) error {
	if path, ok := strings.CutPrefix(a, "unix:"); ok {
		switch {
		case len(path) > maxSocket:
			return fmt.Errorf("longer than the %d bytes that a socket's path may have", maxSocket)
		case !filePath.MatchString(path) || dotted(path):
			return errors.New("want unix:/PATH of letters, digits, dots and dashes")
		}
		return nil
	}
	if at, err := netip.ParseAddrPort(a); err != nil || at.Port() == 0 || at.Addr().Zone() != "" {
		return errors.New("want unix:/PATH or IP:PORT; names are not looked up")
	}
	return nil
}

func (s Site) validate() error {
	for _, h := range s.Hosts {
		if !hostName.MatchString(strings.ToLower(h)) || len(h) > 253 {
			return fmt.Errorf("host %q: want NAME or *.NAME", h)
		}
	}
	switch {
	case !urlPath.MatchString(s.Path) || dotted(s.Path):
		return fmt.Errorf("path %q: want / and letters, digits, dots, dashes or tildes", s.Path)
	case s.Path == edgePath || strings.HasPrefix(s.Path, edgePath+"/"):
		return fmt.Errorf("path %q: %s is the edge's own", s.Path, edgePath)
	case s.MaxBody < 0:
		return fmt.Errorf("limit of the body is %d bytes", s.MaxBody)
	}
	return nil
}

// dotted tells whether a path has a part that nginx would resolve.
func dotted(path string) bool {
	for part := range strings.SplitSeq(path, "/") {
		if part == "." || part == ".." {
			return true
		}
	}
	return false
}

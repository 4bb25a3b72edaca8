package debian

import (
	"errors"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Mirrors says where packages come from. It is a setting of the machine and no
// part of a lock: what comes is checked against signatures and digests.
type Mirrors struct {
	Main     []string // base addresses of the main archive, tried in order
	Security []string // base addresses of the security archive
	// AllowExpired accepts indices that are past their Valid-Until, as those
	// of a frozen mirror are. The lock tells of it.
	AllowExpired bool
}

const (
	defaultMain     = "http://deb.debian.org/debian"
	defaultSecurity = "http://deb.debian.org/debian-security"
)

// HostMirrors reads the mirrors of the machine's own apt sources below root
// (usually "/"), and takes Debian's where it has none. The suite that a source
// names does not matter: a mirror has them all.
func HostMirrors(root string) (Mirrors, error) {
	var m Mirrors
	for _, glob := range []string{"etc/apt/sources.list", "etc/apt/sources.list.d/*.list", "etc/apt/sources.list.d/*.sources"} {
		names, err := filepath.Glob(filepath.Join(root, glob))
		if err != nil {
			return Mirrors{}, err
		}
		for _, name := range names {
			text, err := os.ReadFile(name)
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
				continue
			} else if err != nil {
				return Mirrors{}, err
			}
			if strings.HasSuffix(name, ".sources") {
				m.addDeb822(string(text))
			} else {
				m.addList(string(text))
			}
		}
	}
	return m.WithDefaults(), nil
}

// WithDefaults is m with Debian's own mirrors where it has none.
func (m Mirrors) WithDefaults() Mirrors {
	if len(m.Main) == 0 {
		m.Main = []string{defaultMain}
	}
	if len(m.Security) == 0 {
		m.Security = []string{defaultSecurity}
	}
	return m
}

// bases gives the addresses that may have a suite.
func (m Mirrors) bases(suite string) []string {
	if strings.HasSuffix(suite, "-security") {
		return m.Security
	}
	return m.Main
}

// addList reads the one-line format of sources.list(5). A line that it does
// not understand is apt's business, not ours.
func (m *Mirrors) addList(text string) {
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "deb ")
		if !ok {
			continue
		}
		options := ""
		if inner, after, ok := strings.Cut(rest, "]"); ok && strings.HasPrefix(strings.TrimSpace(inner), "[") {
			options, rest = inner, after
		}
		fields := strings.Fields(rest)
		if len(fields) >= 3 && slices.Contains(fields[2:], "main") && ownKeys(signedBy(options)) {
			m.add(fields[0])
		}
	}
}

// addDeb822 reads the stanza format of sources.list(5).
func (m *Mirrors) addDeb822(text string) {
	r := newStanzaReader(strings.NewReader(text))
	for {
		s, err := r.next()
		if err != nil {
			return
		}
		if strings.EqualFold(s.get("Enabled"), "no") ||
			!slices.Contains(strings.Fields(s.get("Types")), "deb") ||
			!slices.Contains(strings.Fields(s.get("Components")), "main") ||
			!ownKeys(s.get("Signed-By")) {
			continue
		}
		for _, uri := range strings.Fields(s.get("URIs")) {
			m.add(uri)
		}
	}
}

func signedBy(options string) string {
	for _, o := range strings.Fields(strings.Trim(options, "[ ")) {
		if v, ok := strings.CutPrefix(strings.ToLower(o), "signed-by="); ok {
			return v
		}
	}
	return ""
}

// ownKeys tells a source of Debian from one of a third party, whose path may
// end in /debian too: the latter names keys of its own.
func ownKeys(signedBy string) bool {
	return signedBy == "" || strings.HasPrefix(filepath.Base(signedBy), "debian-archive-")
}

func (m *Mirrors) add(uri string) {
	u, err := url.Parse(uri)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return
	}
	uri = strings.TrimRight(uri, "/")
	list := &m.Main
	switch name := path.Base(path.Clean(u.Path)); {
	case name == "debian-security" || u.Host == "security.debian.org":
		list = &m.Security
	case name != "debian":
		return
	}
	if !slices.Contains(*list, uri) {
		*list = append(*list, uri)
	}
}

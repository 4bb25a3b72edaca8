package debian_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bareboat/builder/debian"
)

func TestHostMirrors(t *testing.T) {
	const standard = "http://deb.debian.org/debian | http://deb.debian.org/debian-security"
	tests := []struct {
		name  string
		files map[string]string
		want  string
	}{
		{"none", nil, standard},
		{"one line", map[string]string{"sources.list": "# deb http://old/debian bookworm main\ndeb http://a.example/debian/ bookworm main contrib # x\ndeb-src http://b.example/debian bookworm main\ndeb [arch=amd64] https://security.debian.org/debian-security bookworm-security main\n"},
			"http://a.example/debian | https://security.debian.org/debian-security"},
		{"stanzas", map[string]string{"sources.list.d/debian.sources": "Types: deb deb-src\nURIs: http://m.example/debian http://n.example/debian\nSuites: bookworm\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\nTypes: deb\nURIs: http://m.example/debian-security\nSuites: bookworm-security\nComponents: main\n\nEnabled: no\nTypes: deb\nURIs: http://off.example/debian\nSuites: sid\nComponents: main\n"},
			"http://m.example/debian http://n.example/debian | http://m.example/debian-security"},
		{"third parties", map[string]string{
			"sources.list.d/docker.list": "deb [arch=amd64 signed-by=/etc/apt/keyrings/docker.asc] https://download.docker.com/linux/debian bookworm main\n",
			"sources.list.d/node.list":   "deb https://deb.nodesource.com/node_20.x nodistro main\n",
			"sources.list.d/x.sources":   "Types: deb\nURIs: https://x.example/debian\nSuites: stable\nComponents: main\nSigned-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n",
			"sources.list.d/local.list":  "deb file:/srv/debian bookworm main\ndeb http://u.example/ubuntu noble main\n",
		}, standard},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			for name, text := range tt.files {
				name = filepath.Join(root, "etc/apt", name)
				if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			m, err := debian.HostMirrors(root)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(m.Main, " ") + " | " + strings.Join(m.Security, " "); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

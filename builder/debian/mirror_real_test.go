package debian_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"bareboat/builder/debian"
)

// The closure is the one that apt would install on an empty system, from the
// same mirror, package for package and version for version.
func TestResolveAgainstApt(t *testing.T) {
	apt, err := exec.LookPath("apt-get")
	if err != nil {
		t.Fatal("this test holds the resolver against apt-get, which is missing: apt install apt")
	}
	mirrors, err := debian.HostMirrors("/")
	if err != nil {
		t.Fatal(err)
	}
	// Today's closure is the matter here, not how fresh the mirror is.
	mirrors.AllowExpired = true
	a := &debian.Archive{Mirrors: mirrors, Cache: t.TempDir()}
	root := aptRoot(t, mirrors)
	runApt(t, apt, root, "update", "-q")
	packages := []string{"nginx-light", "redis-server", "python3-requests", "haproxy", "postgresql-17"}
	l, err := a.Resolve(t.Context(), debian.Request{Packages: packages, Include: builtinExcludes()}, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range l.Packages {
		got = append(got, p.Name+" "+p.Version)
	}
	slices.Sort(got)
	want := aptInstall(runApt(t, apt, root, append([]string{"install", "-s", "--no-install-recommends"}, packages...)...))
	if !slices.Equal(got, want) {
		t.Errorf("got %d packages\n%s\napt has %d\n%s", len(got), strings.Join(got, "\n"), len(want), strings.Join(want, "\n"))
	}
}

// aptRoot makes the folders of an apt that knows of no system but its own.
func aptRoot(t *testing.T, m debian.Mirrors) string {
	t.Helper()
	root := t.TempDir()
	for _, d := range []string{"etc/apt", "state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	keys, err := filepath.Glob("data/keys/*.gpg")
	if err != nil {
		t.Fatal(err)
	}
	var ring bytes.Buffer
	for _, k := range keys {
		data, err := os.ReadFile(k)
		if err != nil {
			t.Fatal(err)
		}
		ring.Write(data)
	}
	keyring := filepath.Join(root, "keys.gpg")
	sources := ""
	for suite, base := range map[string]string{"trixie": m.Main[0], "trixie-updates": m.Main[0], "trixie-security": m.Security[0]} {
		sources += fmt.Sprintf("deb [arch=amd64 signed-by=%s] %s %s main\n", keyring, base, suite)
	}
	for name, text := range map[string]string{"keys.gpg": ring.String(), "etc/apt/sources.list": sources, "status": "", "apt.conf": ""} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func runApt(t *testing.T, apt, root string, args ...string) string {
	t.Helper()
	options := []string{
		"-o", "Dir::Etc=" + root + "/etc/apt", "-o", "Dir::State=" + root + "/state", "-o", "Dir::Cache=" + root + "/cache",
		"-o", "Dir::State::status=" + root + "/status", "-o", "APT::Architecture=amd64", "-o", "APT::Architectures::=amd64",
		"-o", "APT::Sandbox::User=", "-o", "Acquire::Languages=none", "-o", "Acquire::Check-Valid-Until=false", "-o", "Debug::NoLocking=true",
	}
	cmd := exec.CommandContext(t.Context(), apt, append(options, args...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "APT_CONFIG="+root+"/apt.conf")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("apt-get %s: %v\n%s%s", strings.Join(args, " "), err, out, errs.String())
	}
	return string(out)
}

// aptInstall reads lines such as "Inst nginx (1.26.3-3 Debian:13/stable [amd64])".
func aptInstall(out string) []string {
	var list []string
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 2 && f[0] == "Inst" {
			list = append(list, f[1]+" "+strings.TrimPrefix(f[2], "("))
		}
	}
	slices.Sort(list)
	return list
}

func builtinExcludes() []string {
	var names []string
	for line := range strings.Lines(debian.BuiltinExcludes) {
		if f := strings.Fields(line); len(f) > 0 && f[0] != "#" {
			names = append(names, f[0])
		}
	}
	return names
}

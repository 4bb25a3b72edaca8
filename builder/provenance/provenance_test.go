package provenance_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bareboat/builder/provenance"
	"bareboat/internal/oci"
)

var facts = provenance.Facts{
	Subjects: []oci.Digest{"sha256:" + oci.Digest(strings.Repeat("a1", 32))}, Name: "localhost/chat", Recipe: "chat/image.yaml",
	Platforms: []string{"linux/amd64"},
	Source:    provenance.Source{Repository: "git+https://example.org/chat.git", Revision: strings.Repeat("0", 40), Dirty: true},
	Toolchain: "go1.26.8",
	Base:      "docker.io/library/debian@sha256:" + strings.Repeat("b2", 32),
	Packages:  []provenance.Package{{Name: "libc6", Version: "2.41-12+deb13u1", Architecture: "amd64", SHA256: strings.Repeat("c3", 32)}},
	Started:   time.Date(2026, 1, 2, 3, 4, 5, 6, time.FixedZone("", 3600)), Finished: time.Date(2026, 1, 2, 3, 5, 0, 0, time.UTC),
}

// The statement says what the specification asks for, under its names.
func TestStatement(t *testing.T) {
	text, err := provenance.New(facts)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"_type":"https://in-toto.io/Statement/v1",` +
		`"subject":[{"name":"localhost/chat","digest":{"sha256":"A"}}],` +
		`"predicateType":"https://slsa.dev/provenance/v1","predicate":{` +
		`"buildDefinition":{"buildType":"urn:bareboat:recipe:v1",` +
		`"externalParameters":{"recipe":"chat/image.yaml","platforms":["linux/amd64"],"source":"git+https://example.org/chat.git"},` +
		`"resolvedDependencies":[` +
		`{"name":"source","uri":"git+https://example.org/chat.git@0","digest":{"gitCommit":"0"},"annotations":{"dirty":true}},` +
		`{"name":"go","uri":"pkg:generic/go@go1.26.8"},` +
		`{"name":"docker.io/library/debian","uri":"docker://docker.io/library/debian@sha256:B","digest":{"sha256":"B"}},` +
		`{"name":"libc6","uri":"pkg:deb/debian/libc6@2.41-12%2Bdeb13u1?arch=amd64","digest":{"sha256":"C"}}]},` +
		`"runDetails":{"builder":{"id":"urn:bareboat:builder"},` +
		`"metadata":{"startedOn":"2026-01-02T02:04:05Z","finishedOn":"2026-01-02T03:05:00Z"}}}}`
	got := strings.NewReplacer(strings.Repeat("a1", 32), "A", strings.Repeat("b2", 32), "B", strings.Repeat("c3", 32), "C", strings.Repeat("0", 40), "0").Replace(string(text))
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestSameBuild(t *testing.T) {
	later := facts
	later.Started, later.Invocation = later.Started.Add(time.Hour), "run 7"
	other := facts
	other.Source.Dirty = false
	one, two, three := statement(t, facts), statement(t, later), statement(t, other)
	if !provenance.SameBuild(one, two) {
		t.Error("a later run of the same build is another build")
	}
	if provenance.SameBuild(one, three) || provenance.SameBuild(one, nil) || provenance.SameBuild(nil, nil) {
		t.Error("builds from different sources are the same")
	}
}

func statement(t *testing.T, f provenance.Facts) []byte {
	t.Helper()
	text, err := provenance.New(f)
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(text) {
		t.Fatalf("no JSON: %s", text)
	}
	return text
}

// What git says of a real repository; the secrets in its remote stay there.
func TestGitSource(t *testing.T) {
	dir := t.TempDir()
	if s, err := provenance.GitSource(t.Context(), dir); err != nil || s != (provenance.Source{}) {
		t.Errorf("outside of a work tree: %+v, %v", s, err)
	}
	git := func(args ...string) string {
		t.Helper()
		c := exec.CommandContext(t.Context(), "git", append([]string{"-C", dir, "-c", "user.name=t", "-c", "user.email=t@example.org"}, args...)...)
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("git %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	git("init", "--quiet")
	git("commit", "--quiet", "--allow-empty", "--message", "first")
	git("remote", "add", "origin", "x")
	for remote, want := range map[string]string{
		"https://user:token@example.org/team/chat.git?access_token=secret": "git+https://example.org/team/chat.git",
		"https://token@example.org:8443/chat":                              "git+https://example.org:8443/chat",
		"git@example.org:team/chat.git":                                    "git+ssh://example.org/team/chat.git",
		"ssh://git@example.org/chat.git":                                   "git+ssh://example.org/chat.git",
		"/srv/git/chat.git":                                                "",
		"file:///srv/git/chat.git":                                         "",
	} {
		git("remote", "set-url", "origin", remote)
		s, err := provenance.GitSource(t.Context(), dir)
		if err != nil || s.Repository != want || s.Dirty || s.Revision != git("rev-parse", "HEAD") {
			t.Errorf("remote %s: %+v, %v, want %s", remote, s, err, want)
		}
	}
	below := filepath.Join(dir, "below")
	if err := os.Mkdir(below, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(below, "new"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := provenance.GitSource(t.Context(), below); err != nil || !s.Dirty || s.Prefix != "below/" {
		t.Errorf("with a new file: %+v, %v", s, err)
	}
}

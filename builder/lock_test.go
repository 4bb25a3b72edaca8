package builder_test

import (
	"archive/tar"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"bareboat/builder"
	"bareboat/builder/debian"
	"bareboat/internal/oci"
)

// These tests read Debian's real archive, from the host's own mirror.

const data = `
layers:
  - certificates: {}
  - timezones: {}
`

// events notes what a builder tells.
type events struct {
	mu   sync.Mutex
	text strings.Builder
}

func (e *events) note(ev builder.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.text.WriteString(ev.Step + ": " + ev.Note + "\n")
}

func hostMirrors(t *testing.T) debian.Mirrors {
	t.Helper()
	m, err := debian.HostMirrors("/")
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// files gives the content of an image by path.
func files(t *testing.T, img oci.Image) map[string]string {
	t.Helper()
	path, err := layout.FromPath(img.Layout)
	if err != nil {
		t.Fatal(err)
	}
	index, err := path.ImageIndex()
	if err != nil {
		t.Fatal(err)
	}
	m, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := path.Image(m.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	r := mutate.Extract(parsed)
	defer r.Close()
	out := map[string]string{}
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		out[h.Name] = string(content) + h.Linkname
	}
}

func TestLockIsWrittenFollowedAndRenewed(t *testing.T) {
	dir := project(t, map[string]string{"image/image.yaml": data})
	lock := filepath.Join(dir, "image", builder.LockName)
	b, told := newBuilder(t), &events{}
	b.Mirrors, b.Notify = hostMirrors(t), told.note

	// Without a lock: an error where it has to be followed, else it is written.
	b.Locked = true
	if err := tryBuild(t, b, dir); !isLockError(err) {
		t.Fatalf("locked without a lock: %v", err)
	}
	b.Locked = false
	first := build(t, b, dir)
	written, err := os.ReadFile(lock)
	if err != nil || !strings.Contains(told.text.String(), "lock: tzdata ") {
		t.Fatalf("the lock: %v; told: %s", err, told.text.String())
	}

	got := files(t, first)
	if bundle := got["etc/ssl/certs/ca-certificates.crt"]; strings.Count(bundle, "BEGIN CERTIFICATE") < 100 {
		t.Errorf("the bundle has %d bytes", len(bundle))
	}
	if zone := got["usr/share/zoneinfo/Europe/Berlin"]; zone == "" {
		t.Error("no time zone of Berlin")
	}
	if _, ok := got["var/lib/dpkg/status.d/tzdata"]; !ok {
		t.Error("scanners are not told of tzdata")
	}
	for name := range got {
		if strings.HasPrefix(name, "usr/sbin/") || strings.HasPrefix(name, "bin") {
			t.Errorf("%s is in an image of certificates and time zones", name)
		}
	}

	// With it: the same, from the cache alone.
	b.Locked = true
	b.Mirrors = debian.Mirrors{Main: []string{"http://127.0.0.1:1/debian"}, Security: []string{"http://127.0.0.1:1/security"}}
	if second := build(t, b, dir); second.Digest != first.Digest {
		t.Errorf("offline: %s is not %s", second.Digest, first.Digest)
	}

	// A pinned version that no mirror has: an error, or resolved anew.
	old := regexp.MustCompile(`(?s)("version": "|pool/main/t/tzdata/tzdata_)2\d{3}[a-z]`).ReplaceAll(written, []byte("${1}1999a"))
	old = regexp.MustCompile(`(?s)(tzdata_1999a.*?"sha256": ")[0-9a-f]{64}`).ReplaceAll(old, []byte("${1}"+strings.Repeat("0", 64)))
	if err := os.WriteFile(lock, old, 0o644); err != nil {
		t.Fatal(err)
	}
	b.Mirrors = hostMirrors(t)
	err = tryBuild(t, b, dir)
	if !isLockError(err) || !strings.Contains(err.Error(), "tzdata 1999a") {
		t.Fatalf("locked to what is gone: %v", err)
	}
	b.Locked = false
	if third := build(t, b, dir); third.Digest != first.Digest {
		t.Errorf("renewed: %s is not %s", third.Digest, first.Digest)
	}
	if !strings.Contains(told.text.String(), "is no longer served") || !regexp.MustCompile(`tzdata 1999a\S* → 2`).MatchString(told.text.String()) {
		t.Errorf("it is not told what changed:\n%s", told.text.String())
	}
	if now, err := os.ReadFile(lock); err != nil || string(now) != string(written) {
		t.Errorf("the renewed lock is not the first: %v", err)
	}
}

func tryBuild(t *testing.T, b *builder.Builder, dir string) error {
	t.Helper()
	r, err := builder.LoadRecipe(filepath.Join(dir, "image"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.Build(t.Context(), r, dir, oci.Reference{Registry: "localhost", Repository: "data", Tag: "latest"})
	return err
}

func isLockError(err error) bool {
	var locked *builder.LockError
	return errors.As(err, &locked) && locked.Hint() != ""
}

// A lock that cannot be written is no reason not to build, and one that is
// nonsense names itself.
func TestLockFile(t *testing.T) {
	dir := project(t, map[string]string{"image/image.yaml": data, "image/image.lock": `{"version": 7}`})
	b, told := newBuilder(t), &events{}
	b.Mirrors, b.Notify = hostMirrors(t), told.note
	if err := tryBuild(t, b, dir); !errors.Is(err, builder.ErrRecipe) || !strings.Contains(err.Error(), "image.lock") {
		t.Errorf("a lock of the future: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "image", builder.LockName)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, "image"), 0o555); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(filepath.Join(dir, "image"), 0o755)
	build(t, b, dir)
	if !strings.Contains(told.text.String(), "is not written") {
		t.Errorf("it is not told that the lock is not written:\n%s", told.text.String())
	}
}

func TestLockCommand(t *testing.T) {
	dir := project(t, map[string]string{"image/image.yaml": data})
	b := newBuilder(t)
	b.Mirrors = hostMirrors(t)
	r, err := builder.LoadRecipe(filepath.Join(dir, "image"))
	if err != nil {
		t.Fatal(err)
	}
	changes, err := b.Lock(t.Context(), r)
	if err != nil || len(changes) != 3 || !strings.HasPrefix(changes[0], "ca-certificates ") {
		t.Errorf("Lock = %q, %v", changes, err)
	}
	if changes, err = b.Lock(t.Context(), r); err != nil || len(changes) != 1 {
		t.Errorf("a second Lock = %q, %v", changes, err)
	}
	// Here, unlike in a build, the lock is the result.
	if err := os.Chmod(filepath.Join(dir, "image"), 0o555); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(filepath.Join(dir, "image"), 0o755)
	if changes, err := b.Lock(t.Context(), r); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "image.lock is not written") {
		t.Errorf("a Lock that cannot be written = %q, %v", changes, err)
	}
}

package builder_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"bareboat/builder"
	"bareboat/internal/oci"
)

func TestMain(m *testing.M) {
	if builder.Init() {
		return
	}
	if call := os.Getenv(buildEnv); call != "" {
		os.Exit(buildMain(call))
	}
	os.Exit(m.Run())
}

// project writes files below a new folder and gives its path.
func project(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o666)
		if strings.HasSuffix(name, ".sh") {
			mode = 0o777
		}
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

var hello = map[string]string{
	"go.mod":         "module hello\n\ngo 1.26\n",
	"cmd/hello/m.go": "package main\n\nfunc main() { println(\"ahoy\") }\n",
	"www/index.html": "<p>ahoy</p>\n",
	"www/run.sh":     "#!/bin/sh\n",
	"image/image.yaml": `
layers:
  - accounts: {users: [{name: hello, uid: 1000}]}
  - go: {package: ../cmd/hello}
  - files:
      - {from: ../www, to: /srv/www}
      - {dir: /data, owner: "1000:1000", mode: "0700"}
      - {link: /srv/current, target: www}
config:
  entrypoint: [/usr/bin/hello]
  cmd: [--loud]
  user: "1000:1000"
  env: {B: "2", A: "1"}
  ports: ["8080"]
  volumes: [/data]
  workdir: /srv
  stop_signal: SIGQUIT
  labels: {org.opencontainers.image.title: hello}
  annotations: {org.opencontainers.image.title: hello}
`,
}

func newBuilder(t *testing.T) *builder.Builder {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() { removeStore(t, filepath.Join(dir, "store")) })
	return &builder.Builder{
		Cache: filepath.Join(dir, "cache"), Root: filepath.Join(dir, "store"), RunRoot: filepath.Join(dir, "run"),
	}
}

// removeStore opens up what the user namespace left unreadable, such as
// overlay's work folders.
func removeStore(t *testing.T, dir string) {
	_ = filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(p, 0o700)
		}
		return nil
	})
	if err := os.RemoveAll(dir); err != nil {
		t.Error(err)
	}
}

func build(t *testing.T, b *builder.Builder, dir string) oci.Image {
	t.Helper()
	r, err := builder.LoadRecipe(filepath.Join(dir, "image"))
	if err != nil {
		t.Fatal(err)
	}
	name, err := oci.ParseLocal("hello:latest")
	if err != nil {
		t.Fatal(err)
	}
	img, err := b.Build(t.Context(), r, dir, name)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestBuildGivesAValidImage(t *testing.T) {
	img := build(t, newBuilder(t), project(t, hello))
	path, err := layout.FromPath(img.Layout)
	if err != nil {
		t.Fatal(err)
	}
	index, err := path.ImageIndex()
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(index); err != nil {
		t.Errorf("the layout is not valid: %v", err)
	}
	manifest, err := index.IndexManifest()
	if err != nil || len(manifest.Manifests) != 1 {
		t.Fatalf("index: %v, %v", manifest, err)
	}
	if got := manifest.Manifests[0].Digest.String(); got != img.Digest.String() {
		t.Errorf("Build gives %s, the layout has %s", img.Digest, got)
	}
	parsed, err := path.Image(manifest.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	config, err := parsed.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	c := config.Config
	if c.User != "1000:1000" || c.WorkingDir != "/srv" || c.StopSignal != "SIGQUIT" ||
		strings.Join(c.Entrypoint, " ") != "/usr/bin/hello" || strings.Join(c.Cmd, " ") != "--loud" ||
		strings.Join(c.Env, " ") != "A=1 B=2" && !strings.HasSuffix(strings.Join(c.Env, " "), "A=1 B=2") {
		t.Errorf("config: %+v", c)
	}
	if _, ok := c.ExposedPorts["8080/tcp"]; !ok {
		t.Errorf("ports: %v", c.ExposedPorts)
	}
	if len(config.History) != 3 || config.History[1].CreatedBy != "bareboat go ../cmd/hello" {
		t.Errorf("history: %+v", config.History)
	}
	if len(c.Labels) != 1 {
		t.Errorf("labels: %v", c.Labels)
	}
	m, err := parsed.Manifest()
	if err != nil || len(m.Annotations) != 1 {
		t.Errorf("annotations: %v, %v", m.Annotations, err)
	}
}

// A layout in the cache that the machine's crash spoilt is not handed on again.
func TestSpoiltLayoutIsReplaced(t *testing.T) {
	b, dir := newBuilder(t), project(t, hello)
	img := build(t, b, dir)
	blob := filepath.Join(img.Layout, "blobs", "sha256", img.Digest.Encoded())
	good, err := os.ReadFile(blob)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(blob, make([]byte, len(good)), 0o644); err != nil {
		t.Fatal(err)
	}
	again := build(t, b, dir)
	if got, err := os.ReadFile(blob); err != nil || !bytes.Equal(got, good) || again != img {
		t.Errorf("the manifest is still spoilt: %q, %v", got, err)
	}
	if left, err := os.ReadDir(filepath.Join(b.Cache, "work")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// Two stores, two umasks, two folders, and other variables for the go command:
// one digest.
func TestOneSourceOneDigest(t *testing.T) {
	first := build(t, newBuilder(t), project(t, hello))

	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	t.Setenv("GOFLAGS", "-buildvcs=true -ldflags=-w")
	t.Setenv("GOAMD64", "v2")
	t.Setenv("CGO_ENABLED", "1")
	settings := filepath.Join(t.TempDir(), "go.env") // as `go env -w` writes it
	if err := os.WriteFile(settings, []byte("GOFIPS140=latest\nGOFLAGS=-race\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOENV", settings)
	t.Setenv("TZ", "Pacific/Apia")
	t.Setenv("LC_ALL", "C")
	second := build(t, newBuilder(t), project(t, hello))

	if first.Digest != second.Digest {
		t.Errorf("%s is not %s", first.Digest, second.Digest)
	}
}

func TestStore(t *testing.T) {
	b := newBuilder(t)
	img := build(t, b, project(t, hello))
	id, err := b.Add(t.Context(), img)
	if err != nil {
		t.Fatal(err)
	}
	images, err := b.Images(t.Context())
	if err != nil || len(images) != 1 || images[0].ID != id || images[0].Names[0] != "localhost/hello:latest" || images[0].Digest != img.Digest {
		t.Fatalf("Images = %+v, %v; want %s with digest %s", images, err, id, img.Digest)
	}
	for _, name := range []string{"hello", "localhost/hello:latest", id, id[:12], "localhost/hello@" + img.Digest.String()} {
		s, err := b.Inspect(t.Context(), name)
		if err != nil || s.ID != id || len(s.Layers) != 3 || s.Config.Config.User != "1000:1000" {
			t.Errorf("Inspect(%s) = %+v, %v", name, s, err)
		}
	}
	if _, err := b.Inspect(t.Context(), "nobody"); !errors.Is(err, builder.ErrNoImage) {
		t.Errorf("Inspect(nobody): %v; want ErrNoImage", err)
	}
}

func TestBuildErrors(t *testing.T) {
	for name, c := range map[string]struct {
		change map[string]string
		want   string
	}{
		"does not compile": {map[string]string{"cmd/hello/m.go": "package main\n\nfunc main() { ahoy() }\n"}, "undefined: ahoy"},
		"missing package":  {map[string]string{"image/image.yaml": "layers: [{go: {package: ../cmd/nobody}}]"}, "nobody"},
		"not main":         {map[string]string{"cmd/hello/m.go": "package hello\n"}, "requires exactly one main package"},
		"missing file":     {map[string]string{"image/image.yaml": "layers: [{files: [{from: ../nowhere.txt, to: /x}]}]"}, "nowhere.txt"},
		"no match":         {map[string]string{"image/image.yaml": "layers: [{files: [{from: '../www/*.css', to: /x}]}]"}, "no file matches"},
		"leaves the tree":  {map[string]string{"image/image.yaml": "layers: [{files: [{from: ../../../../../../etc/passwd, to: /x}]}]"}, "leads out of"},
		"twice":            {map[string]string{"image/image.yaml": "layers: [{files: [{from: ../www, to: /x}, {from: ../www/run.sh, to: /x/}]}]"}, "x/run.sh: given twice"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBuilder(t)
			dir := project(t, merged(hello, c.change))
			r, err := builder.LoadRecipe(filepath.Join(dir, "image"))
			if err != nil {
				t.Fatal(err)
			}
			_, err = b.Build(t.Context(), r, dir, oci.Reference{Registry: "localhost", Repository: "hello"})
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v; want one line with %q", err, c.want)
			}
			for _, pattern := range []string{"work/*", "*/.part-*", "images/*", "records/image-*"} {
				left, err := filepath.Glob(filepath.Join(b.Cache, pattern))
				if err != nil || len(left) != 0 {
					t.Errorf("left behind: %v, %v", left, err)
				}
			}
		})
	}
}

func TestSymlinkThatLeavesTheTree(t *testing.T) {
	b := newBuilder(t)
	dir := project(t, hello)
	if err := os.Symlink("../../../../../../../../etc/passwd", filepath.Join(dir, "www", "link")); err != nil {
		t.Fatal(err)
	}
	r, err := builder.LoadRecipe(filepath.Join(dir, "image"))
	if err != nil {
		t.Fatal(err)
	}
	_, err = b.Build(t.Context(), r, dir, oci.Reference{Registry: "localhost", Repository: "hello"})
	if err == nil || !strings.Contains(err.Error(), "leads out of") {
		t.Errorf("got %v", err)
	}
}

func merged(a, b map[string]string) map[string]string {
	out := map[string]string{}
	for _, m := range []map[string]string{a, b} {
		for k, v := range m {
			out[k] = v
		}
	}
	return out
}

package builder_test

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"bareboat/builder"
	"bareboat/internal/oci"
)

// The top-level Containerfile gives the chat's image as its recipe does: the same
// files, the same program byte for byte, the same configuration.
func TestChatContainerfile(t *testing.T) {
	b := newBuilder(t)
	// The toolchain's files belong to several users of the user namespace.
	t.Cleanup(func() { _ = exec.Command("podman", "unshare", "rm", "-rf", b.Root).Run() })
	b.Mirrors, b.Locked = hostMirrors(t), true
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	recipe, err := builder.LoadRecipe(filepath.Join(root, "chat"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := b.Build(t.Context(), recipe, root, reference(t, "chat:recipe"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Add(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	b.Locked = false
	got := containerfile(t, b, builder.ContainerfileRequest{
		Path: filepath.Join(root, "Containerfile"), Context: root,
		Args: map[string]string{"GO_IMAGE": goImage(t, b, want.Name.String())},
	})
	ours, theirs := entries(t, want), entries(t, got)
	for _, name := range slices.Sorted(maps.Keys(ours)) {
		if !paperwork(name) && ours[name] != theirs[name] {
			t.Errorf("%s: the recipe gives %q, the Containerfile %q", name, ours[name], theirs[name])
		}
	}
	for name := range theirs {
		if ours[name] == "" {
			t.Errorf("%s is in the Containerfile's image alone", name)
		}
	}
	if c, d := configOf(t, want), configOf(t, got); !reflect.DeepEqual(c, d) {
		t.Errorf("the recipe gives %+v, the Containerfile %+v", c, d)
	}
}

// paperwork is what is known of packages, which only the recipe's image tells.
func paperwork(name string) bool {
	for _, dir := range []string{"usr/share/doc", "var"} {
		if name == dir || strings.HasPrefix(name, dir+"/") {
			return true
		}
	}
	return false
}

// goImage puts an image into the store that has a shell, the Go toolchain of this
// machine and the modules that the chat is made of: what stands behind the names
// of the Containerfile on a machine that reaches a registry.
func goImage(t *testing.T, b *builder.Builder, system string) string {
	t.Helper()
	goEnv := strings.Split(run(t, "go", "env", "GOROOT", "GOMODCACHE"), "\n")
	text := "FROM " + withShell(t, b) + `
COPY --from=system /etc/ssl /etc/ssl
COPY --from=system /usr/share/zoneinfo /usr/share/zoneinfo
COPY --from=goroot . /usr/local/go
ENV PATH=/usr/local/go/bin:/usr/bin GOFLAGS=-mod=mod GOPROXY=off GOSUMDB=off GOTOOLCHAIN=local GOMODCACHE=/modules
`
	used := run(t, "go", "list", "-C", "..", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Dir}} {{.GoMod}}{{end}}{{end}}", "./cmd/chatd")
	dirs := strings.Split(used, "\n")
	slices.Sort(dirs)
	for _, line := range slices.Compact(dirs) {
		dir, mod, _ := strings.Cut(line, " ")
		for _, path := range []string{dir, filepath.Dir(mod)} {
			name, err := filepath.Rel(goEnv[1], path)
			if err != nil {
				t.Fatal(err)
			}
			text += fmt.Sprintf("COPY --from=modules %s /modules/%s\n", name, name)
		}
	}
	dir := project(t, map[string]string{"Containerfile": text})
	run(t, "buildah", "--root", b.Root, "--runroot", b.RunRoot, "build", "--quiet", "--isolation=chroot",
		"--build-context=goroot="+goEnv[0], "--build-context=modules="+goEnv[1], "--build-context=system=docker-image://"+system,
		"--tag=localhost/golang:test", dir)
	return "localhost/golang:test"
}

// entries says of each file of an image what it is: mode, owner, content.
func entries(t *testing.T, img oci.Image) map[string]string {
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
		sum := sha256.New()
		if _, err := io.Copy(sum, tr); err != nil {
			t.Fatal(err)
		}
		name := strings.Trim(h.Name, "/")
		out[name] = fmt.Sprintf("%c %04o %d:%d %s %x", h.Typeflag, h.Mode&0o7777, h.Uid, h.Gid, h.Linkname, sum.Sum(nil)[:8])
	}
}

// configOf is an image's configuration. PATH is left out: every builder of
// Containerfiles sets one, and a program that starts no other needs none.
func configOf(t *testing.T, img oci.Image) (c struct{ Config map[string]any }) {
	t.Helper()
	var m oci.Manifest
	readBlob(t, img, img.Digest, &m)
	text, err := os.ReadFile(filepath.Join(img.Layout, "blobs", "sha256", m.Config.Digest.Encoded()))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	env, _ := c.Config["Env"].([]any)
	c.Config["Env"] = slices.DeleteFunc(env, func(kv any) bool { return strings.HasPrefix(fmt.Sprint(kv), "PATH=") })
	return c
}

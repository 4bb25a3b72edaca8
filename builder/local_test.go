package builder_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"bareboat/builder"
	"bareboat/internal/oci"
	"bareboat/registry"
	"bareboat/registry/embedded"
)

// reference parses the name of a local image.
func reference(t *testing.T, name string) oci.Reference {
	t.Helper()
	ref, err := oci.ParseLocal(name)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// stored builds the hello image and puts it into the builder's store.
func stored(t *testing.T, b *builder.Builder) oci.Image {
	t.Helper()
	img := build(t, b, project(t, hello))
	if _, err := b.Add(t.Context(), img); err != nil {
		t.Fatal(err)
	}
	return img
}

// podman runs Podman, or a program like it, on a builder's store.
func podman(t *testing.T, b *builder.Builder, args ...string) string {
	t.Helper()
	return run(t, append([]string{"podman", "--root", b.Root, "--runroot", b.RunRoot}, args...)...)
}

func run(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

// An image leaves the store as it was built, also when the cache is lost.
func TestExportGivesTheDigestBack(t *testing.T) {
	b := newBuilder(t)
	img := stored(t, b)
	for _, cache := range []string{b.Cache, t.TempDir()} {
		again := &builder.Builder{Cache: cache, Root: b.Root, RunRoot: b.RunRoot}
		got, err := again.Export(t.Context(), "hello")
		if err != nil {
			t.Fatal(err)
		}
		if got.Digest != img.Digest || got.Name.String() != "localhost/hello:latest" {
			t.Errorf("got %s, built was %s", got.Pinned(), img.Pinned())
		}
		if here, there := files(t, got), files(t, img); len(here) != len(there) || here["usr/bin/hello"] != there["usr/bin/hello"] {
			t.Errorf("it has %d files, built were %d", len(here), len(there))
		}
	}
	if _, err := b.Export(t.Context(), "nothing"); !errors.Is(err, builder.ErrNoImage) {
		t.Errorf("got %v", err)
	}
}

func TestTagUntagRemove(t *testing.T) {
	b := newBuilder(t)
	stored(t, b)
	one, two := reference(t, "one"), reference(t, "example.org/team/two:2")
	if err := b.Tag(t.Context(), "hello", []oci.Reference{one, two}); err != nil {
		t.Fatal(err)
	}
	names := func() string { return podman(t, b, "images", "--format", "{{.Repository}}:{{.Tag}}") }
	for _, want := range []string{"localhost/hello:latest", "localhost/one:latest", "example.org/team/two:2"} {
		if !strings.Contains(names(), want) {
			t.Errorf("Podman does not see %s: %s", want, names())
		}
	}
	if err := b.Untag(t.Context(), "hello", []oci.Reference{two}); err != nil {
		t.Fatal(err)
	}
	done, err := b.Remove(t.Context(), "one", false)
	if err != nil || done.Deleted != "" || len(done.Untagged) != 1 {
		t.Errorf("of two names one was removed: %+v, %v", done, err)
	}
	if got := names(); got != "localhost/hello:latest" {
		t.Errorf("names are %s", got)
	}

	container := podman(t, b, "create", "hello")
	var used *builder.InUseError
	if _, err := b.Remove(t.Context(), "hello", false); !errors.As(err, &used) || used.Containers[0] != container {
		t.Errorf("while %s uses it: %v", container, err)
	}
	if done, err = b.Remove(t.Context(), "hello", true); err != nil || done.Deleted == "" {
		t.Errorf("by force: %+v, %v", done, err)
	}
	if left := podman(t, b, "ps", "--all", "--quiet") + names(); left != "" {
		t.Errorf("left: %s", left)
	}
	if _, err := b.Remove(t.Context(), "hello", false); !errors.Is(err, builder.ErrNoImage) {
		t.Errorf("when it is gone: %v", err)
	}
}

// What is saved is the same twice, and Podman and skopeo read it.
func TestSave(t *testing.T) {
	b := newBuilder(t)
	img := stored(t, b)
	config, err := b.Inspect(t.Context(), "hello")
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"oci-archive", "docker-archive"} {
		t.Run(format, func(t *testing.T) {
			dir := t.TempDir()
			path, again := filepath.Join(dir, "one.tar"), filepath.Join(dir, "two.tar")
			for _, p := range []string{path, again} {
				if err := b.Save(t.Context(), []string{"hello"}, format, p); err != nil {
					t.Fatal(err)
				}
			}
			if read(t, path) != read(t, again) {
				t.Error("saved twice it is not the same")
			}
			there := strings.TrimSpace(run(t, "skopeo", "inspect", "--config", "--format", "{{.Config.User}}", format+":"+path))
			if there != "1000:1000" {
				t.Errorf("skopeo reads user %q", there)
			}
			if format == "oci-archive" {
				if d := run(t, "skopeo", "inspect", "--format", "{{.Digest}}", format+":"+path); d != img.Digest.String() {
					t.Errorf("skopeo reads digest %s, want %s", d, img.Digest)
				}
			}
			other := newBuilder(t)
			if said := podman(t, other, "load", "--input", path); !strings.Contains(said, "localhost/hello:latest") {
				t.Errorf("podman load said %s", said)
			}
			if id := podman(t, other, "images", "--quiet", "--no-trunc"); id != "sha256:"+config.ID {
				t.Errorf("Podman has the image %s, want %s", id, config.ID)
			}
			if out := podman(t, other, "run", "--rm", "--network=none", "--cgroups=disabled", "hello"); out != "" {
				t.Errorf("it said %s", out)
			}
		})
	}
	t.Run("oci-dir", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "image")
		if err := b.Save(t.Context(), []string{"hello"}, "oci-dir", path); err != nil {
			t.Fatal(err)
		}
		if d := run(t, "skopeo", "inspect", "--format", "{{.Digest}}", "oci:"+path); d != img.Digest.String() {
			t.Errorf("skopeo reads %s", d)
		}
		if err := b.Save(t.Context(), []string{"hello"}, "oci-dir", path); !errors.Is(err, os.ErrExist) {
			t.Errorf("over a folder that is there: %v", err)
		}
	})
}

// The archive is what `docker load` reads: a manifest.json that names a config
// and layers, each by a digest that it has.
func TestDockerArchiveIsWhatDockerLoads(t *testing.T) {
	b := newBuilder(t)
	stored(t, b)
	if err := b.Tag(t.Context(), "hello", []oci.Reference{reference(t, "other:1")}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "saved.tar")
	if err := b.Save(t.Context(), []string{"hello", "other:1"}, "docker-archive", path); err != nil {
		t.Fatal(err)
	}
	entries := map[string][]byte{}
	r := tar.NewReader(strings.NewReader(read(t, path)))
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.ModTime.Unix() > 0 {
			t.Errorf("%s is of %s", h.Name, h.ModTime)
		}
		if entries[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	var items []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := json.Unmarshal(entries["manifest.json"], &items); err != nil {
		t.Fatal(err)
	}
	var tags []string
	for _, item := range items {
		tags = append(tags, item.RepoTags...)
		text := entries[item.Config]
		if digest.FromBytes(text).Encoded()+".json" != item.Config {
			t.Errorf("config %s has another digest", item.Config)
		}
		var config oci.ImageConfig
		if err := json.Unmarshal(text, &config); err != nil {
			t.Fatal(err)
		}
		if len(item.Layers) != len(config.RootFS.DiffIDs) {
			t.Fatalf("%d layers for %d DiffIDs", len(item.Layers), len(config.RootFS.DiffIDs))
		}
		for i, name := range item.Layers {
			if d := digest.FromBytes(entries[name]); d != config.RootFS.DiffIDs[i] {
				t.Errorf("layer %s is %s, the config says %s", name, d, config.RootFS.DiffIDs[i])
			}
		}
	}
	if got := strings.Join(tags, " "); got != "localhost/hello:latest localhost/other:1" {
		t.Errorf("tags are %s", got)
	}
}

// What Podman and skopeo save is loaded, also when it is compressed.
func TestLoad(t *testing.T) {
	b := newBuilder(t)
	img := stored(t, b)
	want, err := b.Inspect(t.Context(), "hello")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	podman(t, b, "save", "--format=docker-archive", "--output", at("docker.tar"), "hello")
	podman(t, b, "save", "--format=oci-archive", "--output", at("oci.tar"), "hello")
	podman(t, b, "save", "--format=oci-dir", "--output", at("oci"), "hello")
	if err := b.Save(t.Context(), []string{"hello"}, "oci-archive", at("own.tar")); err != nil {
		t.Fatal(err)
	}
	run(t, "skopeo", "copy", "oci-archive:"+at("own.tar"), "docker-archive:"+at("skopeo.tar")+":localhost/hello:latest")
	compressed(t, at("docker.tar"))
	compressed(t, at("own.tar"))
	for _, name := range []string{"docker.tar", "docker.tar.gz", "oci.tar", "oci", "own.tar", "own.tar.gz", "skopeo.tar"} {
		t.Run(name, func(t *testing.T) {
			other := newBuilder(t)
			got, err := other.Load(t.Context(), at(name))
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != 1 || name != "oci" && got[0].Name.String() != "localhost/hello:latest" {
				t.Fatalf("loaded %+v", got)
			}
			s, err := other.Inspect(t.Context(), want.ID)
			if err != nil || s.ID != want.ID {
				t.Errorf("got %+v, %v", s, err)
			}
			if strings.HasPrefix(name, "own") && got[0].Digest != img.Digest {
				t.Errorf("digest %s, want %s", got[0].Digest, img.Digest)
			}
		})
	}
}

func compressed(t *testing.T, path string) {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write([]byte(read(t, path))); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	write(t, out.String(), path+".gz")
}

func TestLoadRefusesWhatIsNoImage(t *testing.T) {
	b, dir := newBuilder(t), t.TempDir()
	write(t, "not an archive", dir, "text")
	for name, want := range map[string]error{
		filepath.Join(dir, "text"): builder.ErrArchive,
		dir:                        builder.ErrArchive,
		filepath.Join(dir, "none"): os.ErrNotExist,
	} {
		if _, err := b.Load(t.Context(), name); !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// An image goes to a registry and comes back into another store, the same.
func TestPull(t *testing.T) {
	server, err := embedded.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	http := httptest.NewServer(server)
	defer http.Close()
	b := newBuilder(t)
	img := stored(t, b)
	at, err := oci.ParseReference(strings.TrimPrefix(http.URL, "http://") + "/team/hello:1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := registry.New(registry.Options{}).Push(t.Context(), img.Layout, img.Digest, at, nil); err != nil {
		t.Fatal(err)
	}
	other := newBuilder(t)
	got, err := other.Pull(t.Context(), builder.PullRequest{Ref: at})
	if err != nil || got.Digest != img.Digest {
		t.Fatalf("got %s, %v", got.Pinned(), err)
	}
	again, err := other.Export(t.Context(), at.String())
	if err != nil || again.Digest != img.Digest {
		t.Errorf("out of the store: %s, %v", again.Pinned(), err)
	}
	if _, err := other.Pull(t.Context(), builder.PullRequest{Ref: at.WithTag("none")}); err == nil {
		t.Error("a tag that is not there was pulled")
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// What another tool built into the store is read the same each time.
func TestExportOfWhatOthersBuilt(t *testing.T) {
	b := newBuilder(t)
	dir := project(t, map[string]string{"Containerfile": "FROM scratch\nCOPY one /one\n", "one": "1"})
	run(t, "buildah", "--root", b.Root, "--runroot", b.RunRoot, "build", "--isolation=chroot", "--tag=theirs", dir)
	one, err := b.Export(t.Context(), "theirs")
	if err != nil {
		t.Fatal(err)
	}
	if files(t, one)["one"] != "1" {
		t.Error("the file is not in it")
	}
	again := &builder.Builder{Cache: t.TempDir(), Root: b.Root, RunRoot: b.RunRoot}
	if two, err := again.Export(t.Context(), "theirs"); err != nil || two.Digest != one.Digest {
		t.Errorf("%s and %s, %v", one.Digest, two.Digest, err)
	}
}

// A layout may come from anybody: what it calls a digest need not be one.
func TestLoadRefusesFalseDigests(t *testing.T) {
	b := newBuilder(t)
	manifest := func(config, layer string) string {
		return fmt.Sprintf(`{"schemaVersion":2,"config":{"digest":%q,"size":2},"layers":[{"digest":%q,"size":2}]}`, config, layer)
	}
	sum := digest.FromString("{}").String()
	for what, c := range map[string]struct{ digest, manifest string }{
		"no digest":              {"", "{}"},
		"no algorithm":           {"foo", "{}"},
		"a path":                 {"sha256:../../../secret", "{}"},
		"another manifest":       {sum, manifest(sum, sum)},
		"a config that is none":  {manifest: manifest("bar", sum)},
		"a layer that is a path": {manifest: manifest(sum, "sha256:../secret")},
		"an image of an index":   {manifest: `{"schemaVersion":2,"manifests":[{"digest":"sha256:../secret","size":2}]}`},
	} {
		t.Run(what, func(t *testing.T) {
			d := c.digest
			if d == "" && c.manifest != "{}" {
				d = digest.FromString(c.manifest).String()
			}
			dir := project(t, map[string]string{
				"oci-layout":   `{"imageLayoutVersion":"1.0.0"}`,
				"index.json":   fmt.Sprintf(`{"schemaVersion":2,"manifests":[{"digest":%q,"size":2}]}`, d),
				"blobs/secret": "{}",
				"blobs/sha256/" + digest.FromString("{}").Encoded():       "{}",
				"blobs/sha256/" + digest.FromString(c.manifest).Encoded(): c.manifest,
			})
			if what == "another manifest" {
				write(t, c.manifest, dir, "blobs", "sha256", digest.Digest(d).Encoded())
			}
			_, err := b.Load(t.Context(), dir)
			if err == nil || !strings.Contains(err.Error(), "digest") {
				t.Errorf("got %v", err)
			}
			cache, err := b.CacheDir()
			if err != nil {
				t.Fatal(err)
			}
			if found, err := filepath.Glob(filepath.Join(cache, "*", "secret")); err != nil || len(found) > 0 {
				t.Errorf("it was written to %v (%v)", found, err)
			}
		})
	}
}

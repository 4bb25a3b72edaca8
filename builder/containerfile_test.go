package builder_test

import (
	"errors"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"bareboat/builder"
	"bareboat/internal/oci"
)

func containerfile(t *testing.T, b *builder.Builder, r builder.ContainerfileRequest) oci.Image {
	t.Helper()
	r.Name = reference(t, "made:latest")
	img, err := b.BuildContainerfile(t.Context(), r)
	var failed *builder.ContainerfileError
	if errors.As(err, &failed) {
		t.Fatalf("%v: %s", err, failed.Hint())
	}
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestContainerfile(t *testing.T) {
	b := newBuilder(t)
	dir := project(t, map[string]string{
		"Containerfile":    "FROM scratch\nARG WHO=nobody\nCOPY . /srv/\nENV A=b\nLABEL who=$WHO\n",
		".containerignore": "secret\nsub/*.o\n",
		"one":              "1", "secret": "s", "sub/two": "2", "sub/x.o": "o", "run.sh": "#!/bin/sh\n",
	})
	b.Cache = filepath.Join(dir, "cache") // which is no part of the context
	img := containerfile(t, b, builder.ContainerfileRequest{Context: dir, Args: map[string]string{"WHO": "me"}})
	got := files(t, img)
	if _, there := got["srv/cache"]; there {
		t.Error("the cache is in the image")
	}
	if got["srv/one"] != "1" || got["srv/sub/two"] != "2" {
		t.Errorf("files are missing: %v", got)
	}
	for _, name := range []string{"srv/secret", "srv/sub/x.o"} {
		if _, there := got[name]; there {
			t.Errorf("%s is not ignored", name)
		}
	}
	if _, err := b.Add(t.Context(), img); err != nil {
		t.Fatal(err)
	}
	s, err := b.Inspect(t.Context(), "made")
	if err != nil {
		t.Fatal(err)
	}
	if s.Config.Config.Labels["who"] != "me" || s.Digest != img.Digest {
		t.Errorf("%+v of %s, want %s", s.Config.Config.Labels, s.Digest, img.Digest)
	}
	images, err := b.Images(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range images {
		if i.Intermediate != (len(i.Names) == 0) {
			t.Errorf("%s (%v) is taken for one that others are built on: %t", i.ID, i.Names, i.Intermediate)
		}
	}
	if len(images) < 2 {
		t.Errorf("no step is kept: %v", images)
	}
}

func TestContainerfileRefuses(t *testing.T) {
	b, dir := newBuilder(t), project(t, map[string]string{"Containerfile": "FROM scratch\nCOPY none /\n"})
	for what, r := range map[string]builder.ContainerfileRequest{
		"no context":  {Context: filepath.Join(dir, "none")},
		"no file":     {Context: dir, Path: filepath.Join(dir, "none")},
		"no secret":   {Context: dir, Secrets: []builder.Secret{{ID: "x", File: filepath.Join(dir, "none")}}},
		"no variable": {Context: dir, Secrets: []builder.Secret{{ID: "x", Env: "BAREBOAT_TEST_UNSET"}}},
	} {
		if _, err := b.BuildContainerfile(t.Context(), r); !errors.Is(err, builder.ErrContainerfile) {
			t.Errorf("%s: %v", what, err)
		}
	}
	var failed *builder.ContainerfileError
	_, err := b.BuildContainerfile(t.Context(), builder.ContainerfileRequest{Context: dir, Name: reference(t, "x")})
	if !errors.As(err, &failed) || !strings.Contains(err.Error(), "none") {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestParseSecret(t *testing.T) {
	for text, want := range map[string]builder.Secret{
		"id=a,src=b":           {ID: "a", File: "b"},
		"id=a,env=B":           {ID: "a", Env: "B"},
		"type=file,id=a,src=b": {ID: "a", File: "b"},
		"id=BAREBOAT_NOT_SET":  {ID: "BAREBOAT_NOT_SET", File: "BAREBOAT_NOT_SET"},
		"id=PATH":              {ID: "PATH", Env: "PATH"},
	} {
		if got, err := builder.ParseSecret(text); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "a", "src=b", "id=", "id=a,src=b,env=C", "id=a,what=b"} {
		if got, err := builder.ParseSecret(text); !errors.Is(err, builder.ErrContainerfile) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
}

// shell is the recipe of a base that has a shell.
const shell = `
layers:
  - debian: {suite: bookworm, packages: [busybox-static]}
  - files:
      - {link: /usr/bin/sh, target: /bin/busybox}
      - {link: /usr/bin/cat, target: /bin/busybox}
      - {link: /usr/bin/wc, target: /bin/busybox}
      - {link: /usr/bin/false, target: /bin/busybox}
      - {dir: /tmp, mode: "1777"}
config: {env: {PATH: /usr/bin}}
`

// withShell puts a base into the builder's store, and gives its name.
func withShell(t *testing.T, b *builder.Builder) string {
	t.Helper()
	img := build(t, b, project(t, map[string]string{"image/image.yaml": shell}))
	img.Name = reference(t, "shell:1")
	if _, err := b.Add(t.Context(), img); err != nil {
		t.Fatal(err)
	}
	return img.Name.String()
}

const stages = `ARG BASE
FROM $BASE AS made
RUN umask > /umask; cat /proc/self/comm
COPY run.sh /made/
RUN --mount=type=secret,id=key,required=true wc -c < /run/secrets/key > /size; echo x > /made/it
FROM made AS broken
RUN echo it went wrong >&2; false
FROM scratch AS other
COPY one /other
FROM scratch
COPY --from=made /made /made
COPY --from=made /umask /size /
COPY one /one
`

// One Containerfile gives one image, with other modes, times, umask and time
// zone, and in another store; what did not change is not run again; the secret is
// nowhere; a stage can be the target.
func TestContainerfileInStages(t *testing.T) {
	const secret = "correct-horse-battery"
	key := filepath.Join(t.TempDir(), "key")
	write(t, secret, key)
	var digests []oci.Digest
	for i, env := range []map[string]string{{"TZ": "Pacific/Apia", "LC_ALL": "C"}, {"TZ": "UTC", "LC_ALL": "C.UTF-8"}} {
		for k, v := range env {
			t.Setenv(k, v)
		}
		old := syscall.Umask([]int{0o077, 0o002}[i])
		b := newBuilder(t)
		dir := project(t, map[string]string{"Containerfile": stages, "one": "1", "run.sh": "#!/bin/sh\n"})
		r := builder.ContainerfileRequest{
			Context: dir, Args: map[string]string{"BASE": withShell(t, b)}, Secrets: []builder.Secret{{ID: "key", File: key}},
		}
		img := containerfile(t, b, r)
		syscall.Umask(old)
		digests = append(digests, img.Digest)
		got := files(t, img)
		if got["one"] != "1" || got["made/it"] != "x\n" || got["umask"] != "0022\n" || strings.TrimSpace(got["size"]) != "21" {
			t.Errorf("the image has %q", got)
		}
		var ran []string
		b.Notify = func(e builder.Event) { ran = append(ran, e.Note) }
		if again := containerfile(t, b, r); again.Digest != img.Digest {
			t.Errorf("built again it is %s, was %s", again.Digest, img.Digest)
		}
		if cached := strings.Count(strings.Join(ran, "\n"), "Using cache"); cached < 5 {
			t.Errorf("%d steps were cached: %s", cached, strings.Join(ran, "\n"))
		}
		b.Notify = nil
		nowhere(t, b, secret)

		r.Target = "other"
		if got := files(t, containerfile(t, b, r)); got["other"] != "1" || got["one"] != "" {
			t.Errorf("the target has %q", got)
		}
		r.Target, r.Name = "broken", reference(t, "broken")
		_, err := b.BuildContainerfile(t.Context(), r)
		var failed *builder.ContainerfileError
		if !errors.As(err, &failed) || !strings.Contains(failed.Hint(), "it went wrong") {
			t.Errorf("of a step that fails: %v", err)
		}
	}
	if digests[0] != digests[1] {
		t.Errorf("two images of one source: %s", digests)
	}
}

// nowhere looks for a text in everything that the store and the cache hold, and
// in what blobs hold unpacked.
func nowhere(t *testing.T, b *builder.Builder, text string) {
	t.Helper()
	seen := 0
	for _, dir := range []string{b.Root, b.Cache} {
		found := run(t, "podman", "unshare", "sh", "-c", `find "$1" -type f | while read -r f; do
			if { cat "$f"; zcat -f "$f"; } 2>/dev/null | grep -qF "$2"; then echo "found in $f"; else echo ok; fi
		done | sort | uniq -c`, "sh", dir, text)
		if strings.Contains(found, "found in") {
			t.Errorf("the secret is there: %s", found)
		}
		seen += strings.Count(found, "ok")
	}
	if seen < 2 {
		t.Error("nothing was looked at")
	}
}

package builder_test

import (
	"bytes"
	"debug/elf"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"bareboat/builder"
)

// A program of another processor is not let into an image.
func TestWrongProcessor(t *testing.T) {
	b, dir := newBuilder(t), project(t, hello)
	b.Platforms = []builder.Platform{{OS: "linux", Arch: "arm64"}}
	program := files(t, build(t, b, dir))["usr/bin/hello"]
	write(t, program, dir, "www", "program")

	b.Platforms = []builder.Platform{{OS: "linux", Arch: "amd64"}}
	_, err := b.Build(t.Context(), recipe(t, dir), dir, helloName)
	if !errors.Is(err, builder.ErrMachine) || !strings.Contains(err.Error(), "/srv/www/program") {
		t.Errorf("got %v; want ErrMachine that names the file", err)
	}
}

// The images of this project for arm64 have nothing of another processor in
// them: neither programs, nor libraries, nor packages.
func TestForARM(t *testing.T) {
	for _, name := range []string{"chat", "pods/proxy"} {
		b := newBuilder(t)
		b.Mirrors, b.Platforms = hostMirrors(t), []builder.Platform{{OS: "linux", Arch: "arm64"}}
		b.Locked = true
		r, err := builder.LoadRecipe(filepath.Join("..", name))
		if err != nil {
			t.Fatal(err)
		}
		img, err := b.Build(t.Context(), r, "..", helloName)
		if err != nil {
			t.Fatal(err)
		}
		programs, packages := 0, 0
		for path, content := range files(t, img) {
			if strings.HasPrefix(content, elf.ELFMAG) {
				f, err := elf.NewFile(bytes.NewReader([]byte(content)))
				if err != nil {
					t.Fatalf("%s: %v", path, err)
				}
				if programs++; f.Machine != elf.EM_AARCH64 {
					t.Errorf("%s: %s is of %s", name, path, f.Machine)
				}
			}
			if strings.HasPrefix(path, "var/lib/dpkg/status.d/") && !strings.HasSuffix(path, ".md5sums") {
				if packages++; !strings.Contains(content, "\nArchitecture: arm64\n") && !strings.Contains(content, "\nArchitecture: all\n") {
					t.Errorf("%s: %s is of another architecture", name, path)
				}
			}
		}
		if programs == 0 || packages == 0 {
			t.Errorf("%s: %d programs, %d packages", name, programs, packages)
		}
	}
}

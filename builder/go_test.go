package builder_test

import (
	"archive/zip"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"bareboat/builder"
)

// moduleProxy is a folder that the go command can take for a module proxy. It
// has one module, a main package.
func moduleProxy(t *testing.T) (url string) {
	t.Helper()
	const mod = "module example.org/ahoy/v2\n\ngo 1.26\n"
	dir := filepath.Join(t.TempDir(), "example.org", "ahoy", "v2", "@v")
	if err := os.MkdirAll(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "v2.0.0.zip"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z := zip.NewWriter(f)
	for name, text := range map[string]string{"go.mod": mod, "m.go": "package main\n\nfunc main() { println(\"ahoy\") }\n"} {
		w, err := z.Create("example.org/ahoy/v2@v2.0.0/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"list": "v2.0.0\n", "v2.0.0.mod": mod, "v2.0.0.info": `{"Version":"v2.0.0"}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return "file://" + filepath.Dir(filepath.Dir(filepath.Dir(filepath.Dir(dir))))
}

// A program of another module, by its version. Where the user's own programs go
// is nothing to it; where modules come from may stand in the user's go/env.
func TestGoPackageOfAnotherModule(t *testing.T) {
	own := t.TempDir()
	cache := t.TempDir()
	t.Cleanup(func() { removeStore(t, cache) })
	settings := filepath.Join(own, "go.env")
	if err := os.WriteFile(settings, []byte("GOPROXY="+moduleProxy(t)+"\nGONOSUMDB=example.org\nGOMODCACHE="+cache+"\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOENV", settings)
	t.Setenv("GOBIN", filepath.Join(own, "bin"))
	dir := project(t, map[string]string{"image/image.yaml": "layers: [{go: {package: example.org/ahoy/v2@v2.0.0}}]"})

	img := build(t, newBuilder(t), dir)

	if files(t, img)["usr/bin/ahoy"] == "" {
		t.Error("the image has no usr/bin/ahoy")
	}
	if _, err := os.Stat(filepath.Join(own, "bin")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was put into GOBIN: %v", err)
	}
}

func TestWithoutGo(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if err := tryBuild(t, newBuilder(t), project(t, hello)); !errors.Is(err, builder.ErrNoGo) {
		t.Errorf("got %v; want ErrNoGo", err)
	}
}

package pipeline_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"bareboat/builder"
	"bareboat/internal/config"
	"bareboat/internal/pipeline"
	"bareboat/registry/embedded"
	"bareboat/registry/embedded/program"
)

func TestMain(m *testing.M) {
	if builder.Init() {
		return
	}
	if filepath.Base(os.Args[0]) == program.Name {
		os.Exit(program.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(withRegistry(m))
}

// withRegistry runs the tests with this program in PATH as the registry's.
func withRegistry(m *testing.M) int {
	dir, err := os.MkdirTemp("", "bin")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	if err := os.Symlink(self, filepath.Join(dir, program.Name)); err != nil {
		panic(err)
	}
	if err := os.Setenv("PATH", dir+":"+os.Getenv("PATH")); err != nil {
		panic(err)
	}
	return m.Run()
}

// lend serves the embedded registry, as another command does, until end.
func lend(t *testing.T) (end func()) {
	t.Helper()
	dir, err := pipeline.RegistryDir()
	if err != nil {
		t.Fatal(err)
	}
	server, err := embedded.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- server.Serve(ctx, l) }()
	end = sync.OnceFunc(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(end)
	for { // until it has told others where it serves
		other, err := embedded.Open(dir)
		var locked *embedded.LockedError
		if errors.As(err, &locked) && locked.Addr != "" {
			return end
		} else if err == nil {
			other.Close()
			t.Fatal("the store has two owners")
		}
	}
}

// A command whose images go through the registry of another one goes on by
// itself when that one ends.
func TestPushOutlivesTheRegistryOfAnotherCommand(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_DATA_HOME", filepath.Join(dir, "data"))
	for name, text := range map[string]string{
		"image.yaml":   "layers: [{accounts: {users: [{name: ada, uid: 1000}]}}]\n",
		"compose.yaml": "services: {app: {image: localhost/app, x-bareboat: {recipe: image.yaml}}}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	project, err := config.Load(t.Context(), config.Options{Files: []string{filepath.Join(dir, "compose.yaml")}, ProjectName: "shop"})
	if err != nil {
		t.Fatal(err)
	}
	end := lend(t)
	p := &pipeline.Pipeline{
		Project: project,
		Builder: &builder.Builder{
			Cache: filepath.Join(dir, "cache"), Root: filepath.Join(dir, "store"), RunRoot: filepath.Join(dir, "run"),
		},
		Notify: func(e pipeline.Event) {
			if e.Total > 0 { // it has begun to push
				end()
			}
		},
	}

	images, err := p.Push(t.Context(), nil)

	if err != nil || len(images) != 1 {
		t.Fatalf("Push = %v, %v", images, err)
	}
	p.Notify = nil
	if again, err := p.Push(t.Context(), nil); err != nil || again[0].Digest != images[0].Digest {
		t.Errorf("a second Push = %v, %v; want %v", again, err, images)
	}
}

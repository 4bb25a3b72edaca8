package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

const (
	goarch = runtime.GOARCH

	// program is the folder of the tree that holds the program, its static files
	// (where ko looks for them), the recipes, and the compiled binary.
	program = "cmd/chatd"
	static  = program + "/kodata"
	binary  = program + "/app"

	layers        = 8
	filesPerLayer = 16
	fileSize      = 64 << 10
)

// copySource copies the checkout, as it stands, and adds what the tools build.
func copySource(ctx context.Context, tree string) error {
	out, err := exec.CommandContext(ctx, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		return fmt.Errorf("list the source: %w", err)
	}
	for file := range strings.SplitSeq(strings.TrimSuffix(string(out), "\x00"), "\x00") {
		text, err := os.ReadFile(file)
		if os.IsNotExist(err) {
			continue // removed, and that not yet committed
		}
		if err != nil {
			return err
		}
		if err := write(filepath.Join(tree, file), text); err != nil {
			return err
		}
	}
	if err := editGo(tree, "nothing"); err != nil {
		return err
	}
	if err := writeStatic(tree); err != nil {
		return err
	}
	return writeRecipes(tree)
}

// editGo changes a string that ends up in the binary.
func editGo(tree, unique string) error {
	text := fmt.Sprintf("package hub\n\nimport \"os\"\n\n// Edited keeps a string in the binary.\nvar Edited = os.Getenv(%q)\n", unique)
	return write(filepath.Join(tree, "chat/hub/edited.go"), []byte(text))
}

func editStatic(tree, unique string) error {
	return write(filepath.Join(tree, static, "4/00.txt"), []byte(unique))
}

// writeStatic writes files that compress to about half, the same each time.
func writeStatic(tree string) error {
	random := rand.New(rand.NewPCG(1, 2))
	for l := range layers {
		for f := range filesPerLayer {
			var text bytes.Buffer
			for text.Len() < fileSize {
				fmt.Fprintf(&text, "%016x\n", random.Uint64())
			}
			if err := write(filepath.Join(tree, static, fmt.Sprintf("%d/%02d.txt", l+1, f)), text.Bytes()); err != nil {
				return err
			}
		}
	}
	return nil
}

// writeRecipes writes the same image for bareboat and for Containerfiles: what
// changes most often is last, so that what stands above it is least.
func writeRecipes(tree string) error {
	var recipe, containerfile strings.Builder
	recipe.WriteString("layers:\n")
	containerfile.WriteString("FROM scratch\n")
	for l := range layers {
		fmt.Fprintf(&recipe, "  - files: [{from: kodata/%d, to: /var/www/%d/}]\n", l+1, l+1)
		fmt.Fprintf(&containerfile, "COPY kodata/%d /var/www/%d/\n", l+1, l+1)
	}
	recipe.WriteString("  - go: {package: .}\nconfig: {entrypoint: [/usr/bin/chatd], user: \"65532:65532\"}\n")
	containerfile.WriteString("COPY app /usr/bin/chatd\nUSER 65532:65532\nENTRYPOINT [\"/usr/bin/chatd\"]\n")
	compose := "name: bench\nservices:\n  chat:\n    image: localhost/bench/bareboat:latest\n    x-bareboat: {recipe: " + program + "/image.yaml}\n"
	for name, text := range map[string]string{
		program + "/image.yaml": recipe.String(), program + "/Containerfile": containerfile.String(), "bench.yaml": compose,
	} {
		if err := write(filepath.Join(tree, name), []byte(text)); err != nil {
			return err
		}
	}
	return nil
}

func write(file string, text []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, text, 0o644)
}

// goEnvironment gives where Go keeps its caches.
func goEnvironment(ctx context.Context) (map[string]string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "-json", "GOCACHE", "GOMODCACHE", "GOPATH").Output()
	if err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	env := map[string]string{}
	return env, json.Unmarshal(out, &env)
}

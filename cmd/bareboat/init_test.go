package main_test

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Three programs that know nothing of bareboat: one with its pages, its port
// from a variable; one that listens on the loopback unless it is told otherwise;
// one that serves nobody.
var fleet = map[string]string{
	"go.mod": "module example.org/fleet/v2\n\ngo 1.26\n",
	"cmd/api/main.go": `package main

import (
	"flag"
	"fmt"
	"net/http"
)

func main() {
	addr := flag.String("listen", "127.0.0.1:7777", "")
	flag.Parse()
	panic(http.ListenAndServe(*addr, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "api ", r.URL.Path) })))
}
`,
	"cmd/beat/main.go": `package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	<-end
}
`,
	"cmd/api2/www/index.html": "ahoy from a page",
	"cmd/api2/main.go": `package main

import (
	"embed"
	"io/fs"
	"net/http"
	"os"
)

//go:embed www
var pages embed.FS

func main() {
	if len(os.Args) > 1 && os.Args[1] == "health" {
		if _, err := http.Get("http://127.0.0.1:" + os.Getenv("PORT")); err != nil {
			os.Exit(1)
		}
		return
	}
	www, _ := fs.Sub(pages, "www")
	panic(http.ListenAndServe(":"+os.Getenv("PORT"), http.FileServerFS(www)))
}
`,
}

// What init writes is released, and answers through the proxy.
func TestInitIsReleased(t *testing.T) {
	dir := t.TempDir()
	for name, text := range fleet {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), bareboat(t), "init", dir)
	cmd.Stderr = &stderr
	if out, err := cmd.Output(); err != nil || strings.Count(string(out), "\n") != 4 {
		t.Fatalf("init: %v, %s%s", err, out, stderr.String())
	}
	d := newDeployment(t, filepath.Join(dir, "compose.yaml"))
	d.run("up")
	for path, want := range map[string]string{"/ship": "api /ship", "/api2/": "404 page not found\n", "/": "api /"} {
		resp, err := http.Get(d.url(path))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if body, err := io.ReadAll(resp.Body); err != nil || string(body) != want {
			t.Errorf("%s says %q (%s), %v; want %q", path, body, resp.Status, err, want)
		}
	}
	if ps, _ := d.run("ps"); strings.Count(ps, "running") != 4 {
		t.Errorf("ps prints %s", ps)
	}
}

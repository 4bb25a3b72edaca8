package main_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"gopkg.in/yaml.v3"

	"bareboat/registry/embedded"
)

// The examples of docs/ci.md, run as they stand there.

// actionlint checks workflows; it is no part of the program.
const actionlint = "github.com/rhysd/actionlint/cmd/actionlint@v1.7.7"

const ciUser, ciPassword = "ci", "a pass'word %s"

// job is a machine of a CI system: a registry that asks for a password, a
// checkout, and an environment with nothing in it but what such a system sets.
type job struct {
	t        *testing.T
	dir      string // the checkout
	home     string
	registry string
	env      []string
	pushed   sync.Map // names of repositories that got a manifest
}

func newJob(t *testing.T) *job {
	t.Helper()
	j := &job{t: t, dir: t.TempDir(), home: t.TempDir()}
	j.serve()
	if err := os.CopyFS(j.dir, os.DirFS(mustAbs("../../docs/examples/hello"))); err != nil {
		t.Fatal(err)
	}
	compose := "services: {hello: {image: localhost/hello:latest, x-bareboat: {recipe: image.yaml}}}\n"
	j.write(filepath.Join(j.dir, "compose.yaml"), compose)
	insecure := j.write(filepath.Join(j.home, "registries.conf"), "[[registry]]\nlocation = \""+j.registry+"\"\ninsecure = true\n")
	bin := filepath.Join(j.home, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"go", "git", "podman"} {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(path, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(bareboat(t), filepath.Join(bin, "bareboat")); err != nil {
		t.Fatal(err)
	}
	j.env = append(goCaches(t), "CI=true", "PATH="+bin+":/usr/bin:/bin:/usr/sbin", "HOME="+j.home, "USER="+os.Getenv("USER"),
		"XDG_RUNTIME_DIR="+os.Getenv("XDG_RUNTIME_DIR"), "CONTAINERS_REGISTRIES_CONF="+insecure)
	return j
}

// serve is a registry that lets in who knows the password.
func (j *job) serve() {
	store, err := embedded.Open(j.t.TempDir())
	if err != nil {
		j.t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, ok := r.BasicAuth(); !ok || user != ciUser || password != ciPassword {
			askForPassword(w, r)
			return
		}
		if repository, _, ok := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/manifests/"); ok && r.Method == http.MethodPut {
			j.pushed.Store(repository, true)
		}
		store.ServeHTTP(w, r)
	}))
	j.t.Cleanup(func() {
		server.Close()
		store.Close()
	})
	j.registry = strings.TrimPrefix(server.URL, "http://")
}

// got tells whether a repository got a manifest.
func (j *job) got(repository string) bool {
	_, ok := j.pushed.Load(repository)
	return ok
}

func (j *job) write(path, text string) string {
	j.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		j.t.Fatal(err)
	}
	return path
}

func (j *job) read(name string) string {
	j.t.Helper()
	text, err := os.ReadFile(filepath.Join(j.dir, name))
	if err != nil {
		j.t.Fatal(err)
	}
	return string(text)
}

// run gives lines to a shell, as a runner does, and gives what it prints.
func (j *job) run(lines string, env ...string) (stdout, stderr string) {
	j.t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(j.t.Context(), "bash", "-e", "-o", "pipefail", "-c", lines)
	cmd.Dir, cmd.Env = j.dir, append(j.env[:len(j.env):len(j.env)], env...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		j.t.Fatalf("%s: %v\n%s%s", lines, err, out.String(), errs.String())
	}
	return out.String(), errs.String()
}

// example is the first block of the page's part with this heading, in a language.
func ciExample(t *testing.T, heading, language string) string {
	t.Helper()
	page, err := os.ReadFile(mustAbs("../../docs/ci.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, part, ok := strings.Cut(string(page), "\n## "+heading+"\n")
	_, block, found := strings.Cut(part, "\n```"+language+"\n")
	block, _, whole := strings.Cut(block, "\n```\n")
	if !ok || !found || !whole {
		t.Fatalf("docs/ci.md has no %s under %q", language, heading)
	}
	return block + "\n"
}

var expression = regexp.MustCompile(`\$\{\{\s*(\S+)\s*\}\}`)

func TestGitHubExample(t *testing.T) {
	text := ciExample(t, "GitHub Actions", "yaml")
	lint := exec.CommandContext(t.Context(), "go", "run", actionlint, "-shellcheck=", "-pyflakes=", "-no-color", "-")
	lint.Dir, lint.Stdin = t.TempDir(), strings.NewReader(text)
	if out, err := lint.CombinedOutput(); err != nil {
		t.Fatalf("actionlint: %v\n%s", err, out)
	}
	var workflow struct {
		Env  map[string]string
		Jobs map[string]struct {
			Steps []struct {
				ID, Run string
				Env     map[string]string
			}
		}
	}
	if err := yaml.Unmarshal([]byte(text), &workflow); err != nil {
		t.Fatal(err)
	}
	j := newJob(t)
	// What the runner has in its place of these.
	values := map[string]string{"vars.BAREBOAT_SOURCE": "file://" + mustAbs("../.."), "secrets.GITHUB_TOKEN": ciPassword}
	temp := t.TempDir()
	env := []string{"GITHUB_ACTIONS=true", "GITHUB_ACTOR=" + ciUser, "GITHUB_REPOSITORY=owner/repo", "GITHUB_WORKSPACE=" + j.dir, "RUNNER_TEMP=" + temp}
	for _, name := range []string{"GITHUB_OUTPUT", "GITHUB_ENV", "GITHUB_PATH", "GITHUB_STEP_SUMMARY"} {
		env = append(env, name+"="+filepath.Join(temp, name))
	}
	// The checkout that is cloned may belong to another user.
	j.write(filepath.Join(j.home, ".gitconfig"), "[safe]\ndirectory = *\n")
	workflow.Env["REGISTRY"] = j.registry
	told := ""
	for _, step := range workflow.Jobs["image"].Steps {
		if step.Run == "" {
			continue
		}
		all := env
		for _, vars := range []map[string]string{workflow.Env, step.Env} {
			for k, v := range vars {
				all = append(all, k+"="+expression.ReplaceAllStringFunc(v, func(e string) string {
					value, ok := values[expression.FindStringSubmatch(e)[1]]
					if !ok {
						t.Errorf("nothing stands for %s", e)
					}
					return value
				}))
			}
		}
		told, _ = j.run(step.Run, all...)
		// What a step leaves for those after it.
		env = append(env, strings.Fields(readIfThere(filepath.Join(temp, "GITHUB_ENV")))...)
		for line := range strings.Lines(readIfThere(filepath.Join(temp, "GITHUB_PATH"))) {
			env = append(env, "PATH="+strings.TrimSpace(line)+":"+filepath.Join(j.home, "bin")+":/usr/bin:/bin:/usr/sbin")
		}
		for line := range strings.Lines(readIfThere(filepath.Join(temp, "GITHUB_OUTPUT"))) {
			name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			values["steps."+step.ID+".outputs."+name] = value
		}
	}
	if !j.got("owner/repo/hello") || !strings.HasPrefix(told, `pushed {"hello":"`+j.registry+"/owner/repo/hello@sha256:") {
		t.Errorf("told %q", told)
	}
	if summary := readIfThere(filepath.Join(temp, "GITHUB_STEP_SUMMARY")); !strings.Contains(summary, "| hello | `"+j.registry) {
		t.Errorf("summary: %q", summary)
	}
	j.hasMetadata()
}

func readIfThere(path string) string {
	text, _ := os.ReadFile(path)
	return string(text)
}

func (j *job) hasMetadata() {
	j.t.Helper()
	var made map[string]map[string]any
	if err := json.Unmarshal([]byte(j.read("image.json")), &made); err != nil {
		j.t.Fatal(err)
	}
	if digest, _ := made["hello"]["containerimage.digest"].(string); !strings.HasPrefix(digest, "sha256:") {
		j.t.Errorf("metadata: %v", made)
	}
}

func TestGitLabExample(t *testing.T) {
	var pipeline map[string]struct {
		Image        string
		Variables    map[string]string
		BeforeScript []string `yaml:"before_script"`
		Script       []string
		Stage        string
		Cache        struct {
			Key   string
			Paths []string
		}
		Artifacts struct{ Paths []string }
		Rules     []struct{ If string }
	}
	d := yaml.NewDecoder(strings.NewReader(ciExample(t, "GitLab CI", "yaml")))
	d.KnownFields(true)
	if err := d.Decode(&pipeline); err != nil {
		t.Fatal(err)
	}
	j := newJob(t)
	env := []string{"GITLAB_CI=true", "CI_PROJECT_DIR=" + j.dir, "CI_REGISTRY=" + j.registry, "CI_REGISTRY_IMAGE=" + j.registry + "/group/project",
		"CI_REGISTRY_USER=" + ciUser, "CI_REGISTRY_PASSWORD=" + ciPassword}
	for k, v := range pipeline["image"].Variables {
		env = append(env, k+"="+strings.ReplaceAll(v, "$CI_PROJECT_DIR", j.dir))
	}
	env = append(env, goCaches(t)...) // the modules are here already
	lines := append(pipeline["image"].BeforeScript, pipeline["image"].Script...)
	stdout, stderr := j.run(strings.Join(lines, "\n"), env...)
	if !j.got("group/project/hello") || !strings.Contains(stdout, j.registry+"/group/project/hello@sha256:") {
		t.Errorf("printed %q", stdout)
	}
	if !strings.Contains(stderr, "section_start:") || strings.Contains(stdout+stderr, ciPassword) {
		t.Errorf("told %q", stderr)
	}
	j.hasMetadata()
}

// The machine's own /usr stands in for the tools of a runner's image; the image
// itself is made by bareboat.
const runnerRecipe = `
layers:
  - accounts: {users: [{name: nobody-else, uid: 1000}]}
  - files:
      - {dir: /tmp, mode: "1777"}
      - {link: /bin, target: usr/bin}
      - {link: /lib, target: usr/lib}
      - {link: /lib64, target: usr/lib64}
config: {env: {PATH: "/opt/bareboat:/usr/local/go/bin:/usr/bin:/bin", HOME: /tmp}}
`

func TestRunnerExample(t *testing.T) {
	lines := ciExample(t, "A runner in a rootless container", "sh")
	j := newJob(t)
	runner := t.TempDir()
	j.write(filepath.Join(runner, "image.yaml"), runnerRecipe)
	compose := j.write(filepath.Join(runner, "compose.yaml"), "services: {runner: {image: localhost/bareboat-test/runner:latest, x-bareboat: {recipe: image.yaml}}}\n")
	build := exec.CommandContext(t.Context(), bareboat(t), "-f", compose, "build", "runner")
	image, err := build.Output()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = exec.Command("podman", "rmi", "--force", strings.TrimSpace(string(image))).Run() })
	t.Cleanup(func() { _ = exec.Command("podman", "volume", "rm", "--force", "bareboat-ci").Run() })
	self, err := filepath.EvalSymlinks(bareboat(t))
	if err != nil {
		t.Fatal(err)
	}
	// The registry of this test is on the loopback of this machine.
	podman := filepath.Join(j.home, "bin", "podman")
	if err := os.Remove(podman); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(podman, []byte("#!/bin/sh\n[ \"$1\" = run ] || exec /usr/bin/podman \"$@\"\nshift\n"+
		"exec /usr/bin/podman run --network host --volume /usr:/usr:ro --volume "+self+":/opt/bareboat/bareboat:ro \"$@\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	auth := filepath.Join(j.home, "auth.json")
	env := []string{"HOME=" + os.Getenv("HOME"), "RUNNER_IMAGE=" + strings.TrimSpace(string(image)), "REGISTRY=" + j.registry + "/runner", "REGISTRY_AUTH_FILE=" + auth, "PASSWORD=" + ciPassword}
	j.run(`printf %s "$PASSWORD" | podman login --username `+ciUser+` --password-stdin "${REGISTRY%/*}"`, env...)
	stdout, stderr := j.run(lines, env...)
	if !j.got("runner/hello") || !strings.HasPrefix(stdout, j.registry+"/runner/hello@sha256:") {
		t.Errorf("printed %q, told %q", stdout, stderr)
	}
}

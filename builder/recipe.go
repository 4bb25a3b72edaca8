package builder

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"bareboat/builder/debian"
)

// LockName is the file beside a recipe that pins its Debian packages.
const LockName = "image.lock"

// ErrRecipe is what every error about the text of a recipe wraps.
var ErrRecipe = errors.New("invalid recipe")

// Recipe says what an image is made of: layers from the bottom up, and the
// configuration of its containers. All paths in it are relative to its folder.
type Recipe struct {
	// Base is "scratch" (the default) or a reference pinned by digest.
	Base   string      `yaml:"base"`
	Layers []LayerSpec `yaml:"layers"`
	Config Config      `yaml:"config"`

	path string // where it was read from
}

// LayerSpec names one source of files; exactly one of the fields is set.
type LayerSpec struct {
	Go           *GoSource           `yaml:"go"`
	Files        []FileEntry         `yaml:"files"`
	Accounts     *Accounts           `yaml:"accounts"`
	Certificates *CertificatesSource `yaml:"certificates"`
	Timezones    *TimezonesSource    `yaml:"timezones"`
	Debian       *debian.Request     `yaml:"debian"`
}

// Config is what the image tells a runtime, in the words of a Compose file.
type Config struct {
	Entrypoint  []string          `yaml:"entrypoint"`
	Cmd         []string          `yaml:"cmd"`
	Env         map[string]string `yaml:"env"`
	User        string            `yaml:"user"`
	Ports       []string          `yaml:"ports"`
	Volumes     []string          `yaml:"volumes"`
	WorkDir     string            `yaml:"workdir"`
	StopSignal  string            `yaml:"stop_signal"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
	// Healthcheck is not part of an OCI image: it is given to the pod, where
	// the Compose file says nothing of its own.
	Healthcheck *Healthcheck `yaml:"healthcheck"`
}

// Healthcheck is a container's own check, as Compose has it.
type Healthcheck struct {
	Test        []string      `yaml:"test"` // CMD or CMD-SHELL first, or NONE
	Interval    time.Duration `yaml:"interval"`
	Timeout     time.Duration `yaml:"timeout"`
	StartPeriod time.Duration `yaml:"start_period"`
	Retries     int           `yaml:"retries"`
}

// LoadRecipe reads a recipe strictly: a key that it does not know is an error
// that names file, line and key. A folder stands for its image.yaml. What is
// wrong with the text is a *RecipeError.
func LoadRecipe(path string) (*Recipe, error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, "image.yaml")
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecipe, err)
	}
	r, err := DecodeRecipe(text)
	if err != nil {
		return nil, &RecipeError{Path: path, Err: err}
	}
	r.path = path
	return r, nil
}

// DecodeRecipe decodes and checks the text of a recipe. Its errors are
// *LineError where the line is known.
func DecodeRecipe(text []byte) (*Recipe, error) {
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	var r Recipe
	if err := d.Decode(&r); errors.Is(err, io.EOF) {
		return nil, errors.New("the file is empty")
	} else if err != nil {
		return nil, plainYAMLError(err)
	}
	if err := d.Decode(new(Recipe)); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one YAML document")
	}
	if r.Base == "" {
		r.Base = "scratch"
	}
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return nil, plainYAMLError(err)
	}
	if err := r.validate(); err != nil {
		return nil, withLine(err, &document)
	}
	for i, l := range r.Layers {
		for j := range l.Files {
			l.Files[j].line = lineOf(&document, []any{"layers", i, "files", j})
		}
	}
	return &r, nil
}

// Dir is the folder of the recipe; its paths start there.
func (r *Recipe) Dir() string { return filepath.Dir(r.path) }

// Path is the file that the recipe was read from.
func (r *Recipe) Path() string { return r.path }

// LockPath is the file that pins the recipe's Debian packages.
func (r *Recipe) LockPath() string { return filepath.Join(r.Dir(), LockName) }

func (r *Recipe) validate() error {
	if r.Base != "scratch" && !strings.Contains(r.Base, "@sha256:") {
		return at(fmt.Errorf("base: %q is not pinned: give it as NAME@sha256:… (an image is a function of its content)", r.Base), "base")
	}
	if len(r.Layers) == 0 {
		return errors.New("layers: none given")
	}
	for i, l := range r.Layers {
		if err := l.validate(); err != nil {
			return at(fmt.Errorf("layers[%d]: %w", i, err), "layers", i)
		}
	}
	return at(r.Config.validate(), "config")
}

func (s LayerSpec) validate() error {
	var kinds []string
	for kind, set := range map[string]bool{
		"go": s.Go != nil, "files": s.Files != nil, "accounts": s.Accounts != nil,
		"certificates": s.Certificates != nil, "timezones": s.Timezones != nil, "debian": s.Debian != nil,
	} {
		if set {
			kinds = append(kinds, kind)
		}
	}
	slices.Sort(kinds)
	switch {
	case len(kinds) == 0:
		return errors.New("wants one of go, files, accounts, certificates, timezones, debian")
	case len(kinds) > 1:
		return fmt.Errorf("has %s: one layer has one source", strings.Join(kinds, " and "))
	case s.Go != nil:
		return at(s.Go.validate(), "go", "package")
	case s.Files != nil:
		return validateEntries(s.Files)
	case s.Accounts != nil:
		return s.Accounts.validate()
	}
	request, _ := s.request()
	return request.Validate()
}

var (
	portPattern = regexp.MustCompile(`^[0-9]{1,5}(/(tcp|udp|sctp))?$`)
	envPattern  = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)
)

func (c Config) validate() error {
	for _, p := range c.Ports {
		if !portPattern.MatchString(p) {
			return at(fmt.Errorf("config.ports: %q is not PORT or PORT/tcp|udp|sctp", p), "ports")
		}
	}
	for _, v := range c.Volumes {
		if !strings.HasPrefix(v, "/") {
			return at(fmt.Errorf("config.volumes: %q is not an absolute path", v), "volumes")
		}
	}
	if c.WorkDir != "" && !strings.HasPrefix(c.WorkDir, "/") {
		return at(fmt.Errorf("config.workdir: %q is not an absolute path", c.WorkDir), "workdir")
	}
	for k := range c.Env {
		if !envPattern.MatchString(k) {
			return at(fmt.Errorf("config.env: %q is not a variable's name", k), "env", k)
		}
	}
	if h := c.Healthcheck; h != nil {
		if len(h.Test) == 0 || !slices.Contains([]string{"CMD", "CMD-SHELL", "NONE"}, h.Test[0]) {
			return at(errors.New("config.healthcheck.test: wants CMD, CMD-SHELL or NONE first"), "healthcheck", "test")
		}
	}
	return nil
}

var unknownField = regexp.MustCompile(`field (\S+) not found in type \S+`)

// plainYAMLError says an error of the YAML library in the words of the file.
func plainYAMLError(err error) error {
	var te *yaml.TypeError
	if errors.As(err, &te) {
		return lineInText(oneLine(unknownField.ReplaceAllString(strings.Join(te.Errors, "; "), `unknown key "$1"`)))
	}
	return lineInText(oneLine(strings.TrimPrefix(err.Error(), "yaml: ")))
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// Platform is what an image is built for.
type Platform struct {
	OS   string `json:"os"`
	Arch string `json:"architecture"` // as Go names it: amd64, arm64
}

// HostPlatform is linux on the processor that this program runs on.
func HostPlatform() Platform { return Platform{OS: "linux", Arch: runtime.GOARCH} }

func (p Platform) String() string { return p.OS + "/" + p.Arch }

// ErrPlatform says that a platform is not one that images can be built for.
var ErrPlatform = errors.New("unknown platform")

// ParsePlatform reads "linux/arm64".
func ParsePlatform(s string) (Platform, error) {
	os, arch, ok := strings.Cut(s, "/")
	if !ok || os != "linux" {
		return Platform{}, fmt.Errorf("%w %q: it is linux/ARCHITECTURE", ErrPlatform, s)
	}
	if _, err := debian.Architecture(arch); err != nil {
		return Platform{}, fmt.Errorf("%w %q: there are amd64, arm64, riscv64, s390x, 386, arm, ppc64le", ErrPlatform, s)
	}
	return Platform{OS: os, Arch: arch}, nil
}

package debian

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// DefaultSuite is the suite of a request that names none: Debian 13.
const DefaultSuite = "trixie"

// Request says which packages an image wants. It is the value of a recipe's
// debian layer.
type Request struct {
	// Suite is the codename of a release; its -updates and -security suites
	// are read with it.
	Suite string `yaml:"suite,omitempty"`
	// Components of the archive; default main.
	Components []string `yaml:"components,omitempty"`
	// Packages to have, with all that they depend on.
	Packages []string `yaml:"packages"`
	// Exclude names dependencies to leave out, beside the built-in list of
	// those that only maintainer scripts need.
	Exclude []string `yaml:"exclude,omitempty"`
	// Include takes names off the built-in list.
	Include []string `yaml:"include,omitempty"`
	// ExcludePaths are globs (path.Match) of files and folders to leave out,
	// relative to the root: "usr/lib/*/gconv".
	ExcludePaths []string `yaml:"exclude_paths,omitempty"`
	// Acknowledge names packages whose scripts divert files or set
	// alternatives in a way that is not understood, and which are to be
	// installed without that.
	Acknowledge []string `yaml:"acknowledge,omitempty"`
}

// WithDefaults is r with what it leaves open.
func (r Request) WithDefaults() Request {
	if r.Suite == "" {
		r.Suite = DefaultSuite
	}
	if len(r.Components) == 0 {
		r.Components = []string{"main"}
	}
	return r
}

// Validate names what is wrong with the request.
func (r Request) Validate() error {
	r = r.WithDefaults()
	if len(r.Packages) == 0 {
		return errors.New("debian: packages: name at least one")
	}
	if err := checkName(r.Suite); err != nil {
		return fmt.Errorf("debian: suite %q: expected a codename such as trixie", r.Suite)
	}
	for _, c := range r.Components {
		if err := checkName(c); err != nil {
			return fmt.Errorf("debian: components: %q is not a component", c)
		}
	}
	lists := []struct {
		key   string
		names []string
	}{{"packages", r.Packages}, {"exclude", r.Exclude}, {"include", r.Include}, {"acknowledge", r.Acknowledge}}
	for _, l := range lists {
		for _, name := range l.names {
			if err := checkName(name); err != nil {
				return fmt.Errorf("debian: %s: %w", l.key, err)
			}
		}
	}
	for _, name := range r.Exclude {
		if slices.Contains(r.Packages, name) {
			return fmt.Errorf("debian: %s is both in packages and in exclude", name)
		}
	}
	for _, glob := range r.ExcludePaths {
		if _, err := path.Match(glob, ""); err != nil || glob == "" || strings.HasPrefix(glob, "/") {
			return fmt.Errorf("debian: exclude_paths: %q: expected a glob relative to the root", glob)
		}
	}
	return nil
}

// Hash identifies what resolving depends on: not the order of the lists, and
// not the fields that only say what becomes of the packages.
func (r Request) Hash() string {
	r = r.WithDefaults()
	text, err := json.Marshal([]any{r.Suite, sorted(r.Components), sorted(r.Packages), sorted(r.Exclude), sorted(r.Include)})
	if err != nil {
		panic(err) // lists of strings always encode
	}
	sum := sha256.Sum256(text)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func sorted(list []string) []string {
	out := slices.Sorted(slices.Values(list))
	if out == nil {
		out = []string{}
	}
	return slices.Compact(out)
}

// Architecture is Debian's name for a platform that Go names goarch.
func Architecture(goarch string) (string, error) {
	switch goarch {
	case "amd64", "arm64", "riscv64", "s390x":
		return goarch, nil
	case "386":
		return "i386", nil
	case "arm":
		return "armhf", nil
	case "ppc64le":
		return "ppc64el", nil
	}
	return "", fmt.Errorf("debian: no architecture for %s", goarch)
}

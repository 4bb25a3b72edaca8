package provenance

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os/exec"
	"regexp"
	"strings"
)

// Source is where the sources came from.
type Source struct {
	Repository string // URI, without credentials; empty: not told
	Revision   string // commit; empty: no repository
	Dirty      bool   // files differed from the commit
	Prefix     string // the folder that was asked about, below the root of the work tree
}

// GitSource asks git about the work tree that dir lies in: a folder that is in
// none gives the zero Source. Files that git ignores are not looked at.
func GitSource(ctx context.Context, dir string) (Source, error) {
	said, err := git(ctx, dir, "rev-parse", "HEAD", "--show-prefix")
	var status *exec.ExitError
	switch {
	case errors.As(err, &status), errors.Is(err, exec.ErrNotFound):
		return Source{}, nil // no work tree, no commit yet, or no git
	case err != nil:
		return Source{}, err
	}
	changes, err := git(ctx, dir, "status", "--porcelain")
	if err != nil {
		return Source{}, err
	}
	revision, prefix, _ := strings.Cut(said, "\n")
	s := Source{Revision: revision, Dirty: changes != "", Prefix: prefix}
	if remote, err := git(ctx, dir, "remote", "get-url", "origin"); err == nil {
		s.Repository = repositoryURI(remote)
	}
	return s, nil
}

func git(ctx context.Context, dir string, args ...string) (string, error) {
	out, err := exec.CommandContext(ctx, "git", append([]string{"-C", dir}, args...)...).Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w", args[0], err)
	}
	return strings.TrimSpace(string(out)), nil
}

// short is the form of a remote that only git knows: [USER@]HOST:PATH.
var short = regexp.MustCompile(`^(?:[^@/:]+@)?([^@/:]+):([^/].*|/.*)$`)

// repositoryURI makes a URI of a git remote, without user, password and query:
// tokens stand there. Folders of this machine say nothing to others.
func repositoryURI(remote string) string {
	if !strings.Contains(remote, "://") {
		m := short.FindStringSubmatch(remote)
		if m == nil {
			return ""
		}
		remote = "ssh://" + m[1] + "/" + strings.TrimPrefix(m[2], "/")
	}
	u, err := url.Parse(remote)
	if err != nil || u.Host == "" || u.Scheme == "file" {
		return ""
	}
	u = &url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	return "git+" + u.String()
}

func (s Source) descriptor() ResourceDescriptor {
	uri := s.Repository
	if uri != "" {
		uri += "@" + s.Revision
	}
	return ResourceDescriptor{
		Name: "source", URI: uri, Digest: map[string]string{"gitCommit": s.Revision},
		Annotations: map[string]any{"dirty": s.Dirty},
	}
}

// escape is a version as a purl has it.
func escape(version string) string { return strings.ReplaceAll(url.PathEscape(version), "+", "%2B") }

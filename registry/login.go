package registry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/docker/cli/cli/config/types"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"bareboat/internal/oci"
)

// Hub is the registry that is meant where none is named, as in Docker.
const Hub = hub

var (
	errNotLoggedIn = errors.New("not logged in")
	errBadKey      = errors.New("not HOST[:PORT][/PATH]")
)

// Login tries a user's name and password against a registry, and keeps them in
// the auth file, or in the credential helper that the file names for the
// registry. The key is HOST[:PORT], or with a path HOST[:PORT]/PATH what is used
// for the repositories below it. It returns where they are kept.
//
// The file is Options.AuthFile, else $REGISTRY_AUTH_FILE, else
// $XDG_RUNTIME_DIR/containers/auth.json, as Podman has it
// (containers-auth.json(5)). It is written whole or not at all, and what else
// stands in it stays. What is wrong is an *Error.
func (c *Client) Login(ctx context.Context, key, user, password string) (where string, err error) {
	s, err := c.account(ctx, "log in", key)
	if err != nil {
		return "", err
	}
	switch {
	case user == "" || strings.ContainsAny(user, ":\x00\n"):
		return "", s.fail(ctx, fmt.Errorf("%w: %q is no user's name", errCredentials, user))
	case password == "":
		return "", s.fail(ctx, fmt.Errorf("%w: the password is empty", errCredentials))
	}
	s.credential = credential{types.AuthConfig{Username: user, Password: password}, "this login"}
	if err := s.try(ctx); err != nil {
		return "", s.fail(ctx, err)
	}
	f, err := openAuthFile(c.authFile())
	if err == nil {
		where, err = f.keep(key, user, password)
	}
	if err != nil {
		return "", s.fail(ctx, err)
	}
	return where, nil
}

// Logout forgets what Login kept under the key. It is an *Error where there is
// nothing.
func (c *Client) Logout(ctx context.Context, key string) error {
	s, err := c.account(ctx, "log out", key)
	if err != nil {
		return err
	}
	f, err := openAuthFile(c.authFile())
	if err == nil {
		err = f.forget(key)
	}
	if err != nil {
		return s.fail(ctx, err)
	}
	return nil
}

// LogoutAll forgets everything that the auth file has, and what its credential
// helpers have for the registries that it names.
func (c *Client) LogoutAll(ctx context.Context) error {
	s := &session{op: "log out", ref: oci.Reference{Registry: "of all registries"}}
	f, err := openAuthFile(c.authFile())
	if err == nil {
		err = f.forgetAll()
	}
	if err != nil {
		return s.fail(ctx, err)
	}
	return nil
}

// User is whom the client is logged in as at a registry, or below one of its
// paths.
func (c *Client) User(ctx context.Context, key string) (string, error) {
	s, err := c.account(ctx, "log in", key)
	if err != nil {
		return "", err
	}
	found, err := c.credential(s.ref)
	if errors.Is(err, os.ErrNotExist) || err == nil && found.Username == "" {
		err = errNotLoggedIn
	}
	if err != nil {
		return "", s.fail(ctx, err)
	}
	return found.Username, nil
}

// account is a session about credentials, which needs none to begin with.
func (c *Client) account(ctx context.Context, op, key string) (*session, error) {
	host, path, _ := strings.Cut(key, "/")
	s := &session{client: c, op: op, ref: oci.Reference{Registry: host, Repository: path}}
	parsed, err := oci.ParseReference(host + "/" + cmp.Or(path, "x"))
	if err != nil || parsed.Registry != host || parsed.Tag != "" || parsed.Digest != "" || strings.HasSuffix(key, "/") {
		s.ref = oci.Reference{Registry: key}
		return nil, s.fail(ctx, errBadKey)
	}
	var option []name.Option
	if c.mayBePlain(host) {
		option = append(option, name.Insecure)
	}
	if s.host, err = name.NewRegistry(host, option...); err != nil {
		return nil, s.fail(ctx, errBadKey)
	}
	s.traffic = &traffic{inner: c.base, plain: c.mayBePlain}
	return s, nil
}

// try makes the request that a registry answers to whom it knows.
func (s *session) try(ctx context.Context) error {
	way, err := s.speak(ctx)
	if err != nil {
		return err
	}
	at := url.URL{Scheme: s.host.Scheme(), Host: s.host.RegistryStr(), Path: "/v2/"}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return err
	}
	answer, err := (&http.Client{Transport: way}).Do(req)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	return transport.CheckError(answer, http.StatusOK)
}

// authFile is the file that is written.
func (c *Client) authFile() string {
	paths, _ := authFiles(c.options.AuthFile)
	return paths[0]
}

package registry

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/docker/docker-credential-helpers/client"
	"github.com/docker/docker-credential-helpers/credentials"
)

// authFile is an auth file that is to be changed. What we know nothing of stays
// as it stands.
type authFile struct {
	path    string
	whole   map[string]json.RawMessage
	auths   map[string]json.RawMessage
	helpers map[string]string // by host
	store   string            // the helper for every other host
}

// openAuthFile reads a file; one that is not there is an empty one.
func openAuthFile(path string) (*authFile, error) {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real // a link stays one
	}
	f := &authFile{path: path}
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %w", errCredentials, err)
	}
	if len(bytes.TrimSpace(text)) > 0 {
		err = f.parse(text)
		if err != nil {
			return nil, fmt.Errorf("%w: read %s: %w", errCredentials, path, err)
		}
	}
	if f.whole == nil {
		f.whole = map[string]json.RawMessage{}
	}
	if f.auths == nil {
		f.auths = map[string]json.RawMessage{}
	}
	return f, nil
}

func (f *authFile) parse(text []byte) error {
	if err := json.Unmarshal(text, &f.whole); err != nil {
		return err
	}
	for key, into := range map[string]any{"auths": &f.auths, "credHelpers": &f.helpers, "credsStore": &f.store} {
		if part := f.whole[key]; part != nil {
			if err := json.Unmarshal(part, into); err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
		}
	}
	return nil
}

// helper is the program that keeps what belongs to a key, if any: helpers know
// hosts alone.
func (f *authFile) helper(key string) (program string, ok bool) {
	if host := urlHost(key); host != "" {
		key = host
	}
	if strings.Contains(key, "/") {
		return "", false
	}
	for _, name := range []string{f.helpers[key], f.helpers[serverOf(key)], f.store} {
		if name != "" {
			return "docker-credential-" + name, true
		}
	}
	return "", false
}

// serverOf is a host as helpers know it.
func serverOf(host string) string {
	if host == hub {
		return hubKey
	}
	return host
}

// keep puts a credential where the file says that it belongs.
func (f *authFile) keep(key, user, password string) (where string, err error) {
	if program, ok := f.helper(key); ok {
		kept := &credentials.Credentials{ServerURL: serverOf(key), Username: user, Secret: password}
		if err := client.Store(client.NewShellProgramFunc(program), kept); err != nil {
			return "", fmt.Errorf("%w: let %s keep them: %w", errCredentials, program, err)
		}
		// An entry here would come before a helper for everything. An empty one
		// says that the helper has it, as in Docker.
		f.drop(key)
		f.auths[key] = json.RawMessage("{}")
		return program, f.write()
	}
	entry, err := json.Marshal(map[string]string{
		"auth": base64.StdEncoding.EncodeToString([]byte(user + ":" + password)),
	})
	if err != nil {
		return "", err
	}
	f.drop(key)
	f.auths[key] = entry
	return f.path, f.write()
}

// forget takes away what is kept for a key.
func (f *authFile) forget(key string) error {
	erased, err := f.erase(key)
	if err != nil {
		return err
	}
	if f.drop(key) {
		return f.write()
	}
	if !erased {
		return errNotLoggedIn
	}
	return nil
}

// forgetAll takes everything away, also from the helpers where the file says
// that they have it.
func (f *authFile) forgetAll() error {
	for _, key := range slices.Sorted(maps.Keys(f.helpers)) {
		if _, err := f.erase(key); err != nil {
			return err
		}
	}
	for _, key := range slices.Sorted(maps.Keys(f.auths)) {
		if _, err := f.erase(key); err != nil {
			return err
		}
	}
	clear(f.auths)
	return f.write()
}

// erase lets the key's helper forget it, if it has one that knows it.
func (f *authFile) erase(key string) (erased bool, err error) {
	program, ok := f.helper(key)
	if !ok {
		return false, nil
	}
	run := client.NewShellProgramFunc(program)
	_, err = client.Get(run, serverOf(key))
	if err == nil {
		erased, err = true, client.Erase(run, serverOf(key))
	}
	if err != nil && !credentials.IsErrCredentialsNotFound(err) {
		return false, fmt.Errorf("%w: let %s forget them: %w", errCredentials, program, err)
	}
	return erased, nil
}

// drop takes the entries away that mean the same as key.
func (f *authFile) drop(key string) (found bool) {
	for other := range f.auths {
		if other == key || urlHost(other) == key {
			delete(f.auths, other)
			found = true
		}
	}
	return found
}

// write writes the file, whole or not at all, for its owner alone.
func (f *authFile) write() error {
	auths, err := json.Marshal(f.auths)
	if err != nil {
		return err
	}
	f.whole["auths"] = auths
	text, err := json.MarshalIndent(f.whole, "", "\t")
	if err != nil {
		return err
	}
	if err := replace(f.path, bytes.NewReader(append(text, '\n'))); err != nil {
		return fmt.Errorf("%w: write %s: %w", errCredentials, f.path, err)
	}
	return nil
}

package registry

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/credentials"
	"github.com/docker/cli/cli/config/types"
	"github.com/google/go-containerregistry/pkg/authn"

	"bareboat/internal/oci"
)

const (
	// hub is Docker Hub's registry as references have it, hubKey as auth
	// files do.
	hub    = "docker.io"
	hubKey = "https://index.docker.io/v1/"
)

// errCredentials is what errors wrap that come from auth files and helpers.
var errCredentials = errors.New("credentials")

// credential is what to show a registry, and where it was found. The zero
// value is to come without one.
type credential struct {
	types.AuthConfig
	source string
}

func (c credential) isEmpty() bool {
	return c.Username == "" && c.Password == "" && c.IdentityToken == "" && c.RegistryToken == ""
}

func (c credential) authenticator() authn.Authenticator {
	if c.isEmpty() {
		return authn.Anonymous
	}
	return authn.FromConfig(authn.AuthConfig{
		Username: c.Username, Password: c.Password,
		IdentityToken: c.IdentityToken, RegistryToken: c.RegistryToken,
	})
}

// secrets are what must not be seen in any message.
func (c credential) secrets() []string {
	return slices.DeleteFunc([]string{c.Password, c.IdentityToken, c.RegistryToken}, func(s string) bool { return s == "" })
}

// credential finds what to show the registry of ref: the first file that has
// something for it counts, and in it the entry that names the most of ref.
func (c *Client) credential(ref oci.Reference) (credential, error) {
	files, named := authFiles(c.options.AuthFile)
	for _, path := range files {
		found, err := credentialIn(path, ref)
		if err != nil && !named && !canBeAt(path) {
			continue
		}
		if err != nil || !found.isEmpty() {
			return found, err
		}
	}
	return credential{}, nil
}

// canBeAt tells whether there is a file at a path. In a folder that the user may
// not enter, as /run/containers is where root has used Podman, there is none of
// the user's.
func canBeAt(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, os.ErrNotExist) && !errors.Is(err, os.ErrPermission)
}

// authFiles are the files to look into, in this order, as Podman has it
// (containers-auth.json(5)). One that was named is the only one.
func authFiles(named string) (paths []string, isNamed bool) {
	if named == "" {
		named = os.Getenv("REGISTRY_AUTH_FILE")
	}
	if named != "" {
		return []string{named}, true
	}
	home, _ := os.UserHomeDir() // without one, these paths name no file
	directory := func(variable string, otherwise ...string) string {
		if dir := os.Getenv(variable); dir != "" {
			return dir
		}
		return filepath.Join(otherwise...)
	}
	runtime := filepath.Join("/run/containers", strconv.Itoa(os.Getuid()))
	if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
		runtime = filepath.Join(dir, "containers")
	}
	return []string{
		filepath.Join(runtime, "auth.json"),
		filepath.Join(directory("XDG_CONFIG_HOME", home, ".config"), "containers", "auth.json"),
		filepath.Join(directory("DOCKER_CONFIG", home, ".docker"), "config.json"),
	}, false
}

// credentialIn looks into one file. Its helper for the registry comes before
// its entries, and those before its helper for everything.
func credentialIn(path string, ref oci.Reference) (credential, error) {
	file, err := readAuthFile(path)
	if err != nil {
		return credential{}, err
	}
	server := ref.Registry
	if server == hub {
		server = hubKey
	}
	for _, key := range []string{ref.Registry, server} {
		if helper := file.CredentialHelpers[key]; helper != "" {
			return askHelper(file, helper, server)
		}
	}
	if found := entry(file.AuthConfigs, ref); found != (types.AuthConfig{}) {
		return credential{found, path}, nil
	}
	if file.CredentialsStore != "" {
		return askHelper(file, file.CredentialsStore, server)
	}
	return credential{}, nil
}

func readAuthFile(path string) (*configfile.ConfigFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errCredentials, err)
	}
	defer f.Close()
	file := configfile.New(path)
	if err := file.LoadFromReader(f); err != nil {
		return nil, fmt.Errorf("%w: read %s: %w", errCredentials, path, err)
	}
	return file, nil
}

// entry finds what names the most of ref: "host/team/chat" before "host/team"
// before "host", and at last the host in the form of a URL, as Docker writes it.
func entry(all map[string]types.AuthConfig, ref oci.Reference) types.AuthConfig {
	for key := ref.Name(); key != ""; key = parent(key) {
		if found := clean(all[key]); found != (types.AuthConfig{}) {
			return found
		}
	}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		if found := clean(all[key]); urlHost(key) == ref.Registry && found != (types.AuthConfig{}) {
			return found
		}
	}
	return types.AuthConfig{}
}

// parent is key without its last path element, empty for a host.
func parent(key string) string { return key[:max(0, strings.LastIndex(key, "/"))] }

// clean leaves what counts: Docker notes the key in each entry, and leaves
// entries with nothing else where a helper keeps the secret.
func clean(a types.AuthConfig) types.AuthConfig {
	a.ServerAddress, a.Auth = "", ""
	return a
}

// urlHost is the registry that a key in the form of a URL means, empty for
// other keys.
func urlHost(key string) string {
	_, rest, ok := strings.Cut(key, "://")
	if !ok {
		return ""
	}
	host, _, _ := strings.Cut(rest, "/")
	switch host {
	case "index.docker.io", "registry-1.docker.io":
		return hub
	}
	return host
}

// askHelper asks docker-credential-NAME.
func askHelper(file *configfile.ConfigFile, helper, server string) (credential, error) {
	program := "docker-credential-" + helper
	found, err := credentials.NewNativeStore(file, helper).Get(server)
	if err != nil {
		return credential{}, fmt.Errorf("%w: ask %s about %s: %w", errCredentials, program, server, err)
	}
	return credential{clean(found), program}, nil
}

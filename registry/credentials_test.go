package registry_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bareboat/internal/oci"
	"bareboat/registry"
)

// writeAuth writes an auth file with one entry.
func writeAuth(t *testing.T, path, key, user, word string) string {
	t.Helper()
	return writeFile(t, path, fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, key, encoded(user, word)), 0o600)
}

func encoded(user, word string) string {
	return base64.StdEncoding.EncodeToString([]byte(user + ":" + word))
}

func writeFile(t *testing.T, path, content string, mode os.FileMode) string {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// whoami is a registry that notes who asks it.
func whoami(t *testing.T) (ref oci.Reference, user func(registry.Options) string) {
	t.Helper()
	var last string
	ref = serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, word, ok := r.BasicAuth()
		if ok {
			last = name + ":" + word
			w.WriteHeader(http.StatusNotFound)
			return
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	return ref, func(o registry.Options) string {
		last = ""
		_, err := registry.New(o).Resolve(t.Context(), ref)
		if last == "" {
			failure(t, err, registry.Unauthorized)
		}
		return last
	}
}

// The files are searched in Podman's order, and the first that has something
// for the registry counts.
func TestAuthFileOrder(t *testing.T) {
	home := isolate(t)
	ref, user := whoami(t)
	if got := user(registry.Options{}); got != "" {
		t.Fatalf("without a file: %q", got)
	}
	var option string
	// From the last to the first, each wins over those before it.
	for i, path := range []string{
		"docker/config.json", "config/containers/auth.json", "run/containers/auth.json", "named", "option",
	} {
		path = writeAuth(t, filepath.Join(home, path), ref.Registry, fmt.Sprint("user", i), "word")
		switch filepath.Base(path) {
		case "named":
			t.Setenv("REGISTRY_AUTH_FILE", path)
		case "option":
			option = path
		}
		want := fmt.Sprintf("user%d:word", i)
		if got := user(registry.Options{AuthFile: option}); got != want {
			t.Errorf("with %s: %q; want %q", path, got, want)
		}
	}
	// A file that was named is the only one, an unnamed one is not.
	writeAuth(t, filepath.Join(home, "named"), "other.example", "x", "y")
	if got := user(registry.Options{}); got != "" {
		t.Errorf("with nothing in REGISTRY_AUTH_FILE: %q", got)
	}
	t.Setenv("REGISTRY_AUTH_FILE", "")
	writeAuth(t, filepath.Join(home, "run/containers/auth.json"), "other.example", "x", "y")
	if got := user(registry.Options{}); got != "user1:word" {
		t.Errorf("with nothing in the first file: %q", got)
	}
}

func TestDefaultAuthFiles(t *testing.T) {
	home := isolate(t)
	for _, variable := range []string{"XDG_CONFIG_HOME", "DOCKER_CONFIG"} {
		t.Setenv(variable, "")
	}
	ref, user := whoami(t)
	for _, path := range []string{".docker/config.json", ".config/containers/auth.json"} {
		writeAuth(t, filepath.Join(home, path), ref.Registry, "ada", path)
		if got := user(registry.Options{}); got != "ada:"+path {
			t.Errorf("with %s: %q", path, got)
		}
	}
}

// Without XDG_RUNTIME_DIR the first file lies in a folder that may be root's.
func TestAuthFileWhereTheUserMayNotLook(t *testing.T) {
	home := isolate(t)
	closed := filepath.Join(home, "run", "containers")
	if err := os.MkdirAll(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(closed, 0); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(closed, 0o700)
	ref, user := whoami(t)
	writeAuth(t, filepath.Join(home, "config/containers/auth.json"), ref.Registry, "ada", "word")
	if got := user(registry.Options{}); got != "ada:word" {
		t.Errorf("with a folder that is closed: %q", got)
	}
}

func TestAuthEntries(t *testing.T) {
	home := isolate(t)
	ref, user := whoami(t)
	path := filepath.Join(home, "run/containers/auth.json")
	for name, test := range map[string]struct{ keys, want string }{
		"host":            {"HOST", "HOST"},
		"repository":      {"HOST HOST/team HOST/team/chat", "HOST/team/chat"},
		"namespace":       {"HOST HOST/team HOST/other", "HOST/team"},
		"other namespace": {"HOST/other HOST/tea", ""},
		"longer":          {"HOST/team/chat/web", ""},
		"URL":             {"https://HOST/v1/", "https://HOST/v1/"},
		"URL and host":    {"https://HOST/v1/ HOST", "HOST"},
		"other":           {"example.com https://example.com/v1/", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var entries []string
			for key := range strings.FieldsSeq(test.keys) {
				key = strings.ReplaceAll(key, "HOST", ref.Registry)
				entries = append(entries, fmt.Sprintf(`%q:{"auth":%q}`, key, encoded("ada", key)))
			}
			writeFile(t, path, `{"auths":{`+strings.Join(entries, ",")+`}}`, 0o600)
			want := ""
			if test.want != "" {
				want = "ada:" + strings.ReplaceAll(test.want, "HOST", ref.Registry)
			}
			if got := user(registry.Options{}); got != want {
				t.Errorf("with %s: %q; want %q", test.keys, got, want)
			}
		})
	}
}

// helper puts docker-credential-test into PATH.
func helper(t *testing.T, script string) {
	t.Helper()
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "docker-credential-test"), "#!/bin/sh\n"+script, 0o700)
	t.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
}

func TestCredentialHelper(t *testing.T) {
	home := isolate(t)
	ref, user := whoami(t)
	path := filepath.Join(home, "run/containers/auth.json")
	helper(t, `read server; echo "{\"ServerURL\":\"$server\",\"Username\":\"$1\",\"Secret\":\"$server\"}"`)
	for _, content := range []string{
		fmt.Sprintf(`{"credHelpers":{%q:"test"}}`, ref.Registry),
		`{"credsStore":"test"}`,
		fmt.Sprintf(`{"auths":{%q:{}},"credsStore":"test"}`, ref.Registry),
	} {
		writeFile(t, path, content, 0o600)
		if got, want := user(registry.Options{}), "get:"+ref.Registry; got != want {
			t.Errorf("with %s: %q; want %q", content, got, want)
		}
	}
	helper(t, `echo "credentials not found in native keychain"; exit 1`)
	if got := user(registry.Options{}); got != "" {
		t.Errorf("with a helper that knows nothing: %q", got)
	}
}

func TestBadCredentials(t *testing.T) {
	home := isolate(t)
	ref, _ := whoami(t)
	path := filepath.Join(home, "run/containers/auth.json")
	helper(t, `echo "the keychain is locked"; exit 1`)
	for name, test := range map[string]struct{ content, names string }{
		"no JSON":        {`auths:`, path},
		"no base64":      {fmt.Sprintf(`{"auths":{%q:{"auth":"?"}}}`, ref.Registry), path},
		"no user":        {fmt.Sprintf(`{"auths":{%q:{"auth":"eA=="}}}`, ref.Registry), path},
		"missing helper": {`{"credsStore":"missing"}`, "docker-credential-missing"},
		"broken helper":  {`{"credsStore":"test"}`, "the keychain is locked"},
	} {
		t.Run(name, func(t *testing.T) {
			writeFile(t, path, test.content, 0o600)
			_, err := registry.New(registry.Options{}).Resolve(t.Context(), ref)
			if e := failure(t, err, registry.Credentials); !strings.Contains(e.Error(), test.names) || e.Hint() == "" {
				t.Errorf("%q, hint %q", e, e.Hint())
			}
		})
	}
	t.Setenv("REGISTRY_AUTH_FILE", filepath.Join(home, "missing"))
	_, err := registry.New(registry.Options{}).Resolve(t.Context(), ref)
	if e := failure(t, err, registry.Credentials); !strings.Contains(e.Error(), filepath.Join(home, "missing")) {
		t.Errorf("%q", e)
	}
}

// Whatever stands in an auth file, it is a credential or an error that names
// the file.
func FuzzAuthFile(f *testing.F) {
	f.Add([]byte(`{"auths":{"127.0.0.1:1":{"auth":"YWRhOng="}}}`))
	f.Add([]byte(`{"auths":{"https://127.0.0.1:1/v1/":{"identitytoken":"x"}}}`))
	f.Add([]byte(`{"auths":{"127.0.0.1:1/team":{"auth":"eA=="}}}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, content []byte) {
		if strings.Contains(strings.ToLower(string(content)), "cred") {
			return // would run a program
		}
		path := writeFile(t, filepath.Join(t.TempDir(), "auth.json"), string(content), 0o600)
		ref := reference(t, "127.0.0.1:1/team/chat:1") // where nothing listens
		_, err := registry.New(registry.Options{AuthFile: path}).Resolve(t.Context(), ref)
		if e, ok := err.(*registry.Error); !ok || e.Kind == registry.Credentials && !strings.Contains(e.Error(), path) {
			t.Errorf("resolve = %v", err)
		}
	})
}

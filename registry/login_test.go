package registry_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/bcrypt"

	"bareboat/registry"
)

// protected is a docker-registry that lets ada in alone.
func protected(t *testing.T) (address string) {
	t.Helper()
	hash := must[[]byte](t)(bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost))
	users := writeFile(t, filepath.Join(t.TempDir(), "htpasswd"), "ada:"+string(hash)+"\n", 0o600)
	return dockerRegistry(t, "REGISTRY_AUTH=htpasswd", "REGISTRY_AUTH_HTPASSWD_REALM=test", "REGISTRY_AUTH_HTPASSWD_PATH="+users)
}

// run runs a program and gives what it prints.
func run(t *testing.T, stdin string, command ...string) string {
	t.Helper()
	c := exec.CommandContext(t.Context(), command[0], command[1:]...)
	c.Stdin = strings.NewReader(stdin)
	var said strings.Builder
	c.Stderr = &said
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, said.String())
	}
	return strings.TrimSpace(string(out))
}

// What login keeps, Podman and Skopeo accept.
func TestLogin(t *testing.T) {
	runtime := os.Getenv("XDG_RUNTIME_DIR")
	home := isolate(t)
	host := protected(t)
	file := filepath.Join(home, "run/containers/auth.json")
	writeFile(t, file, `{"auths":{"other.example.com":{"auth":"eDp5","email":"x@y"}},"unknown":[1,2]}`, 0o644)
	before := string(must[[]byte](t)(os.ReadFile(file)))
	c := registry.New(registry.Options{})

	_, err := c.Login(t.Context(), host, "ada", "wrong-secret")
	e := failure(t, err, registry.Unauthorized)
	if e.Error() != "log in "+host+": unauthorized" || e.Hint() == "" || strings.Contains(e.Hint(), "wrong-secret") {
		t.Errorf("with a wrong password: %q, hint %q", e, e.Hint())
	}
	if after := string(must[[]byte](t)(os.ReadFile(file))); after != before {
		t.Errorf("a wrong password was kept: %s", after)
	}

	where, err := c.Login(t.Context(), host, "ada", password)
	if err != nil || where != file {
		t.Fatalf("login = %q, %v", where, err)
	}
	if mode := must[os.FileInfo](t)(os.Stat(file)).Mode().Perm(); mode != 0o600 {
		t.Errorf("the auth file has mode %o", mode)
	}
	var content struct {
		Auths   map[string]map[string]string `json:"auths"`
		Unknown []int                        `json:"unknown"`
	}
	if err := json.Unmarshal(must[[]byte](t)(os.ReadFile(file)), &content); err != nil {
		t.Fatal(err)
	}
	if content.Auths["other.example.com"]["email"] != "x@y" || len(content.Unknown) != 2 || len(content.Auths) != 2 {
		t.Errorf("the auth file has %+v", content)
	}
	if got, err := c.User(t.Context(), host); got != "ada" || err != nil {
		t.Errorf("user %q, %v", got, err)
	}

	dir, digest := writeLayout(t, 2)
	ref := reference(t, host+"/team/chat:1")
	must[registry.Pushed](t)(c.Push(t.Context(), dir, digest, ref, nil))
	if got := run(t, "", "skopeo", "inspect", "--tls-verify=false", "--authfile", file, "--format", "{{.Digest}}", "docker://"+ref.String()); got != digest.String() {
		t.Errorf("skopeo says %s; want %s", got, digest)
	}
	t.Setenv("XDG_RUNTIME_DIR", runtime)
	if got := run(t, "", "podman", "login", "--authfile", file, "--get-login", host); got != "ada" {
		t.Errorf("podman says %q", got)
	}
	store := t.TempDir()
	run(t, "", "podman", "--root", store, "--runroot", filepath.Join(store, "run"), "--storage-driver", "vfs",
		"pull", "--quiet", "--tls-verify=false", "--authfile", file, ref.String())
	run(t, "", "podman", "unshare", "rm", "-rf", store) // what the layers hold is not ours alone
}

// What podman login keeps, we read; and we log out of it.
func TestPodmanLogin(t *testing.T) {
	runtime := os.Getenv("XDG_RUNTIME_DIR")
	home := isolate(t)
	host := protected(t)
	file := filepath.Join(home, "auth.json")
	c := registry.New(registry.Options{AuthFile: file})
	t.Setenv("XDG_RUNTIME_DIR", runtime)
	run(t, password, "podman", "login", "--tls-verify=false", "--authfile", file, "-u", "ada", "--password-stdin", host)
	if got, err := c.User(t.Context(), host); got != "ada" || err != nil {
		t.Errorf("user %q, %v", got, err)
	}
	dir, digest := writeLayout(t, 1)
	pushed, err := c.Push(t.Context(), dir, digest, reference(t, host+"/team/chat:1"), nil)
	if err != nil || pushed.Sent != 2 {
		t.Errorf("push = %+v, %v", pushed, err)
	}
	if has, err := c.Has(t.Context(), reference(t, host+"/team/chat:1"), digest); !has || err != nil {
		t.Errorf("has = %t, %v", has, err)
	}
	if err := c.Logout(t.Context(), host); err != nil {
		t.Fatal(err)
	}
	if e := failure(t, c.Logout(t.Context(), host), registry.Unauthorized); e.Error() != "log out "+host+": not logged in" {
		t.Errorf("%q", e)
	}
	_, err = c.User(t.Context(), host)
	failure(t, err, registry.Unauthorized)
}

// With credentials, too, one request tells whether there is something to push.
func TestHasWithCredentials(t *testing.T) {
	isolate(t)
	seen := &counted{Handler: behind(t, protected(t))}
	ref := serve(t, seen)
	c := registry.New(registry.Options{})
	must[string](t)(c.Login(t.Context(), ref.Registry, "ada", password))
	dir, digest := writeLayout(t, 1)
	must[registry.Pushed](t)(c.Push(t.Context(), dir, digest, ref, nil))
	seen.all.Store(0)
	has, err := c.Has(t.Context(), ref, digest)
	if !has || err != nil || seen.all.Load() != 1 {
		t.Errorf("has = %t, %v, after %d requests", has, err, seen.all.Load())
	}
}

// A login for a path serves what lies below it, and nothing else.
func TestLoginForPath(t *testing.T) {
	home := isolate(t)
	host := protected(t)
	c := registry.New(registry.Options{})
	must[string](t)(c.Login(t.Context(), host+"/team", "ada", password))
	dir, digest := writeLayout(t, 1)
	must[registry.Pushed](t)(c.Push(t.Context(), dir, digest, reference(t, host+"/team/chat:1"), nil))
	_, err := c.Push(t.Context(), dir, digest, reference(t, host+"/other/chat:1"), nil)
	failure(t, err, registry.Unauthorized)
	if got := run(t, "", "podman", "login", "--authfile", filepath.Join(home, "run/containers/auth.json"), "--get-login", host+"/team"); got != "ada" {
		t.Errorf("podman says %q", got)
	}
	if err := c.LogoutAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err = c.User(t.Context(), host+"/team")
	failure(t, err, registry.Unauthorized)
}

// Where the file names a helper, the helper keeps the password, and the file does not.
func TestLoginWithHelper(t *testing.T) {
	for name, config := range map[string]string{
		"for the host": `{"credHelpers":{"HOST":"test"}}`, "for everything": `{"credsStore":"test"}`,
	} {
		t.Run(name, func(t *testing.T) {
			home := isolate(t)
			host := protected(t)
			kept := filepath.Join(home, "kept")
			helper(t, `case $1 in
store) cat >`+kept+` ;;
get) cat `+kept+` 2>/dev/null || { echo "credentials not found in native keychain"; exit 1; } ;;
erase) rm `+kept+` ;;
esac`)
			file := writeFile(t, filepath.Join(home, "run/containers/auth.json"), strings.ReplaceAll(config, "HOST", host), 0o600)
			c := registry.New(registry.Options{})
			if where, err := c.Login(t.Context(), host, "ada", password); where != "docker-credential-test" || err != nil {
				t.Fatalf("login = %q, %v", where, err)
			}
			if text := string(must[[]byte](t)(os.ReadFile(file))); strings.Contains(text, `"auth"`) || !strings.Contains(text, `"test"`) {
				t.Errorf("the auth file: %s", text)
			}
			dir, digest := writeLayout(t, 1)
			must[registry.Pushed](t)(c.Push(t.Context(), dir, digest, reference(t, host+"/team/chat:1"), nil))
			if err := c.Logout(t.Context(), host); err != nil {
				t.Fatal(err)
			}
			if len(files(t, kept)) != 0 {
				t.Error("the helper has it still")
			}
			failure(t, c.Logout(t.Context(), host), registry.Unauthorized)
		})
	}
}

// What cannot be read is told, and stays as it is.
func TestLoginBadFile(t *testing.T) {
	home := isolate(t)
	host := protected(t)
	for _, content := range []string{`{"auths":`, `[]`, `{"auths":[]}`, `{"credHelpers":1}`} {
		file := writeFile(t, filepath.Join(home, "run/containers/auth.json"), content, 0o600)
		_, err := registry.New(registry.Options{}).Login(t.Context(), host, "ada", password)
		if e := failure(t, err, registry.Credentials); !strings.Contains(e.Error(), file) || e.Hint() == "" {
			t.Errorf("with %s: %q, hint %q", content, e, e.Hint())
		}
		if after := string(must[[]byte](t)(os.ReadFile(file))); after != content {
			t.Errorf("%s became %s", content, after)
		}
	}
}

func TestLoginBadKey(t *testing.T) {
	c := client(t)
	for _, key := range []string{"", "https://example.com", "example.com/", "example.com/team:1", "Team/UPPER", "a b"} {
		_, err := c.Login(t.Context(), key, "ada", password)
		if e := failure(t, err, registry.Other); e.Hint() == "" {
			t.Errorf("%q: %q without a hint", key, e)
		}
	}
	for _, user := range []string{"", "a:b"} {
		_, err := c.Login(t.Context(), "127.0.0.1:1", user, password)
		failure(t, err, registry.Credentials)
	}
}

// Whatever stands in an auth file, a change keeps what it does not concern, and
// what comes of it can be read.
func FuzzChangeAuthFile(f *testing.F) {
	f.Add([]byte(`{"auths":{"example.com":{"auth":"eDp5"}},"credHelpers":{"a":"b"}}`))
	f.Add([]byte(`{"auths":null}`))
	f.Add([]byte(`null`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, content []byte) {
		if strings.Contains(strings.ToLower(string(content)), "cred") {
			return // would run a program
		}
		path := writeFile(t, filepath.Join(t.TempDir(), "auth.json"), string(content), 0o600)
		entry, err := registry.KeepCredential(path, "127.0.0.1:1/team", "ada", password)
		if err != nil {
			if after := must[[]byte](t)(os.ReadFile(path)); string(after) != string(content) || !strings.Contains(err.Error(), path) {
				t.Errorf("%v, and %q became %q", err, content, after)
			}
			return
		}
		if entry != path {
			t.Errorf("kept in %s", entry)
		}
		var whole map[string]json.RawMessage
		if err := json.Unmarshal(must[[]byte](t)(os.ReadFile(path)), &whole); err != nil {
			t.Error(err)
		}
		var old map[string]json.RawMessage
		if json.Unmarshal(content, &old) == nil && len(whole) < len(old) {
			t.Errorf("%q lost a key", content)
		}
	})
}

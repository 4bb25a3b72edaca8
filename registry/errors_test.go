package registry_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"bareboat/internal/oci"
	"bareboat/registry"
)

const password = "correct-horse-battery"

// withBasic lets only user "ada" through, by her password in every request.
func withBasic(inner http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, word, _ := r.BasicAuth(); user != "ada" || word != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	})
}

// withTokens is a registry that gives out a token for ada's password.
func withTokens(inner http.Handler) http.Handler {
	const token = "token-of-ada"
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			if user, word, _ := r.BasicAuth(); user != "ada" || word != password {
				w.WriteHeader(http.StatusUnauthorized)
				fmt.Fprintf(w, `{"errors":[{"code":"UNAUTHORIZED","message":"no token for %s"}]}`, word)
				return
			}
			if got := r.URL.Query().Get("scope"); !strings.HasPrefix(got, "repository:team/chat:") {
				w.WriteHeader(http.StatusBadRequest)
				return
			}
			json.NewEncoder(w).Encode(map[string]string{"token": token})
		case r.Header.Get("Authorization") != "Bearer "+token:
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="test"`, r.Host))
			w.WriteHeader(http.StatusUnauthorized)
		default:
			inner.ServeHTTP(w, r)
		}
	})
}

func TestCredentials(t *testing.T) {
	for name, protect := range map[string]func(http.Handler) http.Handler{"basic": withBasic, "bearer": withTokens} {
		t.Run(name, func(t *testing.T) {
			home := isolate(t)
			ref := serve(t, protect(quiet()))
			c := registry.New(registry.Options{})
			dir, digest := writeLayout(t, 2)

			_, err := c.Push(t.Context(), dir, digest, ref, nil)
			e := failure(t, err, registry.Unauthorized)
			if want := "push " + ref.Name() + ": unauthorized"; e.Error() != want {
				t.Errorf("without credentials: %q; want %q", e, want)
			}
			if want := "run: bareboat login " + ref.Registry; e.Hint() != want {
				t.Errorf("without credentials: hint %q; want %q", e.Hint(), want)
			}

			file := writeAuth(t, filepath.Join(home, "run/containers/auth.json"), ref.Registry, "ada", "wrong-secret")
			for op, try := range map[string]func() error{
				"push":    func() error { _, err := c.Push(t.Context(), dir, digest, ref, nil); return err },
				"resolve": func() error { _, err := c.Resolve(t.Context(), ref); return err },
				"pull":    func() error { _, err := c.Pull(t.Context(), ref, t.TempDir(), nil); return err },
			} {
				e := failure(t, try(), registry.Unauthorized)
				if !strings.HasPrefix(e.Error(), op+" "+ref.Name()) || !strings.HasSuffix(e.Error(), ": unauthorized") {
					t.Errorf("with a wrong password: %q", e)
				}
				if !strings.Contains(e.Hint(), file) || strings.Contains(e.Error()+e.Hint(), "wrong-secret") {
					t.Errorf("with a wrong password: %q, hint %q", e, e.Hint())
				}
			}

			writeAuth(t, file, ref.Registry, "ada", password)
			if pushed, err := c.Push(t.Context(), dir, digest, ref, nil); err != nil || pushed.Sent != 3 {
				t.Errorf("with the right password: %+v, %v", pushed, err)
			}
			if _, err := c.Pull(t.Context(), ref, t.TempDir(), nil); err != nil {
				t.Error(err)
			}
		})
	}
}

// answer is a registry that has nothing and answers whatever would change that
// with one status.
func answer(status int, body string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v2/":
		case r.Method == http.MethodHead:
			w.WriteHeader(http.StatusNotFound)
		default:
			w.WriteHeader(status)
			io.WriteString(w, body)
		}
	})
}

func TestAnswers(t *testing.T) {
	for name, test := range map[string]struct {
		status int
		body   string
		kind   registry.Kind
		text   string
	}{
		"denied":       {403, `{"errors":[{"code":"DENIED","message":"the tag 1 is immutable"}]}`, registry.Denied, "denied: the tag 1 is immutable"},
		"denied, mute": {403, "", registry.Denied, "denied"},
		"not found":    {404, `{"errors":[{"code":"NAME_UNKNOWN"}]}`, registry.NotFound, "not found"},
		"code alone":   {400, `{"errors":[{"code":"NAME_INVALID"}]}`, registry.Other, "NAME_INVALID"},
		"full":         {507, "", registry.Other, "status 507 Insufficient Storage"},
		"controls":     {400, `{"errors":[{"code":"X","message":"\u001b[31mred\nline\u0007"}]}`, registry.Other, "[31mred line"},
		"leaks":        {400, `{"errors":[{"code":"X","message":"see https://u:p@h.example/a?X-Amz-Signature=abc now"}]}`, registry.Other, "see https://h.example/a now"},
		"long":         {400, `{"errors":[{"code":"X","message":"` + strings.Repeat("ä", 9000) + `"}]}`, registry.Other, strings.Repeat("ä", 300) + "…"},
	} {
		t.Run(name, func(t *testing.T) {
			c, ref := client(t), serve(t, answer(test.status, test.body))
			dir, digest := writeLayout(t, 1)
			_, err := c.Push(t.Context(), dir, digest, ref, nil)
			if e := failure(t, err, test.kind); e.Error() != "push "+ref.Name()+": "+test.text {
				t.Errorf("push: %q; want %q", e, test.text)
			}
		})
	}
}

func TestNotFound(t *testing.T) {
	c, ref := client(t), serve(t, quiet())
	_, err := c.Resolve(t.Context(), ref)
	e := failure(t, err, registry.NotFound)
	if e.Error() != "resolve "+ref.String()+": not found" || e.Hint() == "" {
		t.Errorf("%q, hint %q", e, e.Hint())
	}
	_, err = c.Pull(t.Context(), ref, t.TempDir(), nil)
	failure(t, err, registry.NotFound)
}

func TestDown(t *testing.T) {
	l := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	ref := reference(t, l.Addr().String()+"/team/chat:1")
	l.Close()
	c := client(t)
	dir, digest := writeLayout(t, 1)
	_, err := c.Push(t.Context(), dir, digest, ref, nil)
	e := failure(t, err, registry.Unreachable)
	if e.Error() != "push "+ref.Name()+": connection refused" || !strings.Contains(e.Hint(), "registry serve") {
		t.Errorf("%q, hint %q", e, e.Hint())
	}
}

// hangUp ends the connection of every request that matches.
func hangUp(inner http.Handler, matches func(*http.Request) bool) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if matches(r) {
			io.CopyN(io.Discard, r.Body, 100)
			panic(http.ErrAbortHandler)
		}
		inner.ServeHTTP(w, r)
	})
}

func TestBreaksOffDuringUpload(t *testing.T) {
	c := client(t)
	ref := serve(t, hangUp(quiet(), func(r *http.Request) bool { return r.Method == http.MethodPatch }))
	dir, digest := writeLayout(t, 1)
	_, err := c.Push(t.Context(), dir, digest, ref, nil)
	failure(t, err, registry.Unreachable)
	if _, err := c.Resolve(t.Context(), ref); failure(t, err, registry.NotFound) == nil {
		t.Error("the tag names half an image")
	}
}

// Once is no failure: the upload is tried again.
func TestBreaksOffOnce(t *testing.T) {
	var tries atomic.Int64
	c := client(t)
	ref := serve(t, hangUp(quiet(), func(r *http.Request) bool {
		return r.Method == http.MethodPatch && tries.Add(1) == 1
	}))
	dir, digest := writeLayout(t, 2)
	if _, err := c.Push(t.Context(), dir, digest, ref, nil); err != nil {
		t.Fatal(err)
	}
	to := t.TempDir()
	must[oci.Descriptor](t)(c.Pull(t.Context(), ref, to, nil))
	checkLayout(t, to, dir, digest)
}

func TestUnknownCertificate(t *testing.T) {
	isolate(t)
	server := httptest.NewUnstartedServer(quiet())
	server.Config.ErrorLog = quietLog
	server.StartTLS()
	t.Cleanup(server.Close)
	ref := reference(t, strings.TrimPrefix(server.URL, "https://")+"/team/chat:1")
	dir, digest := writeLayout(t, 1)

	_, err := registry.New(registry.Options{}).Push(t.Context(), dir, digest, ref, nil)
	e := failure(t, err, registry.Insecure)
	if e.Error() != "push "+ref.Name()+": its certificate is signed by an unknown authority" || !strings.Contains(e.Hint(), "SSL_CERT_FILE") {
		t.Errorf("%q, hint %q", e, e.Hint())
	}
	if _, err := registry.New(registry.Options{Insecure: true}).Push(t.Context(), dir, digest, ref, nil); err != nil {
		t.Error(err)
	}
}

// A registry must not lead the client to plain HTTP on another machine.
func TestNoPlainHTTPElsewhere(t *testing.T) {
	c := client(t)
	inner := quiet()
	var away atomic.Bool
	ref := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if away.Load() && strings.Contains(r.URL.Path, "/blobs/") {
			http.Redirect(w, r, "http://registry.invalid/blob", http.StatusTemporaryRedirect)
			return
		}
		inner.ServeHTTP(w, r)
	}))
	dir, digest := writeLayout(t, 1)
	must[registry.Pushed](t)(c.Push(t.Context(), dir, digest, ref, nil))
	away.Store(true)
	_, err := c.Pull(t.Context(), ref, t.TempDir(), nil)
	if e := failure(t, err, registry.Insecure); !strings.Contains(e.Hint(), "--tls-verify=false") {
		t.Errorf("%q, hint %q", e, e.Hint())
	}
}

func TestNoRegistryInTheName(t *testing.T) {
	c := client(t)
	dir, digest := writeLayout(t, 1)
	_, err := c.Push(t.Context(), dir, digest, reference(t, "localhost/chat:1"), nil)
	if e := failure(t, err, registry.Other); e.Error() != "push localhost/chat: the name has no registry" || !strings.Contains(e.Hint(), "--registry") {
		t.Errorf("%q, hint %q", e, e.Hint())
	}
}

// What is wrong with the layout is not the registry's failure, names the
// layout, and leaves nothing in the registry that a tag names.
func TestBadLayout(t *testing.T) {
	for name, spoil := range map[string]func(t *testing.T, dir string, blob string){
		"no folder": func(t *testing.T, dir, _ string) {
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		},
		"blob missing": func(t *testing.T, _, blob string) {
			if err := os.Remove(blob); err != nil {
				t.Fatal(err)
			}
		},
		"blob corrupt": func(t *testing.T, _, blob string) {
			content := must[[]byte](t)(os.ReadFile(blob))
			content[len(content)-1] ^= 1
			overwrite(t, blob, content)
		},
		"blob too short": func(t *testing.T, _, blob string) {
			overwrite(t, blob, must[[]byte](t)(os.ReadFile(blob))[1:])
		},
		"blob too long": func(t *testing.T, _, blob string) {
			overwrite(t, blob, append(must[[]byte](t)(os.ReadFile(blob)), 0))
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, ref := client(t), serve(t, quiet())
			dir, digest := writeLayout(t, 1)
			spoil(t, dir, largest(t, dir))
			_, err := c.Push(t.Context(), dir, digest, ref, nil)
			var e *registry.Error
			if err == nil || errors.As(err, &e) || !strings.HasPrefix(err.Error(), "push "+ref.Name()+": read layout "+dir) {
				t.Errorf("push = %v", err)
			}
			if _, err := c.Resolve(t.Context(), ref); failure(t, err, registry.NotFound) == nil {
				t.Error("the tag names a broken image")
			}
		})
	}
}

func overwrite(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// largest is the layer of an image with one.
func largest(t *testing.T, dir string) (name string) {
	t.Helper()
	var size int64
	for _, path := range files(t, filepath.Join(dir, "blobs")) {
		if info := must[os.FileInfo](t)(os.Stat(path)); info.Size() > size {
			name, size = path, info.Size()
		}
	}
	return name
}

func TestCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	c := client(t)
	ref := serve(t, hangUp(quiet(), func(r *http.Request) bool {
		if r.Method == http.MethodPatch {
			cancel()
		}
		return r.Method == http.MethodPatch
	}))
	dir, digest := writeLayout(t, 2)
	_, err := c.Push(ctx, dir, digest, ref, nil)
	var e *registry.Error
	if !errors.Is(err, context.Canceled) || errors.As(err, &e) {
		t.Errorf("push = %v (%T); want it to be canceled, not the registry's failure", err, err)
	}
}

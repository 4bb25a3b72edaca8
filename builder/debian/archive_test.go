package debian_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"

	"bareboat/builder/debian"
)

var hello = pkg{name: "hello", fields: "Depends: libhello (>= 1.0)"}
var libhello = pkg{name: "libhello"}
var want = debian.Request{Packages: []string{"hello"}}

func TestResolveAndFetch(t *testing.T) {
	r := newRepo(t, hello, libhello, pkg{name: "libhello", version: "1.0+deb13u1", suite: "trixie-security"})
	a := r.archive(t)
	l, err := a.Resolve(t.Context(), want, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Sources) != 3 || l.Sources[0].Signer == "" || !l.Sources[0].Date.Equal(r.date.Truncate(time.Second)) {
		t.Errorf("sources: %+v", l.Sources)
	}
	if len(l.Packages) != 2 || l.Packages[0].Version != "1.0+deb13u1" || l.Packages[0].Suite != "trixie-security" {
		t.Fatalf("packages: %+v", l.Packages)
	}
	if err := a.Fetch(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	r.Close() // with a full cache the mirror is not asked
	if err := a.Fetch(t.Context(), l); err != nil {
		t.Errorf("offline: %v", err)
	}
}

// Every change that a mirror or somebody on the way could make is refused.
func TestInReleaseRefused(t *testing.T) {
	const path = "/debian/dists/trixie/InRelease"
	tests := []struct {
		name   string
		change func(t *testing.T, r *repo)
		want   string
	}{
		{"changed", func(t *testing.T, r *repo) {
			r.put(path, bytes.Replace(r.get(path), []byte("Origin: Test"), []byte("Origin: Evil"), 1))
		}, "signature of key"},
		{"text before", func(t *testing.T, r *repo) {
			r.put(path, append([]byte("Codename: trixie\n"), r.get(path)...))
		}, "text stands before"},
		{"text after", func(t *testing.T, r *repo) {
			r.put(path, append(r.get(path), "Codename: trixie\n"...))
		}, "text stands after"},
		{"a second message after", func(t *testing.T, r *repo) {
			r.put(path, append(r.get(path), r.get(path)...))
		}, "text stands after"},
		{"unsigned", func(t *testing.T, r *repo) {
			r.put(path, []byte(r.release("trixie", nil)))
		}, "not a signed message"},
		{"other key", func(t *testing.T, r *repo) {
			r.put(path, sign(t, r.release("trixie", nil), newKey(t)))
		}, "signed by no known key"},
		{"other suite", func(t *testing.T, r *repo) {
			r.put(path, r.get("/debian/dists/trixie-updates/InRelease"))
		}, `describes suite "trixie-updates"`},
		{"expired", func(t *testing.T, r *repo) {
			r.date, r.valid = now.AddDate(0, 0, -8), 7*24*time.Hour
			r.publish(t, hello, libhello)
		}, "valid until 2026-11-22"},
		{"of the future", func(t *testing.T, r *repo) {
			r.date = now.Add(2 * time.Hour)
			r.publish(t, hello, libhello)
		}, "in the future"},
		{"missing", func(t *testing.T, r *repo) {
			delete(r.files, path)
		}, "404"},
		{"changed index", func(t *testing.T, r *repo) {
			p := r.find(t, "/dists/trixie/main/")
			data := r.get(p)
			data[len(data)/2] ^= 1
			r.put(p, data)
		}, "SHA-256"},
		{"longer index", func(t *testing.T, r *repo) {
			p := r.find(t, "/dists/trixie/main/")
			r.put(p, append(r.get(p), 0))
		}, "longer than"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := newRepo(t, hello, libhello)
			tt.change(t, r)
			a := r.archive(t)
			_, err := a.Resolve(t.Context(), want, "amd64")
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, want %q", err, tt.want)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %v", err)
			}
			if parts, _ := filepath.Glob(filepath.Join(a.Cache, "part-*")); len(parts) > 0 {
				t.Errorf("left behind: %q", parts)
			}
		})
	}
}

// While keys change, a suite carries signatures of keys not known yet.
func TestAnyGoodSignature(t *testing.T) {
	r := newRepo(t, hello, libhello)
	a := r.archive(t)
	other := newKey(t)
	a.Keys = openpgp.EntityList{other}
	for _, suite := range []string{"trixie", "trixie-updates", "trixie-security"} {
		path := base(suite) + "/dists/" + suite + "/InRelease"
		_, text, _ := bytes.Cut(r.get(path), []byte("\n\n"))
		text, _, _ = bytes.Cut(text, []byte("\n-----BEGIN PGP SIGNATURE"))
		r.put(path, sign(t, string(text), r.key, newKey(t), other))
	}
	l, err := a.Resolve(t.Context(), want, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.ToLower(l.Sources[0].Signer); got != hexOf(other) {
		t.Errorf("signer %s, want %s", got, hexOf(other))
	}
}

func TestExpiredAllowed(t *testing.T) {
	r := newRepo(t)
	r.date, r.valid = now.AddDate(0, 0, -30), 7*24*time.Hour
	r.publish(t, hello, libhello)
	a := r.archive(t)
	a.Mirrors.AllowExpired = true
	l, err := a.Resolve(t.Context(), want, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	if !l.Sources[0].Expired {
		t.Errorf("the lock does not tell that the source was expired: %+v", l.Sources[0])
	}
}

func TestRenewRefusesOlder(t *testing.T) {
	r := newRepo(t, hello, libhello)
	a := r.archive(t)
	l, err := a.Resolve(t.Context(), want, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	r.date = r.date.Add(-time.Minute)
	r.publish(t, hello, libhello)
	if _, err := a.Renew(t.Context(), want, l); err == nil || !strings.Contains(err.Error(), "the mirror is out of date") {
		t.Errorf("older: got %v", err)
	}
	r.date = now
	r.publish(t, hello, pkg{name: "libhello", version: "1.1"})
	renewed, err := a.Renew(t.Context(), want, l)
	if err != nil {
		t.Fatal(err)
	}
	changes := debian.Diff(l, renewed)
	if len(changes) != 1 || changes[0].String() != "libhello 1.0 → 1.1" {
		t.Errorf("changes: %v", changes)
	}
}

func TestFetchGone(t *testing.T) {
	r := newRepo(t, hello, libhello)
	a := r.archive(t)
	l, err := a.Resolve(t.Context(), want, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	delete(r.files, r.find(t, "/hello_"))
	err = a.Fetch(t.Context(), l)
	gone, ok := errors.AsType[*debian.GoneError](err)
	if !ok || gone.Package != "hello" || gone.Version != "1.0" || !strings.HasPrefix(gone.URL, r.URL) {
		t.Fatalf("got %v", err)
	}
	// A second mirror may have it still.
	other := newRepo(t, hello, libhello)
	a.Mirrors.Main = append(a.Mirrors.Main, other.URL+"/debian")
	if err := a.Fetch(t.Context(), l); err != nil {
		t.Errorf("with a second mirror: %v", err)
	}
}

func TestFetchRefusesChanged(t *testing.T) {
	r := newRepo(t, hello, libhello)
	a := r.archive(t)
	l, err := a.Resolve(t.Context(), want, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	path := r.find(t, "/hello_")
	good := r.get(path)
	bad := bytes.Clone(good)
	bad[100] ^= 1
	r.put(path, bad)
	if err := a.Fetch(t.Context(), l); err == nil || !strings.Contains(err.Error(), "fetch hello 1.0: ") || !strings.Contains(err.Error(), "SHA-256") {
		t.Errorf("changed: got %v", err)
	}
	r.put(path, good)
	if err := a.Fetch(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	cached := filepath.Join(a.Cache, "sha256", l.Packages[1].SHA256)
	if err := os.WriteFile(cached, bad, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := a.Fetch(t.Context(), l); err != nil {
		t.Errorf("a damaged cache is not mended: %v", err)
	}
	if got, err := os.ReadFile(cached); err != nil || !bytes.Equal(got, good) {
		t.Errorf("the cache still holds the damaged file: %v", err)
	}
}

// A connection that is cut is tried again, and leaves nothing behind.
func TestFetchCutConnection(t *testing.T) {
	r := newRepo(t, hello, libhello)
	var cuts atomic.Int32
	cuts.Store(2)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if strings.Contains(req.URL.Path, "/hello_") && cuts.Add(-1) >= 0 {
			w.Header().Set("Content-Length", "100000")
			w.Write([]byte("!<arch>\n"))
			panic(http.ErrAbortHandler)
		}
		r.ServeHTTP(w, req)
	}))
	defer proxy.Close()
	a := r.archive(t)
	a.Mirrors.Main = []string{proxy.URL + "/debian"}
	l, err := a.Resolve(t.Context(), want, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Fetch(t.Context(), l); err != nil {
		t.Fatalf("two cuts: %v", err)
	}
	cuts.Store(100)
	a.Cache = t.TempDir()
	if err := a.Fetch(t.Context(), l); err == nil || !strings.Contains(err.Error(), "fetch hello 1.0: GET ") {
		t.Errorf("cut for good: got %v", err)
	}
	if parts, _ := filepath.Glob(filepath.Join(a.Cache, "part-*")); len(parts) > 0 {
		t.Errorf("left behind: %q", parts)
	}
}

// A mirror that says nothing, or as good as nothing, is given up.
func TestFetchSlowMirror(t *testing.T) {
	for name, serve := range map[string]http.HandlerFunc{
		"no answer": func(_ http.ResponseWriter, req *http.Request) { <-req.Context().Done() },
		"half a file": func(w http.ResponseWriter, req *http.Request) {
			w.Header().Set("Content-Length", "100000")
			w.Write([]byte("!<arch>\n"))
			w.(http.Flusher).Flush()
			<-req.Context().Done()
		},
		"a byte now and then": func(w http.ResponseWriter, req *http.Request) {
			for tick := time.Tick(time.Millisecond); req.Context().Err() == nil; <-tick {
				w.Write([]byte("!"))
				w.(http.Flusher).Flush()
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			mirror := httptest.NewServer(serve)
			defer mirror.Close()
			r := newRepo(t, hello, libhello)
			a := r.archive(t)
			l, err := a.Resolve(t.Context(), want, "amd64")
			if err != nil {
				t.Fatal(err)
			}
			a.Mirrors.Main, a.Patience = []string{mirror.URL}, 50*time.Millisecond
			err = a.Fetch(t.Context(), l)
			if err == nil || !strings.Contains(err.Error(), "too slow: less than 64 kB in 50ms") || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v", err)
			}
			var hinted interface{ Hint() string }
			if !errors.As(err, &hinted) || !strings.Contains(hinted.Hint(), "another mirror") {
				t.Errorf("no hint: %v", err)
			}
			if parts, _ := filepath.Glob(filepath.Join(a.Cache, "part-*")); len(parts) > 0 {
				t.Errorf("left behind: %q", parts)
			}
		})
	}
}

func TestFetchCancelled(t *testing.T) {
	r := newRepo(t, hello, libhello)
	a := r.archive(t)
	l, err := a.Resolve(t.Context(), want, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.Fetch(ctx, l); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestEmbeddedKeyring(t *testing.T) {
	keys, err := debian.Keyring()
	if err != nil {
		t.Fatal(err)
	}
	note, err := os.ReadFile("data/keys/README.md")
	if err != nil {
		t.Fatal(err)
	}
	if len(keys) != 6 {
		t.Errorf("%d keys, want 6", len(keys))
	}
	for _, k := range keys {
		if !strings.Contains(strings.ToLower(string(note)), hexOf(k)) {
			t.Errorf("README.md does not list %s", hexOf(k))
		}
	}
}

package registry_test

import (
	"bufio"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"

	"github.com/opencontainers/go-digest"

	"bareboat/internal/oci"
	"bareboat/registry"
)

// dockerRegistry runs Debian's docker-registry as a program of its own, with
// further settings as environment variables, and gives its address.
func dockerRegistry(t *testing.T, settings ...string) (address string) {
	t.Helper()
	dir := t.TempDir()
	config := writeFile(t, filepath.Join(dir, "config.yml"), "version: 0.1\nstorage: {filesystem: {rootdirectory: "+dir+"/store}}\nhttp: {addr: \"127.0.0.1:0\"}\n", 0o600)
	program := exec.CommandContext(t.Context(), "docker-registry", "serve", config)
	others := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "REGISTRY_") }) // Podman's would be taken for settings
	program.Env = append(others, settings...)
	says := must[io.ReadCloser](t)(program.StderrPipe())
	if err := program.Start(); err != nil {
		t.Fatalf("%v (apt-get install docker-registry)", err)
	}
	t.Cleanup(func() {
		program.Process.Kill()
		program.Wait()
	})
	listens := regexp.MustCompile(`listening on (127\.0\.0\.1:\d+)`)
	for lines := bufio.NewScanner(says); lines.Scan(); {
		if found := listens.FindStringSubmatch(lines.Text()); found != nil {
			go io.Copy(io.Discard, says)
			return found[1]
		}
	}
	t.Fatal("docker-registry ended before it listened")
	return ""
}

// cutter passes connections on to an address, and cuts the first ones after some
// bytes from the client.
type cutter struct {
	net.Listener
	to      string
	cuts    atomic.Int64 // connections still to be cut
	after   int64        // bytes
	carried atomic.Int64 // bytes from clients
	running sync.WaitGroup
}

func cut(t *testing.T, to string, cuts, after int64) *cutter {
	c := &cutter{Listener: must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0")), to: to, after: after}
	c.cuts.Store(cuts)
	c.running.Go(func() {
		for {
			client, err := c.Accept()
			if err != nil {
				return
			}
			go c.pass(client)
		}
	})
	t.Cleanup(func() {
		c.Close()
		c.running.Wait()
	})
	return c
}

func (c *cutter) pass(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", c.to)
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		io.Copy(client, server)
		client.Close()
	}()
	n, err := io.CopyN(server, client, c.after)
	c.carried.Add(n)
	if err != nil {
		return
	}
	if c.cuts.Add(-1) >= 0 {
		return
	}
	n, _ = io.Copy(server, client)
	c.carried.Add(n)
}

// large is a layout with one image of one layer of so many bytes, stored as they are.
func large(t *testing.T, size int) (dir string, digest oci.Digest) {
	t.Helper()
	content := make([]byte, size)
	rand.Read(content)
	return layoutOf(t, static.NewLayer(content, "application/vnd.oci.image.layer.v1.tar"))
}

func layoutOf(t *testing.T, layers ...v1.Layer) (dir string, digest oci.Digest) {
	t.Helper()
	image := must[v1.Image](t)(mutate.AppendLayers(mutate.MediaType(empty.Image, "application/vnd.oci.image.manifest.v1+json"), layers...))
	dir = t.TempDir()
	if err := must[layout.Path](t)(layout.Write(dir, empty.Index)).AppendImage(image); err != nil {
		t.Fatal(err)
	}
	return dir, oci.Digest(must[v1.Hash](t)(image.Digest()).String())
}

// Where the connection breaks off, the registry keeps what came, and only the
// rest is sent.
func TestResume(t *testing.T) {
	const size, every = 4 << 20, 1 << 20
	server := httptest.NewServer(registries["embedded"](t))
	t.Cleanup(server.Close)
	line := cut(t, strings.TrimPrefix(server.URL, "http://"), 3, every)
	ref := reference(t, line.Addr().String()+"/team/chat:1")
	c := client(t)
	dir, digest := large(t, size)
	pushed, err := c.Push(t.Context(), dir, digest, ref, nil)
	if err != nil {
		t.Fatal(err)
	}
	if left := line.cuts.Load(); left > 0 {
		t.Fatalf("%d connections were not cut", left)
	}
	line.Close()
	if pushed.Sent != 2 {
		t.Errorf("pushed %+v", pushed)
	}
	to := t.TempDir()
	must[oci.Descriptor](t)(c.Pull(t.Context(), reference(t, strings.TrimPrefix(server.URL, "http://")+"/team/chat:1"), to, nil))
	checkLayout(t, to, dir, digest)
	server.CloseClientConnections() // so that the line has counted everything
	if got := line.carried.Load(); got > size+64<<10 {
		t.Errorf("the line carried %d bytes; want little more than %d", got, size)
	}
}

// docker-registry 2.8 keeps nothing of a request that broke off: the upload
// begins anew.
func TestBreaksOffAtDockerRegistry(t *testing.T) {
	line := cut(t, dockerRegistry(t), 2, 1<<20)
	ref := reference(t, line.Addr().String()+"/team/chat:1")
	c := client(t)
	dir, digest := large(t, 4<<20)
	must[registry.Pushed](t)(c.Push(t.Context(), dir, digest, ref, nil))
	if left := line.cuts.Load(); left > 0 {
		t.Fatalf("%d connections were not cut", left)
	}
	to := t.TempDir()
	must[oci.Descriptor](t)(c.Pull(t.Context(), ref, to, nil))
	checkLayout(t, to, dir, digest)
}

// counted is a registry that counts its requests, and those among them that carry
// a blob's bytes or ask for a mount.
type counted struct {
	http.Handler
	all, patches, mounts atomic.Int64
}

func (c *counted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.all.Add(1)
	if r.Method == http.MethodPatch {
		c.patches.Add(1)
	}
	if r.URL.Query().Has("mount") {
		c.mounts.Add(1)
	}
	c.Handler.ServeHTTP(w, r)
}

// behind is a handler that passes requests on to an address.
func behind(t *testing.T, address string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out := r.Clone(r.Context())
		out.RequestURI, out.URL.Scheme, out.URL.Host = "", "http", address
		answer, err := http.DefaultTransport.RoundTrip(out)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		defer answer.Body.Close()
		for name, values := range answer.Header {
			w.Header()[name] = values
		}
		w.WriteHeader(answer.StatusCode)
		io.Copy(w, answer.Body)
	})
}

// A registry is asked to lend a repository what another has, and then nothing of
// it is sent: for a client that saw it itself, and for one that reads the notes.
func TestMount(t *testing.T) {
	for name, handler := range map[string]http.Handler{
		"embedded": registries["embedded"](t), "docker-registry": behind(t, dockerRegistry(t)),
	} {
		t.Run(name, func(t *testing.T) {
			isolate(t)
			places := t.TempDir()
			seen := &counted{Handler: handler}
			first := serve(t, seen)
			dir, digest := writeLayout(t, 3)
			c := registry.New(registry.Options{Places: places})
			must[registry.Pushed](t)(c.Push(t.Context(), dir, digest, first, nil))
			for i, c := range []*registry.Client{c, registry.New(registry.Options{Places: places})} {
				seen.patches.Store(0)
				other := first
				other.Repository = fmt.Sprintf("other/chat%d", i)
				pushed := must[registry.Pushed](t)(c.Push(t.Context(), dir, digest, other, nil))
				if pushed.Mounted != 4 || pushed.Sent != 0 || pushed.Skipped != 4 || seen.patches.Load() != 0 {
					t.Errorf("client %d: %+v, %d PATCHes", i, pushed, seen.patches.Load())
				}
				to := t.TempDir()
				must[oci.Descriptor](t)(c.Pull(t.Context(), other, to, nil))
				checkLayout(t, to, dir, digest)
			}
		})
	}
}

// A note that is wrong, or no note at all, costs nothing but the note: the upload
// that the registry opens instead is used.
func TestWrongNote(t *testing.T) {
	isolate(t)
	for name, note := range map[string]string{
		"wrong":    "%s nobody/here\n",
		"nonsense": "%s ../../x?y=z\n\x00\n%[1]s",
	} {
		t.Run(name, func(t *testing.T) {
			seen := &counted{Handler: quiet()}
			ref := serve(t, seen)
			dir, digest := writeLayout(t, 1)
			places := t.TempDir()
			blob := oci.Digest("sha256:" + filepath.Base(largest(t, dir)))
			file := writeFile(t, filepath.Join(places, url.PathEscape(ref.Registry)+".places"), fmt.Sprintf(note, blob), 0o600)
			c := registry.New(registry.Options{Places: places})
			pushed := must[registry.Pushed](t)(c.Push(t.Context(), dir, digest, ref, nil))
			if pushed.Sent != 2 || pushed.Mounted != 0 || (seen.mounts.Load() == 1) != (name == "wrong") {
				t.Errorf("%+v, %d mounts asked for", pushed, seen.mounts.Load())
			}
			text := string(must[[]byte](t)(os.ReadFile(file)))
			if strings.Count(text, "\n") != 2 || strings.Contains(text, "nobody") || !strings.Contains(text, blob.String()+" team/chat\n") {
				t.Errorf("notes afterwards:\n%s", text)
			}
		})
	}
}

// Pushes at the same time send a digest once: the others find it, or have it lent.
func TestOneDigestOnce(t *testing.T) {
	seen := &counted{Handler: registries["embedded"](t)}
	ref := serve(t, seen)
	c := client(t)
	dir, digest := writeLayout(t, 3)
	var all sync.WaitGroup
	var mounted, sent atomic.Int64
	for i := range 6 {
		all.Go(func() {
			to := ref
			to.Repository = fmt.Sprintf("team/chat%d", i/2)
			pushed, err := c.Push(t.Context(), dir, digest, to, nil)
			if err != nil {
				t.Error(err)
			}
			sent.Add(int64(pushed.Sent))
			mounted.Add(int64(pushed.Mounted))
		})
	}
	all.Wait()
	if sent.Load() != 4 || mounted.Load() != 8 || seen.patches.Load() != 4 {
		t.Errorf("sent %d, mounted %d, in %d PATCHes; want 4, 8, 4", sent.Load(), mounted.Load(), seen.patches.Load())
	}
}

// spoil answers requests that match with something else, as long as it lasts.
func spoil(inner http.Handler, times int64, matches func(*http.Request) bool, say func(http.ResponseWriter, *http.Request)) (http.Handler, *atomic.Int64) {
	left := new(atomic.Int64)
	left.Store(times)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if matches(r) && left.Add(-1) >= 0 {
			say(w, r)
			return
		}
		inner.ServeHTTP(w, r)
	}), left
}

// Trouble that passes is no failure.
func TestPassingTrouble(t *testing.T) {
	method := func(m string) func(*http.Request) bool {
		return func(r *http.Request) bool { return r.Method == m && strings.Contains(r.URL.Path, "/blobs/") }
	}
	status := func(code int, header ...string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, _ *http.Request) {
			if len(header) > 0 {
				w.Header().Set(header[0], header[1])
			}
			w.WriteHeader(code)
		}
	}
	for name, test := range map[string]struct {
		matches func(*http.Request) bool
		say     func(http.ResponseWriter, *http.Request)
	}{
		"502 to POST":             {method(http.MethodPost), status(502)},
		"429 to HEAD":             {method(http.MethodHead), status(429, "Retry-After", "0")},
		"429 to PATCH":            {method(http.MethodPatch), status(429, "Retry-After", "Wed, 21 Oct 2015 07:28:00 GMT")},
		"503 to PATCH":            {method(http.MethodPatch), status(503)},
		"503 to PUT":              {method(http.MethodPut), status(503)},
		"PATCH: upload forgotten": {method(http.MethodPatch), status(404)},
		"PUT: upload forgotten":   {method(http.MethodPut), status(404)},
		"503 to a manifest": {func(r *http.Request) bool {
			return r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/manifests/")
		}, status(503)},
		"PATCH: range is not next": {method(http.MethodPatch), status(416)},
	} {
		t.Run(name, func(t *testing.T) {
			handler, left := spoil(registries["embedded"](t), 1, test.matches, test.say)
			c, ref := client(t), serve(t, handler)
			dir, digest := writeLayout(t, 2)
			pushed, err := c.Push(t.Context(), dir, digest, ref, nil)
			if err != nil || pushed.Sent != 3 || left.Load() >= 0 && left.Load() != 0 {
				t.Errorf("push = %+v, %v", pushed, err)
			}
			to := t.TempDir()
			must[oci.Descriptor](t)(c.Pull(t.Context(), ref, to, nil))
			checkLayout(t, to, dir, digest)
		})
	}
}

// A registry that takes only so much at once gets it in pieces.
func TestChunks(t *testing.T) {
	const limit, size = 1 << 20, 4 << 20
	seen := &counted{Handler: registries["embedded"](t)}
	c := client(t)
	ref := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPatch && r.ContentLength > limit {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		seen.ServeHTTP(w, r)
	}))
	dir, digest := large(t, size)
	must[registry.Pushed](t)(c.Push(t.Context(), dir, digest, ref, nil))
	to := t.TempDir()
	must[oci.Descriptor](t)(c.Pull(t.Context(), ref, to, nil))
	checkLayout(t, to, dir, digest)
	if got := seen.patches.Load(); got != size/limit+1 {
		t.Errorf("%d PATCHes; want %d for the layer and one for the config", got, size/limit)
	}
}

// The address of an upload may lead to another machine, with a query that has to
// be kept. The credentials stay behind.
func TestUploadElsewhere(t *testing.T) {
	home := isolate(t)
	inner := quiet()
	var leaked, carried atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			leaked.Add(1)
		}
		if r.URL.Query().Get("_state") != "a/b+c=" {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		carried.Add(1)
		inner.ServeHTTP(&addressed{ResponseWriter: w, host: "http://" + r.Host}, r)
	}))
	t.Cleanup(elsewhere.Close)
	ref := serve(t, withBasic(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPatch {
			http.Redirect(w, r, elsewhere.URL+r.URL.RequestURI(), http.StatusTemporaryRedirect)
			return
		}
		inner.ServeHTTP(&addressed{ResponseWriter: w}, r)
	})))
	writeAuth(t, filepath.Join(home, "run/containers/auth.json"), ref.Registry, "ada", password)
	dir, digest := writeLayout(t, 2)
	must[registry.Pushed](t)(registry.New(registry.Options{}).Push(t.Context(), dir, digest, ref, nil))
	if leaked.Load() != 0 || carried.Load() != 6 { // PATCH and PUT of three blobs
		t.Errorf("%d requests with credentials, %d went elsewhere", leaked.Load(), carried.Load())
	}
}

// addressed adds a host and a query to the addresses of uploads.
type addressed struct {
	http.ResponseWriter
	host string
}

func (a *addressed) WriteHeader(status int) {
	if at := a.Header().Get("Location"); status == http.StatusAccepted && at != "" {
		a.Header().Set("Location", a.host+at+"?_state=a%2Fb%2Bc%3D")
	}
	a.ResponseWriter.WriteHeader(status)
}

// What stays wrong is told, with the registry's and the repository's name.
func TestLastingTrouble(t *testing.T) {
	blobs := func(m string) func(*http.Request) bool {
		return func(r *http.Request) bool { return r.Method == m && strings.Contains(r.URL.Path, "/blobs/") }
	}
	for name, test := range map[string]struct {
		matches func(*http.Request) bool
		say     func(http.ResponseWriter, *http.Request)
		kind    registry.Kind
		text    string
	}{
		"no address": {blobs(http.MethodPost), func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusAccepted)
		}, registry.Content, "did not say where"},
		"not an address": {blobs(http.MethodPost), func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "http://[::1/%zz")
			w.WriteHeader(http.StatusAccepted)
		}, registry.Content, "address of an upload"},
		"HTML": {blobs(http.MethodPost), func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, "<html>Welcome to the hotel's network</html>")
		}, registry.Other, "200"},
		"no HTTP": {blobs(http.MethodPost), func(w http.ResponseWriter, _ *http.Request) {
			conn, _, _ := w.(http.Hijacker).Hijack()
			io.WriteString(conn, "220 smtp.example.com ESMTP\r\n")
			conn.Close()
		}, registry.Other, "malformed HTTP"},
		"always 502": {blobs(http.MethodPatch), func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
		}, registry.Other, "502"},
		"come back tomorrow": {blobs(http.MethodPatch), func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "86400")
			w.WriteHeader(http.StatusTooManyRequests)
		}, registry.Other, "429"},
		"silent": {blobs(http.MethodPost), func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
		}, registry.Unreachable, "no answer in time"},
	} {
		t.Run(name, func(t *testing.T) {
			isolate(t)
			handler, _ := spoil(quiet(), 1000, test.matches, test.say)
			ref := serve(t, handler)
			dir, digest := writeLayout(t, 1)
			_, err := registry.New(registry.Options{Patience: 300 * time.Millisecond}).Push(t.Context(), dir, digest, ref, nil)
			e := failure(t, err, test.kind)
			if !strings.HasPrefix(e.Error(), "push "+ref.Name()+": ") || !strings.Contains(e.Error(), test.text) {
				t.Errorf("%q; want it to hold %q", e, test.text)
			}
		})
	}
}

// A registry that stops taking a blob's bytes does not hold a push for ever.
func TestStalls(t *testing.T) {
	isolate(t)
	done := make(chan struct{})
	handler, _ := spoil(quiet(), 1000, func(r *http.Request) bool { return r.Method == http.MethodPatch },
		func(http.ResponseWriter, *http.Request) { <-done })
	ref := serve(t, handler)
	defer close(done)
	dir, digest := large(t, 32<<20) // more than the sockets hold
	_, err := registry.New(registry.Options{Patience: 200 * time.Millisecond}).Push(t.Context(), dir, digest, ref, nil)
	if e := failure(t, err, registry.Unreachable); !strings.HasSuffix(e.Error(), "no answer in time") {
		t.Errorf("%q", e)
	}
}

// Where tokens are given out, the one for a mount covers the other repository,
// too; where that is refused, the blob is sent.
func TestMountWithTokens(t *testing.T) {
	for _, allowed := range []bool{true, false} {
		t.Run(fmt.Sprintf("allowed %t", allowed), func(t *testing.T) {
			isolate(t)
			inner := registries["embedded"](t) // the other lends blobs unasked
			ref := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				scopes := strings.Join(r.URL.Query()["scope"], " ")
				bearer, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
				from := r.URL.Query().Get("from")
				switch {
				case r.URL.Path == "/token" && !allowed && strings.Count(scopes, "repository:") > 1:
					w.WriteHeader(http.StatusForbidden)
				case r.URL.Path == "/token":
					fmt.Fprintf(w, `{"token":%q}`, url.QueryEscape(scopes))
				case bearer == "":
					w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="test"`, r.Host))
					w.WriteHeader(http.StatusUnauthorized)
				case from != "" && !strings.Contains(bearer, url.QueryEscape("repository:"+from+":pull")):
					w.WriteHeader(http.StatusForbidden)
				default:
					inner.ServeHTTP(w, r)
				}
			}))
			dir, digest := writeLayout(t, 2)
			c := registry.New(registry.Options{})
			must[registry.Pushed](t)(c.Push(t.Context(), dir, digest, ref, nil))
			ref.Repository = "other/chat"
			pushed, err := c.Push(t.Context(), dir, digest, ref, nil)
			if want := map[bool]int{true: 3}[allowed]; err != nil || pushed.Mounted != want || pushed.Sent != 3-want {
				t.Errorf("pushed %+v, %v", pushed, err)
			}
		})
	}
}

// What has no layers but a subject, as signatures and SBOMs are kept, goes the
// same way.
func TestArtifact(t *testing.T) {
	for name, handler := range map[string]http.Handler{
		"embedded": registries["embedded"](t), "docker-registry": behind(t, dockerRegistry(t)),
	} {
		t.Run(name, func(t *testing.T) {
			c, ref := client(t), serve(t, handler)
			dir := t.TempDir()
			put := func(text string) oci.Digest {
				d := digest.FromString(text)
				writeFile(t, registry.BlobPath(dir, d), text, 0o600)
				return d
			}
			config, layer := put("{}"), put("an SBOM")
			root := put(fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
"artifactType":"application/spdx+json","config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":%q,"size":2},
"layers":[{"mediaType":"application/spdx+json","digest":%q,"size":7}],
"subject":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":%q,"size":2}}`, config, layer, config))
			must[registry.Pushed](t)(c.Push(t.Context(), dir, root, ref, nil))
			to := t.TempDir()
			must[oci.Descriptor](t)(c.Pull(t.Context(), ref, to, nil))
			checkLayout(t, to, dir, root)
		})
	}
}

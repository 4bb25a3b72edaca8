package registry_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"

	"bareboat/internal/oci"
	"bareboat/registry"
)

// bigLayout is an image with one layer of some size.
func bigLayout(t *testing.T, size int64) (dir string, digest oci.Digest) {
	t.Helper()
	image := must[v1.Image](t)(mutate.AppendLayers(empty.Image, must[v1.Layer](t)(random.Layer(size, "application/vnd.oci.image.layer.v1.tar+gzip"))))
	dir = t.TempDir()
	if err := must[layout.Path](t)(layout.Write(dir, empty.Index)).AppendImage(image); err != nil {
		t.Fatal(err)
	}
	return dir, oci.Digest(must[v1.Hash](t)(image.Digest()).String())
}

// docker starts Debian's docker-registry on a free port.
func docker(t *testing.T) (address string) {
	t.Helper()
	dir := t.TempDir()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address = free.Addr().String()
	free.Close()
	config := filepath.Join(dir, "config.yml")
	text := "version: 0.1\nlog: {level: error, accesslog: {disabled: true}}\nstorage: {filesystem: {rootdirectory: " + dir + "/data}}\nhttp: {addr: " + address + "}\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	program := "/usr/bin/docker-registry"
	cmd := exec.Command(program, "serve", config)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: apt-get install docker-registry", err)
	}
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	for {
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			return address
		}
		select {
		case <-ended:
			t.Fatalf("docker-registry ended: %s", &said)
		case <-t.Context().Done():
			t.Fatal("docker-registry does not answer")
		default:
		}
	}
}

// real are the registries whose uploads are broken off and taken up again.
func real(t *testing.T) map[string]string {
	embedded := httptest.NewServer(registries["embedded"](t))
	t.Cleanup(embedded.Close)
	return map[string]string{"embedded": strings.TrimPrefix(embedded.URL, "http://"), "docker-registry": docker(t)}
}

// cutting is a way to a registry on which connections break.
type cutting struct {
	to      string
	cuts    atomic.Int64 // connections that are still to be cut
	after   int64        // bytes of the client's, in one connection
	arrived atomic.Int64 // bytes of the client's, in all
	l       net.Listener
}

func cut(t *testing.T, to string, times, after int64) *cutting {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutting{to: to, after: after, l: l}
	c.cuts.Store(times)
	ctx := t.Context() // ends before the clean-up
	var all sync.WaitGroup
	all.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			stop := context.AfterFunc(ctx, func() { client.Close() })
			all.Go(func() { defer stop(); c.join(client) })
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return c
}

func (c *cutting) join(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", c.to)
	if err != nil {
		return
	}
	defer server.Close()
	go func() { _, _ = io.Copy(client, server); client.Close() }()
	var here int64
	buffer := make([]byte, 32<<10)
	for {
		n, err := client.Read(buffer)
		here += int64(n)
		c.arrived.Add(int64(n))
		if _, writeErr := server.Write(buffer[:n]); err != nil || writeErr != nil {
			return
		}
		if here > c.after && c.cuts.Add(-1) >= 0 {
			// What was passed on is to arrive: the end, not a reset.
			_ = server.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, server)
			return
		}
	}
}

// An upload that breaks off goes on where it was: of a blob of 16 MB, cut three
// times after 4 MB, little is sent twice. Debian's docker-registry keeps nothing
// of a request that broke off; of that, no more is sent again than was lost.
func TestUploadGoesOn(t *testing.T) {
	for name, address := range real(t) {
		t.Run(name, func(t *testing.T) {
			const size, after = 16 << 20, 4 << 20
			most := map[string]int64{"embedded": size + size/16, "docker-registry": size + 3*after + size/16}[name]
			way := cut(t, address, 3, after)
			dir, digest := bigLayout(t, size)
			to := reference(t, way.l.Addr().String()+"/team/big:1")
			c := client(t)
			if _, err := c.Push(t.Context(), dir, digest, to, nil); err != nil {
				t.Fatal(err)
			}
			if way.cuts.Load() > 0 {
				t.Errorf("it was cut %d times too few", way.cuts.Load())
			}
			if sent := way.arrived.Load(); sent > most {
				t.Errorf("%d bytes were sent for a blob of %d", sent, size)
			} else {
				t.Logf("%d bytes were sent for a blob of %d", sent, size)
			}
			pulled := t.TempDir()
			if got, err := c.Pull(t.Context(), to, pulled, nil); err != nil || got.Digest != digest {
				t.Errorf("it has %s, %v", got.Digest, err)
			}
		})
	}
}

// A registry that takes no large body gets parts.
func TestUploadInParts(t *testing.T) {
	inner := registries["embedded"](t)
	var largest atomic.Int64
	to := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength > 10<<20 {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		if n := r.ContentLength; n > largest.Load() {
			largest.Store(n)
		}
		inner.ServeHTTP(w, r)
	}))
	dir, digest := bigLayout(t, 20<<20)
	c := client(t)
	if _, err := c.Push(t.Context(), dir, digest, to, nil); err != nil {
		t.Fatal(err)
	}
	if n := largest.Load(); n != 8<<20 {
		t.Errorf("the largest part had %d bytes", n)
	}
	if got, err := c.Pull(t.Context(), to, t.TempDir(), nil); err != nil || got.Digest != digest {
		t.Errorf("it has %s, %v", got.Digest, err)
	}
}

// Answers that pass are waited for, as long as the registry says, and no longer
// than a few times; what will not pass is told at once.
func TestUploadIsTriedAgain(t *testing.T) {
	for name, c := range map[string]struct {
		status, times int
		good          bool
	}{
		"busy":          {http.StatusTooManyRequests, 3, true},
		"gateway":       {http.StatusBadGateway, 2, true},
		"always broken": {http.StatusInternalServerError, 1000, false},
		"refused":       {http.StatusForbidden, 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			inner := registries["embedded"](t)
			var refused atomic.Int64
			to := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodPatch && refused.Add(1) <= int64(c.times) {
					w.Header().Set("Retry-After", "0")
					w.WriteHeader(c.status)
					return
				}
				inner.ServeHTTP(w, r)
			}))
			dir, digest := bigLayout(t, 1<<20)
			_, err := client(t).Push(t.Context(), dir, digest, to, nil)
			if (err == nil) != c.good {
				t.Errorf("got %v after %d refusals", err, refused.Load())
			}
			if refused.Load() > 20 {
				t.Errorf("it was tried %d times", refused.Load())
			}
		})
	}
}

// One registry, two repositories: the second takes the blobs from the first,
// also in a later command; and of two pushes at once each blob is sent once.
func TestBlobsAreMounted(t *testing.T) {
	for name, address := range real(t) {
		t.Run(name, func(t *testing.T) {
			isolate(t)
			dir, digest := bigLayout(t, 1<<20)
			options := registry.Options{Places: t.TempDir()}
			first := registry.New(options)
			names := []string{"one", "two", "three"}
			var all sync.WaitGroup
			var sent atomic.Int64
			for _, n := range names {
				to := reference(t, address+"/team/"+n+":1")
				all.Go(func() {
					done, err := first.Push(t.Context(), dir, digest, to, nil)
					if err != nil {
						t.Error(err)
					}
					sent.Add(int64(done.Sent))
				})
			}
			all.Wait()
			if sent.Load() != 2 { // layer and config
				t.Errorf("%d blobs were sent", sent.Load())
			}
			done, err := registry.New(options).Push(t.Context(), dir, digest, reference(t, address+"/team/later:1"), nil)
			if err != nil || done.Sent != 0 || done.Mounted != 2 || done.BytesSent > 4096 {
				t.Errorf("later: %+v, %v", done, err)
			}
		})
	}
}

// A note that is wrong costs no more than a request.
func TestWrongPlace(t *testing.T) {
	to := serve(t, registries["embedded"](t))
	isolate(t)
	dir, digest := bigLayout(t, 1<<20)
	places := t.TempDir()
	blobs, err := filepath.Glob(filepath.Join(dir, "blobs", "sha256", "*"))
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for i, b := range blobs {
		text.WriteString("sha256:" + filepath.Base(b) + " team/nobody" + strconv.Itoa(i) + "\n")
	}
	text.WriteString("nonsense\n\xff\xfe\n")
	if err := os.WriteFile(filepath.Join(places, to.Registry), []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	done, err := registry.New(registry.Options{Places: places}).Push(t.Context(), dir, digest, to, nil)
	if err != nil || done.Sent != 2 {
		t.Errorf("got %+v, %v", done, err)
	}
}

package registry_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"bareboat/internal/oci"
	"bareboat/registry/embedded"
)

// One request is enough to know that there is nothing to push; and what a push
// would send is what it then sends.
func TestHasAndMissing(t *testing.T) {
	store, err := embedded.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	var requests atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		store.ServeHTTP(w, r)
	}))
	defer server.Close()
	to, err := oci.ParseReference(strings.TrimPrefix(server.URL, "http://") + "/team/app:1")
	if err != nil {
		t.Fatal(err)
	}
	dir, d := writeLayout(t, 3)
	c := client(t)
	if has, err := c.Has(t.Context(), to, d); has || err != nil {
		t.Errorf("before the push: %t, %v", has, err)
	}
	missing, err := c.Missing(t.Context(), dir, d, to)
	if err != nil || len(missing) != 5 { // three layers, config, manifest
		t.Errorf("missing before the push: %d, %v", len(missing), err)
	}
	var size int64
	for _, m := range missing {
		size += m.Size
	}
	done, err := c.Push(t.Context(), dir, d, to, nil)
	if err != nil || done.BytesSent != size {
		t.Errorf("sent %d bytes, %v; Missing said %d", done.BytesSent, err, size)
	}
	requests.Store(0)
	if has, err := c.Has(t.Context(), to, d); !has || err != nil || requests.Load() != 1 {
		t.Errorf("after the push: %t, %v, after %d requests", has, err, requests.Load())
	}
	if missing, err := c.Missing(t.Context(), dir, d, to); len(missing) != 0 || err != nil {
		t.Errorf("missing after the push: %v, %v", missing, err)
	}
	if has, err := c.Has(t.Context(), to, oci.Digest("sha256:"+strings.Repeat("0", 64))); has || err != nil {
		t.Errorf("another digest: %t, %v", has, err)
	}
}

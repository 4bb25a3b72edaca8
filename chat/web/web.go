// Package web serves the page of the chat: plain ES modules and style sheets,
// embedded in the program.
//
// The files of a page are its assets. They are served under an address that
// carries a hash over all of them, so that a browser keeps them for ever, and
// a new release's page never meets an old release's module. Modification times
// play no part: in an image they are all the same.
package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
	"time"
)

//go:embed static
var static embed.FS

const (
	// placeholder is how the pages name their assets in the source.
	placeholder = "/assets/current/"

	forEver    = "public, max-age=31536000, immutable"
	revalidate = "no-cache"

	// personal is for the answer whose cookie is the visitor's secret: a cache
	// that many share may not keep it.
	personal = "private, no-cache"
)

// Handler serves the assets, and on its methods the pages.
type Handler struct {
	hash     string
	assets   map[string]file
	page     file
	notFound file
}

type file struct {
	name, kind, tag string
	content         []byte
}

// New reads the embedded files.
func New() *Handler {
	h := &Handler{assets: map[string]file{}}
	sum := sha256.New()
	entries, err := fs.ReadDir(static, "static")
	if err != nil {
		panic(fmt.Sprintf("read the embedded page: %v", err)) // it was there when it was compiled
	}
	for _, e := range entries {
		content, err := static.ReadFile("static/" + e.Name())
		if err != nil {
			panic(fmt.Sprintf("read the embedded page: %v", err))
		}
		fmt.Fprintf(sum, "%s %d\n", e.Name(), len(content))
		sum.Write(content)
		h.assets[e.Name()] = newFile(e.Name(), content)
	}
	h.hash = hex.EncodeToString(sum.Sum(nil)[:8])
	h.page = h.takePage("index.html")
	h.notFound = h.takePage("notfound.html")
	return h
}

// takePage makes an asset a page, whose references carry the hash.
func (h *Handler) takePage(name string) file {
	content := bytes.ReplaceAll(h.assets[name].content, []byte(placeholder), []byte("/assets/"+h.hash+"/"))
	delete(h.assets, name)
	return newFile(name, content)
}

func newFile(name string, content []byte) file {
	sum := sha256.Sum256(content)
	return file{name: name, kind: contentType(name), tag: `"` + hex.EncodeToString(sum[:12]) + `"`, content: content}
}

// contentType does not ask the system's tables, which an image may lack.
func contentType(name string) string {
	switch path.Ext(name) {
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".html":
		return "text/html; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	case ".webmanifest":
		return "application/manifest+json"
	}
	return mime.TypeByExtension(path.Ext(name))
}

// ServeHTTP serves /assets/HASH/NAME. With the hash of another release it
// serves what it has, not to be kept: while two releases serve side by side a
// page may come from the one and ask the other for its modules.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	hash, name, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/assets/"), "/")
	f, ok := h.assets[name]
	if !ok {
		h.ServeNotFound(w, r)
		return
	}
	caching := revalidate
	if hash == h.hash {
		caching = forEver
	}
	w.Header().Set("Cache-Control", caching)
	f.serve(w, r)
}

// ServePage serves the page of a room.
func (h *Handler) ServePage(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", personal)
	h.page.serve(w, r)
}

// ServeNotFound says that there is nothing at this address.
func (h *Handler) ServeNotFound(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Cache-Control", revalidate)
	w.Header().Set("Content-Type", h.notFound.kind)
	w.WriteHeader(http.StatusNotFound)
	_, _ = w.Write(h.notFound.content) // whoever asked may be gone
}

func (f file) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", f.kind)
	w.Header().Set("ETag", f.tag)
	http.ServeContent(w, r, f.name, time.Time{}, bytes.NewReader(f.content))
}

package debian_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"bareboat/builder/debian"
)

// now is the time of every test archive.
var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// pkg is a package of a test archive.
type pkg struct {
	name    string
	version string // default 1.0
	fields  string // further lines of its control file
	suite   string // default trixie
	scripts map[string]string
	md5sums string
	format  string // of its members: xz (default), gz, zst, or tar for none
	files   []tar.Header
	// content of regular files by name; others hold their own name
	content map[string]string
}

// repo is a Debian mirror that a test serves, signed with a key of its own.
type repo struct {
	key   *openpgp.Entity
	date  time.Time
	valid time.Duration // 0: no Valid-Until
	mu    sync.Mutex
	files map[string][]byte
	asked []string
	*httptest.Server
}

func newKey(t testing.TB) *openpgp.Entity {
	t.Helper()
	config := &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA, Time: func() time.Time { return now.AddDate(-1, 0, 0) }}
	key, err := openpgp.NewEntity("Test Archive", "", "archive@example.org", config)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// newRepo serves the packages from trixie, trixie-updates and trixie-security.
func newRepo(t testing.TB, packages ...pkg) *repo {
	t.Helper()
	r := &repo{key: newKey(t), date: now.Add(-time.Hour), files: map[string][]byte{}}
	r.publish(t, packages...)
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *repo) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	data, ok := r.files[req.URL.Path]
	r.asked = append(r.asked, req.URL.Path)
	r.mu.Unlock()
	if !ok {
		http.NotFound(w, req)
		return
	}
	w.Write(data)
}

// publish writes the indices of the three suites and the packages.
func (r *repo) publish(t testing.TB, packages ...pkg) {
	t.Helper()
	for _, suite := range []string{"trixie", "trixie-updates", "trixie-security"} {
		var index strings.Builder
		for _, p := range packages {
			if p.inSuite() == suite {
				index.WriteString(r.addPackage(t, p))
			}
		}
		r.putIndex(t, suite, index.String())
	}
}

func (p pkg) inSuite() string {
	if p.suite == "" {
		return "trixie"
	}
	return p.suite
}

func base(suite string) string {
	if strings.HasSuffix(suite, "-security") {
		return "/debian-security"
	}
	return "/debian"
}

func (r *repo) addPackage(t testing.TB, p pkg) string {
	data := p.deb(t)
	path := fmt.Sprintf("pool/main/%s_%s_amd64.deb", p.name, strings.ReplaceAll(p.Version(), ":", "%3a"))
	path = strings.ReplaceAll(path, "%3a", ".")
	r.put(base(p.inSuite())+"/"+path, data)
	return fmt.Sprintf("%sFilename: %s\nSize: %d\nSHA256: %s\n\n", p.control(), path, len(data), sum(data))
}

func (p pkg) Version() string {
	if p.version == "" {
		return "1.0"
	}
	return p.version
}

func (p pkg) control() string {
	text := fmt.Sprintf("Package: %s\nVersion: %s\nArchitecture: amd64\n", p.name, p.Version())
	if p.fields != "" {
		text += strings.TrimSpace(p.fields) + "\n"
	}
	return text
}

// putIndex publishes and signs a suite's package index.
func (r *repo) putIndex(t testing.TB, suite, index string) {
	t.Helper()
	packed := compress(t, "xz", []byte(index))
	dir := base(suite) + "/dists/" + suite
	r.put(dir+"/main/binary-amd64/by-hash/SHA256/"+sum(packed), packed)
	r.put(dir+"/InRelease", sign(t, r.release(suite, packed), r.key))
}

func (r *repo) release(suite string, packed []byte) string {
	text := fmt.Sprintf("Origin: Test\nSuite: %s\nCodename: %s\nDate: %s\nAcquire-By-Hash: yes\nArchitectures: amd64\nComponents: main\n",
		suite, suite, r.date.UTC().Format(time.RFC1123))
	if r.valid != 0 {
		text += "Valid-Until: " + r.date.Add(r.valid).UTC().Format(time.RFC1123) + "\n"
	}
	return text + fmt.Sprintf("SHA256:\n %s %d main/binary-amd64/Packages.xz\n", sum(packed), len(packed))
}

func (r *repo) put(path string, data []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.files[path] = data
}

func (r *repo) get(path string) []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.files[path])
}

// find gives the one published path that contains the text.
func (r *repo) find(t *testing.T, text string) string {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	var found []string
	for p := range r.files {
		if strings.Contains(p, text) {
			found = append(found, p)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%q matches %q", text, found)
	}
	return found[0]
}

// archive reads the repository into a new cache.
func (r *repo) archive(t testing.TB) *debian.Archive {
	t.Helper()
	return &debian.Archive{
		Mirrors: debian.Mirrors{Main: []string{r.URL + "/debian"}, Security: []string{r.URL + "/debian-security"}},
		Cache:   t.TempDir(),
		Keys:    openpgp.EntityList{r.key},
		Now:     func() time.Time { return now },
	}
}

func sign(t testing.TB, text string, keys ...*openpgp.Entity) []byte {
	t.Helper()
	var private []*packet.PrivateKey
	for _, k := range keys {
		private = append(private, k.PrivateKey)
	}
	var out bytes.Buffer
	w, err := clearsign.EncodeMulti(&out, private, &packet.Config{Time: func() time.Time { return now.Add(-time.Hour) }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	out.WriteByte('\n')
	return out.Bytes()
}

// deb builds the package.
func (p pkg) deb(t testing.TB) []byte {
	t.Helper()
	format := p.format
	if format == "" {
		format = "xz"
	}
	control := []tar.Header{{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755}, {Name: "./control", Mode: 0o644}}
	content := map[string]string{"./control": p.control()}
	if p.md5sums != "" {
		control = append(control, tar.Header{Name: "./md5sums", Mode: 0o644})
		content["./md5sums"] = p.md5sums
	}
	for _, name := range []string{"preinst", "postinst", "postrm"} {
		if text, ok := p.scripts[name]; ok {
			control = append(control, tar.Header{Name: "./" + name, Mode: 0o755})
			content["./"+name] = text
		}
	}
	suffix := "." + format
	if format == "tar" {
		suffix = ""
	}
	var out bytes.Buffer
	out.WriteString("!<arch>\n")
	member(&out, "debian-binary", []byte("2.0\n"))
	member(&out, "control.tar"+suffix, compress(t, format, tarball(t, control, content)))
	member(&out, "data.tar"+suffix, compress(t, format, tarball(t, p.files, p.content)))
	return out.Bytes()
}

func member(w *bytes.Buffer, name string, data []byte) {
	fmt.Fprintf(w, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", name, 0, 0, 0, "100644", len(data))
	w.Write(data)
	if len(data)%2 == 1 {
		w.WriteByte('\n')
	}
}

func tarball(t testing.TB, headers []tar.Header, content map[string]string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, h := range headers {
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o644
			if h.Typeflag == tar.TypeDir {
				h.Mode = 0o755
			}
		}
		text, ok := content[h.Name]
		if !ok {
			text = h.Name
		}
		if h.Typeflag != tar.TypeReg {
			text = ""
		}
		h.Size, h.ModTime = int64(len(text)), now
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func compress(t testing.TB, format string, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	var err error
	switch format {
	case "xz":
		w, err = xz.NewWriter(&out)
	case "gz":
		w = gzip.NewWriter(&out)
	case "zst":
		w, err = zstd.NewWriter(&out)
	default:
		return data
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func sum(data []byte) string {
	s := sha256.Sum256(data)
	return hex.EncodeToString(s[:])
}

func dir(name string) tar.Header  { return tar.Header{Name: name, Typeflag: tar.TypeDir} }
func file(name string) tar.Header { return tar.Header{Name: name} }
func link(name, to string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to, Mode: 0o777}
}
func hard(name, to string) tar.Header {
	return tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: to}
}

func hexOf(key *openpgp.Entity) string { return hex.EncodeToString(key.PrimaryKey.Fingerprint) }

// damage changes a byte of a file.
func damage(t testing.TB, name string) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/3] ^= 1
	if err := os.WriteFile(name, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

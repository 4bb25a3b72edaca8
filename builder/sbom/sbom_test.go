package sbom_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha1"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
	"github.com/santhosh-tekuri/jsonschema/v6"
	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx/v2/v2_3"
	"github.com/spdx/tools-golang/spdxlib"

	"bareboat/builder/sbom"
	"bareboat/internal/oci"
)

const control = `Package: libexample1
Source: example (1.2)
Version: 1:1.2-3+b1
Architecture: amd64
Maintainer: Somebody <s@example.org>
Depends: libother (>= 1), missing | alternative
Description: a library
 of which more is said

`

const copyright = `Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: example

Files: *
Copyright: somebody
License: GPL-2+ or Expat

Files: debian/*
Copyright: somebody else
License: Odd-1 and ISC

License: Odd-1
 Do what is odd.
`

// The document of an image that holds one of everything names each, is valid by
// SPDX's own schema, and is the same twice.
func TestDocument(t *testing.T) {
	program := goProgram(t)
	dir, digest := image(t,
		map[string]string{
			"app/server":                        program,
			"app/old":                           "gone later",
			"etc/os-release":                    "ID=debian\nVERSION_ID=\"13\"\n",
			"var/lib/dpkg/status.d/libexample1": control,
			"var/lib/dpkg/status.d/libexample1.md5sums":     "0  usr/lib/libexample.so.1\n0  usr/lib/missing\n",
			"var/lib/dpkg/status.d/libother":                "Package: libother\nVersion: 2\nArchitecture: all\n",
			"usr/lib/libexample.so.1":                       "\x7fELF no program",
			"usr/share/doc/libexample1/copyright":           copyright,
			"usr/share/doc/libother/copyright":              "written for people alone",
			"usr/share/doc/libexample1/changelog.Debian.gz": "x",
		},
		map[string]string{"app/.wh.old": "", "app/data": "second layer"})

	text, err := sbom.Document(dir, digest)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := sbom.Document(dir, digest); err != nil || !bytes.Equal(again, text) {
		t.Errorf("not the same twice: %v", err)
	}
	validate(t, text)
	doc := read(t, text)
	if doc.CreationInfo.Created != "2020-01-02T03:04:05Z" {
		t.Errorf("created %s, not with the image", doc.CreationInfo.Created)
	}

	packages := map[string]*v2_3.Package{}
	for _, p := range doc.Packages {
		packages[p.PackageName] = p
	}
	example := packages["libexample1"]
	if example == nil || example.PackageVersion != "1:1.2-3+b1" || !example.FilesAnalyzed ||
		example.PackageLicenseDeclared != "(GPL-2.0-or-later OR MIT) AND ISC AND LicenseRef-Odd-1-918db095" {
		t.Fatalf("libexample1: %+v", example)
	}
	want := "pkg:deb/debian/libexample1@1%3A1.2-3%2Bb1?arch=amd64&distro=debian-13&upstream=example%401.2"
	if got := example.PackageExternalReferences[0].Locator; got != want {
		t.Errorf("purl %s, want %s", got, want)
	}
	if other := packages["libother"]; other == nil || other.PackageLicenseDeclared != "NOASSERTION" {
		t.Errorf("libother: %+v", other)
	}
	if len(doc.OtherLicenses) != 1 || doc.OtherLicenses[0].ExtractedText != "Do what is odd." {
		t.Errorf("licences of their own: %+v", doc.OtherLicenses)
	}
	main := packages["example.org/server"]
	if main == nil || packages["stdlib"] == nil || packages["golang.org/x/text"] == nil {
		t.Fatalf("no modules of the program: %v", slices.Sorted(keys(packages)))
	}
	if got := packages["golang.org/x/text"].PackageExternalReferences[0].Locator; got != "pkg:golang/golang.org/x/text@v0.43.0" {
		t.Errorf("module's purl is %s", got)
	}

	files := map[string]*v2_3.File{}
	for _, f := range doc.Files {
		files[f.FileName] = f
	}
	if files["./app/old"] != nil || files["./app/data"] == nil {
		t.Errorf("files are %v", slices.Sorted(keys(files)))
	}
	if got, want := files["./app/data"].Checksums[0].Value, fmt.Sprintf("%x", sha1.Sum([]byte("second layer"))); got != want {
		t.Errorf("SHA-1 %s, want %s", got, want)
	}
	for _, want := range []string{
		"DOCUMENT DESCRIBES Image",
		fmt.Sprint("Image CONTAINS ", example.PackageSPDXIdentifier),
		fmt.Sprint(example.PackageSPDXIdentifier, " DEPENDS_ON ", packages["libother"].PackageSPDXIdentifier),
		fmt.Sprint(example.PackageSPDXIdentifier, " CONTAINS ", files["./usr/lib/libexample.so.1"].FileSPDXIdentifier),
		fmt.Sprint(files["./app/server"].FileSPDXIdentifier, " GENERATED_FROM ", main.PackageSPDXIdentifier),
		fmt.Sprint(main.PackageSPDXIdentifier, " DEPENDS_ON ", packages["golang.org/x/text"].PackageSPDXIdentifier),
	} {
		if !slices.ContainsFunc(doc.Relationships, func(r *v2_3.Relationship) bool {
			return fmt.Sprint(r.RefA.ElementRefID, " ", r.Relationship, " ", r.RefB.ElementRefID) == want
		}) {
			t.Errorf("it does not say: %s", want)
		}
	}
}

func keys[V any](m map[string]V) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// validate checks a document against SPDX's schema, and that what it refers to
// is there, by SPDX's library.
func validate(t *testing.T, text []byte) {
	t.Helper()
	schema, err := jsonschema.NewCompiler().Compile("testdata/spdx-schema-2.3.json")
	if err != nil {
		t.Fatal(err)
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := schema.Validate(value); err != nil {
		t.Errorf("not valid: %v", err)
	}
	if err := spdxlib.ValidateDocument((*v2_3.Document)(read(t, text))); err != nil {
		t.Errorf("not valid: %v", err)
	}
}

func read(t *testing.T, text []byte) *v2_3.Document {
	t.Helper()
	doc, err := spdxjson.Read(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// goProgram compiles one that uses a module.
func goProgram(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	sum, err := os.ReadFile("../../go.sum")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"go.mod":  "module example.org/server\n\ngo 1.26.0\n\nrequire golang.org/x/text v0.43.0\n",
		"go.sum":  string(sum),
		"main.go": "package main\n\nimport \"golang.org/x/text/language\"\n\nfunc main() { println(language.English.String()) }\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", "server", ".")
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	text, err := os.ReadFile(filepath.Join(dir, "server"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// image makes a layout of an image with these layers, of which every second one
// is compressed with zstd.
func image(t *testing.T, layers ...map[string]string) (dir string, digest oci.Digest) {
	t.Helper()
	img := v1.Image(empty.Image)
	for i, files := range layers {
		var content bytes.Buffer
		w := tar.NewWriter(&content)
		for _, name := range slices.Sorted(keys(files)) {
			if err := w.WriteHeader(&tar.Header{Name: name, Size: int64(len(files[name])), Mode: 0o644}); err != nil {
				t.Fatal(err)
			}
			fmt.Fprint(w, files[name])
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		raw, kind := content.Bytes(), types.OCIUncompressedLayer
		if i%2 == 1 {
			z, err := zstd.NewWriter(nil)
			if err != nil {
				t.Fatal(err)
			}
			raw, kind = z.EncodeAll(raw, nil), types.OCILayerZStd
		}
		var err error
		if img, err = mutate.AppendLayers(img, static.NewLayer(raw, kind)); err != nil {
			t.Fatal(err)
		}
	}
	img, err := mutate.CreatedAt(img, v1.Time{Time: time.Date(2020, 1, 2, 3, 4, 5, 0, time.UTC)})
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := path.AppendImage(img); err != nil {
		t.Fatal(err)
	}
	h, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return dir, oci.Digest(h.String())
}

// What is no image, or not what its digest says, is told.
func TestDocumentFails(t *testing.T) {
	dir, digest := image(t, map[string]string{"a": "b"})
	if _, err := sbom.Document(dir, "sha256:"+oci.Digest(strings.Repeat("0", 64))); err == nil {
		t.Error("an image that is not there is described")
	}
	var manifest oci.Manifest
	name := filepath.Join(dir, "blobs", "sha256", digest.Encoded())
	text, err := os.ReadFile(name)
	if err == nil {
		err = json.Unmarshal(text, &manifest)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, append(text, ' '), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sbom.Document(dir, digest); err == nil {
		t.Error("a manifest that was changed is described")
	}
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, "blobs", "sha256", manifest.Layers[0].Digest.Encoded()), 600); err != nil {
		t.Fatal(err)
	}
	if _, err := sbom.Document(dir, digest); err == nil {
		t.Error("a layer that broke off is described")
	}
}

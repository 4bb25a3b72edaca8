// Package sbom writes what an image is made of as an SPDX 2.3 document
// (https://spdx.github.io/spdx-spec/v2.3/).
//
// It reads an image's layers and nothing else, so that any image can be
// described, whoever built it, and the same image has the same document, byte by
// byte. A package is the image itself, a layer, a Debian package, or a Go module
// that a program was linked from, as the program's build information tells. A
// purl (https://github.com/package-url/purl-spec) names a package for scanners.
package sbom

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	spdxjson "github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx/v2/v2_3"

	"bareboat/internal/oci"
)

const (
	// MediaType is that of the documents.
	MediaType = "application/spdx+json"
	// PredicateType is the type of a statement that holds a document.
	PredicateType = "https://spdx.dev/Document"
	// jsonLimit bounds a manifest and a config.
	jsonLimit = 16 << 20
)

// Document describes the image whose manifest has digest d in the OCI image
// layout; an index has none, only its images do. The error names what cannot be
// read.
func Document(layout string, d oci.Digest) ([]byte, error) {
	m, config, err := read(layout, d)
	if err != nil {
		return nil, fmt.Errorf("describe image %s: %w", d, err)
	}
	s := newScan()
	defer s.close()
	for _, l := range m.Layers {
		if err := s.layer(blobPath(layout, l.Digest), l); err != nil {
			return nil, fmt.Errorf("describe image %s: layer %s: %w", d, l.Digest, err)
		}
	}
	doc, err := s.document(d, m, config)
	if err != nil {
		return nil, fmt.Errorf("describe image %s: %w", d, err)
	}
	return encode(doc)
}

func encode(doc *v2_3.Document) ([]byte, error) {
	var out bytes.Buffer
	if err := spdxjson.Write(doc, &out, spdxjson.Indent(" "), spdxjson.EscapeHTML(false)); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

func read(layout string, d oci.Digest) (m oci.Manifest, config oci.ImageConfig, err error) {
	if err := readJSON(layout, d, &m); err != nil {
		return m, config, err
	}
	if m.Config.Digest == "" {
		return m, config, fmt.Errorf("%q is not an image's manifest", m.MediaType)
	}
	return m, config, readJSON(layout, m.Config.Digest, &config)
}

// readJSON decodes a blob whose digest has to be d.
func readJSON(layout string, d oci.Digest, into any) error {
	if err := d.Validate(); err != nil {
		return fmt.Errorf("digest %q: %w", d, err)
	}
	f, err := os.Open(blobPath(layout, d))
	if err != nil {
		return err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, jsonLimit))
	if err != nil {
		return err
	}
	if d.Algorithm().FromBytes(text) != d {
		return fmt.Errorf("blob is not %s", d)
	}
	return json.Unmarshal(text, into)
}

func blobPath(layout string, d oci.Digest) string {
	return filepath.Join(layout, "blobs", d.Algorithm().String(), d.Encoded())
}

// created is when the image says that it was made; images that do not say so
// have the time that stands for none.
func created(config oci.ImageConfig) string {
	at := time.Unix(0, 0)
	if config.Created != nil {
		at = *config.Created
	}
	return at.UTC().Format("2006-01-02T15:04:05Z")
}

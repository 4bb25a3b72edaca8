package registry

import "bareboat/internal/oci"

// ParseManifest lets the fuzz test reach the parser without a network between.
func ParseManifest(raw []byte, d oci.Digest) (children, blobs []oci.Descriptor, err error) {
	m, err := parseManifest(raw, d)
	return m.children, m.blobs, err
}

// BlobPath is where a blob stands in a layout.
func BlobPath(dir string, d oci.Digest) string { return layout(dir).path(d) }

// KeepCredential lets the fuzz test reach the auth file without a registry.
func KeepCredential(path, key, user, password string) (where string, err error) {
	f, err := openAuthFile(path)
	if err != nil {
		return "", err
	}
	return f.keep(key, user, password)
}

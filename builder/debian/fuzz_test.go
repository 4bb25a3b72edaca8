package debian_test

import (
	"archive/tar"
	"strings"
	"testing"

	"github.com/ProtonMail/go-crypto/openpgp"

	"bareboat/builder/debian"
)

// What is not under a good signature is refused, and what is gives indices
// that can be checked.
func FuzzRelease(f *testing.F) {
	r := newRepo(f, hello, libhello)
	key := r.key
	good := r.get("/debian/dists/trixie/InRelease")
	text := r.release("trixie", []byte("index"))
	f.Add(good, false)
	f.Add([]byte(strings.Replace(string(good), "Codename: trixie", "Codename: sid", 1)), false)
	f.Add(append([]byte("\n"), good...), false)
	f.Add([]byte("-----BEGIN PGP SIGNED MESSAGE-----\n\n-----BEGIN PGP SIGNATURE-----\n\n-----END PGP SIGNATURE-----\n"), false)
	for _, change := range [][2]string{
		{"", ""}, {"Date: ", "Date: x"}, {"SHA256:", "SHA1:"}, {"\n main", " -1 main"}, {"main/", "../"},
		{"Suite: trixie\n", "Suite: trixie\nValid-Until: Sat, 31 Feb 2026 99:00:00 UTC\n"},
	} {
		f.Add([]byte(strings.Replace(text, change[0], change[1], 1)), true)
	}
	f.Fuzz(func(t *testing.T, data []byte, signed bool) {
		if signed {
			data = sign(t, string(data), key)
		}
		codename, files, err := debian.ReadRelease(data, openpgp.EntityList{key}, now)
		if err != nil {
			return
		}
		if !signed && codename != "trixie" {
			t.Errorf("a suite that nobody signed is taken: %q", codename)
		}
		for name, file := range files {
			if len(file.SHA256) != 64 || file.Size < 0 {
				t.Errorf("%q: %+v", name, file)
			}
		}
	})
}

// A package says what it is, and gives no more than what it holds.
func FuzzDeb(f *testing.F) {
	full := pkg{name: "hello", files: []tar.Header{dir("./usr/"), file("./usr/hello"), link("./usr/l", "hello"), hard("./usr/h", "./usr/hello")},
		scripts: map[string]string{"postinst": "#!/bin/sh\n"}, md5sums: "0123  usr/hello\n"}
	for _, format := range []string{"xz", "gz", "zst", "tar"} {
		full.format = format
		f.Add(full.deb(f))
	}
	whole := full.deb(f)
	f.Add(whole[:len(whole)/2])
	f.Add(pkg{name: "other"}.deb(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		p := debian.Package{Name: "hello", Version: "1.0", SHA256: sum(data), Size: int64(len(data))}
		files, err := debian.DebFiles(t.TempDir(), p, data)
		if err == nil && !strings.Contains(string(data), "debian-binary") {
			t.Errorf("%d bytes are taken for a package with %d files", len(data), len(files))
		}
	})
}

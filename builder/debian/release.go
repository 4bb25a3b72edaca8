package debian

import (
	"bytes"
	"crypto"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

//go:embed data/keys/*.gpg
var keyFiles embed.FS

// Keyring gives the keys of Debian's archives that come with the program.
func Keyring() (openpgp.EntityList, error) {
	const folder = "data/keys"
	entries, err := keyFiles.ReadDir(folder)
	if err != nil {
		return nil, err
	}
	var keys openpgp.EntityList
	for _, e := range entries {
		data, err := keyFiles.ReadFile(path.Join(folder, e.Name()))
		if err != nil {
			return nil, err
		}
		more, err := openpgp.ReadKeyRing(bytes.NewReader(data))
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", e.Name(), err)
		}
		keys = append(keys, more...)
	}
	return keys, nil
}

// release is what a verified InRelease says.
type release struct {
	suite, codename string
	date            time.Time
	validUntil      time.Time // zero: for ever
	byHash          bool
	signer          string // fingerprint of the primary key, upper case
	files           map[string]indexFile
}

// indexFile is an index as InRelease lists it.
type indexFile struct {
	sha256 string
	size   int64
}

// readRelease verifies an InRelease file and reads it. Only what is under the
// signature is ever looked at.
func readRelease(data []byte, keys openpgp.EntityList, now time.Time) (release, error) {
	text, signer, err := verify(data, keys, now)
	if err != nil {
		return release{}, err
	}
	s, err := newStanzaReader(bytes.NewReader(text)).next()
	if err != nil {
		return release{}, fmt.Errorf("read the signed text: %w", err)
	}
	r := release{
		suite:    s.get("Suite"),
		codename: s.get("Codename"),
		byHash:   s.get("Acquire-By-Hash") == "yes",
		signer:   signer,
	}
	if r.date, err = parseDate(s.get("Date")); err != nil {
		return release{}, fmt.Errorf("date: %w", err)
	}
	if v := s.get("Valid-Until"); v != "" {
		if r.validUntil, err = parseDate(v); err != nil {
			return release{}, fmt.Errorf("valid-until: %w", err)
		}
	}
	r.files, err = parseChecksums(s.get("SHA256"))
	return r, err
}

// verify gives the text of a clear-signed message and the fingerprint of the
// key that signed it. Several signatures are usual while keys change: any one
// good signature of a known key is enough, as for apt.
func verify(data []byte, keys openpgp.EntityList, now time.Time) (text []byte, signer string, err error) {
	if !bytes.HasPrefix(data, []byte("-----BEGIN PGP SIGNED MESSAGE-----")) {
		return nil, "", errors.New("not a signed message, or text stands before it")
	}
	block, rest := clearsign.Decode(data)
	switch {
	case block == nil:
		return nil, "", errors.New("not a well-formed signed message")
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, "", errors.New("text stands after the signed message")
	}
	config := &packet.Config{Time: func() time.Time { return now }}
	packets := packet.NewReader(block.ArmoredSignature.Body)
	failure := errors.New("signed by no known key")
	for {
		p, err := packets.Next()
		if errors.Is(err, io.EOF) {
			return nil, "", failure
		}
		sig, ok := p.(*packet.Signature)
		if err != nil || !ok {
			return nil, "", fmt.Errorf("read signature: %w", errors.Join(err, failure))
		}
		if sig.IssuerKeyId == nil || len(keys.KeysByIdUsage(*sig.IssuerKeyId, packet.KeyFlagSign)) == 0 {
			continue
		}
		if !slices.Contains([]crypto.Hash{crypto.SHA256, crypto.SHA384, crypto.SHA512}, sig.Hash) {
			failure = fmt.Errorf("signature of key %X: its hash %v is too weak", *sig.IssuerKeyId, sig.Hash)
			continue
		}
		var one bytes.Buffer
		if err := sig.Serialize(&one); err != nil {
			return nil, "", err
		}
		entity, err := openpgp.CheckDetachedSignature(keys, bytes.NewReader(block.Bytes), &one, config)
		if err != nil {
			failure = fmt.Errorf("signature of key %X: %w", *sig.IssuerKeyId, err)
			continue
		}
		return block.Plaintext, strings.ToUpper(hex.EncodeToString(entity.PrimaryKey.Fingerprint)), nil
	}
}

// check tells whether the release is the suite asked for, and of today.
func (r release) check(suite string, now time.Time, allowExpired bool) error {
	switch {
	case r.codename != suite && r.suite != suite:
		return fmt.Errorf("it describes suite %q (%q), not %q", r.codename, r.suite, suite)
	case r.date.After(now.Add(time.Hour)):
		return fmt.Errorf("it is dated %s, in the future: is this machine's clock right?", r.date.Format(time.RFC3339))
	case r.expired(now) && !allowExpired:
		return fmt.Errorf("it was valid until %s: the mirror is out of date", r.validUntil.Format(time.RFC3339))
	}
	return nil
}

func (r release) expired(now time.Time) bool {
	return !r.validUntil.IsZero() && now.After(r.validUntil)
}

func parseDate(s string) (time.Time, error) {
	for _, layout := range []string{http.TimeFormat, time.RFC1123, "Mon, _2 Jan 2006 15:04:05 MST"} {
		if t, err := time.Parse(layout, strings.Replace(s, " UTC", " GMT", 1)); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a date", s)
}

// parseChecksums reads lines of "digest size path".
func parseChecksums(s string) (map[string]indexFile, error) {
	files := map[string]indexFile{}
	for line := range strings.Lines(s) {
		f := strings.Fields(line)
		if len(f) == 0 {
			continue
		}
		if len(f) != 3 || !isSHA256(f[0]) {
			return nil, fmt.Errorf("sha256: %.60q is not a checksum line", line)
		}
		size, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil || size < 0 {
			return nil, fmt.Errorf("sha256: %q is not a size", f[1])
		}
		files[f[2]] = indexFile{sha256: f[0], size: size}
	}
	return files, nil
}

// index gives the path below dists/SUITE of the smallest form of a component's
// package index.
func (r release) index(component, arch string) (name string, file indexFile, err error) {
	plain := component + "/binary-" + arch + "/Packages"
	for _, suffix := range []string{".xz", ".gz", ""} {
		if file, ok := r.files[plain+suffix]; ok {
			return plain + suffix, file, nil
		}
	}
	if slices.ContainsFunc(r.paths(), func(p string) bool { return strings.HasPrefix(p, component+"/") }) {
		return "", indexFile{}, fmt.Errorf("it has no architecture %s", arch)
	}
	return "", indexFile{}, fmt.Errorf("it has no component %s", component)
}

func (r release) paths() []string {
	out := make([]string, 0, len(r.files))
	for p := range r.files {
		out = append(out, p)
	}
	return out
}

func isSHA256(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

package debian

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

const arMagic = "!<arch>\n"

// arMember is a file of an ar archive, as deb(5) uses it: short names only.
type arMember struct {
	name string
	*io.SectionReader
}

// readAr lists the members of an ar archive.
func readAr(r io.ReaderAt, size int64) ([]arMember, error) {
	magic := make([]byte, len(arMagic))
	if _, err := r.ReadAt(magic, 0); err != nil || string(magic) != arMagic {
		return nil, errors.New("not an ar archive")
	}
	var out []arMember
	for at := int64(len(arMagic)); at < size; {
		var header [60]byte
		if _, err := r.ReadAt(header[:], at); err != nil {
			return nil, fmt.Errorf("ar header at %d: %w", at, err)
		}
		at += int64(len(header))
		length, err := strconv.ParseInt(strings.TrimRight(string(header[48:58]), " "), 10, 64)
		if err != nil || length < 0 || length > size-at || !bytes.Equal(header[58:], []byte("`\n")) {
			return nil, fmt.Errorf("ar header at %d: not well-formed", at-int64(len(header)))
		}
		name := strings.TrimSuffix(strings.TrimRight(string(header[:16]), " "), "/")
		out = append(out, arMember{name: name, SectionReader: io.NewSectionReader(r, at, length)})
		at += length + length%2
	}
	return out, nil
}

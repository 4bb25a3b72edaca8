package debian

import (
	"bytes"
	"errors"
	"io"
)

// Stanzas reads a control file into maps.
func Stanzas(text string, want ...string) ([]map[string]string, error) {
	r := newStanzaReader(bytes.NewReader([]byte(text)), want...)
	var out []map[string]string
	for {
		s, err := r.next()
		if errors.Is(err, io.EOF) {
			return out, nil
		} else if err != nil {
			return nil, err
		}
		m := map[string]string{}
		for _, f := range s {
			m[f.name] = f.value
		}
		out = append(out, m)
	}
}

// ArMembers gives the content of each member of an ar archive.
func ArMembers(data []byte) (map[string][]byte, error) {
	members, err := readAr(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	for _, m := range members {
		if out[m.name], err = io.ReadAll(m); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// CountIndex reads an index and gives the number of its packages.
func CountIndex(text []byte) (int, error) {
	list, err := readIndex(bytes.NewReader(text), "trixie")
	return len(list), err
}

// BuiltinExcludes is the list of dependencies that only scripts need.
var BuiltinExcludes = builtinExcludes

package debian

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxLine bounds a line of a control file; the longest of Debian's own have
// some 60 kB.
const maxLine = 1 << 20

// field is one field of a stanza; the lines of a folded value are joined by \n
// without their leading blank.
type field struct{ name, value string }

// stanza is one paragraph of a control file (deb822(5)).
type stanza []field

// get gives the value of a field, whose name is compared without case; "" if
// there is none.
func (s stanza) get(name string) string {
	for _, f := range s {
		if strings.EqualFold(f.name, name) {
			return f.value
		}
	}
	return ""
}

// stanzaReader reads a control file stanza by stanza and keeps only the wanted
// fields: an index has fifty megabytes, of which a sixth is needed.
type stanzaReader struct {
	br   *bufio.Reader
	want []string
	line int
	buf  []byte // value of the field being read
}

// newStanzaReader reads the wanted fields, or all if none is named.
func newStanzaReader(r io.Reader, want ...string) *stanzaReader {
	return &stanzaReader{br: bufio.NewReaderSize(r, maxLine), want: want}
}

// next gives the next stanza, or io.EOF. A stanza of which no field is wanted
// is given as an empty one.
func (r *stanzaReader) next() (stanza, error) {
	var s stanza
	inside, keep := false, false
	finish := func() {
		if keep {
			s[len(s)-1].value = string(r.buf)
		}
	}
	for {
		line, end, err := r.readLine()
		if err != nil {
			return nil, err
		}
		switch {
		case len(bytes.TrimSpace(line)) == 0:
			if inside {
				finish()
				return s, nil
			}
			if end {
				return nil, io.EOF
			}
		case line[0] == '#':
		case line[0] == ' ' || line[0] == '\t':
			if !inside {
				return nil, r.errorf("a folded line outside of a field")
			}
			if keep {
				r.buf = append(append(r.buf, '\n'), bytes.TrimSpace(line)...)
			}
		default:
			name, value, ok := bytes.Cut(line, []byte(":"))
			if !ok || len(name) == 0 || bytes.ContainsAny(name, " \t") {
				return nil, r.errorf("not a field: %.40q", line)
			}
			finish()
			inside = true
			if keep = r.wanted(name); !keep {
				break
			}
			if s.has(name) {
				return nil, r.errorf("field %s is given twice", name)
			}
			s = append(s, field{name: string(name)})
			r.buf = append(r.buf[:0], bytes.TrimSpace(value)...)
		}
		if end {
			if !inside {
				return nil, io.EOF
			}
			finish()
			return s, nil
		}
	}
}

// readLine gives a line without its end, valid until the next call, and
// whether it is the last.
func (r *stanzaReader) readLine() (line []byte, end bool, err error) {
	line, err = r.br.ReadSlice('\n')
	r.line++
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, false, r.errorf("longer than %d bytes", maxLine)
	case err != nil && err != io.EOF:
		return nil, false, err
	}
	return bytes.TrimRight(line, "\r\n"), err == io.EOF, nil
}

func (r *stanzaReader) wanted(name []byte) bool {
	if len(r.want) == 0 {
		return true
	}
	for _, w := range r.want {
		if len(w) == len(name) && strings.EqualFold(w, string(name)) {
			return true
		}
	}
	return false
}

func (r *stanzaReader) errorf(format string, args ...any) error {
	return fmt.Errorf("line %d: %s", r.line, fmt.Sprintf(format, args...))
}

func (s stanza) has(name []byte) bool {
	for _, f := range s {
		if len(f.name) == len(name) && strings.EqualFold(f.name, string(name)) {
			return true
		}
	}
	return false
}

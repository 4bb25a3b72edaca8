package debian

import (
	"errors"
	"io"
	"iter"
	"strings"
)

// ReadControl reads a control file (deb822(5)) stanza by stanza: each a map of its
// fields by their names in lower case, the lines of a folded one without their
// leading blank. Of named fields only those are read. The last item holds the
// error, if the text is no control file.
func ReadControl(r io.Reader, fields ...string) iter.Seq2[map[string]string, error] {
	return func(yield func(map[string]string, error) bool) {
		reader := newStanzaReader(r, fields...)
		for {
			s, err := reader.next()
			if errors.Is(err, io.EOF) {
				return
			}
			out := make(map[string]string, len(s))
			for _, f := range s {
				out[strings.ToLower(f.name)] = f.value
			}
			if !yield(out, err) || err != nil {
				return
			}
		}
	}
}

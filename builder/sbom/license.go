package sbom

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"bareboat/builder/debian"
)

// license is what a package may be used under.
type license struct {
	expression string            // of SPDX; empty: it cannot be told
	texts      map[string]string // of the LicenseRef- that it names
}

// spdxIDs are Debian's short names of licences that SPDX calls otherwise
// (https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/#license-specification).
// Names without a version, GPL say, leave open which is meant.
var spdxIDs = map[string]string{
	"apache-2": "Apache-2.0", "apache-2.0": "Apache-2.0", "artistic": "Artistic-1.0", "artistic-2": "Artistic-2.0", "artistic-2.0": "Artistic-2.0",
	"boost-1.0": "BSL-1.0", "bsl-1.0": "BSL-1.0", "bsd-2-clause": "BSD-2-Clause", "bsd-3-clause": "BSD-3-Clause", "bsd-4-clause": "BSD-4-Clause",
	"bsd-2-clauses": "BSD-2-Clause", "bsd-3-clauses": "BSD-3-Clause", "0bsd": "0BSD",
	"cc0": "CC0-1.0", "cc0-1.0": "CC0-1.0", "cc-by-3.0": "CC-BY-3.0", "cc-by-4.0": "CC-BY-4.0", "cc-by-sa-3.0": "CC-BY-SA-3.0", "cc-by-sa-4.0": "CC-BY-SA-4.0",
	"expat": "MIT", "mit": "MIT", "isc": "ISC", "ofl-1.1": "OFL-1.1", "curl": "curl", "openssl": "OpenSSL", "zlib": "Zlib", "unlicense": "Unlicense", "x11": "X11",
	"gpl-1": "GPL-1.0-only", "gpl-1+": "GPL-1.0-or-later", "gpl-2": "GPL-2.0-only", "gpl-2+": "GPL-2.0-or-later", "gpl-3": "GPL-3.0-only", "gpl-3+": "GPL-3.0-or-later",
	"lgpl-2": "LGPL-2.0-only", "lgpl-2+": "LGPL-2.0-or-later", "lgpl-2.0": "LGPL-2.0-only", "lgpl-2.0+": "LGPL-2.0-or-later",
	"lgpl-2.1": "LGPL-2.1-only", "lgpl-2.1+": "LGPL-2.1-or-later", "lgpl-3": "LGPL-3.0-only", "lgpl-3+": "LGPL-3.0-or-later",
	"agpl-3": "AGPL-3.0-only", "agpl-3+": "AGPL-3.0-or-later", "gfdl-1.2+": "GFDL-1.2-or-later", "gfdl-1.3": "GFDL-1.3-only", "gfdl-1.3+": "GFDL-1.3-or-later",
	"mpl-1.1": "MPL-1.1", "mpl-2.0": "MPL-2.0", "psf-2": "PSF-2.0", "python-2.0": "Python-2.0", "postgresql": "PostgreSQL", "bzip2-1.0.6": "bzip2-1.0.6",
}

// parseCopyright reads a copyright file of the machine-readable form (DEP-5).
// One that is written for people alone tells nothing here.
func parseCopyright(text []byte) license {
	first, _, _ := bytes.Cut(text, []byte("\n"))
	if !bytes.HasPrefix(bytes.ToLower(first), []byte("format:")) {
		return license{}
	}
	var named []string
	texts := map[string]string{}
	for fields, err := range debian.ReadControl(bytes.NewReader(text), "Files", "License", "Format") {
		if err != nil {
			return license{}
		}
		name, body, _ := strings.Cut(fields["license"], "\n")
		if name = strings.TrimSpace(name); name == "" {
			continue
		}
		if body != "" {
			texts[name] = body
		}
		if fields["files"] != "" || fields["format"] != "" {
			named = append(named, name)
		}
	}
	return joined(named, texts)
}

// joined is the expression for all of what the files of a package are under.
func joined(named []string, texts map[string]string) license {
	l := license{texts: map[string]string{}}
	var parts []string
	for _, name := range named {
		parts = append(parts, l.convert(name, texts)...)
	}
	slices.Sort(parts)
	parts = slices.Compact(parts)
	for i, p := range parts {
		if len(parts) > 1 && strings.Contains(p, " ") {
			parts[i] = "(" + p + ")"
		}
	}
	l.expression = strings.Join(parts, " AND ")
	return l
}

var joint = regexp.MustCompile(`(?i)\s+(?:and|or)\s+`)

// convert turns a licence of Debian's into expressions of SPDX's that all hold.
// Commas and exceptions, which bind in ways of their own there, are left as they
// are: the whole is then one licence of its own name.
func (l license) convert(name string, texts map[string]string) []string {
	if strings.Contains(name, ",") || strings.Contains(strings.ToLower(name), " with ") {
		return []string{l.single(name, texts)}
	}
	var all []string
	for _, one := range joint.Split(name, -1) {
		all = append(all, l.single(one, texts))
	}
	expression, choice := all[0], false
	for i, operator := range joint.FindAllString(name, -1) {
		operator = strings.ToUpper(strings.TrimSpace(operator))
		choice = choice || operator == "OR"
		expression += " " + operator + " " + all[i+1]
	}
	if choice {
		return []string{expression}
	}
	return all
}

var noID = regexp.MustCompile(`[^A-Za-z0-9.-]+`)

// single names one licence. Packages call texts alike that differ ("public
// domain"), so that the name of one that SPDX does not know tells its text.
func (l license) single(name string, texts map[string]string) string {
	if id, ok := spdxIDs[strings.ToLower(name)]; ok {
		return id
	}
	text := texts[name]
	if text == "" {
		text = name // the file names it and says no more
	}
	sum := sha256.Sum256([]byte(text))
	id := fmt.Sprintf("LicenseRef-%s-%x", strings.Trim(noID.ReplaceAllString(name, "-"), "-"), sum[:4])
	l.texts[id] = text
	return id
}

package sbom

import (
	"bytes"
	"path"
	"slices"
	"strings"

	"github.com/package-url/packageurl-go"

	"bareboat/builder/debian"
)

// Where Debian's packages tell of themselves. Images without dpkg have a file
// for each package below status.d, others have one for all.
const (
	statusFile = "var/lib/dpkg/status"
	statusDir  = "var/lib/dpkg/status.d"
	infoDir    = "var/lib/dpkg/info"
	docDir     = "usr/share/doc"
	sums       = ".md5sums"
)

// isTold tells whether a file is read for what it says.
func isTold(where string) bool {
	dir, base := path.Split(where)
	switch dir {
	case statusDir + "/":
		return true
	case infoDir + "/":
		return strings.HasSuffix(base, sums)
	case "etc/", "usr/lib/":
		return base == "os-release"
	}
	return where == statusFile || base == "copyright" && strings.HasPrefix(dir, docDir+"/")
}

// deb is an installed Debian package.
type deb struct {
	name, version, arch       string
	source, maintainer, about string
	homepage                  string
	depends                   []string
	files                     []string // paths
	license                   license
}

// debs are the installed packages, by name and architecture.
func (s *scan) debs() ([]deb, error) {
	var out []deb
	for where, f := range s.files {
		alone := path.Dir(where) == statusDir && !strings.HasSuffix(where, sums)
		if !alone && where != statusFile {
			continue
		}
		for fields, err := range debian.ReadControl(bytes.NewReader(f.text)) {
			if err != nil {
				return nil, err
			}
			// In the one file of dpkg stand packages, too, that were removed.
			if fields["package"] == "" || !alone && !strings.HasSuffix(fields["status"], " installed") {
				continue
			}
			out = append(out, s.deb(fields))
		}
	}
	slices.SortFunc(out, func(a, b deb) int { return strings.Compare(a.name+":"+a.arch, b.name+":"+b.arch) })
	return slices.CompactFunc(out, func(a, b deb) bool { return a.name == b.name && a.arch == b.arch }), nil
}

func (s *scan) deb(fields map[string]string) deb {
	about, _, _ := strings.Cut(fields["description"], "\n")
	d := deb{
		name: fields["package"], version: fields["version"], arch: fields["architecture"],
		source: fields["source"], maintainer: fields["maintainer"], homepage: fields["homepage"], about: about,
		depends: append(dependencies(fields["pre-depends"]), dependencies(fields["depends"])...),
	}
	for _, list := range []string{
		statusDir + "/" + d.name + sums, infoDir + "/" + d.name + sums, infoDir + "/" + d.name + ":" + d.arch + sums,
	} {
		if f := s.files[list]; f != nil {
			d.files = append(d.files, s.listed(f.text)...)
		}
	}
	d.license = s.license(d.name)
	return d
}

// listed are the files of a list of sums that are there.
func (s *scan) listed(text []byte) []string {
	var out []string
	for line := range strings.Lines(string(text)) {
		_, name, ok := strings.Cut(strings.TrimSpace(line), "  ")
		if _, there := s.files[name]; ok && there {
			out = append(out, name)
		}
	}
	return out
}

// dependencies are the names in a Depends field, of alternatives all.
func dependencies(field string) []string {
	var out []string
	for _, one := range strings.FieldsFunc(field, func(r rune) bool { return r == ',' || r == '|' }) {
		name, _, _ := strings.Cut(strings.TrimSpace(one), " ")
		name, _, _ = strings.Cut(name, ":")
		out = append(out, name)
	}
	return out
}

// license is what the package's copyright file says, which may lie in the folder
// of another package.
func (s *scan) license(name string) license {
	dir := docDir + "/" + name
	if to, ok := s.links[dir]; ok {
		dir = strings.TrimPrefix(path.Join("/", docDir, to), "/")
		if path.IsAbs(to) {
			dir = strings.TrimPrefix(path.Clean(to), "/")
		}
	}
	if f := s.files[dir+"/copyright"]; f != nil {
		return parseCopyright(f.text)
	}
	return license{}
}

// distribution is what os-release says of the whole system: the first part of
// the names of packages, and the qualifier that tells its release.
func (s *scan) distribution() (id, release string) {
	id = "debian"
	for _, where := range []string{"usr/lib/os-release", "etc/os-release"} {
		f := s.files[where]
		if f == nil {
			continue
		}
		for line := range strings.Lines(string(f.text)) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
			value = strings.Trim(value, `"'`)
			switch key {
			case "ID":
				id = value
			case "VERSION_ID":
				release = value
			}
		}
	}
	return id, release
}

// purl names a Debian package as scanners look it up.
func (d deb) purl(id, release string) string {
	q := map[string]string{"arch": d.arch}
	if release != "" {
		q["distro"] = id + "-" + release
	}
	if name, version, own := strings.Cut(d.source, " "); name != "" && (name != d.name || own) {
		q["upstream"] = name
		if version = strings.Trim(version, "()"); version != "" {
			q["upstream"] += "@" + version
		}
	}
	return packageurl.NewPackageURL(packageurl.TypeDebian, id, d.name, d.version, packageurl.QualifiersFromMap(q), "").ToString()
}

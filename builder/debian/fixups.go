package debian

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"strings"

	"bareboat/builder/layer"
)

// fixup is what the scripts of a package would do for an image, as far as an
// image needs it. That a package has one also says that its scripts were read,
// so that what they divert is known to be of no account here.
type fixup struct {
	pkg   string // a glob
	steps []step
}

// step is one change of the planned file system. What is there already stays.
type step struct {
	op       op
	path     string
	from     string // opLink: the target; opCopy: a file; opConcat: a glob; opFile: the content
	mode     fs.FileMode
	uid, gid int
}

type op int

const (
	opDir     op = iota // make a folder, or set the metadata of one
	opFile              // write content
	opLink              // make a symbolic link
	opCopy              // copy a file
	opConcat            // join the files that match, each ending a line
	opModules           // enable nginx modules as the package's postinst does
)

const (
	wwwData   = 33
	groupAdm  = 4
	groupMail = 8
	groupUtmp = 43
)

// fixups is the table, by the versions of bookworm and trixie.
func fixups() []fixup {
	return []fixup{
		{"base-files", []step{
			{op: opLink, path: "etc/dpkg/origins/default", from: "debian"},
			{op: opCopy, path: "root/.profile", from: "usr/share/base-files/dot.profile", mode: 0o644},
			{op: opCopy, path: "root/.bashrc", from: "usr/share/base-files/dot.bashrc", mode: 0o644},
			{op: opCopy, path: "etc/profile", from: "usr/share/base-files/profile", mode: 0o644},
			{op: opDir, path: "var/mail", mode: fs.ModeSetgid | 0o775, gid: groupMail},
			{op: opLink, path: "var/spool/mail", from: "../mail"},
			{op: opFile, path: "var/log/wtmp", mode: 0o664, gid: groupUtmp},
			{op: opFile, path: "var/log/btmp", mode: 0o660, gid: groupUtmp},
			{op: opFile, path: "var/log/lastlog", mode: 0o664, gid: groupUtmp},
		}},
		{"base-passwd", nil}, // accounts are always written
		{"libc6", []step{
			{op: opFile, path: "etc/nsswitch.conf", mode: 0o644, from: "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\nprotocols: files\nservices: files\n"},
		}},
		{"libc-bin", nil}, // no ld.so.cache: every library lies in a folder that ld.so knows
		{"dash", nil},     // ships sh
		{"bash", nil},
		{"ca-certificates", []step{
			{op: opConcat, path: "etc/ssl/certs/ca-certificates.crt", from: "usr/share/ca-certificates/*/*.crt", mode: 0o644},
			{op: opLink, path: "usr/lib/ssl/certs", from: "/etc/ssl/certs"},
			{op: opLink, path: "usr/lib/ssl/cert.pem", from: "/etc/ssl/certs/ca-certificates.crt"},
		}},
		{"tzdata", []step{
			{op: opLink, path: "etc/localtime", from: "/usr/share/zoneinfo/Etc/UTC"},
			{op: opFile, path: "etc/timezone", mode: 0o644, from: "Etc/UTC\n"},
		}},
		{"netbase", []step{
			{op: opFile, path: "etc/networks", mode: 0o644, from: "default\t\t0.0.0.0\nloopback\t127.0.0.0\nlink-local\t169.254.0.0\n"},
		}},
		{"nginx-common", []step{
			{op: opDir, path: "var/log/nginx", mode: 0o755, gid: groupAdm},
			{op: opFile, path: "var/log/nginx/access.log", mode: 0o640, uid: wwwData, gid: groupAdm},
			{op: opFile, path: "var/log/nginx/error.log", mode: 0o640, uid: wwwData, gid: groupAdm},
			{op: opDir, path: "var/lib/nginx", mode: 0o755},
			{op: opLink, path: "etc/nginx/sites-enabled/default", from: "/etc/nginx/sites-available/default"},
			{op: opCopy, path: "var/www/html/index.nginx-debian.html", from: "usr/share/nginx/html/index.html", mode: 0o644},
		}},
		{"nginx", nil}, // starts the server
		{"nginx-light", nil},
		{"libnginx-mod-*", []step{{op: opModules, path: "etc/nginx/modules-enabled", from: "/usr/share/nginx/modules-available"}}},
	}
}

// fixupFor gives the fix-up of a package.
func fixupFor(pkg string) (fixup, bool) {
	for _, f := range fixups() {
		if ok, err := path.Match(f.pkg, pkg); ok && err == nil {
			return f, true
		}
	}
	return fixup{}, false
}

// apply makes the changes of a fix-up and tells which had an effect.
func (f fixup) apply(t *tree, d *deb) ([]string, error) {
	var made []string
	for _, s := range f.steps {
		paths, err := s.apply(t, d)
		if err != nil {
			return nil, fmt.Errorf("%s: fix up %s: %w", d.Name, s.path, err)
		}
		made = append(made, paths...)
	}
	return made, nil
}

func (s step) apply(t *tree, d *deb) ([]string, error) {
	if s.op == opModules {
		return s.enableModules(t, d)
	}
	where, err := t.place(s.path)
	if err != nil || t.dropped(where, 0) {
		return nil, err
	}
	have := t.nodes[where]
	if have != nil && (s.op != opDir || !have.Mode.IsDir()) {
		return nil, nil
	}
	f, err := s.file(t)
	if err != nil || f.Path == "" {
		return nil, err
	}
	if err := t.set(d.Name, f.Owned(s.uid, s.gid)); err != nil {
		return nil, err
	}
	return []string{where}, nil
}

// file makes what the step puts at its path; a file without a path if what it
// would be made from is not there.
func (s step) file(t *tree) (layer.File, error) {
	switch s.op {
	case opDir:
		return layer.Dir(s.path, s.mode), nil
	case opFile:
		return layer.Bytes(s.path, s.mode, []byte(s.from)), nil
	case opLink:
		return layer.Symlink(s.path, s.from), nil
	case opConcat:
		return s.concat(t)
	}
	from := t.nodes[s.from]
	if from == nil {
		return layer.File{}, nil
	}
	text, err := content(from)
	return layer.Bytes(s.path, s.mode, text), err
}

func (s step) concat(t *tree) (layer.File, error) {
	var all bytes.Buffer
	for _, p := range t.glob(s.from) {
		text, err := content(t.nodes[p])
		if err != nil {
			return layer.File{}, err
		}
		all.Write(text)
		if !bytes.HasSuffix(text, []byte("\n")) {
			all.WriteByte('\n')
		}
	}
	if all.Len() == 0 {
		return layer.File{}, nil
	}
	return layer.Bytes(s.path, s.mode, all.Bytes()), nil
}

// modulePairs finds the list of an nginx module's postinst:
// "for confpair in mod-http-echo.conf:50-mod-http-echo.conf ; do".
var modulePairs = regexp.MustCompile(`for confpair in ([^;\n]*);`)

func (s step) enableModules(t *tree, d *deb) ([]string, error) {
	found := modulePairs.FindStringSubmatch(d.scripts["postinst"])
	if found == nil {
		return nil, nil
	}
	var made []string
	for _, pair := range strings.Fields(found[1]) {
		from, to, ok := strings.Cut(pair, ":")
		if !ok || path.Base(from) != from || path.Base(to) != to {
			return nil, fmt.Errorf("postinst: %q is not a pair of file names", pair)
		}
		link := layer.Symlink(path.Join(s.path, to), path.Join(s.from, from))
		if err := t.set(d.Name, link); err != nil {
			return nil, err
		}
		made = append(made, link.Path)
	}
	return made, nil
}

// content reads a file of the plan that fix-ups look into, which are small.
func content(n *node) ([]byte, error) {
	if n.Open == nil {
		return nil, fmt.Errorf("%s is not a file", n.Path)
	}
	r, err := n.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

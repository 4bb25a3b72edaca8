package debian_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"bareboat/builder/debian"
	"bareboat/builder/layer"
)

// layers resolves, fetches and plans the packages of a test.
func layers(t testing.TB, req debian.Request, packages ...pkg) ([]layer.Layer, debian.Report, error) {
	t.Helper()
	for _, p := range packages {
		if req.Packages = append(req.Packages, p.name); p.suite != "" {
			t.Fatalf("%s: only trixie is planned", p.name)
		}
	}
	a := newRepo(t, packages...).archive(t)
	l, err := a.Resolve(t.Context(), req, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Fetch(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	return a.Layers(t.Context(), l, req)
}

// listing tells what an image of the layers holds, path by path.
func listing(t testing.TB, all []layer.Layer) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, l := range all {
		files, err := layer.Normalize(l.Files)
		if err != nil {
			t.Fatalf("layer %s: %v", l.Name, err)
		}
		if len(files) != len(l.Files) {
			t.Errorf("layer %s lacks folders above its files", l.Name)
		}
		for _, f := range files {
			line := describe(t, f)
			if have, ok := out[f.Path]; ok && (have != line || !f.Mode.IsDir()) {
				t.Errorf("%s is %s in one layer and %s in another", f.Path, have, line)
			}
			out[f.Path] = line
		}
	}
	return out
}

func describe(t testing.TB, f layer.File) string {
	t.Helper()
	owner := fmt.Sprintf("%v %d:%d", f.Mode, f.UID, f.GID)
	switch {
	case f.Hard:
		return owner + " = " + f.Link
	case f.Mode&fs.ModeSymlink != 0:
		return "-> " + f.Link
	case f.Mode.IsDir():
		return owner
	}
	var texts []string
	for range 2 { // Open gives the same each time
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil || int64(len(text)) != f.Size {
			t.Fatalf("%s: %d bytes of %d, %v", f.Path, len(text), f.Size, err)
		}
		r.Close()
		texts = append(texts, string(text))
	}
	if texts[0] != texts[1] {
		t.Errorf("%s differs when it is read again", f.Path)
	}
	return owner + " " + texts[0]
}

func TestLayers(t *testing.T) {
	setuid := file("./usr/bin/su")
	setuid.Mode = 0o4755
	private := dir("./var/lib/app/")
	private.Mode, private.Uid, private.Gid = 0o1770, 33, 8
	tests := []struct {
		name     string
		packages []pkg
		request  debian.Request
		want     map[string]string // "" is absence
	}{
		{
			name:     "base",
			packages: []pkg{{name: "app", files: []tar.Header{dir("./"), dir("./etc/"), file("./etc/app.conf"), private}}},
			want: map[string]string{
				"etc/app.conf":              "-rw-r--r-- 0:0 ./etc/app.conf",
				"var/lib/app":               "dtrwxrwx--- 33:8",
				"tmp":                       "dtrwxrwxrwx 0:0",
				"root":                      "drwx------ 0:0",
				"bin":                       "-> usr/bin",
				"lib64":                     "",
				"var/run":                   "-> /run",
				"var/lib/dpkg/status.d/app": "-rw-r--r-- 0:0 Package: app\nVersion: 1.0\nArchitecture: amd64\n",
			},
		},
		{
			name: "merged usr",
			packages: []pkg{
				{name: "old", files: []tar.Header{
					dir("./bin/"), file("./bin/sh"), dir("./lib/"), dir("./lib/x/"), file("./lib/x/one.so"), link("./lib/x/one", "one.so"), link("./lib/x/up", "../../bin/sh"),
					dir("./lib64/"), file("./lib64/ld.so"), link("./bin/moved", "../usr/bin/moved"), link("./sbin/same", "/usr/sbin/same"),
					link("./lib/x/far", "../../usr/share/far"), dir("./var/run/"), dir("./var/run/old/"),
				}},
				{name: "new", files: []tar.Header{link("./bin", "usr/bin"), link("./var/lock", "../run/lock"), dir("./usr/bin/"), file("./usr/bin/moved"), file("./usr/sbin/same")}},
			},
			want: map[string]string{
				"bin": "-> usr/bin", "lib64": "-> usr/lib64", "lib32": "", "bin/sh": "", "usr/bin/sh": "-rw-r--r-- 0:0 ./bin/sh",
				"usr/lib/x/one": "-> one.so", "usr/lib/x/up": "-> ../../bin/sh", "usr/lib/x/far": "-> /usr/share/far",
				"usr/lib64/ld.so": "-rw-r--r-- 0:0 ./lib64/ld.so",
				"usr/bin/moved":   "-rw-r--r-- 0:0 ./usr/bin/moved",
				"usr/sbin/same":   "-rw-r--r-- 0:0 ./usr/sbin/same",
				"run/old":         "drwxr-xr-x 0:0", "var/run": "-> /run",
			},
		},
		{
			name: "a link that stands for a folder",
			packages: []pkg{
				{name: "aaa", files: []tar.Header{dir("./usr/share/real/"), link("./usr/share/alias", "real"), dir("./usr/share/both/")}},
				{name: "bbb", fields: "Depends: aaa", files: []tar.Header{dir("./usr/share/alias/"), file("./usr/share/alias/file"), link("./usr/share/both", "real")}},
			},
			want: map[string]string{"usr/share/real/file": "-rw-r--r-- 0:0 ./usr/share/alias/file", "usr/share/alias": "-> real", "usr/share/alias/file": "", "usr/share/both": "drwxr-xr-x 0:0"},
		},
		{
			name: "documentation",
			packages: []pkg{{name: "app", md5sums: "aa  usr/share/doc/app/copyright\nbb  usr/share/doc/app/README\ncc  bin/app\n", files: []tar.Header{
				file("./usr/share/man/man1/app.1.gz"), file("./usr/share/locale/de/app.mo"), file("./usr/share/info/app.gz"), file("./bin/app"),
				dir("./usr/share/doc/app/"), file("./usr/share/doc/app/copyright"), file("./usr/share/doc/app/README"),
				dir("./usr/share/doc/other/"), file("./usr/share/doc/other/README"), link("./usr/share/doc/third", "app"),
			}}},
			want: map[string]string{
				"usr/share/man": "", "usr/share/man/man1/app.1.gz": "", "usr/share/locale": "", "usr/share/info/app.gz": "",
				"usr/share/doc/app/copyright": "-rw-r--r-- 0:0 ./usr/share/doc/app/copyright", "usr/share/doc/app/README": "",
				"usr/share/doc/other": "", "usr/share/doc/third": "-> app",
				"var/lib/dpkg/status.d/app.md5sums": "-rw-r--r-- 0:0 aa  usr/share/doc/app/copyright\ncc  usr/bin/app\n",
			},
		},
		{
			name:    "excluded paths and hard links",
			request: debian.Request{ExcludePaths: []string{"usr/lib/*/gconv", "usr/bin/first"}},
			packages: []pkg{{name: "app", files: []tar.Header{
				dir("./usr/lib/x/"), dir("./usr/lib/x/gconv/"), file("./usr/lib/x/gconv/UTF-16.so"), file("./usr/lib/x/gconvnot"),
				file("./usr/bin/first"), hard("./usr/bin/second", "./usr/bin/first"), file("./bin/third"), hard("./usr/bin/fourth", "./bin/third"),
			}}},
			want: map[string]string{
				"usr/lib/x/gconv": "", "usr/lib/x/gconv/UTF-16.so": "", "usr/lib/x/gconvnot": "-rw-r--r-- 0:0 ./usr/lib/x/gconvnot",
				"usr/bin/first": "", "usr/bin/second": "-rw-r--r-- 0:0 ./usr/bin/first", "usr/bin/fourth": "-rw-r--r-- 0:0 = usr/bin/third",
			},
		},
		{
			name:     "setuid",
			packages: []pkg{{name: "app", files: []tar.Header{setuid}}},
			want:     map[string]string{"usr/bin/su": "-rwxr-xr-x 0:0 ./usr/bin/su"},
		},
		{
			name: "a package that replaces files of another",
			packages: []pkg{
				{name: "aaa", files: []tar.Header{file("./etc/x")}},
				{name: "bbb", fields: "Depends: aaa\nReplaces: aaa (<< 2)", files: []tar.Header{file("./etc/x")}, content: map[string]string{"./etc/x": "of bbb"}},
			},
			want: map[string]string{"etc/x": "-rw-r--r-- 0:0 of bbb"},
		},
		{
			name: "members of every format",
			packages: []pkg{
				{name: "gzip", format: "gz", files: []tar.Header{file("./etc/gz")}}, {name: "zstd", format: "zst", files: []tar.Header{file("./etc/zst")}},
				{name: "plain", format: "tar", files: []tar.Header{file("./etc/tar")}}, {name: "lzma2", files: []tar.Header{file("./etc/xz")}},
			},
			want: map[string]string{"etc/gz": "-rw-r--r-- 0:0 ./etc/gz", "etc/zst": "-rw-r--r-- 0:0 ./etc/zst", "etc/tar": "-rw-r--r-- 0:0 ./etc/tar", "etc/xz": "-rw-r--r-- 0:0 ./etc/xz"},
		},
		{
			name: "sysusers and tmpfiles",
			packages: []pkg{{name: "app", files: []tar.Header{file("./usr/lib/sysusers.d/app.conf"), file("./usr/lib/tmpfiles.d/app.conf")}, content: map[string]string{
				"./usr/lib/sysusers.d/app.conf": "# c\nu app - \"The App\" /var/lib/app\ng web 77\nu fixed 123:web - - /bin/sh\n",
				"./usr/lib/tmpfiles.d/app.conf": "d /var/lib/app 0750 app web - -\nL /etc/app - - - - ../opt/app\nf /etc/motd 0600 - - - hello\nd /run/%u 0755\nr! /tmp/x\n",
			}}},
			want: map[string]string{
				"var/lib/app": "drwxr-x--- 999:77", "etc/app": "-> ../opt/app", "etc/motd": "-rw------- 0:0 hello",
			},
		},
		{
			name: "alternatives",
			packages: []pkg{
				{name: "mawk", files: []tar.Header{file("./usr/bin/mawk")}, scripts: map[string]string{"postinst": "#!/bin/sh\nif [ \"$1\" = configure ]; then\n  update-alternatives --quiet --install /usr/bin/awk awk /usr/bin/mawk 5 \\\n    --slave /usr/share/man/man1/awk.1.gz awk.1.gz /usr/share/man/man1/mawk.1.gz\nfi\n"}},
				{name: "gawk", files: []tar.Header{file("./usr/bin/gawk")}, scripts: map[string]string{"postinst": "update-alternatives --install /usr/bin/awk awk /usr/bin/gawk 10 || true\n"}},
			},
			want: map[string]string{"usr/bin/awk": "-> /etc/alternatives/awk", "etc/alternatives/awk": "-> /usr/bin/gawk", "etc/alternatives/awk.1.gz": ""},
		},
		{
			name: "fix-ups",
			packages: []pkg{
				{name: "ca-certificates", files: []tar.Header{file("./usr/share/ca-certificates/mozilla/B.crt"), file("./usr/share/ca-certificates/mozilla/A.crt")},
					content: map[string]string{"./usr/share/ca-certificates/mozilla/A.crt": "A\n", "./usr/share/ca-certificates/mozilla/B.crt": "B"}},
				{name: "libnginx-mod-http-echo", files: []tar.Header{file("./usr/share/nginx/modules-available/mod-http-echo.conf")},
					scripts: map[string]string{"postinst": "for confpair in mod-http-echo.conf:50-mod-http-echo.conf  ; do\n"}},
				{name: "nginx-common", files: []tar.Header{file("./etc/nginx/sites-available/default"), dir("./etc/nginx/sites-enabled/"), dir("./var/log/nginx/")}},
				{name: "base-files", scripts: map[string]string{"preinst": "dpkg-divert --add --divert /.lib32 /lib32\n"}, files: []tar.Header{dir("./var/lock/")}},
			},
			want: map[string]string{
				"etc/ssl/certs/ca-certificates.crt": "-rw-r--r-- 0:0 A\nB\n", "usr/lib/ssl/cert.pem": "-> /etc/ssl/certs/ca-certificates.crt",
				"etc/nginx/modules-enabled/50-mod-http-echo.conf": "-> /usr/share/nginx/modules-available/mod-http-echo.conf",
				"etc/nginx/sites-enabled/default":                 "-> /etc/nginx/sites-available/default",
				"var/log/nginx":                                   "drwxr-xr-x 0:4", "var/log/nginx/error.log": "-rw-r----- 33:4 ",
				"var/mail": "dgrwxrwxr-x 0:8", "var/lock": "-> /run/lock",
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			all, _, err := layers(t, tt.request, tt.packages...)
			if err != nil {
				t.Fatal(err)
			}
			got := listing(t, all)
			for path, line := range tt.want {
				if got[path] != line {
					t.Errorf("%s: got %q, want %q", path, got[path], line)
				}
			}
		})
	}
}

func TestLayersRefuses(t *testing.T) {
	device := tar.Header{Name: "./dev/null", Typeflag: tar.TypeChar}
	tests := []struct {
		name     string
		packages []pkg
		want     string
	}{
		{"a file of two packages", []pkg{{name: "aaa", files: []tar.Header{file("./etc/x")}}, {name: "bbb", files: []tar.Header{file("./etc/x")}}}, "bbb: ./etc/x: package aaa ships it too"},
		{"a device", []pkg{{name: "app", files: []tar.Header{device}}}, "app: ./dev/null: an entry of type"},
		{"a path out of the root", []pkg{{name: "app", files: []tar.Header{file("./../etc/x")}}}, "leads out of the package"},
		{"a hard link to nothing", []pkg{{name: "app", files: []tar.Header{hard("./a", "./b")}}}, `a hard link to "./b"`},
		{"a circle of links", []pkg{{name: "app", files: []tar.Header{link("./a", "b"), link("./b", "a"), file("./a/x")}}}, "too many links"},
		{"a file below a file", []pkg{{name: "app", files: []tar.Header{file("./a"), file("./a/x")}}}, "a/x of app: lies below a of app"},
		{"a diversion", []pkg{{name: "app", scripts: map[string]string{"preinst": "dpkg-divert --package app --add /bin/x\n"}}}, "app: its preinst diverts a file"},
		{"several at once", []pkg{{name: "aaa", scripts: map[string]string{"preinst": "dpkg-divert --add /bin/x\n"}}, {name: "bbb", scripts: map[string]string{"preinst": "dpkg-divert --add /bin/y\ndpkg-divert --divert /.x.usr-is-merged --add /x\n"}}}, "go without that; bbb: its preinst diverts"},
		{"an alternative by a variable", []pkg{{name: "app", scripts: map[string]string{"postinst": "for i in a b; do\n update-alternatives --install /usr/bin/$i $i /usr/lib/$i 1\ndone\n"}}}, "app: its postinst sets alternatives in a way"},
		{"an alternative that is set by hand", []pkg{{name: "app", scripts: map[string]string{"postinst": "/usr/bin/update-alternatives --set awk /usr/bin/mawk\n"}}}, "app: its postinst sets alternatives"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, _, err := layers(t, debian.Request{}, tt.packages...); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestAcknowledge(t *testing.T) {
	p := pkg{name: "app", scripts: map[string]string{"preinst": "dpkg-divert --add /bin/x\n"}, files: []tar.Header{file("./etc/app")}}
	_, report, err := layers(t, debian.Request{Acknowledge: []string{"app"}}, p)
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Scripts) != 1 || report.Scripts[0] != (debian.Script{Package: "app", Name: "preinst"}) {
		t.Errorf("scripts: %+v", report.Scripts)
	}
}

func TestReport(t *testing.T) {
	setuid := file("./usr/bin/su")
	setuid.Mode = 0o4755
	script := file("./usr/bin/script")
	script.Mode = 0o755
	fine := file("./usr/bin/fine")
	fine.Mode = 0o755
	_, report, err := layers(t, debian.Request{}, pkg{
		name: "app", files: []tar.Header{setuid, script, fine, file("./usr/lib/tmpfiles.d/a.conf")},
		scripts: map[string]string{"postinst": "#!/bin/sh\ntrue\n"},
		content: map[string]string{"./usr/bin/script": "#! /usr/bin/env -S python3 -u\n", "./usr/bin/fine": "#!/bin/su\n", "./usr/lib/tmpfiles.d/a.conf": "d /run/%u\n"},
	}, pkg{name: "tzdata"})
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprintf("%+v", report); got != "{Scripts:[{Package:app Name:postinst Covered:false}] Fixups:[{Package:tzdata Paths:[etc/localtime etc/timezone]}] Setuid:[usr/bin/su] "+
		"Warnings:[usr/lib/tmpfiles.d/a.conf: not understood: d /run/%u usr/bin/script of app: its interpreter python3 is missing]}" {
		t.Errorf("got %s", got)
	}
}

// Many packages are grouped by source package, and then the small together.
func TestLayerBudget(t *testing.T) {
	var many []pkg
	for i := range 60 {
		source := fmt.Sprintf("source-%d", i%30)
		many = append(many, pkg{name: fmt.Sprintf("pkg-%02d", i), fields: "Source: " + source, files: []tar.Header{file(fmt.Sprintf("./etc/f%d", i))}})
	}
	all, _, err := layers(t, debian.Request{}, many...)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 31 || all[1].Name != "debian:source-0" {
		t.Errorf("%d layers, the second %s", len(all), all[1].Name)
	}
	for i := range many {
		many[i].fields = fmt.Sprintf("Source: source-%d", i)
	}
	all, _, err = layers(t, debian.Request{}, many...)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 40 || all[39].Name != "debian:others" {
		t.Errorf("%d layers, the last %s", len(all), all[len(all)-1].Name)
	}
	if got := listing(t, all); got["etc/f0"] == "" || got["etc/f59"] == "" {
		t.Error("files are missing")
	}
}

// The same lock gives the same bytes, whatever the machine.
func TestGoldenTars(t *testing.T) {
	packages := []pkg{
		{name: "app", fields: "Depends: libapp", files: []tar.Header{dir("./"), dir("./usr/bin/"), file("./usr/bin/app"), hard("./usr/bin/also", "./usr/bin/app"), link("./usr/bin/ln", "app")}},
		{name: "libapp", format: "zst", files: []tar.Header{dir("./lib/"), file("./lib/libapp.so"), file("./usr/share/Főtanúsítvány.crt")}},
	}
	procs, mask := runtime.GOMAXPROCS(0), syscall.Umask(0o022)
	t.Cleanup(func() {
		runtime.GOMAXPROCS(procs)
		syscall.Umask(mask)
	})
	var first []string
	for _, machine := range []struct{ procs, mask int }{{1, 0o022}, {4, 0o077}} {
		runtime.GOMAXPROCS(machine.procs)
		syscall.Umask(machine.mask)
		all, _, err := layers(t, debian.Request{}, packages...)
		if err != nil {
			t.Fatal(err)
		}
		sums := digests(t, all)
		if first != nil && !slices.Equal(first, sums) {
			t.Errorf("%+v: %q, before %q", machine, sums, first)
		}
		first = sums
	}
	want := []string{
		"debian:base 312ba652d4f1d6df2056b6371730e9e95e2261b18bf26b21349ce31c1b8ab8a6",
		"debian:libapp 0ecaba61c043c97ab08d946d289e9ad082b10db5900ea6afa3f3cd241712c02c",
		"debian:app b64f26d0b77fbe947089ca42c1650e917ce90c8d1d52b308e67e634a5a6b3964",
	}
	if !slices.Equal(first, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(first, "\n"), strings.Join(want, "\n"))
	}
}

func digests(t testing.TB, all []layer.Layer) []string {
	t.Helper()
	var out []string
	for _, l := range all {
		var b bytes.Buffer
		if err := layer.WriteTar(&b, l.Files, time.Unix(0, 0)); err != nil {
			t.Fatal(err)
		}
		out = append(out, l.Name+" "+sum(b.Bytes()))
	}
	return out
}

// A damaged unpacked tar is found and made anew.
func TestUnpackedDamaged(t *testing.T) {
	a := newRepo(t, hello, libhello).archive(t)
	l, err := a.Resolve(t.Context(), want, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.Layers(t.Context(), l, want); err == nil || !strings.Contains(err.Error(), "not in the cache: fetch it first") {
		t.Errorf("before it is fetched: %v", err)
	}
	if err := a.Fetch(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	before, _, err := a.Layers(t.Context(), l, want)
	if err != nil {
		t.Fatal(err)
	}
	good := digests(t, before)
	spools, err := filepath.Glob(filepath.Join(a.Cache, "unpacked", "*.tar"))
	if err != nil || len(spools) != 2 {
		t.Fatalf("%q, %v", spools, err)
	}
	for _, s := range spools {
		damage(t, s)
	}
	after, _, err := a.Layers(t.Context(), l, want)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(good, digests(t, after)) {
		t.Error("the layers changed")
	}
}

func BenchmarkLayers(b *testing.B) {
	var many []pkg
	for i := range 30 {
		p := pkg{name: fmt.Sprintf("pkg-%d", i)}
		for j := range 300 {
			p.files = append(p.files, file(fmt.Sprintf("./lib/d%d/f%d", i, j)))
		}
		many = append(many, p)
	}
	a := newRepo(b, many...).archive(b)
	var req debian.Request
	for _, p := range many {
		req.Packages = append(req.Packages, p.name)
	}
	l, err := a.Resolve(b.Context(), req, "amd64")
	if err != nil {
		b.Fatal(err)
	}
	if err := a.Fetch(b.Context(), l); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, _, err := a.Layers(b.Context(), l, req); err != nil {
			b.Fatal(err)
		}
	}
}

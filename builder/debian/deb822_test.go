package debian_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"bareboat/builder/debian"
)

func TestStanzas(t *testing.T) {
	tests := []struct {
		name, in string
		want     []string // fields wanted
		out      []map[string]string
		err      string
	}{
		{name: "empty", in: "\n \n\n"},
		{name: "two, the last without an end", in: "A: 1\nB:2\n\n\n\nA: 3", out: []map[string]string{{"A": "1", "B": "2"}, {"A": "3"}}},
		{name: "folded", in: "A:\n one\n\ttwo\n .\nB: x\n", out: []map[string]string{{"A": "\none\ntwo\n.", "B": "x"}}},
		{name: "comments and CR", in: "# c\nA: 1\r\n# d\nB: 2\r\n", out: []map[string]string{{"A": "1", "B": "2"}}},
		{name: "only some", in: "A: 1\nB: 2\n b\nC: 3\n\nB: 4\n", want: []string{"a", "C"}, out: []map[string]string{{"A": "1", "C": "3"}, {}}},
		{name: "a value with a colon", in: "A: b: c\n", out: []map[string]string{{"A": "b: c"}}},
		{name: "folded at the start", in: " x\n", err: "line 1: a folded line"},
		{name: "no colon", in: "A: 1\nhello\n", err: "line 2: not a field"},
		{name: "twice", in: "A: 1\na: 2\n", err: "given twice"},
		{name: "too long", in: "A: " + strings.Repeat("x", 1<<20), err: "longer than"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := debian.Stanzas(tt.in, tt.want...)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("got %v, want %q", err, tt.err)
				}
				return
			}
			if err != nil || len(got) != len(tt.out) {
				t.Fatalf("got %q, %v", got, err)
			}
			for i := range got {
				if !maps.Equal(got[i], tt.out[i]) {
					t.Errorf("stanza %d: got %q, want %q", i, got[i], tt.out[i])
				}
			}
		})
	}
}

func FuzzStanzas(f *testing.F) {
	f.Add("Package: a\nDepends: b,\n c\n\nPackage: d\n")
	for _, seed := range []string{
		"# c\r\n: x\n", "", "\n\n", " folded at the start\n", "A: 1\na: 2\n", "Package: a\n\n\n\nPackage: b",
		"Description: short\n long\n .\n\tmore\n", "Package:a\n# between\n folded\n", "no colon", "A B: c\n", "A:\x00\n", "A: \u00e4\r\n\r\n",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		all, err := debian.Stanzas(s)
		if err != nil {
			return
		}
		some, err := debian.Stanzas(s, "Package")
		if err != nil || len(some) != len(all) {
			t.Errorf("%d stanzas with all fields, %d with one, %v", len(all), len(some), err)
		}
	})
}

func FuzzAr(f *testing.F) {
	const header = "debian-binary   0           0     0     100644  "
	for _, seed := range []string{
		"!<arch>\n" + header + "4         `\n2.0\n",
		"!<arch>\n" + header + "3         `\n2.0\n" + header + "1         `\nx",
		"!<arch>\n" + header + "9999999999`\n2.0\n",
		"!<arch>\n" + header + "-4        `\n2.0\n",
		"!<arch>\n" + header + "4         x\n2.0\n",
		"!<arch>\n" + header, "!<arch>\n", "!<thin>\n", "",
	} {
		f.Add([]byte(seed))
	}
	f.Add(hello.deb(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		members, err := debian.ArMembers(data)
		if err != nil {
			return
		}
		total := 0
		for _, m := range members {
			total += len(m)
		}
		if total > len(data) {
			t.Errorf("%d bytes in members of an archive of %d", total, len(data))
		}
	})
}

func BenchmarkReadIndex(b *testing.B) {
	var text strings.Builder
	for i := range 60000 {
		fmt.Fprintf(&text, "Package: package-%d\nSource: source-%d\nVersion: 1.%d-1\nInstalled-Size: 100\nMaintainer: Some Body <body@example.org>\nArchitecture: amd64\n"+
			"Depends: libc6 (>= 2.38), libgcc-s1 (>= 3.0), libstdc++6 (>= 13.1), package-%d (= 1.0)\nDescription: a package of a benchmark\n"+
			"Description-md5: 0123456789abcdef0123456789abcdef\nHomepage: https://example.org/\nTag: implemented-in::c, role::program,\n use::testing, works-with::text\n"+
			"Section: misc\nPriority: optional\nFilename: pool/main/p/package/package_1.0_amd64.deb\nSize: 12345\nMD5sum: 0123456789abcdef0123456789abcdef\n"+
			"SHA256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n\n", i, i, i, i/2)
	}
	data := []byte(text.String())
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if n, err := debian.CountIndex(data); err != nil || n != 60000 {
			b.Fatal(n, err)
		}
	}
}

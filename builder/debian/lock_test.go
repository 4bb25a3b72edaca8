package debian_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bareboat/builder/debian"
)

func someLock(t testing.TB) debian.Lock {
	t.Helper()
	l, err := newRepo(t, hello, libhello).archive(t).Resolve(t.Context(), want, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLockRoundTrip(t *testing.T) {
	l := someLock(t)
	other := l
	other.Architecture = "arm64"
	name := filepath.Join(t.TempDir(), "image.lock")
	if _, err := debian.ReadLock(name); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing lock: got %v", err)
	}
	file := debian.LockFile{}.With(other).With(l).With(l)
	if err := debian.WriteLock(name, file); err != nil {
		t.Fatal(err)
	}
	first, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := debian.WriteLock(name, debian.LockFile{}.With(l).With(other)); err != nil {
		t.Fatal(err)
	}
	if second, err := os.ReadFile(name); err != nil || !bytes.Equal(first, second) {
		t.Errorf("the same locks give another file, %v", err)
	}
	got, err := debian.ReadLock(name)
	if err != nil {
		t.Fatal(err)
	}
	found, ok := got.Find(want.Hash(), "amd64")
	if !ok || len(got.Locks) != 2 || len(debian.Diff(found, l)) > 0 || !found.Sources[0].Date.Equal(l.Sources[0].Date) {
		t.Errorf("got %+v", got)
	}
	if _, ok := got.Find(want.Hash(), "riscv64"); ok {
		t.Error("found a lock of another architecture")
	}
	if entries, _ := os.ReadDir(filepath.Dir(name)); len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
}

func TestParseLockRefuses(t *testing.T) {
	good, err := debian.LockFile{}.With(someLock(t)).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, old, new, want string }{
		{"unknown key", `"suite"`, `"suit"`, "unknown field"},
		{"other version", `"version": 1,`, `"version": 2,`, "version 2 is not known"},
		{"path out of the mirror", `"path": "pool/`, `"path": "../`, "not a path"},
		{"path with a query", `"path": "pool/`, `"path": "pool?/`, "not a path"},
		{"digest", `"sha256": "`, `"sha256": "x`, "not a SHA-256"},
		{"name", `"name": "hello"`, `"name": "../hello"`, "not a package name"},
		{"architecture", `"architecture": "amd64",` + "\n      \"sources\"", `"architecture": "pdp11",` + "\n      \"sources\"", "pdp11"},
		{"twice", `"name": "libhello"`, `"name": "hello"`, "given twice"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			text := strings.Replace(string(good), tt.old, tt.new, 1)
			if text == string(good) {
				t.Fatalf("%s is not in the lock", tt.old)
			}
			if _, err := debian.ParseLock([]byte(text)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	if _, err := debian.ParseLock(append(good, good...)); err == nil || !strings.Contains(err.Error(), "text stands after") {
		t.Errorf("text after: got %v", err)
	}
}

func TestDiff(t *testing.T) {
	a := debian.Lock{Packages: []debian.Package{{Name: "same", Version: "1", SHA256: "a"}, {Name: "up", Version: "1", SHA256: "b"}, {Name: "gone", Version: "1", SHA256: "c"}, {Name: "anew", Version: "1", SHA256: "d"}}}
	b := debian.Lock{Packages: []debian.Package{{Name: "same", Version: "1", SHA256: "a"}, {Name: "up", Version: "2", SHA256: "e"}, {Name: "new", Version: "1", SHA256: "f"}, {Name: "anew", Version: "1", SHA256: "g"}}}
	var got []string
	for _, c := range debian.Diff(a, b) {
		got = append(got, c.String())
	}
	if s := strings.Join(got, "; "); s != "anew 1 was built anew; gone 1 is gone; new 1 is new; up 1 → 2" {
		t.Errorf("got %q", s)
	}
}

func FuzzParseLock(f *testing.F) {
	good, err := debian.LockFile{}.With(someLock(f)).Bytes()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	for _, seed := range []string{
		`{"version":1,"locks":[]}`, `{"version":1}`, `{"version":2,"locks":null}`, `{"version":1,"locks":[{"packages":[]}]}`,
		`{"version":1,"locks":[{"architecture":"amd64","packages":[{"name":"a","path":"../b"}]}]}`, `{}{}`, `[]`, ``, `{"version":1e99}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		file, err := debian.ParseLock(data)
		if err != nil {
			return
		}
		text, err := file.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := debian.ParseLock(text); err != nil {
			t.Errorf("written and not read: %v", err)
		}
	})
}

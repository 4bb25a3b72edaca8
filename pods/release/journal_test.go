package release_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"bareboat/pods/release"
)

func TestJournal(t *testing.T) {
	dir := t.TempDir()
	j := release.NewJournal(dir)
	if list, err := j.Entries(); err != nil || len(list) != 0 {
		t.Errorf("before any: %v, %v", list, err)
	}
	for n := 1; n <= 3; n++ {
		if err := j.Append(release.Entry{Time: time.Unix(int64(n), 0).UTC(), Event: release.EventDone, Release: n, Images: map[string]string{"a": "b"}}); err != nil {
			t.Fatal(err)
		}
	}
	list, err := j.Entries()
	if err != nil || len(list) != 3 || list[2].Release != 3 || list[0].Before != "" || len(list[2].Before) != 64 {
		t.Fatalf("%+v, %v", list, err)
	}
	file := filepath.Join(dir, "journal.jsonl")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}

	// A crash in the middle of a line: it is written over.
	if err := os.WriteFile(file, append(bytes.Clone(text), `{"time":"20`...), 0o600); err != nil {
		t.Fatal(err)
	}
	if list, err := j.Entries(); err != nil || len(list) != 3 {
		t.Errorf("with half a line: %d entries, %v", len(list), err)
	}
	if err := j.Append(release.Entry{Release: 4}); err != nil {
		t.Fatal(err)
	}
	if list, err := j.Entries(); err != nil || len(list) != 4 || list[3].Release != 4 {
		t.Errorf("after half a line: %+v, %v", list, err)
	}

	// A line that was changed, and one that was taken out.
	for _, changed := range [][]byte{
		bytes.Replace(text, []byte(`"release":2`), []byte(`"release":9`), 1),
		append(bytes.Clone(text[:bytes.IndexByte(text, '\n')+1]), text[bytes.LastIndexByte(text[:len(text)-1], '\n')+1:]...),
	} {
		if err := os.WriteFile(file, changed, 0o600); err != nil {
			t.Fatal(err)
		}
		var broken *release.BrokenJournalError
		if list, err := j.Entries(); !errors.As(err, &broken) || len(list) < 2 {
			t.Errorf("%d entries, %v", len(list), err)
		}
	}
}

func FuzzJournal(f *testing.F) {
	f.Add([]byte("{\"before\":\"\"}\n{}\n"))
	f.Add([]byte("\n\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "journal.jsonl"), text, 0o600); err != nil {
			t.Fatal(err)
		}
		j := release.NewJournal(dir)
		before, _ := j.Entries()
		if err := j.Append(release.Entry{Release: 7}); err != nil {
			t.Fatal(err)
		}
		if after, _ := j.Entries(); len(after) != len(before)+1 || after[len(before)].Release != 7 {
			t.Errorf("%d entries became %d", len(before), len(after))
		}
	})
}

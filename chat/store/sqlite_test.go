package store_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"bareboat/chat/store"
	"bareboat/chat/store/storetest"
)

// writerEnv makes this test binary a process that appends until it is killed.
const writerEnv = "CHAT_STORE_TEST_WRITER"

func TestMain(m *testing.M) {
	if path := os.Getenv(writerEnv); path != "" {
		appendForEver(path)
	}
	os.Exit(m.Run())
}

// appendForEver appends from several goroutines and prints each cid with its
// number once it is acknowledged.
func appendForEver(path string) {
	s, err := store.Open(context.Background(), path)
	if err != nil {
		panic(err)
	}
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := 0; ; i++ {
				cid := fmt.Sprintf("%d-%d-%d", os.Getpid(), w, i)
				m, err := storetest.Append(context.Background(), s, store.Message{Room: "a", User: "u", CID: cid, Nick: "n", Text: "t"})
				if err != nil {
					panic(err)
				}
				fmt.Printf("%s %d\n", cid, m.Seq)
			}
		})
	}
	wg.Wait()
}

func mustOpen(t testing.TB, path string) *store.SQLite {
	t.Helper()
	s, err := store.Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestSQLite(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Open {
		path := filepath.Join(t.TempDir(), "chat.db")
		return func(t *testing.T) store.Store { return mustOpen(t, path) }
	})
}

func TestGroupCommit(t *testing.T) {
	s := mustOpen(t, filepath.Join(t.TempDir(), "chat.db"))
	const n = 2000
	results := make(chan error, n)
	for i := range n {
		s.Append(t.Context(), store.Message{Room: "a", User: "u", CID: fmt.Sprint(i), Nick: "n", Text: "t"}, func(_ store.Message, err error) { results <- err })
	}
	for range n {
		if err := <-results; err != nil {
			t.Fatal(err)
		}
	}
	stats := s.Stats()
	if stats.Appended != n || stats.Commits == 0 || stats.Commits > n/4 {
		t.Errorf("%d messages took %d commits", stats.Appended, stats.Commits)
	}
}

func TestOpenTogether(t *testing.T) {
	path := filepath.Join(t.TempDir(), "chat.db")
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			s, err := store.Open(t.Context(), path)
			if err != nil {
				t.Error(err)
				return
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// TestKill kills two writing processes midway and looks for what they printed.
func TestKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "chat.db")
	acked := map[string]int64{}
	for round := range 3 {
		one, two := startWriter(t, path), startWriter(t, path)
		for _, line := range append(one.killAfter(t, 60+round*37), two.killAfter(t, 100)...) {
			cid, number, _ := strings.Cut(line, " ")
			seq, err := strconv.ParseInt(number, 10, 64)
			if err != nil {
				continue // the last line may be cut
			}
			acked[cid] = seq
		}
	}
	if len(acked) < 300 {
		t.Fatalf("only %d messages were acknowledged", len(acked))
	}
	s := mustOpen(t, path)
	all, err := s.After(t.Context(), "a", 0, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range all {
		if m.Seq != int64(i+1) {
			t.Fatalf("message %d has number %d", i+1, m.Seq)
		}
		if seq, ok := acked[m.CID]; ok && seq != m.Seq {
			t.Errorf("%s was acknowledged as %d and is %d", m.CID, seq, m.Seq)
		}
		delete(acked, m.CID)
	}
	if len(acked) > 0 {
		t.Errorf("%d acknowledged messages are lost: %v", len(acked), acked)
	}
}

type writerProcess struct {
	cmd   *exec.Cmd
	lines *bufio.Scanner
}

func startWriter(t *testing.T, path string) writerProcess {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), writerEnv+"="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return writerProcess{cmd, bufio.NewScanner(out)}
}

// killAfter reads n lines, kills the process and gives all that it printed.
func (p writerProcess) killAfter(t *testing.T, n int) []string {
	t.Helper()
	var lines []string
	for len(lines) < n && p.lines.Scan() {
		lines = append(lines, p.lines.Text())
	}
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for p.lines.Scan() {
		lines = append(lines, p.lines.Text())
	}
	_ = p.cmd.Wait() // it was killed
	return lines
}

// edit changes the database as another program would.
func edit(t *testing.T, path, statement string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(statement); err != nil {
		t.Fatal(err)
	}
}

func TestSchema(t *testing.T) {
	cases := []struct {
		name, statement string
		want            error
	}{
		{"newer that this program cannot read", "UPDATE meta SET value = 99 WHERE key IN ('version', 'reader')", store.ErrNewerSchema},
		{"newer that only expanded", "UPDATE meta SET value = 99 WHERE key = 'version'; ALTER TABLE message ADD COLUMN more TEXT NOT NULL DEFAULT ''", nil},
		{"of another program", "PRAGMA application_id = 7", store.ErrForeign},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "chat.db")
			if err := mustOpen(t, path).Close(); err != nil {
				t.Fatal(err)
			}
			edit(t, path, c.statement)
			s, err := store.Open(t.Context(), path)
			if !errors.Is(err, c.want) {
				t.Fatalf("opened with %v, want %v", err, c.want)
			}
			if err != nil {
				if !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "\n") {
					t.Errorf("error does not name the file in one line: %q", err)
				}
				return
			}
			defer s.Close()
			if _, err := storetest.Append(t.Context(), s, store.Message{Room: "a", User: "u", CID: "c", Nick: "n", Text: "t"}); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	garbage := filepath.Join(dir, "garbage.db")
	if err := os.WriteFile(garbage, []byte(strings.Repeat("not a database ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(dir, "foreign.db")
	edit(t, foreign, "CREATE TABLE theirs (x)")
	for _, path := range []string{garbage, foreign, dir, filepath.Join(dir, "none", "chat.db")} {
		s, err := store.Open(t.Context(), path)
		if err == nil {
			_ = s.Close()
			t.Errorf("opened %s", path)
			continue
		}
		if !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "\n") {
			t.Errorf("error does not name %s in one line: %q", path, err)
		}
	}
}

func TestFilesArePrivate(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, filepath.Join(dir, "chat.db"))
	if err := s.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 3 {
		t.Errorf("found %d files, want the database, -wal and -shm", len(files))
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", f.Name(), info.Mode())
		}
	}
}

// TestCloseLeavesOneFile closes so that the database alone can be copied.
func TestCloseLeavesOneFile(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, filepath.Join(dir, "chat.db"))
	if _, err := storetest.Append(t.Context(), s, store.Message{Room: "a", User: "u", CID: "c", Nick: "n", Text: "t"}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.After(t.Context(), "a", 0, 1); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 || files[0].Name() != "chat.db" {
		t.Errorf("left behind: %v, %v", files, err)
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, writers := range []int{1, 16, 256} {
		b.Run(fmt.Sprint(writers), func(b *testing.B) {
			s := mustOpen(b, filepath.Join(b.TempDir(), "chat.db"))
			text := strings.Repeat("x", 120)
			var wg sync.WaitGroup
			next := make(chan int)
			for range writers {
				wg.Go(func() {
					for i := range next {
						if _, err := storetest.Append(b.Context(), s, store.Message{Room: "a", User: "u", CID: fmt.Sprint(i), Nick: "n", Text: text}); err != nil {
							b.Error(err)
						}
					}
				})
			}
			for i := 0; b.Loop(); i++ {
				next <- i
			}
			close(next)
			wg.Wait()
		})
	}
}

package embedded_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"bareboat/registry/embedded"
)

// ownerOf names the store that the test binary, run once more as a process of
// its own, has to own and serve.
const ownerOf = "EMBEDDED_TEST_OWNER_OF"

func TestMain(m *testing.M) {
	if dir := os.Getenv(ownerOf); dir != "" {
		if err := own(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// own serves the store in dir, prints the address and goes on until it is killed.
func own(dir string) error {
	s, err := embedded.Open(dir)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	return s.Serve(context.Background(), l)
}

// start runs own as another process and waits until it serves.
func start(t *testing.T, dir string) (process *exec.Cmd, addr string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	process = exec.CommandContext(t.Context(), exe)
	process.Env = append(os.Environ(), ownerOf+"="+dir)
	process.Stderr = os.Stderr
	out, err := process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill(process) })
	addr, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	addr = strings.TrimSpace(addr)
	until(t, func() bool {
		resp, err := http.Get("http://" + addr + "/v2/")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return process, addr
}

// kill is kill -9.
func kill(process *exec.Cmd) {
	_ = process.Process.Kill()
	_ = process.Wait()
}

// until waits for a condition that no event announces.
func until(t *testing.T, condition func() bool) {
	t.Helper()
	for !condition() {
		if t.Context().Err() != nil {
			t.Fatal("the condition did not come true")
		}
		runtime.Gosched()
	}
}

func TestLockOfAnotherProcess(t *testing.T) {
	dir := t.TempDir()
	process, addr := start(t, dir)

	_, err := embedded.Open(dir)
	var locked *embedded.LockedError
	if !errors.As(err, &locked) {
		t.Fatalf("Open = %v; want a LockedError", err)
	}
	if locked.PID != process.Process.Pid || locked.Addr != addr {
		t.Errorf("locked by process %d at %q; want %d at %q", locked.PID, locked.Addr, process.Process.Pid, addr)
	}
	if age := time.Since(locked.Started); age < 0 || age > time.Minute {
		t.Errorf("locked since %s", locked.Started)
	}
	want := fmt.Sprintf("open registry store %s: in use by process %d, which serves it at %s", dir, process.Process.Pid, addr)
	if err.Error() != want {
		t.Errorf("error %q\nwant  %q", err, want)
	}

	kill(process)
	open(t, dir)
}

func TestLockWithinOneProcess(t *testing.T) {
	dir := t.TempDir()
	first := open(t, dir)
	_, err := embedded.Open(dir)
	var locked *embedded.LockedError
	if !errors.As(err, &locked) || locked.PID != os.Getpid() || locked.Addr != "" {
		t.Fatalf("Open = %v; want locked by this process, without an address", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "owner.json")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the owner's note after Close: %v", err)
	}
	open(t, dir)
}

// A note that names a process that is gone must not be believed.
func TestLockWithStaleNote(t *testing.T) {
	gone := exec.Command("true")
	if err := gone.Run(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	open(t, dir)
	locked := lockedWithNote(t, dir, fmt.Appendf(nil, `{"pid":%d,"addr":"127.0.0.1:1"}`, gone.Process.Pid))
	if locked.PID != 0 || locked.Addr != "" {
		t.Errorf("Open = %v; want locked by somebody unknown", locked)
	}
}

// Whatever the note says, Open tells that the store is locked, and names no
// process that cannot be.
func FuzzOwnerNote(f *testing.F) {
	dir := f.TempDir()
	s, err := embedded.Open(dir)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	for _, note := range []string{`{"pid":1,"addr":"[::1]:5000"}`, `{"pid":0}`, `{"pid":-1}`, `{"pid":"x"}`, `[]`, ``} {
		f.Add([]byte(note))
	}
	f.Fuzz(func(t *testing.T, note []byte) {
		if locked := lockedWithNote(t, dir, note); locked.PID < 0 || locked.PID == 0 && locked.Addr != "" {
			t.Errorf("with note %q: %#v", note, locked)
		}
	})
}

func lockedWithNote(t *testing.T, dir string, note []byte) *embedded.LockedError {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, "owner.json"), note, 0o600); err != nil {
		t.Fatal(err)
	}
	return owner(t, dir)
}

func TestStoreIsPrivate(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new", "store")
	open(t, dir)
	for _, p := range []string{filepath.Dir(dir), dir, filepath.Join(dir, "repositories")} {
		info, err := os.Stat(p)
		if err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: mode %v, %v; want 0700", p, info.Mode(), err)
		}
	}
}

func TestOpenNamesTheStore(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := embedded.Open(file); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("Open on a file = %v", err)
	}
}

func TestClosed(t *testing.T) {
	s := open(t, t.TempDir())
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	answer := httptest.NewRecorder()
	s.ServeHTTP(answer, httptest.NewRequest(http.MethodGet, "/v2/", nil))
	if answer.Code != http.StatusServiceUnavailable {
		t.Errorf("after Close: status %d", answer.Code)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(t.Context(), l); !errors.Is(err, embedded.ErrClosed) {
		t.Errorf("Serve after Close = %v", err)
	}
}

// An owner that stops serving after it has closed the store leaves the next
// owner's note alone.
func TestServeEndsAfterClose(t *testing.T) {
	dir := t.TempDir()
	first := open(t, dir)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- first.Serve(ctx, l) }()
	until(t, func() bool { return owner(t, dir).Addr == l.Addr().String() })
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	addr := serve(t, open(t, dir))
	until(t, func() bool { return owner(t, dir).Addr == addr })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := owner(t, dir).Addr; got != addr {
		t.Errorf("served at %q by the note; want %q", got, addr)
	}
}

// owner is who has the store, as another process would see it.
func owner(t *testing.T, dir string) *embedded.LockedError {
	t.Helper()
	_, err := embedded.Open(dir)
	var locked *embedded.LockedError
	if !errors.As(err, &locked) {
		t.Fatalf("Open = %v; want a LockedError", err)
	}
	return locked
}

// The owner is killed while a blob is being sent. What was pushed before is
// whole, nothing of the upload is left, and the blob can be pushed again.
func TestKilledDuringUpload(t *testing.T) {
	dir := t.TempDir()
	process, addr := start(t, dir)
	image := randomImage(t)
	push(t, addr, "team/chat:1", image)

	body, feed := io.Pipe()
	defer feed.Close()
	go func() {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPatch, beginUpload(t, addr, "team/chat"), body)
		if err != nil {
			return
		}
		if resp, err := http.DefaultClient.Do(req); err == nil { // it is cut off
			resp.Body.Close()
		}
	}()
	if _, err := feed.Write(make([]byte, 1<<20)); err != nil {
		t.Fatal(err)
	}
	pattern := filepath.Join(dir, "repositories", "team", "chat", "_uploads", "*")
	until(t, func() bool { return len(filesWithContent(t, pattern)) > 0 })
	kill(process)
	if left := filesWithContent(t, pattern); len(left) == 0 {
		t.Fatal("the kill left no half upload: nothing is tested")
	}

	addr = serve(t, open(t, dir))
	if left, _ := filepath.Glob(pattern); len(left) != 0 {
		t.Errorf("left over: %s", left)
	}
	pull(t, addr, "team/chat:1", image)
	next := randomImage(t)
	push(t, addr, "team/chat:2", next)
	pull(t, addr, "team/chat:2", next)
}

func beginUpload(t *testing.T, addr, repository string) (location string) {
	resp, err := http.Post("http://"+addr+"/v2/"+repository+"/blobs/uploads/", "", nil)
	if err != nil {
		t.Error(err)
		return ""
	}
	resp.Body.Close()
	return "http://" + addr + resp.Header.Get("Location")
}

func filesWithContent(t *testing.T, pattern string) (names []string) {
	t.Helper()
	all, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		if info, err := os.Stat(name); err == nil && info.Size() > 0 {
			names = append(names, name)
		}
	}
	return names
}

// A manifest stays under its digest when its tag moves on, also past the
// garbage collection, which takes old blobs that no manifest names.
func TestGarbageCollectionKeepsDigests(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	addr := serve(t, s)
	first, second := randomImage(t), randomImage(t)
	push(t, addr, "team/chat:latest", first)
	push(t, addr, "team/chat:latest", second)
	orphan, err := random.Layer(100, "application/octet-stream")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteLayer(reference(t, addr, "team/chat").Context(), orphan); err != nil {
		t.Fatal(err)
	}
	age(t, dir, 25*time.Hour)
	if err := s.Close(); err != nil { // collects
		t.Fatal(err)
	}

	addr = serve(t, open(t, dir))
	pull(t, addr, "team/chat@"+digest(t, first), first)
	pull(t, addr, "team/chat:latest", second)
	hash, err := orphan.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(blob(dir, "team/chat", hash)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a blob that no manifest names is still there a day later: %v", err)
	}
}

// age makes every file of the store look older.
func age(t *testing.T, dir string, by time.Duration) {
	t.Helper()
	then := time.Now().Add(-by)
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		return os.Chtimes(path, then, then)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func blob(dir, repository string, h v1.Hash) string {
	return filepath.Join(dir, "repositories", repository, "blobs", h.Algorithm, h.Hex)
}

func randomImage(t *testing.T) v1.Image {
	t.Helper()
	image, err := random.Image(2048, 2)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func reference(t *testing.T, addr, rest string) name.Reference {
	t.Helper()
	ref, err := name.ParseReference(addr + "/" + rest)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func digest(t *testing.T, image v1.Image) string {
	t.Helper()
	h, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return h.String()
}

func push(t *testing.T, addr, rest string, image v1.Image) {
	t.Helper()
	if err := remote.Write(reference(t, addr, rest), image); err != nil {
		t.Fatal(err)
	}
}

// pull checks that the registry has the whole image, byte for byte.
func pull(t *testing.T, addr, rest string, want v1.Image) {
	t.Helper()
	got, err := remote.Image(reference(t, addr, rest))
	if err != nil {
		t.Fatal(err)
	}
	layers, err := got.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for _, layer := range layers {
		content, err := layer.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, content); err != nil { // checks the digest
			t.Error(err)
		}
		content.Close()
	}
	if digest(t, got) != digest(t, want) {
		t.Errorf("%s is %s; want %s", rest, digest(t, got), digest(t, want))
	}
}

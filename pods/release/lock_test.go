package release_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"bareboat/pods/release"
)

// lockDirEnv has this test's binary hold a lock until it is killed.
const lockDirEnv = "RELEASE_TEST_LOCK"

func TestMain(m *testing.M) {
	if dir := os.Getenv(lockDirEnv); dir != "" {
		if _, err := release.Acquire(dir, "bareboat deploy"); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("locked")
		select {}
	}
	os.Exit(m.Run())
}

func TestLockDiesWithItsHolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "shop")
	holder := exec.CommandContext(t.Context(), os.Args[0])
	holder.Env = append(os.Environ(), lockDirEnv+"="+dir)
	out, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "locked\n" {
		t.Fatalf("the holder says %q, %v", line, err)
	}
	_, err = release.Acquire(dir, "bareboat up")
	var locked *release.LockedError
	if !errors.As(err, &locked) {
		t.Fatalf("Acquire = %v, want a *LockedError", err)
	}
	if locked.Holder.PID != holder.Process.Pid || locked.Holder.Doing != "bareboat deploy" || locked.Holder.Started.IsZero() {
		t.Errorf("holder is %+v", locked.Holder)
	}
	if want := fmt.Sprintf("project shop is locked: bareboat deploy runs there (process %d of ", holder.Process.Pid); !strings.HasPrefix(err.Error(), want) {
		t.Errorf("error is %q", err)
	}
	if err := holder.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = holder.Wait() // killed
	lock, err := release.Acquire(dir, "bareboat up")
	if err != nil {
		t.Fatalf("after its holder was killed: %v", err)
	}
	if err := lock.Unlock(); err != nil {
		t.Fatal(err)
	}
}

// Who removes the folder while holding the lock does not let two in.
func TestLockOfRemovedFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "shop")
	first, err := release.Acquire(dir, "bareboat down")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	second, err := release.Acquire(dir, "bareboat up")
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Unlock(); err != nil {
		t.Fatal(err)
	}
	var locked *release.LockedError
	if _, err := release.Acquire(dir, "bareboat up"); !errors.As(err, &locked) || locked.Holder.PID != os.Getpid() {
		t.Errorf("Acquire = %v, want a *LockedError of this process", err)
	}
	if err := second.Unlock(); err != nil {
		t.Fatal(err)
	}
}

// Whoever comes while the folder is removed gets a lock or is told of the holder.
func TestLockWhileTheFolderIsRemoved(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "shop")
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 500 {
				lock, err := release.Acquire(dir, "bareboat down")
				var locked *release.LockedError
				if errors.As(err, &locked) {
					continue
				}
				if err == nil {
					err = errors.Join(os.Remove(filepath.Join(dir, "lock")), lock.Unlock())
				}
				if err != nil {
					t.Error(err)
					return
				}
				_ = os.Remove(dir) // another may have made its lock there already
			}
		})
	}
	all.Wait()
}

func TestUnreadableHolder(t *testing.T) {
	dir := t.TempDir()
	lock, err := release.Acquire(dir, "x")
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Unlock()
	if err := os.WriteFile(filepath.Join(dir, "lock"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = release.Acquire(dir, "y")
	if want := "project " + filepath.Base(dir) + " is locked by another command"; err == nil || err.Error() != want {
		t.Errorf("Acquire = %v, want %s", err, want)
	}
}

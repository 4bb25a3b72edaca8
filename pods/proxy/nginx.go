package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// fileName is the rendered file's, in the folder that nginx.conf includes.
const fileName = "sites.conf"

// Nginx is the file that tells an nginx about sites. It is not safe for use by
// several goroutines or processes at once: a release holds a lock.
type Nginx struct {
	dir string
}

// New is about the file in dir, which nginx sees as /etc/nginx/bareboat. The
// folder is made if it is not there.
func New(dir string) *Nginx { return &Nginx{dir: dir} }

func (n *Nginx) file() string { return filepath.Join(n.dir, fileName) }

// Current is the configuration that was written last, nil if there is none.
func (n *Nginx) Current() (*Config, error) {
	text, err := os.ReadFile(n.file())
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the edge's sites: %w", err)
	}
	c, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%w (%s)", err, n.file())
	}
	return &c, nil
}

// Write writes the configuration: all of it or nothing, also when the machine
// stops meanwhile. A running nginx does not read it before it is sent SIGHUP, and
// keeps the one it has if it finds a mistake then, which it only logs: let it
// test the file with nginx -t first, and write the one before again on failure.
func (n *Nginx) Write(c Config) error {
	text, err := Render(c)
	if err != nil {
		return err
	}
	if err := n.replace(text); err != nil {
		return fmt.Errorf("write the edge's sites: %w", err)
	}
	return nil
}

// Clear removes the configuration: nginx has no sites then.
func (n *Nginx) Clear() error {
	err := os.Remove(n.file())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = syncDir(n.dir)
	}
	if err != nil {
		return fmt.Errorf("clear the edge's sites: %w", err)
	}
	return nil
}

// replace writes a file beside the old one and moves it there. Anybody may read
// it, whatever the umask, since nginx runs as somebody else: there are no secrets
// in it.
func (n *Nginx) replace(text []byte) error {
	if err := os.MkdirAll(n.dir, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(n.dir, 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(n.dir, ".sites-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.Write(text); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), n.file()); err != nil {
		return err
	}
	return syncDir(n.dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// How WaitRelease asks.
const (
	askTimeout = 2 * time.Second
	askAgain   = 20 * time.Millisecond
	// overlap is how long at least the answers in a row go on. nginx lets its old
	// workers take connections for 100 ms after the new ones have begun
	// (ngx_master_process_cycle), and the new ones may get all that are ours.
	overlap = 400 * time.Millisecond
)

// WaitRelease returns when count answers in a row, each on a connection of its
// own and spread over a time in which old workers stop, came from an edge that
// has read the configuration: a reload takes effect some time after it was asked
// for, worker by worker. It asks the edge on its own host, and ends with its
// context, saying then who answered last.
func WaitRelease(ctx context.Context, c Config, count int) error {
	client := asker()
	last := errors.New("nobody was asked")
	for row := 0; ; {
		err := answers(ctx, client, c)
		pause := askAgain
		switch {
		case err != nil:
			row = 0
			if ctx.Err() == nil {
				last = err
			}
		default:
			if row++; row >= count {
				return nil
			}
			pause = overlap / time.Duration(max(count-1, 1))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for release %s at the edge: %w: %w", c.Release, ctx.Err(), last)
		case <-time.After(pause):
		}
	}
}

// asker asks on a fresh connection each time.
func asker() *http.Client {
	return &http.Client{Timeout: askTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
}

// Loaded tells whether the edge answers that it has read the configuration.
func Loaded(ctx context.Context, c Config) bool { return answers(ctx, asker(), c) == nil }

// maxHealth is more than an edge says about its health.
const maxHealth = 1 << 10

// answers asks the edge once. Without an error it has read the configuration.
func answers(ctx context.Context, client *http.Client, c Config) error {
	url := "http://" + c.Listen.Local() + edgePath + "/healthz"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxHealth))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", url, resp.Status)
	}
	if got := resp.Header.Get("X-Release"); got != c.Release {
		return fmt.Errorf("release %q answers", got)
	}
	want, err := c.Sum()
	if err != nil {
		return err
	}
	// An edge from before there was a hash says ok alone.
	if got := strings.Fields(string(body)); len(got) == 2 && got[1] != want {
		return fmt.Errorf("release %q answers, but with another configuration", c.Release)
	}
	return nil
}

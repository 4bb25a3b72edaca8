package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
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
// own and spread over a time in which old workers stop, came from the given
// release: a reload takes effect some time after it was asked for, worker by
// worker. The address is HOST:PORT. It ends with its context, and says then who
// answered last.
func WaitRelease(ctx context.Context, address, release string, count int) error {
	client := http.Client{Timeout: askTimeout, Transport: &http.Transport{DisableKeepAlives: true}}
	last := errors.New("nobody was asked")
	for row := 0; ; {
		got, err := ask(ctx, &client, address)
		pause := askAgain
		switch {
		case err != nil:
			row = 0
			if ctx.Err() == nil {
				last = err
			}
		case got != release:
			row, last = 0, fmt.Errorf("release %q answers", got)
		default:
			if row++; row >= count {
				return nil
			}
			pause = overlap / time.Duration(count-1)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for release %s at the edge: %w: %w", release, ctx.Err(), last)
		case <-time.After(pause):
		}
	}
}

// ask gives the release that answers.
func ask(ctx context.Context, client *http.Client, address string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+edgePath+"/healthz", nil)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", req.URL, resp.Status)
	}
	return resp.Header.Get("X-Release"), nil
}

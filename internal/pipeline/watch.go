package pipeline

import (
	"context"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settle is how long nothing more has to be saved before it counts: an editor, or
// git, writes many files at once.
const settle = 200 * time.Millisecond

// unwatched are folders that no image is made of, and that change all the time.
var unwatched = []string{".git", "node_modules", ".cache"}

// Watch tells, until ctx ends, when something below the project's folder was saved,
// and gives the path of one such file. What is saved while nobody listens is told
// when somebody does, once.
func (p *Pipeline) Watch(ctx context.Context) (<-chan string, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	if err := watchBelow(w, p.Project.Dir); err != nil {
		w.Close()
		return nil, err
	}
	changed := make(chan string)
	go func() {
		defer w.Close()
		var what string
		var quiet <-chan time.Time
		var tell chan<- string
		for {
			select {
			case <-ctx.Done():
				return
			case e, open := <-w.Events:
				if !open {
					return
				}
				if e.Op == fsnotify.Chmod || ignored(e.Name) {
					continue
				}
				if e.Has(fsnotify.Create) {
					_ = watchBelow(w, e.Name) // it may be a file, or gone again
				}
				what, quiet, tell = e.Name, time.After(settle), nil
			case err := <-w.Errors:
				p.notify(Event{Subject: p.Project.Name, Text: "watch: " + err.Error(), Warn: true})
			case <-quiet:
				quiet, tell = nil, changed
			case tell <- p.relative(what):
				tell = nil
			}
		}
	}()
	return changed, nil
}

func (p *Pipeline) relative(path string) string {
	if rel, err := filepath.Rel(p.Project.Dir, path); err == nil {
		return rel
	}
	return path
}

// watchBelow watches a folder and all below it.
func watchBelow(w *fsnotify.Watcher, dir string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case !d.IsDir():
			return nil
		case slices.Contains(unwatched, d.Name()):
			return fs.SkipDir
		}
		return w.Add(path)
	})
}

// ignored tells whether a file is what editors leave for a moment.
func ignored(path string) bool {
	name := filepath.Base(path)
	return strings.HasSuffix(name, "~") || strings.HasSuffix(name, ".swp") || strings.HasSuffix(name, ".swx") || name == "4913"
}

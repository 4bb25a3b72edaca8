// Package scaffold writes a first recipe and Compose file for a Go module after
// looking at its source.
//
// A program is a main package of the module. What is found about it, with the
// place in the source where it stands, is told in comments of the files: they
// are a beginning, to be read and changed by a person.
package scaffold

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/moby/sys/atomicwriter"
)

// File is a file to be written.
type File struct {
	Path    string // below the folder that was looked at
	Content []byte
}

// ExistsError says that a file is there already.
type ExistsError struct{ Path string }

func (e *ExistsError) Error() string { return fmt.Sprintf("write %s: it is there already", e.Path) }

// Hint tells how to go on.
func (e *ExistsError) Hint() string {
	return "--dry-run prints what would be written, --force replaces the file"
}

// Write writes the files below a folder: all of them, or, where one is there
// already and force is not set, none (*ExistsError).
func Write(dir string, files []File, force bool) error {
	if !force {
		for _, f := range files {
			path := filepath.Join(dir, f.Path)
			if _, err := os.Lstat(path); err == nil {
				return &ExistsError{Path: path}
			} else if !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	for _, f := range files {
		if err := atomicwriter.WriteFile(filepath.Join(dir, f.Path), f.Content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

package builder

import (
	"debug/elf"
	"fmt"
	"os"
	"sync"

	"github.com/opencontainers/go-digest"
)

// self identifies this very program: another version may assemble the same
// files in another way. It is the build ID that Go's linker writes, a digest of
// what the program is made of; where somebody took that out, it is the digest of
// the program's file.
var self = sync.OnceValue(func() string {
	const path = "/proc/self/exe"
	if f, err := elf.Open(path); err == nil {
		defer f.Close()
		if s := f.Section(".note.go.buildid"); s != nil {
			if note, err := s.Data(); err == nil {
				return digest.FromBytes(note).String()
			}
		}
	}
	f, err := os.Open(path)
	if err != nil {
		panic(fmt.Sprintf("this program cannot read itself: %v", err))
	}
	defer f.Close()
	d, err := digest.FromReader(f)
	if err != nil {
		panic(fmt.Sprintf("this program cannot read itself: %v", err))
	}
	return d.String()
})

package builder

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"strings"

	"bareboat/builder/layer"
)

// machines are the processors of ELF files, by Go's names.
var machines = map[string]elf.Machine{
	"386": elf.EM_386, "amd64": elf.EM_X86_64, "arm": elf.EM_ARM, "arm64": elf.EM_AARCH64,
	"ppc64le": elf.EM_PPC64, "riscv64": elf.EM_RISCV, "s390x": elf.EM_S390,
}

// ErrMachine says that a program is of another processor than its image.
var ErrMachine = errors.New("wrong processor")

// checkMachine holds programs and libraries against the platform that they are
// for: one of another processor would only be noticed when it does not start.
func checkMachine(files []layer.File, p Platform) error {
	want, ok := machines[p.Arch]
	if !ok {
		return nil
	}
	for _, f := range files {
		if !f.Mode.IsRegular() || f.Open == nil || f.Size < 64 || strings.HasSuffix(f.Path, ".o") {
			continue
		}
		got, err := machine(f)
		if err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
		if got != elf.EM_NONE && got != want {
			return fmt.Errorf("/%s: %w: it is of %s, the image for %s", f.Path, ErrMachine, got, p)
		}
	}
	return nil
}

// machine gives the processor of an ELF program or shared library, EM_NONE for
// any other file. Firmware and programs for a machine inside the machine (BPF)
// are such others.
func machine(f layer.File) (elf.Machine, error) {
	r, err := f.Open()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	head := make([]byte, 20)
	if _, err := io.ReadFull(r, head); err != nil {
		return 0, err
	}
	if !bytes.HasPrefix(head, []byte(elf.ELFMAG)) {
		return elf.EM_NONE, nil
	}
	at := func(i int) uint16 {
		if elf.Data(head[elf.EI_DATA]) == elf.ELFDATA2MSB {
			return uint16(head[i])<<8 | uint16(head[i+1])
		}
		return uint16(head[i+1])<<8 | uint16(head[i])
	}
	if kind := elf.Type(at(16)); kind != elf.ET_EXEC && kind != elf.ET_DYN {
		return elf.EM_NONE, nil
	}
	if m := elf.Machine(at(18)); m != elf.EM_BPF {
		return m, nil
	}
	return elf.EM_NONE, nil
}

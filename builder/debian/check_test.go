package debian_test

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"strings"
	"testing"

	"bareboat/builder/debian"
)

// object makes the least of an ELF file that names libraries.
type object struct {
	machine elf.Machine // default x86-64
	interp  string
	runpath string
	needed  []string
}

func (o object) bytes(t testing.TB) string {
	t.Helper()
	strs := []byte{0}
	add := func(s string) uint64 {
		at := len(strs)
		strs = append(append(strs, s...), 0)
		return uint64(at)
	}
	var dyn []elf.Dyn64
	for _, n := range o.needed {
		dyn = append(dyn, elf.Dyn64{Tag: int64(elf.DT_NEEDED), Val: add(n)})
	}
	if o.runpath != "" {
		dyn = append(dyn, elf.Dyn64{Tag: int64(elf.DT_RUNPATH), Val: add(o.runpath)})
	}
	dyn = append(dyn, elf.Dyn64{})
	interpAt := add(o.interp)
	machine := o.machine
	if machine == 0 {
		machine = elf.EM_X86_64
	}
	const headerSize, progSize, sectionSize, dynSize = 64, 56, 64, 16
	stringsAt := uint64(headerSize + progSize)
	dynAt := stringsAt + uint64(len(strs))
	h := elf.Header64{
		Type: uint16(elf.ET_DYN), Machine: uint16(machine), Version: 1, Ehsize: headerSize,
		Phoff: headerSize, Phentsize: progSize, Phnum: 1,
		Shoff: dynAt + uint64(len(dyn)*dynSize), Shentsize: sectionSize, Shnum: 3,
	}
	copy(h.Ident[:], elf.ELFMAG+"\x02\x01\x01")
	prog := elf.Prog64{Type: uint32(elf.PT_NULL)}
	if o.interp != "" {
		prog = elf.Prog64{Type: uint32(elf.PT_INTERP), Off: stringsAt + interpAt, Filesz: uint64(len(o.interp) + 1)}
	}
	sections := []elf.Section64{
		{},
		{Type: uint32(elf.SHT_STRTAB), Off: stringsAt, Size: uint64(len(strs))},
		{Type: uint32(elf.SHT_DYNAMIC), Off: dynAt, Size: uint64(len(dyn) * dynSize), Link: 1, Entsize: dynSize},
	}
	var b bytes.Buffer
	for _, part := range []any{h, prog, strs, dyn, sections} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

func TestCheckLibraries(t *testing.T) {
	const loader = "/lib64/ld-linux-x86-64.so.2"
	const libdir = "./usr/lib/x86_64-linux-gnu/"
	libc := map[string]object{"./lib64/ld-linux-x86-64.so.2": {}, libdir + "libc.so.6": {}}
	tests := []struct {
		name  string
		files map[string]object
		links []tar.Header
		want  []string // errors; none if it holds
	}{
		{name: "complete", files: map[string]object{"./usr/bin/app": {interp: loader, needed: []string{"libc.so.6"}}}},
		{name: "through a link", files: map[string]object{"./usr/bin/app": {interp: loader, needed: []string{"libx.so.1"}}, libdir + "libx.so.1.2": {needed: []string{"libc.so.6"}}},
			links: []tar.Header{link(libdir+"libx.so.1", "libx.so.1.2")}},
		{name: "a library is missing", files: map[string]object{"./usr/bin/app": {interp: loader, needed: []string{"libc.so.6", "libssl.so.3"}}},
			want: []string{"usr/bin/app of app: library libssl.so.3 is missing"}},
		{name: "a link to nothing", files: map[string]object{"./usr/bin/app": {interp: loader, needed: []string{"libx.so.1"}}},
			links: []tar.Header{link(libdir+"libx.so.1", "libx.so.1.2")}, want: []string{"usr/bin/app of app: library libx.so.1 is missing"}},
		{name: "a library of a library", files: map[string]object{libdir + "libx.so.1": {needed: []string{"liby.so.1"}}},
			want: []string{"usr/lib/x86_64-linux-gnu/libx.so.1 of app: library liby.so.1 is missing"}},
		{name: "the loader is missing", files: map[string]object{"./usr/bin/app": {interp: "/lib/ld-musl-x86_64.so.1"}},
			want: []string{"usr/bin/app of app: its loader /lib/ld-musl-x86_64.so.1 is missing"}},
		{name: "a folder of its own", files: map[string]object{"./usr/bin/app": {interp: loader, needed: []string{"libp.so"}}, libdir + "app/libp.so": {}},
			want: []string{"library libp.so is missing"}},
		{name: "RUNPATH", files: map[string]object{"./usr/bin/app": {interp: loader, runpath: "$ORIGIN/../lib/x86_64-linux-gnu/app:/opt", needed: []string{"libp.so"}}, libdir + "app/libp.so": {needed: []string{"libq.so"}}, libdir + "app/libq.so": {}}},
		{name: "another machine", files: map[string]object{"./usr/lib/x/firmware.elf": {machine: elf.EM_AARCH64, needed: []string{"libz.so"}}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			app := pkg{name: "app", fields: "Depends: libc-test", content: map[string]string{}, files: tt.links}
			for name, o := range tt.files {
				app.files = append(app.files, file(name))
				app.content[name] = o.bytes(t)
			}
			lib := pkg{name: "libc-test", content: map[string]string{}}
			for name, o := range libc {
				lib.files = append(lib.files, file(name))
				lib.content[name] = o.bytes(t)
			}
			_, _, err := layers(t, debian.Request{}, app, lib)
			if len(tt.want) == 0 {
				if err != nil {
					t.Error(err)
				}
				return
			}
			for _, want := range tt.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %q", err, want)
				}
			}
		})
	}
}

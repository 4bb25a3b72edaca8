package debian

import (
	_ "embed"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"bareboat/builder/layer"
)

// The accounts that every Debian system has, from base-passwd.
var (
	//go:embed data/passwd
	basePasswd string
	//go:embed data/group
	baseGroup string
)

// accounts is a passwd and a group file in the making.
type accounts struct {
	passwd, group []string
	uids, gids    map[string]int
}

func newAccounts() *accounts {
	a := &accounts{uids: map[string]int{}, gids: map[string]int{}}
	for line := range strings.Lines(basePasswd) {
		f := strings.Split(line, ":")
		id, _ := strconv.Atoi(f[2])
		a.passwd = append(a.passwd, line)
		a.uids[f[0]] = id
	}
	for line := range strings.Lines(baseGroup) {
		f := strings.Split(line, ":")
		id, _ := strconv.Atoi(f[2])
		a.group = append(a.group, line)
		a.gids[f[0]] = id
	}
	return a
}

// readSysusers adds the accounts of a sysusers.d(5) file. It gives the lines
// that it does not understand.
func (a *accounts) readSysusers(text string) (unread []string) {
	for line := range strings.Lines(text) {
		words := quotedFields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		if !a.addSysuser(words) {
			unread = append(unread, strings.TrimSpace(line))
		}
	}
	return unread
}

func (a *accounts) addSysuser(words []string) bool {
	for len(words) < 6 {
		words = append(words, "-")
	}
	kind, name, id := words[0], words[1], words[2]
	if strings.ContainsAny(name+strings.Join(words[3:], ""), ":%") {
		return false
	}
	switch kind {
	case "g":
		return a.addGroup(name, id)
	case "u", "u!":
		if _, ok := a.uids[name]; ok {
			return true
		}
		uid, gid, ok := a.ids(name, id)
		if !ok {
			return false
		}
		a.uids[name] = uid
		a.passwd = append(a.passwd, fmt.Sprintf("%s:*:%d:%d:%s:%s:%s\n", name, uid, gid, given(words[3], ""), given(words[4], "/"), given(words[5], "/usr/sbin/nologin")))
		return true
	}
	return false
}

// ids finds the numbers of a new user: those asked for, or free ones.
func (a *accounts) ids(name, id string) (uid, gid int, ok bool) {
	if user, group, two := strings.Cut(id, ":"); two {
		uid, err := strconv.Atoi(user)
		if gid, known := a.gids[group]; known {
			return uid, gid, err == nil
		}
		gid, err2 := strconv.Atoi(group)
		return uid, gid, err == nil && err2 == nil
	}
	if !a.addGroup(name, id) {
		return 0, 0, false
	}
	gid = a.gids[name]
	if id != "-" {
		return gid, gid, true
	}
	return free(a.uids, gid), gid, true
}

func (a *accounts) addGroup(name, id string) bool {
	if _, ok := a.gids[name]; ok {
		return true
	}
	gid, err := strconv.Atoi(id)
	if id == "-" {
		gid, err = free(a.gids, 999), nil
	}
	if err != nil || gid < 0 {
		return false
	}
	a.gids[name] = gid
	a.group = append(a.group, fmt.Sprintf("%s:*:%d:\n", name, gid))
	return true
}

// free gives the highest unused number that is not above from.
func free(used map[string]int, from int) int {
	taken := map[int]bool{}
	for _, id := range used {
		taken[id] = true
	}
	for taken[from] {
		from--
	}
	return from
}

// files gives the two files.
func (a *accounts) files() []layer.File {
	return []layer.File{
		layer.Bytes("etc/passwd", 0o644, []byte(strings.Join(a.passwd, ""))),
		layer.Bytes("etc/group", 0o644, []byte(strings.Join(a.group, ""))),
	}
}

// readTmpfiles makes the folders and links of a tmpfiles.d(5) file. It gives
// the lines that it does not understand and that are not about cleaning up.
func (a *accounts) readTmpfiles(t *tree, owner, text string) (unread []string, err error) {
	for line := range strings.Lines(text) {
		words := quotedFields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		f, ok := a.tmpfile(words)
		if !ok {
			unread = append(unread, strings.TrimSpace(line))
			continue
		}
		where, err := t.place(f.Path)
		if err != nil {
			return nil, err
		}
		if f.Path == "" || t.nodes[where] != nil || t.dropped(where, f.Mode) {
			continue
		}
		if err := t.set(owner, f); err != nil {
			return nil, err
		}
	}
	return unread, nil
}

// tmpfile makes the file of a line; one without a path where there is nothing
// to make.
func (a *accounts) tmpfile(words []string) (f layer.File, ok bool) {
	for len(words) < 7 {
		words = append(words, "-")
	}
	p := strings.TrimPrefix(path.Clean(words[1]), "/")
	if strings.ContainsAny(words[1], "%*?[") || !path.IsAbs(words[1]) || !fs.ValidPath(p) {
		return layer.File{}, false
	}
	kind := strings.TrimRight(words[0], "!-=~^$+")
	mode := map[string]fs.FileMode{"f": 0o644}[kind]
	if mode == 0 {
		mode = 0o755
	}
	if words[2] != "-" {
		bits, err := strconv.ParseUint(strings.TrimLeft(words[2], "~:"), 8, 12)
		if err != nil {
			return layer.File{}, false
		}
		mode = permissions(int64(bits))
	}
	uid, okUser := number(a.uids, words[3])
	gid, okGroup := number(a.gids, words[4])
	if !okUser || !okGroup {
		return layer.File{}, false
	}
	switch kind {
	case "d", "D", "q", "Q", "v":
		return layer.Dir(p, mode).Owned(uid, gid), true
	case "f":
		if strings.Contains(words[6], "%") {
			return layer.File{}, false
		}
		return layer.Bytes(p, mode, []byte(given(words[6], ""))).Owned(uid, gid), true
	case "L":
		return layer.Symlink(p, words[6]), words[6] != "-" && !strings.Contains(words[6], "%")
	case "x", "X", "r", "R", "e", "z", "Z":
		return layer.File{}, true // what is there already, at run time
	}
	return layer.File{}, false
}

func number(known map[string]int, s string) (int, bool) {
	if s == "-" {
		return 0, true
	}
	if id, ok := known[s]; ok {
		return id, true
	}
	id, err := strconv.Atoi(s)
	return id, err == nil && id >= 0
}

func given(s, otherwise string) string {
	if s == "-" {
		return otherwise
	}
	return s
}

// quotedFields splits at blanks, except within double quotes.
func quotedFields(line string) []string {
	var out []string
	inside := false
	fields := strings.FieldsFunc(line, func(r rune) bool {
		if r == '"' {
			inside = !inside
		}
		return !inside && (r == ' ' || r == '\t' || r == '\n')
	})
	for _, f := range fields {
		out = append(out, strings.Trim(f, `"`))
	}
	return slices.Clip(out)
}

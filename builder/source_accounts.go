package builder

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"bareboat/builder/layer"
)

// Accounts are the users and groups of the image: /etc/passwd and /etc/group.
// root and nobody are always there.
type Accounts struct {
	Users  []User  `yaml:"users"`
	Groups []Group `yaml:"groups"`
}

// User is a line of /etc/passwd. GID 0 means a group of the user's own name
// and number.
type User struct {
	Name  string `yaml:"name"`
	UID   int    `yaml:"uid"`
	GID   int    `yaml:"gid"`
	Home  string `yaml:"home"`  // default /nonexistent
	Shell string `yaml:"shell"` // default /usr/sbin/nologin
}

// Group is a line of /etc/group.
type Group struct {
	Name    string   `yaml:"name"`
	GID     int      `yaml:"gid"`
	Members []string `yaml:"members"`
}

var accountName = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,31}$`)

func (a *Accounts) validate() error {
	if len(a.Users)+len(a.Groups) == 0 {
		return errors.New("accounts: names no user and no group")
	}
	users, groups := map[string]bool{"root": true, "nobody": true}, map[string]bool{"root": true, "nogroup": true}
	for _, u := range a.Users {
		switch {
		case !accountName.MatchString(u.Name):
			return fmt.Errorf("accounts: %q is not a user's name", u.Name)
		case u.UID <= 0:
			return fmt.Errorf("accounts: user %s: uid %d is not above 0", u.Name, u.UID)
		case strings.ContainsAny(u.Home+u.Shell, ":\n"):
			return fmt.Errorf("accounts: user %s: home or shell holds a colon or a line break", u.Name)
		case u.GID < 0:
			return fmt.Errorf("accounts: user %s: gid %d is below 0", u.Name, u.GID)
		case users[u.Name]:
			return fmt.Errorf("accounts: user %s: there is one already", u.Name)
		}
		users[u.Name] = true
		if u.GID == 0 {
			groups[u.Name] = true
		}
	}
	for _, g := range a.Groups {
		if !accountName.MatchString(g.Name) || g.GID <= 0 {
			return fmt.Errorf("accounts: group %q with gid %d: wants a name and a gid above 0", g.Name, g.GID)
		}
		if groups[g.Name] {
			return fmt.Errorf("accounts: group %s: there is one already", g.Name)
		}
		groups[g.Name] = true
		for _, m := range g.Members {
			if !accountName.MatchString(m) {
				return fmt.Errorf("accounts: group %s: %q is not a user's name", g.Name, m)
			}
		}
	}
	return nil
}

func (a *Accounts) layer() layer.Layer {
	users := append([]User{{Name: "root", Home: "/root"}}, a.Users...)
	users = append(users, User{Name: "nobody", UID: 65534, GID: 65534})
	groups := []Group{{Name: "root"}}
	var passwd strings.Builder
	for _, u := range users {
		if u.GID == 0 && u.UID != 0 {
			u.GID = u.UID
			groups = append(groups, Group{Name: u.Name, GID: u.GID})
		}
		fmt.Fprintf(&passwd, "%s:x:%d:%d::%s:%s\n", u.Name, u.UID, u.GID, or(u.Home, "/nonexistent"), or(u.Shell, "/usr/sbin/nologin"))
	}
	groups = append(groups, a.Groups...)
	groups = append(groups, Group{Name: "nogroup", GID: 65534})
	var group strings.Builder
	for _, g := range groups {
		fmt.Fprintf(&group, "%s:x:%d:%s\n", g.Name, g.GID, strings.Join(g.Members, ","))
	}
	return layer.Layer{
		Name:      "accounts",
		CreatedBy: "bareboat accounts",
		Files: []layer.File{
			layer.Bytes("etc/passwd", 0o644, []byte(passwd.String())),
			layer.Bytes("etc/group", 0o644, []byte(group.String())),
		},
	}
}

func or(s, def string) string {
	if s == "" {
		return def
	}
	return s
}

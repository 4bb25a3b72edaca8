package debian

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"bareboat/builder/layer"
)

// alternative is one `update-alternatives --install`.
type alternative struct {
	link, name, target string
	priority           int
	slaves             []alternative
	pkg                string
}

// readScripts finds what the scripts that run at installation do to files of
// other packages. What is not understood is an error, unless the scripts of
// the package were read by hand (it has a fix-up) or the request accepts it.
func readScripts(d *deb, accepted bool) ([]alternative, error) {
	var out []alternative
	for _, name := range []string{"preinst", "postinst"} {
		for _, line := range commands(d.scripts[name]) {
			alt, err := readCommand(line)
			if err != nil && !accepted {
				return nil, fmt.Errorf("%s: its %s %w: %q; list it under acknowledge to go without that", d.Name, name, err, line)
			}
			if alt != nil {
				alt.pkg = d.Name
				out = append(out, *alt)
			}
		}
	}
	return out, nil
}

// commands gives the lines of a shell script without comments, continued
// lines joined.
func commands(script string) []string {
	var out []string
	for line := range strings.Lines(strings.ReplaceAll(script, "\\\n", " ")) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			out = append(out, line)
		}
	}
	return out
}

// readCommand looks at one line of a script.
func readCommand(line string) (*alternative, error) {
	words := strings.Fields(line)
	if i := command(words, "dpkg-divert"); i >= 0 && !strings.Contains(line, protective) && !hasAny(words[i:], "--remove", "--list", "--listpackage", "--truename") {
		return nil, fmt.Errorf("diverts a file")
	}
	i := command(words, "update-alternatives")
	if i < 0 || hasAny(words[i:], "--remove", "--remove-all", "--auto", "--display", "--query", "--list", "--get-selections") {
		return nil, nil
	}
	return readAlternative(words[i+1:])
}

// protective ends the names of diversions that keep dpkg from removing files
// while they move below the merged /usr; a new system has nothing to move.
const protective = ".usr-is-merged"

// command gives the place of a program's name among words, with or without a
// folder, or -1.
func command(words []string, name string) int {
	return slices.IndexFunc(words, func(w string) bool {
		return path.Base(strings.Trim(w, "`\"'$(;")) == name
	})
}

func hasAny(words []string, options ...string) bool {
	return slices.ContainsFunc(words, func(w string) bool { return slices.Contains(options, strings.Trim(w, ")\"';`")) })
}

// readAlternative parses literal arguments of update-alternatives(1).
func readAlternative(words []string) (*alternative, error) {
	failure := fmt.Errorf("sets alternatives in a way that is not understood")
	for len(words) > 0 && slices.Contains([]string{"--quiet", "--force", "--skip-auto"}, words[0]) {
		words = words[1:]
	}
	words = cutShell(words)
	if len(words) < 5 || words[0] != "--install" || slices.ContainsFunc(words, func(w string) bool { return strings.ContainsAny(w, "$`*?{") }) {
		return nil, failure
	}
	priority, err := strconv.Atoi(words[4])
	if err != nil {
		return nil, failure
	}
	a := &alternative{link: words[1], name: words[2], target: words[3], priority: priority}
	for rest := words[5:]; len(rest) > 0; rest = rest[4:] {
		if len(rest) < 4 || rest[0] != "--slave" && rest[0] != "--follower" {
			return nil, failure
		}
		a.slaves = append(a.slaves, alternative{link: rest[1], name: rest[2], target: rest[3]})
	}
	for _, part := range append(slices.Clone(a.slaves), *a) {
		if checkName(part.name) != nil || !path.IsAbs(part.link) || !path.IsAbs(part.target) {
			return nil, failure
		}
	}
	return a, nil
}

// cutShell ends a command where the shell does.
func cutShell(words []string) []string {
	for i, w := range words {
		if slices.Contains([]string{"||", "&&", ";", "|", ">", ">/dev/null"}, w) {
			return words[:i]
		}
		if strings.HasSuffix(w, ";") {
			return append(slices.Clone(words[:i]), strings.TrimSuffix(w, ";"))
		}
	}
	return words
}

// setAlternatives links each name to the target of the highest priority, as
// update-alternatives does in its automatic mode, by way of /etc/alternatives.
func setAlternatives(t *tree, all []alternative) (map[string][]string, error) {
	best := map[string]alternative{}
	for _, a := range all {
		if have, ok := best[a.name]; !ok || a.priority > have.priority {
			best[a.name] = a
		}
	}
	made := map[string][]string{}
	for _, name := range sortedKeys(best) {
		a := best[name]
		for _, part := range append([]alternative{a}, a.slaves...) {
			ok, err := setAlternative(t, a.pkg, part)
			if err != nil {
				return nil, fmt.Errorf("%s: alternative %s: %w", a.pkg, part.name, err)
			}
			if ok {
				made[a.pkg] = append(made[a.pkg], strings.TrimPrefix(part.link, "/"))
			}
		}
	}
	return made, nil
}

// setAlternative makes the two links, unless the target was left out or a real
// file stands at the link's place.
func setAlternative(t *tree, pkg string, a alternative) (bool, error) {
	target, err := t.follow(a.target)
	if err != nil || t.nodes[target] == nil {
		return false, err
	}
	where, err := t.place(a.link)
	if err != nil || t.nodes[where] != nil {
		return false, err
	}
	middle := path.Join("etc/alternatives", a.name)
	if err := t.set(pkg, layer.Symlink(middle, a.target)); err != nil {
		return false, err
	}
	return true, t.set(pkg, layer.Symlink(where, "/"+middle))
}

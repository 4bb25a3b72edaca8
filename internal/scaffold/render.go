package scaffold

import (
	"bytes"
	_ "embed"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"
)

// The names of the files. A recipe of one program among several lies in that
// program's folder.
const (
	RecipeName  = "image.yaml"
	ComposeName = "compose.yaml"
)

var (
	//go:embed image.yaml.tmpl
	recipeText string
	//go:embed compose.yaml.tmpl
	composeText string

	functions = template.FuncMap{"q": quote, "join": strings.Join, "one": oneLine}

	recipeTemplate  = template.Must(template.New(RecipeName).Funcs(functions).Parse(recipeText))
	composeTemplate = template.Must(template.New(ComposeName).Funcs(functions).Parse(composeText))
)

// service is a program as the Compose file has it.
type service struct {
	Program
	Recipe string // path of its recipe
	Source string // its package, as the recipe names it
	Route  string // path that leads to it, where another one has "/"
}

// Backend tells that the proxy reaches the program.
func (s service) Backend() bool { return s.Listens != nil && s.Listens.HTTP && !s.Listens.Loopback }

// Published tells that its port is published as it is.
func (s service) Published() bool {
	return s.Listens != nil && !s.Listens.HTTP && !s.Listens.Loopback
}

// project is what the Compose file is written from.
type project struct {
	Name     string
	Services []service
	Proxy    string // name of the proxy's service; empty: nothing is behind one
}

// Files gives the recipes and the Compose file.
func (m *Module) Files() ([]File, error) {
	p := m.project()
	var files []File
	for _, s := range p.Services {
		text, err := render(recipeTemplate, s)
		if err != nil {
			return nil, err
		}
		files = append(files, File{Path: filepath.FromSlash(s.Recipe), Content: text})
	}
	text, err := render(composeTemplate, p)
	return append(files, File{Path: ComposeName, Content: text}), err
}

func render(t *template.Template, data any) ([]byte, error) {
	var out bytes.Buffer
	err := t.Execute(&out, data)
	return out.Bytes(), err
}

// project gives each program a recipe, and those that the proxy reaches a route.
func (m *Module) project() project {
	p := project{Name: binaryName(m.Path)}
	backends := 0
	for _, program := range m.Programs {
		s := service{Program: program, Recipe: RecipeName, Source: "."}
		switch {
		case len(m.Programs) > 1:
			s.Recipe = path.Join(program.Dir, RecipeName)
		case program.Dir != ".":
			s.Source = "./" + program.Dir
		}
		if s.Backend() {
			if backends++; backends > 1 {
				s.Route = "/" + s.Name
			}
		}
		p.Services = append(p.Services, s)
	}
	if backends > 0 {
		p.Proxy = m.freeName("proxy")
	}
	return p
}

// freeName is a name that no program has.
func (m *Module) freeName(name string) string {
	for slices.ContainsFunc(m.Programs, func(p Program) bool { return p.Name == name }) {
		name = "edge-" + name
	}
	return name
}

var plainScalar = regexp.MustCompile(`^[A-Za-z/.][A-Za-z0-9/._-]*$`)

// quote is a string as YAML takes it.
func quote(s string) string {
	if plainScalar.MatchString(s) && s != "." && s != ".." || s == "." {
		return s
	}
	return strconv.Quote(s)
}

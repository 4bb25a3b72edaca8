package scaffold

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Listener is where a program takes connections.
type Listener struct {
	Finding
	Port     uint16
	HTTP     bool   // plain HTTP, which the proxy can pass on
	TLS      bool   // it speaks TLS itself
	Loopback bool   // only programs beside it reach it
	Env      string // variable that has to be set to the port
	Flag     string // flag that has to be set to the address
}

// source is what the files of a program, and of the packages of its module that
// it is made of, say.
type source struct {
	files *token.FileSet
	root  string // names of files are told from here

	ports    []portFound
	serves   *Finding // a call that takes connections
	http     bool
	tls      *Finding
	client   *Finding // it asks others by HTTP
	loopback bool     // a URL of this machine is all that is seen of that
	*Program
}

// portFound is a port in the source.
type portFound struct {
	Finding
	rank     int // lower is better
	port     uint16
	loopback bool
	env      string // of the port
	flag     string
}

// The ranks of ports, the best first.
const (
	byEnv = iota
	byFlag
	byAddress // ":8080" anywhere
	byNumber  // "8080", which says something beside a variable alone
)

// defaultPort is taken where a variable names the port and nothing the default.
const defaultPort = 8080

// look reads the source of a program.
func (p *Program) look(m *Module, all map[string]*goPackage) error {
	s := &source{files: token.NewFileSet(), root: m.Dir, Program: p}
	for _, name := range append([]string{p.Package}, all[p.Package].Deps...) {
		d := all[name]
		switch {
		case d == nil || d.Standard:
		case d.Module.Path == m.Path:
			if err := s.readPackage(d); err != nil {
				return err
			}
		case p.Roots == nil && slices.Contains(d.Imports, "crypto/tls"):
			p.Roots = &Finding{What: d.ImportPath + " imports crypto/tls", Where: "go.mod"}
		}
	}
	s.conclude(all)
	return nil
}

func (s *source) readPackage(d *goPackage) error {
	s.Embeds = append(s.Embeds, d.EmbedPatterns...)
	s.http = s.http || slices.Contains(d.Imports, "net/http")
	for _, name := range d.GoFiles {
		f, err := parser.ParseFile(s.files, filepath.Join(d.Dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				s.call(n)
			case *ast.BasicLit:
				s.literal(n)
			case *ast.BinaryExpr:
				if n.Op == token.EQL && isArg(n.X) {
					s.subcommand(n.Y)
				}
			case *ast.SwitchStmt:
				if n.Tag != nil && isArg(n.Tag) {
					s.subcommands(n)
				}
			case *ast.CompositeLit:
				if selector(n.Type) == "http.Client" {
					s.client = s.first(s.client, n, "http.Client")
				}
			}
			return true
		})
	}
	return nil
}

// first keeps the earlier of two findings.
func (s *source) first(have *Finding, at ast.Node, what string) *Finding {
	if have != nil {
		return have
	}
	f := s.found(at, what)
	return &f
}

func (s *source) found(at ast.Node, what string) Finding {
	p := s.files.Position(at.Pos())
	file := p.Filename
	if rel, err := filepath.Rel(s.root, file); err == nil {
		file = filepath.ToSlash(rel)
	}
	return Finding{What: what, Where: fmt.Sprintf("%s:%d", file, p.Line)}
}

// selector gives "http.Get" for the call of a function of a package.
func selector(e ast.Expr) string {
	sel, ok := e.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	x, ok := sel.X.(*ast.Ident)
	if !ok {
		return "." + sel.Sel.Name
	}
	return x.Name + "." + sel.Sel.Name
}

var (
	portVariable = regexp.MustCompile(`(^|_)PORT$`)
	addressFlag  = regexp.MustCompile(`(?i)(addr|listen|bind|^http$)`)
	portFlag     = regexp.MustCompile(`(?i)port$|^p$`)
)

func (s *source) call(c *ast.CallExpr) {
	name := selector(c.Fun)
	_, method, _ := strings.Cut(name, ".")
	switch {
	case name == "os.Getenv" || name == "os.LookupEnv":
		s.variable(c)
	case strings.HasPrefix(name, "flag.") || strings.HasPrefix(name, "pflag."):
		s.flag(c)
	case name == "net.Listen" || method == "ListenAndServe" || method == "Serve":
		s.serves = s.first(s.serves, c, name)
	case method == "ListenAndServeTLS" || method == "ServeTLS" || name == "tls.Listen":
		s.serves = s.first(s.serves, c, name)
		s.tls = s.first(s.tls, c, name)
	case (method == "Run" || method == "Start" || method == "Listen") && len(c.Args) == 1 && isAddress(text(c.Args[0])):
		// gin, echo and fiber.
		s.serves, s.http = s.first(s.serves, c, name), true
	case slices.Contains([]string{"http.Get", "http.Post", "http.PostForm", "http.Head", "http.NewRequest", "http.NewRequestWithContext"}, name):
		s.client = s.first(s.client, c, name)
	case name == "tls.Dial":
		s.Roots = s.first(s.Roots, c, name)
	case name == "time.LoadLocation":
		s.Zones = s.first(s.Zones, c, name)
	case name == "signal.Notify" || name == "signal.NotifyContext":
		if slices.ContainsFunc(c.Args, func(a ast.Expr) bool { return strings.HasSuffix(selector(a), ".SIGTERM") }) {
			s.Signals = s.first(s.Signals, c, name+" with SIGTERM")
		}
	}
}

func (s *source) variable(c *ast.CallExpr) {
	if len(c.Args) != 1 {
		return
	}
	name := text(c.Args[0])
	if name == "" {
		return
	}
	if !slices.Contains(s.Env, name) {
		s.Env = append(s.Env, name)
	}
	if portVariable.MatchString(name) {
		s.ports = append(s.ports, portFound{Finding: s.found(c, "the variable "+name), rank: byEnv, env: name})
	}
}

// flag is flag.String("addr", ":8080", …) or flag.StringVar(&a, "addr", ":8080", …).
func (s *source) flag(c *ast.CallExpr) {
	for i := 0; i+1 < len(c.Args) && i < 2; i++ {
		name := text(c.Args[i])
		if name == "" {
			continue
		}
		p := portFound{Finding: s.found(c, "the flag -"+name), rank: byFlag}
		if addressFlag.MatchString(name) {
			p.port, p.loopback = address(text(c.Args[i+1]))
			p.flag = name
		} else if portFlag.MatchString(name) {
			p.port = number(c.Args[i+1])
		}
		if p.port != 0 {
			s.ports = append(s.ports, p)
		}
		return
	}
}

var healthPath = regexp.MustCompile(`^(?:GET )?(/(?:[a-z0-9/]*/)?_?(?:health|healthz|livez|readyz|ready|ping))/?$`)

func (s *source) literal(l *ast.BasicLit) {
	t := text(l)
	switch {
	case t == "":
	case strings.HasPrefix(t, "https://"):
		s.Roots = s.first(s.Roots, l, "a URL with https")
	case strings.HasPrefix(t, "http://127.0.0.1") || strings.HasPrefix(t, "http://localhost"):
		s.loopback = true
	case isAddress(t):
		port, loopback := address(t)
		s.ports = append(s.ports, portFound{Finding: s.found(l, l.Value), rank: byAddress, port: port, loopback: loopback})
	case plainPort.MatchString(t):
		s.ports = append(s.ports, portFound{Finding: s.found(l, l.Value), rank: byNumber, port: number(l)})
	case healthPath.MatchString(t):
		s.Endpoint = s.first(s.Endpoint, l, healthPath.FindStringSubmatch(t)[1])
	}
}

// isArg tells os.Args[1] and flag.Arg(0).
func isArg(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.IndexExpr:
		return selector(e.X) == "os.Args"
	case *ast.CallExpr:
		return selector(e.Fun) == "flag.Arg"
	}
	return false
}

// subcommand takes note of a program that checks itself.
func (s *source) subcommand(e ast.Expr) {
	if name := text(e); slices.Contains([]string{"health", "healthcheck", "healthz"}, name) && s.Health == nil {
		s.Health = []string{name}
	}
}

func (s *source) subcommands(w *ast.SwitchStmt) {
	for _, c := range w.Body.List {
		if clause, ok := c.(*ast.CaseClause); ok {
			for _, e := range clause.List {
				s.subcommand(e)
			}
		}
	}
}

// conclude draws the conclusions from all files.
func (s *source) conclude(all map[string]*goPackage) {
	slices.Sort(s.Embeds)
	s.Embeds = slices.Compact(s.Embeds)
	slices.Sort(s.Env)
	if slices.Contains(all[s.Package].Deps, "time/tzdata") {
		s.Zones = nil // it brings them along
	}
	if s.Roots == nil && s.client != nil && !s.loopback {
		s.Roots = s.client
	}
	if s.serves == nil {
		return
	}
	slices.SortStableFunc(s.ports, func(a, b portFound) int { return cmp.Compare(a.rank, b.rank) })
	if l := listener(s.ports); l != nil {
		l.HTTP, l.TLS = s.http && s.tls == nil, s.tls != nil
		s.Listens = l
	}
}

// listener is what the ports that were found, the best first, come to; nil
// where none says enough.
func listener(ports []portFound) *Listener {
	if len(ports) == 0 || ports[0].rank == byNumber {
		return nil
	}
	best := ports[0]
	l := &Listener{Finding: best.Finding, Port: best.port, Loopback: best.loopback}
	switch best.rank {
	case byEnv:
		l.Env, l.Port = best.env, defaultPort
		if i := slices.IndexFunc(ports, func(p portFound) bool { return p.port != 0 }); i >= 0 {
			l.Port = ports[i].port
		}
	case byFlag:
		if best.loopback {
			l.Flag, l.Loopback = best.flag, false
		}
	}
	return l
}

var (
	addressPattern = regexp.MustCompile(`^(|0\.0\.0\.0|\[::\]|\*|localhost|127\.0\.0\.1|\[::1\]):([0-9]{2,5})$`)
	plainPort      = regexp.MustCompile(`^[0-9]{4,5}$`)
)

func isAddress(t string) bool {
	port, _ := address(t)
	return port != 0
}

// address reads ":8080"; what is none has port 0.
func address(t string) (port uint16, loopback bool) {
	m := addressPattern.FindStringSubmatch(t)
	if m == nil {
		return 0, false
	}
	n, err := strconv.ParseUint(m[2], 10, 16)
	if err != nil {
		return 0, false
	}
	return uint16(n), strings.HasPrefix(m[1], "127.") || m[1] == "localhost" || m[1] == "[::1]"
}

// number reads 8080 and "8080"; what is none is 0.
func number(e ast.Expr) uint16 {
	l, ok := e.(*ast.BasicLit)
	if !ok {
		return 0
	}
	t := l.Value
	if l.Kind == token.STRING {
		t = text(l)
	}
	n, err := strconv.ParseUint(t, 10, 16)
	if err != nil {
		return 0
	}
	return uint16(n)
}

// text is the value of a string literal, else "".
func text(e ast.Expr) string {
	l, ok := e.(*ast.BasicLit)
	if !ok || l.Kind != token.STRING {
		return ""
	}
	t, err := strconv.Unquote(l.Value)
	if err != nil {
		return ""
	}
	return t
}

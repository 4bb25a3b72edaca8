package builder

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"

	"gopkg.in/yaml.v3"
)

// LineError says at which line of a recipe something is wrong.
type LineError struct {
	Line int // from 1
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("line %d: %v", e.Line, e.Err) }
func (e *LineError) Unwrap() error { return e.Err }

// RecipeError says that a recipe cannot be used. It is an ErrRecipe.
type RecipeError struct {
	Path string
	Err  error // wraps a *LineError where the line is known
}

func (e *RecipeError) Error() string { return fmt.Sprintf("%v %s: %v", ErrRecipe, e.Path, e.Err) }

// Unwrap gives ErrRecipe and the cause.
func (e *RecipeError) Unwrap() []error { return []error{ErrRecipe, e.Err} }

// placedError is an error about the value at a path of keys and indices.
type placedError struct {
	path []any
	err  error
}

func (e *placedError) Error() string { return e.err.Error() }
func (e *placedError) Unwrap() error { return e.err }

// at tells where in the document an error stands, below the place that the
// caller may add.
func at(err error, path ...any) error {
	if err == nil {
		return nil
	}
	return &placedError{path: path, err: err}
}

// withLine turns the place of an error into a line of the document.
func withLine(err error, document *yaml.Node) error {
	if err == nil {
		return nil
	}
	var path []any
	for rest := err; ; {
		p, ok := errors.AsType[*placedError](rest)
		if !ok {
			break
		}
		path, rest = append(path, p.path...), p.err
	}
	return &LineError{Line: lineOf(document, path), Err: err}
}

// lineOf is the line of the value at a path, or of what there is of its way.
func lineOf(n *yaml.Node, path []any) int {
	n = content(n)
	line := n.Line
	for _, step := range path {
		key, value := child(n, step)
		if value == nil {
			break
		}
		line, n = key.Line, content(value)
	}
	return max(line, 1)
}

// content is the node behind a document or an alias.
func content(n *yaml.Node) *yaml.Node {
	switch {
	case n.Kind == yaml.DocumentNode && len(n.Content) == 1:
		return n.Content[0]
	case n.Kind == yaml.AliasNode && n.Alias != nil:
		return n.Alias
	}
	return n
}

// child is the value of a key or of an index, and the node that names it.
func child(n *yaml.Node, step any) (key, value *yaml.Node) {
	switch step := step.(type) {
	case int:
		if n.Kind == yaml.SequenceNode && step < len(n.Content) {
			return n.Content[step], n.Content[step]
		}
	case string:
		if n.Kind != yaml.MappingNode {
			return nil, nil
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i].Value == step {
				return n.Content[i], n.Content[i+1]
			}
		}
	}
	return nil, nil
}

var linePrefix = regexp.MustCompile(`^line ([0-9]+): `)

// lineInText makes a line that stands at the head of a message a value.
func lineInText(text string) error {
	m := linePrefix.FindStringSubmatch(text)
	if m == nil {
		return errors.New(text)
	}
	line, err := strconv.Atoi(m[1])
	if err != nil {
		return errors.New(text)
	}
	return &LineError{Line: line, Err: errors.New(text[len(m[0]):])}
}

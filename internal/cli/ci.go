package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/dustin/go-humanize"
	"github.com/moby/sys/atomicwriter"
	"github.com/spf13/cobra"

	"bareboat/builder"
	"bareboat/internal/config"
	"bareboat/internal/pipeline"
)

// ciSystem is who reads the log, as far as that changes what is written.
type ciSystem int

const (
	noCI   ciSystem = iota
	github          // https://docs.github.com/actions/reference/workflow-commands-for-github-actions
	gitlab          // https://docs.gitlab.com/ci/jobs/job_logs/#custom-collapsible-sections
)

// currentCI tells by the variables that the systems set.
func currentCI() ciSystem {
	switch {
	case os.Getenv("GITHUB_ACTIONS") == "true":
		return github
	case os.Getenv("GITLAB_CI") != "":
		return gitlab
	}
	return noCI
}

// console writes lines for people, in the way of the CI system. Whatever a text
// holds, it stays one line and is no command to that system.
type console struct {
	w      io.Writer
	system ciSystem
}

func newConsole(w io.Writer) console { return console{w: w, system: currentCI()} }

func (c console) line(text string) { fmt.Fprintln(c.w, c.plain(text)) }

func (c console) warn(text string) {
	if c.system == github {
		fmt.Fprintf(c.w, "::warning::%s\n", escapeData(c.plain(text)))
		return
	}
	c.line("warning: " + text)
}

func (c console) fail(text string, at position) {
	if c.system == github {
		fmt.Fprintf(c.w, "::error%s::%s\n", at.properties(), escapeData(c.plain(text)))
		return
	}
	c.line("error: " + text)
}

// section is the name of our part of a GitLab log.
const section = "bareboat"

// open begins a part of the log that can be folded away; shut ends it.
func (c console) open(title string) {
	switch c.system {
	case github:
		fmt.Fprintf(c.w, "::group::%s\n", escapeData(c.plain(title)))
	case gitlab:
		fmt.Fprintf(c.w, "\x1b[0Ksection_start:%d:%s\r\x1b[0K%s\n", time.Now().Unix(), section, c.plain(title))
	}
}

func (c console) shut() {
	switch c.system {
	case github:
		fmt.Fprintln(c.w, "::endgroup::")
	case gitlab:
		fmt.Fprintf(c.w, "\x1b[0Ksection_end:%d:%s\r\x1b[0K\n", time.Now().Unix(), section)
	}
}

// oldCommand begins a command of GitHub's first syntax, anywhere in a line.
const oldCommand = "##["

// plain is a text without control characters: a line break would begin a line
// of its own, which the system, or the terminal, might obey.
func (c console) plain(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
	if c.system != github {
		return text
	}
	text = strings.ReplaceAll(text, oldCommand, "## [")
	if strings.HasPrefix(strings.TrimSpace(text), "::") {
		text = "| " + text
	}
	return text
}

// escapeData and escapeProperty are the runner's own escapes.
func escapeData(s string) string {
	return strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A").Replace(s)
}

func escapeProperty(s string) string {
	return strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C").Replace(s)
}

// position is where in the source something is wrong; its zero value is unknown.
type position struct {
	file         string
	line, column int
}

func (p position) properties() string {
	if p.file == "" {
		return ""
	}
	out := " file=" + escapeProperty(fromWorkspace(p.file))
	if p.line > 0 {
		out += fmt.Sprintf(",line=%d", p.line)
	}
	if p.column > 0 {
		out += fmt.Sprintf(",col=%d", p.column)
	}
	return out
}

// fromWorkspace is a path as GitHub wants it: from the top of the checkout.
func fromWorkspace(file string) string {
	abs, err := filepath.Abs(file)
	if err != nil {
		return file
	}
	if rel, err := filepath.Rel(os.Getenv("GITHUB_WORKSPACE"), abs); err == nil && filepath.IsLocal(rel) {
		return rel
	}
	return file
}

// positionOf says where an error stands, as far as it tells.
func positionOf(err error) position {
	var at position
	if line, ok := errors.AsType[*builder.LineError](err); ok {
		at.line = line.Line
	}
	if recipe, ok := errors.AsType[*builder.RecipeError](err); ok {
		at.file = recipe.Path
		return at
	}
	if files, ok := errors.AsType[*builder.FilesError](err); ok {
		at.file = files.Recipe
		return at
	}
	if compile, ok := errors.AsType[*builder.CompileError](err); ok {
		return compilerPosition(compile)
	}
	if conf, ok := errors.AsType[*config.Error](err); ok {
		if info, err := os.Stat(conf.File); err == nil && info.Mode().IsRegular() {
			return position{file: conf.File}
		}
	}
	return position{}
}

// sourceLine is how the Go compiler names a place.
var sourceLine = regexp.MustCompile(`(?m)^(\S+\.go):([0-9]+)(?::([0-9]+))?: `)

func compilerPosition(e *builder.CompileError) position {
	m := sourceLine.FindStringSubmatch(e.Output)
	if m == nil {
		return position{}
	}
	at := position{file: m[1]}
	if !filepath.IsAbs(at.file) {
		at.file = filepath.Join(e.Dir, at.file)
	}
	at.line, _ = strconv.Atoi(m[2])   // digits
	at.column, _ = strconv.Atoi(m[3]) // digits, or nothing
	return at
}

// metadata is what --metadata-file has of an image. The first two keys are
// BuildKit's, in the shape of `docker buildx bake --metadata-file`.
type metadata struct {
	Name      string             `json:"image.name"`
	Digest    string             `json:"containerimage.digest"`
	Reference string             `json:"reference"` // NAME@DIGEST
	Platforms []platformMetadata `json:"platforms,omitempty"`
}

// platformMetadata is an image of one platform.
type platformMetadata struct {
	Platform string          `json:"platform"`
	Digest   string          `json:"digest"`
	Size     int64           `json:"size"` // bytes, compressed
	Layers   []layerMetadata `json:"layers"`
}

type layerMetadata struct {
	Name      string `json:"name"`
	Digest    string `json:"digest"`
	MediaType string `json:"mediaType"`
	DiffID    string `json:"diffID"`
	Size      int64  `json:"size"` // bytes, compressed
}

func metadataOf(i pipeline.Image) metadata {
	name := i.Ref
	name.Digest = ""
	m := metadata{Name: name.String(), Digest: i.Digest.String(), Reference: i.Pinned}
	for _, b := range i.Platforms {
		p := platformMetadata{Platform: b.Platform.String(), Digest: b.Digest.String(), Size: b.Size}
		for _, part := range b.Parts {
			for _, l := range part.Layers {
				p.Layers = append(p.Layers, layerMetadata{
					Name: l.Name, Digest: l.Blob.Digest.String(), MediaType: l.Blob.MediaType, DiffID: l.DiffID.String(), Size: l.Blob.Size,
				})
			}
		}
		m.Platforms = append(m.Platforms, p)
	}
	return m
}

func metadataFlag(c *cobra.Command, path *string) {
	c.Flags().StringVar(path, "metadata-file", "", "write names, digests, platforms and layers as JSON, by service, to `file`")
}

// checkMetadataFile refuses a --metadata-file that could not be written, before
// anything is built.
func checkMetadataFile(path string) error {
	if path == "" {
		return nil
	}
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return &usageError{err: fmt.Errorf("--metadata-file %s: not a regular file", path), command: "bareboat build"}
	}
	if info, err := os.Stat(filepath.Dir(path)); err != nil || !info.IsDir() {
		return &usageError{err: fmt.Errorf("--metadata-file %s: there is no folder %s", path, filepath.Dir(path)), command: "bareboat build"}
	}
	return nil
}

// writeMetadata tells programs what was made: in --metadata-file, where one is
// named, and in the files that GitHub gives to a step.
func (a *app) writeMetadata(path string, images []pipeline.Image) error {
	if path != "" {
		all := map[string]metadata{}
		for _, i := range images {
			all[i.Service] = metadataOf(i)
		}
		text, err := json.MarshalIndent(all, "", "  ")
		if err != nil {
			return err
		}
		if err := atomicwriter.WriteFile(path, append(text, '\n'), 0o644); err != nil {
			return fmt.Errorf("write the metadata: %w", err)
		}
	}
	if currentCI() != github {
		return nil
	}
	return errors.Join(
		appendTo(os.Getenv("GITHUB_OUTPUT"), githubOutput(images)),
		appendTo(os.Getenv("GITHUB_STEP_SUMMARY"), githubSummary(images)),
	)
}

// githubOutput are the outputs of a step: `images` always, as JSON by service,
// and of a single image also `image` and `digest`.
func githubOutput(images []pipeline.Image) string {
	all := map[string]string{}
	for _, i := range images {
		all[i.Service] = i.Pinned
	}
	text, err := json.Marshal(all)
	if err != nil {
		panic(err) // a map of strings
	}
	out := fmt.Sprintf("images=%s\n", text)
	if len(images) == 1 {
		out += fmt.Sprintf("image=%s\ndigest=%s\n", images[0].Pinned, images[0].Digest)
	}
	return out
}

// githubSummary is a table for the page of the run.
func githubSummary(images []pipeline.Image) string {
	var out strings.Builder
	out.WriteString("| service | image | platform | layers | size |\n|---|---|---|---:|---:|\n")
	for _, i := range images {
		platforms := metadataOf(i).Platforms
		if len(platforms) == 0 {
			fmt.Fprintf(&out, "| %s | `%s` | | | |\n", i.Service, i.Pinned)
		}
		for _, p := range platforms {
			fmt.Fprintf(&out, "| %s | `%s` | %s | %d | %s |\n", i.Service, i.Pinned, p.Platform, len(p.Layers), humanize.Bytes(uint64(p.Size)))
		}
	}
	return out.String() + "\n"
}

func appendTo(path, text string) (err error) {
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = f.WriteString(text)
	return err
}

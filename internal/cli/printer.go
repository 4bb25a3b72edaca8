package cli

import (
	"context"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"bareboat/internal/pipeline"
)

// Printer shows progress: bars on a terminal, plain lines elsewhere. Standard
// output is never touched.
type Printer struct {
	console
	title string       // of the part of a CI system's log
	log   *slog.Logger // one JSON line an event, instead of all else; nil: for people
	width int          // of the terminal in columns; zero: plain lines

	mu    sync.Mutex
	begun bool          // the part is open
	bars  *mpb.Progress // nil before the first event, so that questions can be asked
	lines map[string]*line
}

// line is one bar: a subject and what is being done to it.
type line struct {
	bar  *mpb.Bar
	text atomic.Pointer[string]
}

// barWidth is that of the bar alone, in columns.
const barWidth = 24

// NewPrinter shows progress on w, under a title where a CI system folds its log.
func NewPrinter(w io.Writer, title string) *Printer {
	p := &Printer{console: newConsole(w), title: title, lines: map[string]*line{}}
	if f, ok := w.(*os.File); ok && isTerminal(w) && os.Getenv("CI") == "" && os.Getenv("NO_COLOR") == "" {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 2*barWidth {
			p.width = width
		}
	}
	return p
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// NewLogger writes each event as one JSON line.
func NewLogger(w io.Writer) *Printer {
	return &Printer{console: newConsole(w), log: slog.New(slog.NewJSONHandler(w, nil)), lines: map[string]*line{}}
}

// write logs an event. A line of progress that says nothing but how many bytes there
// are is left out.
func (p *Printer) write(e pipeline.Event) {
	level := slog.LevelInfo
	if e.Warn {
		level = slog.LevelWarn
	}
	if e.Step == "" {
		if e.Text != "" {
			p.log.Log(context.Background(), level, e.Text, "subject", e.Subject)
		}
		return
	}
	attributes := []any{"subject", e.Subject, "release", e.Release, "step", e.Step, "state", e.State}
	if e.State != "begun" {
		attributes = append(attributes, "seconds", e.Seconds)
	}
	if e.Err != nil {
		attributes = append(attributes, "error", strings.Join(strings.Fields(e.Err.Error()), " "))
	}
	p.log.Log(context.Background(), level, e.Step, attributes...)
}

// Event shows how far something is.
func (p *Printer) Event(e pipeline.Event) {
	if p.log != nil {
		p.write(e)
		return
	}
	switch {
	case e.Warn:
		p.Warn(e.Subject + ": " + e.Text)
	case e.Lasting:
		p.mu.Lock()
		defer p.mu.Unlock()
		p.above().line(e.Subject + ": " + e.Text)
	case p.width > 0:
		p.draw(e)
	case e.Text != "":
		p.mu.Lock()
		defer p.mu.Unlock()
		p.begin()
		p.line(e.Subject + ": " + e.Text)
	}
}

// begin opens the part of the log with its first line.
func (p *Printer) begin() {
	if !p.begun {
		p.begun = true
		p.open(p.title)
	}
}

// Warn prints a warning, above the bars.
func (p *Printer) Warn(text string) {
	if p.log != nil {
		p.log.Warn(text)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.above().warn(text)
}

// above writes lines above the bars.
func (p *Printer) above() console {
	if p.bars != nil {
		return console{w: p.bars, system: p.system}
	}
	return p.console
}

func (p *Printer) draw(e pipeline.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.bar(e.Subject)
	if e.Text != "" {
		text := cut(e.Text, p.width-barWidth-len(e.Subject)-4)
		l.text.Store(&text)
	}
	if e.Total > 0 {
		l.bar.SetTotal(e.Total, false)
		l.bar.SetCurrent(e.Done)
	}
}

// cut shortens a text to some columns: a line that wraps would spoil the bars.
func cut(text string, columns int) string {
	runes := []rune(text)
	if len(runes) <= columns {
		return text
	}
	return string(runes[:max(columns-1, 0)]) + "…"
}

// bar is that of a subject, which goes when all is done.
func (p *Printer) bar(subject string) *line {
	if l := p.lines[subject]; l != nil {
		return l
	}
	if p.bars == nil {
		p.bars = mpb.New(mpb.WithOutput(p.w), mpb.WithWidth(barWidth))
	}
	l := &line{}
	l.text.Store(new(string))
	l.bar = p.bars.New(0, mpb.BarStyle().Lbound("").Rbound("").Filler("━").Tip("━").Padding("─"),
		mpb.BarRemoveOnComplete(),
		mpb.PrependDecorators(decor.Name(subject, decor.WCSyncSpaceR)),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return *l.text.Load() })))
	p.lines[subject] = l
	return l
}

// Close takes the bars away, so that what follows stands in their place.
func (p *Printer) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.begun {
		p.begun = false
		p.shut()
	}
	if p.bars == nil {
		return
	}
	for _, l := range p.lines {
		l.bar.SetTotal(-1, true)
	}
	p.bars.Wait()
	p.bars, p.lines = nil, map[string]*line{}
}

// Say prints a line below the bars, for a person.
func (p *Printer) Say(text string) {
	if p.log != nil {
		p.log.Info(text)
		return
	}
	p.console.line(text)
}

package cli

import (
	"fmt"
	"io"
	"os"
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
	w    io.Writer
	bars *mpb.Progress // nil: plain lines

	mu    sync.Mutex
	lines map[string]*line
}

// line is one bar: a subject and what is being done to it.
type line struct {
	bar  *mpb.Bar
	text atomic.Pointer[string]
}

// NewPrinter shows progress on w.
func NewPrinter(w io.Writer) *Printer {
	p := &Printer{w: w, lines: map[string]*line{}}
	if isTerminal(w) && os.Getenv("CI") == "" && os.Getenv("NO_COLOR") == "" {
		p.bars = mpb.New(mpb.WithOutput(w), mpb.WithWidth(24))
	}
	return p
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Event shows how far something is.
func (p *Printer) Event(e pipeline.Event) {
	switch {
	case e.Warn:
		p.Warn(e.Subject + ": " + e.Text)
	case p.bars != nil:
		p.draw(e)
	case e.Text != "":
		fmt.Fprintf(p.w, "%s: %s\n", e.Subject, e.Text)
	}
}

// Warn prints a warning.
func (p *Printer) Warn(text string) {
	w := p.w
	if p.bars != nil {
		w = p.bars
	}
	fmt.Fprintf(w, "warning: %s\n", text)
}

func (p *Printer) draw(e pipeline.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.lines[e.Subject]
	if l == nil {
		l = &line{}
		empty := ""
		l.text.Store(&empty)
		l.bar = p.bars.New(0, mpb.BarStyle().Lbound("").Rbound("").Filler("━").Tip("━").Padding("─"),
			mpb.PrependDecorators(decor.Name(e.Subject, decor.WCSyncSpaceR)),
			mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return *l.text.Load() })))
		p.lines[e.Subject] = l
	}
	if e.Text != "" {
		l.text.Store(&e.Text)
	}
	if e.Total > 0 {
		l.bar.SetTotal(e.Total, false)
		l.bar.SetCurrent(e.Done)
	}
}

// Close ends the bars, so that what follows stands below them.
func (p *Printer) Close() {
	if p.bars == nil {
		return
	}
	p.mu.Lock()
	for _, l := range p.lines {
		l.bar.SetTotal(-1, true)
	}
	p.mu.Unlock()
	p.bars.Wait()
}

// Say prints a line below the bars, for a person.
func (p *Printer) Say(text string) { fmt.Fprintln(p.w, text) }

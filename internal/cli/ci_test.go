package cli_test

import (
	"bytes"
	"strings"
	"testing"

	"bareboat/internal/cli"
	"bareboat/internal/pipeline"
)

// Whatever is told, the runner finds no command in it but ours.
func TestProgressHoldsNoCommands(t *testing.T) {
	t.Setenv("GITHUB_ACTIONS", "true")
	for _, text := range []string{
		"a\n::error::x", "\r\n::set-output name=a::b", "::stop-commands::x", "##[error]x", "a ##[group]b", "\x1b[2J", "\u0085::error::x", "%0A::error::x",
	} {
		var out bytes.Buffer
		p := cli.NewPrinter(&out, "bareboat build")
		p.Event(pipeline.Event{Subject: "hello", Text: text})
		p.Event(pipeline.Event{Subject: "hello", Text: text, Lasting: true})
		p.Warn(text)
		p.Close()
		p.Say(text)
		for i, line := range strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n") {
			want := []string{"::group::bareboat build", "hello: ", "hello: ", "::warning::", "::endgroup::", ""}[i]
			command := strings.HasPrefix(strings.TrimSpace(line), "::")
			if !strings.HasPrefix(line, want) || want == "" && command || strings.Contains(line, "##[") || strings.ContainsAny(line, "\r\x1b\u0085") {
				t.Errorf("%q: line %d is %q", text, i, line)
			}
		}
	}
}

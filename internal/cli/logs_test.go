package cli_test

import (
	"io"
	"strings"
	"testing"

	"bareboat/internal/cli"
)

func TestLogOutput(t *testing.T) {
	var stdout, stderr strings.Builder
	out, flush := cli.LogOutput(&stdout, &stderr, false)
	for service, said := range map[string][]string{"chat": {"on", "e\ntwo\n"}, "proxy": {"panic: no line end"}} {
		w, errs := out(service)
		for _, s := range said {
			if _, err := io.WriteString(w, s); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := io.WriteString(errs, service+" ends"); err != nil {
			t.Fatal(err)
		}
	}
	flush()
	for _, want := range []string{"chat | one\n", "chat | two\n", "proxy | panic: no line end\n"} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("standard output lacks %q:\n%s", want, stdout.String())
		}
	}
	for _, want := range []string{"chat | chat ends\n", "proxy | proxy ends\n"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("standard error lacks %q:\n%s", want, stderr.String())
		}
	}
}

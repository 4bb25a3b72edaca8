package cli

import (
	"io"

	"bareboat/internal/pipeline"
)

// LogOutput is what `logs` writes with.
func LogOutput(stdout, stderr io.Writer, plain bool) (pipeline.Output, func()) {
	return (&app{stdout: stdout, stderr: stderr}).output(plain)
}

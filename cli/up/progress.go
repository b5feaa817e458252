package up

import (
	"fmt"
	"io"
	"time"
)

// progress prints one line a step: what is done, and how long it took.
type progress struct {
	out   io.Writer
	start time.Time
}

func newProgress(out io.Writer) *progress { return &progress{out: out, start: time.Now()} }

// step runs do and prints a line for it. Its error names the step.
func (p *progress) step(what string, do func() error) error {
	began := time.Now()
	if _, err := fmt.Fprintf(p.out, "  %-58s ", what); err != nil {
		return err
	}
	if err := do(); err != nil {
		_, _ = fmt.Fprintln(p.out, "failed")
		return fmt.Errorf("%s: %w", what, err)
	}
	_, err := fmt.Fprintf(p.out, "%6.1f s\n", time.Since(began).Seconds())
	return err
}

func (p *progress) elapsed() time.Duration { return time.Since(p.start) }

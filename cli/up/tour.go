package up

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
)

// stop is one station of the walk-through: a command that can be pasted into a shell, and what it must show.
type stop struct {
	// title says what the command shows.
	title string
	// command for sh.
	command string
	// want are regular expressions that the output must match, all of them.
	want []string
	// absent are texts that the output must not hold.
	absent []string
	// refused says that the command ends with an error, since the caller is turned away.
	refused bool
}

// chapter is a part of the walk-through.
type chapter struct {
	title string
	stops []stop
}

// printTour writes the walk-through for somebody to paste from.
func printTour(p *progress, preamble []string, chapters []chapter) error {
	var b strings.Builder
	fmt.Fprintf(&b, "\nReady in %.0f s. Paste into another terminal:\n\n", p.elapsed().Seconds())
	for _, line := range preamble {
		fmt.Fprintf(&b, "    %s\n", line)
	}
	for _, c := range chapters {
		fmt.Fprintf(&b, "\n%s\n", c.title)
		for _, s := range c.stops {
			fmt.Fprintf(&b, "\n  # %s\n    %s\n", s.title, s.command)
		}
	}
	b.WriteString("\nCtrl-C ends everything.\n")
	_, err := p.out.Write([]byte(b.String()))
	return err
}

// runTour runs every command and checks what it shows. It stops at the first that does not hold, and names it.
func runTour(ctx context.Context, p *progress, preamble []string, chapters []chapter) error {
	for _, c := range chapters {
		if _, err := fmt.Fprintf(p.out, "\n%s\n", c.title); err != nil {
			return err
		}
		for _, s := range c.stops {
			var output string
			if err := p.step(s.title, func() (err error) {
				output, err = s.run(ctx, preamble)
				return err
			}); err != nil {
				return err
			}
			if _, err := fmt.Fprintf(p.out, "      $ %s\n%s", s.command, indent(output)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s stop) run(ctx context.Context, preamble []string) (string, error) {
	script := strings.Join(preamble, "\n") + "\n" + s.command
	cmd := exec.CommandContext(ctx, "sh", "-c", script) // our own text
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	output := out.String()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return output, fmt.Errorf("no answer in time; it had shown: %s", output)
	case err != nil && !errors.As(err, &exit):
		return output, err
	case err != nil && !s.refused:
		return output, fmt.Errorf("%w; it showed: %s", err, output)
	case err == nil && s.refused:
		return output, fmt.Errorf("it was let in, and showed: %s", output)
	}
	for _, want := range s.want {
		if !regexp.MustCompile(want).MatchString(output) {
			return output, fmt.Errorf("the output does not match %q: %s", want, output)
		}
	}
	for _, text := range s.absent {
		if strings.Contains(output, text) {
			return output, fmt.Errorf("the output holds %q: %s", text, output)
		}
	}
	return output, nil
}

// indent sets an output off from the progress lines, and leaves out the middle of what is long.
func indent(output string) string {
	const first, last = 14, 3
	lines := strings.Split(strings.TrimRight(output, "\n"), "\n")
	if len(lines) > first+last+1 {
		lines = slices.Concat(lines[:first], []string{"…"}, lines[len(lines)-last:])
	}
	return "      " + strings.Join(lines, "\n      ") + "\n"
}

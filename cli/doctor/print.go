package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/application-connector/application-connector/cli/terminal"
)

// The formats of --output.
const (
	formatText = "text"
	formatJSON = "json"
)

var formats = []string{formatText, formatJSON}

func (o *Options) print(r Report) error {
	if o.Output == formatJSON {
		text, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(o.Out, "%s\n", text)
		return err
	}
	health := string(r.Health)
	if r.Health != Healthy {
		health += ": " + r.line()
	}
	var b strings.Builder
	row := func(state, name, text string) {
		fmt.Fprintf(&b, "%-9s %-18s %s\n", state, name, terminal.Line(text)) // much of it was written outside of the cluster
	}
	fmt.Fprintf(&b, "HEALTH    %s\n\n", terminal.Line(health))
	about := ""
	for _, s := range r.Steps {
		if s.About != about {
			about = s.About
			fmt.Fprintf(&b, "\n%s\n", terminal.Line(about))
		}
		row(string(s.State), s.Name, s.Finding)
		if s.Remedy != "" {
			row("", "", "→ "+s.Remedy)
		}
	}
	_, err := io.WriteString(o.Out, b.String())
	return err
}

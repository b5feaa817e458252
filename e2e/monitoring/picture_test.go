package monitoring

import (
	"cmp"
	"context"
	"fmt"
	"html/template"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// draw writes a page for each dashboard into a folder, about as Grafana would show it, so that a person can look at what is
// there to be read: titles, units, legends, colours.
func draw(t *testing.T, dir string, p *prometheus, from, to time.Time) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o750); err != nil {
		t.Fatal(err)
	}
	for file, d := range dashboards(t) {
		var pictures []picture
		for _, panel := range d.Panels {
			pictures = append(pictures, panel.picture(t, p, from, to))
		}
		out, err := os.Create(filepath.Join(dir, strings.TrimSuffix(file, ".json")+".html"))
		if err != nil {
			t.Fatal(err)
		}
		if err := page.Execute(out, map[string]any{"Title": d.Title, "Pictures": pictures}); err != nil {
			t.Error(err)
		}
		if err := out.Close(); err != nil {
			t.Error(err)
		}
	}
}

// picture is a panel with what it shows.
type picture struct {
	panel
	Column, Row template.CSS
	SVG         template.HTML
	Numbers     []entry
	Legend      []entry
}

type entry struct{ Name, Value, Colour string }

const (
	pixelsARow = 36
	// left of a chart are the numbers of its axis, below it the times.
	left, below = 70, 18
)

var palette = []string{"#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#705da0", "#37872d", "#fade2a"}

var colours = map[string]string{"green": "#73bf69", "orange": "#ff9830", "red": "#f2495c", "blue": "#5794f2"}

func (p panel) picture(t *testing.T, from *prometheus, begin, end time.Time) picture {
	t.Helper()
	pic := picture{
		panel:  p,
		Column: template.CSS(fmt.Sprintf("%d / span %d", p.GridPos.X+1, p.GridPos.W)),
		Row:    template.CSS(fmt.Sprintf("%d / span %d", p.GridPos.Y+1, p.GridPos.H)),
	}
	type named struct {
		name string
		line
	}
	var lines []named
	for _, of := range p.Targets {
		result, err := from.ask(context.WithoutCancel(t.Context()), of, begin, end)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range result {
			lines = append(lines, named{of.legend(l.labels), l})
		}
	}
	slices.SortStableFunc(lines, func(a, b named) int { return cmp.Compare(a.name, b.name) })
	defaults := p.FieldConfig.Defaults
	if p.Type == "row" {
		return pic
	}
	if p.Type == "stat" {
		for _, l := range lines {
			e := entry{Value: format(l.points[len(l.points)-1].value, defaults.Unit), Colour: p.colour(l.points[len(l.points)-1].value)}
			if word, mapped := p.word(l.points[len(l.points)-1].value); mapped {
				e.Value = word
			}
			if len(lines) > 1 {
				e.Name = l.name
			}
			pic.Numbers = append(pic.Numbers, e)
		}
		return pic
	}

	width, height := float64(p.GridPos.W)*62-left-20, float64(p.GridPos.H*pixelsARow)-70-below
	x := func(at time.Time) float64 { return left + width*at.Sub(begin).Seconds()/end.Sub(begin).Seconds() }
	var svg strings.Builder
	fmt.Fprintf(&svg, `<svg width="%.0f" height="%.0f">`, left+width+10, height+below+8)
	for i := range 4 {
		at := begin.Add(end.Sub(begin) * time.Duration(i) / 4)
		fmt.Fprintf(&svg, `<text x="%.0f" y="%.0f" class="axis">%s</text>`, x(at), height+below+4, at.Format("15:04:05"))
	}
	if p.Type == "state-timeline" {
		each := height / float64(max(len(lines), 1))
		for i, l := range lines {
			top := float64(i) * each
			fmt.Fprintf(&svg, `<text x="%d" y="%.0f" class="axis" text-anchor="end">%s</text>`, left+50, top+each*.6, template.HTMLEscapeString(l.name))
			for j, point := range l.points {
				next := end
				if j+1 < len(l.points) {
					next = l.points[j+1].at
				}
				start := max(x(point.at), left+56)
				fmt.Fprintf(&svg, `<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="%s"/>`, start, top+each*.1, max(x(next)-start, 0), each*.8, p.colour(point.value))
			}
		}
		for value, word := range p.words() {
			pic.Legend = append(pic.Legend, entry{Name: word, Colour: p.colour(value)})
		}
		slices.SortFunc(pic.Legend, func(a, b entry) int { return cmp.Compare(a.Name, b.Name) })
		pic.SVG = template.HTML(svg.String() + "</svg>") // names are escaped above
		return pic
	}

	stacked := defaults.Custom.Stacking.Mode == "normal"
	base := map[int64]float64{}
	most := 0.0
	tops := make([][]point, len(lines))
	for i, l := range lines {
		for _, point := range l.points {
			if stacked {
				second := point.at.Unix()
				base[second] += point.value
				point.value = base[second]
			}
			tops[i] = append(tops[i], point)
			most = max(most, point.value)
		}
	}
	if defaults.Max != nil {
		most = *defaults.Max
	}
	if most == 0 {
		most = 1
	}
	y := func(value float64) float64 { return height * (1 - value/most/1.05) }
	ticks := []float64{0, most / 3, most * 2 / 3, most}
	if defaults.Custom.Scale.Type == "log" {
		least := most
		for _, line := range tops {
			for _, point := range line {
				if point.value > 0 {
					least = min(least, point.value)
				}
			}
		}
		low, high := math.Floor(math.Log10(least)), math.Ceil(math.Log10(most))
		if low == high {
			high++
		}
		y = func(value float64) float64 {
			return height * (1 - (math.Log10(max(value, math.Pow(10, low)))-low)/(high-low))
		}
		ticks = nil
		for i := low; i <= high; i++ {
			ticks = append(ticks, math.Pow(10, i))
		}
	}
	for _, value := range ticks {
		fmt.Fprintf(&svg, `<line x1="%d" x2="%.0f" y1="%.1f" y2="%.1f" stroke="#333"/><text x="%d" y="%.1f" class="axis" text-anchor="end">%s</text>`,
			left, left+width, y(value), y(value), left-6, y(value)+4, template.HTMLEscapeString(format(value, defaults.Unit)))
	}
	for i := len(lines) - 1; i >= 0; i-- {
		colour := p.lineColour(lines[i].name, i)
		var path strings.Builder
		for j, point := range tops[i] {
			command := "L"
			if j == 0 {
				command = "M"
			}
			fmt.Fprintf(&path, "%s%.1f %.1f", command, x(point.at), y(point.value))
		}
		fmt.Fprintf(&svg, `<path d="%s" stroke="%s" fill="none" stroke-width="1.5"/>`, path.String(), colour)
		if stacked {
			first, last := tops[i][0], tops[i][len(tops[i])-1]
			fmt.Fprintf(&svg, `<path d="%sL%.1f %.1fL%.1f %.1fZ" fill="%s"/>`, path.String(), x(last.at), y(0), x(first.at), y(0), colour)
		}
	}
	for i, l := range lines {
		pic.Legend = append(pic.Legend, entry{Name: l.name, Colour: p.lineColour(l.name, i)})
	}
	pic.SVG = template.HTML(svg.String() + "</svg>") // texts are escaped above
	return pic
}

// lineColour is that of the series so named, or else the next one.
func (p panel) lineColour(name string, i int) string {
	for _, o := range p.FieldConfig.Overrides {
		if o.Matcher.Options == name && len(o.Properties) > 0 {
			return colours[o.Properties[0].Value.FixedColor]
		}
	}
	return palette[i%len(palette)]
}

// words are those in place of values.
func (p panel) words() map[float64]string {
	all := map[float64]string{}
	for _, m := range p.FieldConfig.Defaults.Mappings {
		for text, option := range m.Options {
			if value, err := strconv.ParseFloat(text, 64); err == nil {
				all[value] = option.Text
			}
		}
	}
	return all
}

func (p panel) word(value float64) (string, bool) {
	word, mapped := p.words()[value]
	return word, mapped
}

func (p panel) colour(value float64) string {
	for _, m := range p.FieldConfig.Defaults.Mappings {
		if option, mapped := m.Options[strconv.FormatFloat(value, 'f', -1, 64)]; mapped {
			return colours[option.Color]
		}
	}
	name := ""
	for _, step := range p.FieldConfig.Defaults.Thresholds.Steps {
		if step.Value == nil || value >= *step.Value {
			name = step.Color
		}
	}
	return colours[name]
}

// format writes a value as Grafana does.
func format(value float64, unit string) string {
	scale := func(value float64, base float64, names []string) string {
		i := 0
		for math.Abs(value) >= base && i < len(names)-1 {
			value /= base
			i++
		}
		return strings.TrimSpace(strconv.FormatFloat(value, 'g', 3, 64) + " " + names[i])
	}
	switch unit {
	case "s":
		for _, u := range []struct {
			seconds float64
			name    string
		}{{604800, "weeks"}, {86400, "days"}, {3600, "hours"}, {60, "mins"}, {1, "s"}, {1e-3, "ms"}, {1e-6, "µs"}} {
			if math.Abs(value) >= u.seconds {
				return strconv.FormatFloat(value/u.seconds, 'g', 3, 64) + " " + u.name
			}
		}
		return "0 s"
	case "bytes":
		return scale(value, 1024, []string{"B", "KiB", "MiB", "GiB"})
	case "percentunit":
		return strconv.FormatFloat(value*100, 'g', 3, 64) + "%"
	case "reqps":
		return scale(value, 1000, []string{"req/s", "K req/s"})
	}
	return scale(value, 1000, []string{"", "K", "Mil"})
}

var page = template.Must(template.New("page").Parse(`<!doctype html><meta charset="utf-8"><title>{{.Title}}</title><style>
body { background: #111217; color: #ccccdc; font: 13px "DejaVu Sans", sans-serif; width: 1536px; margin: 16px }
main { display: grid; grid-template-columns: repeat(24, 1fr); grid-auto-rows: 36px; gap: 4px }
section { background: #181b1f; border: 1px solid #2a2d33; overflow: hidden }
section.row { background: none; border: none; font-size: 15px; line-height: 36px }
section h2 { font-size: 13px; margin: 6px 8px 4px }
.numbers { display: flex; justify-content: space-around; text-align: center }
.numbers b { display: block; font-size: 28px; font-weight: normal; white-space: nowrap }
.legend { padding: 0 8px; font-size: 11px } .legend span { white-space: nowrap; margin-right: 10px }
.axis { fill: #9a9aa8; font-size: 11px }
</style><h1>{{.Title}}</h1><main>{{range .Pictures}}
<section class="{{.Type}}" style="grid-column: {{.Column}}; grid-row: {{.Row}}">{{if eq .Type "row"}}{{.Title}}{{else}}<h2>{{.Title}}</h2>{{end}}
{{if .Numbers}}<div class="numbers">{{range .Numbers}}<span>{{.Name}}<b style="color: {{.Colour}}">{{.Value}}</b></span>{{end}}</div>{{end}}{{.SVG}}
<div class="legend">{{range .Legend}}<span><i style="background: {{.Colour}}; display: inline-block; width: 12px; height: 4px; margin-right: 4px"></i>{{.Name}}</span>{{end}}</div></section>{{end}}</main>
`))

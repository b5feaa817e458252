package dashboards

import (
	"maps"
	"slices"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/variants"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/statetimeline"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
	"github.com/grafana/grafana-foundation-sdk/go/units"
)

// kind is how a panel shows what it is told.
type kind int

const (
	// graph draws lines over time.
	graph kind = iota
	// stack draws areas upon each other: parts of a whole.
	stack
	// number shows the last value of each series.
	number
	// states shows over time which of a few values holds.
	states
)

// panel is one picture.
type panel struct {
	kind  kind
	title string
	// about is what a person sees who asks what the picture is.
	about string
	// unit is one of package units.
	unit string
	// width of the 24 that a row has.
	width   uint32
	queries []query
	// colours of values from the least on; none: that of the series.
	colours []colour
	// words in place of values.
	words map[string]word
	// names have a colour of their own, so that good and bad can be told apart.
	names map[string]string
	// logarithmic is for values that lie far apart.
	logarithmic bool
	// most is the largest value that there can be, 0 if there is none.
	most float64
}

type query struct {
	expr string
	// legend names a series; {{label}} is the value of a label.
	legend string
}

// colour is that of values from so much on.
type colour struct {
	from float64
	name string
}

type word struct{ text, colour string }

const (
	green  = "green"
	orange = "orange"
	red    = "red"
	blue   = "blue"
)

// outcomes are the colours of decisions, and of the classes of status codes.
var outcomes = map[string]string{
	"2xx": green, "3xx": blue, "4xx": orange, "5xx": red,
	"accepted": green, "refused": orange, "failed": red,
}

// classes are the rates of a counter, with its selector, by the class of its label code.
func classes(counter string) []query {
	return []query{{`sum by (class) (label_replace(rate(` + counter + `[$__rate_interval]), "class", "$1", "code", "(.)..*"))`, "{{class}}xx"}}
}

// trouble is green at 0, and the colour from 1 on.
func trouble(name string) []colour { return []colour{{0, green}, {1, name}} }

func (p panel) builder(id uint32) cog.Builder[dashboard.Panel] {
	height := uint32(8)
	if p.kind == number {
		height = 4
	}
	switch p.kind {
	case number:
		b := stat.NewPanelBuilder().Id(id).Title(p.title).Description(p.about).Unit(p.unit).Span(p.width).Height(height).Datasource(source).Targets(p.targets()).
			GraphMode(common.BigValueGraphModeNone).ColorMode(common.BigValueColorModeValue).
			ReduceOptions(common.NewReduceDataOptionsBuilder().Calcs([]string{"lastNotNull"})).
			Mappings(p.mappings()).Thresholds(p.thresholds()).ColorScheme(dashboard.NewFieldColorBuilder().Mode(dashboard.FieldColorModeIdThresholds))
		if len(p.queries) > 1 {
			b.TextMode(common.BigValueTextModeValueAndName)
		}
		return b
	case states:
		return statetimeline.NewPanelBuilder().Id(id).Title(p.title).Description(p.about).Unit(p.unit).Span(p.width).Height(height).Datasource(source).Targets(p.targets()).
			Mappings(p.mappings()).Thresholds(p.thresholds()).ColorScheme(dashboard.NewFieldColorBuilder().Mode(dashboard.FieldColorModeIdThresholds)).
			ShowValue(common.VisibilityModeNever).RowHeight(0.8).FillOpacity(80).
			Legend(common.NewVizLegendOptionsBuilder().ShowLegend(true).DisplayMode(common.LegendDisplayModeList).Placement(common.LegendPlacementBottom)).
			Tooltip(common.NewVizTooltipOptionsBuilder().Mode(common.TooltipDisplayModeSingle).Sort(common.SortOrderNone))
	default:
		b := timeseries.NewPanelBuilder().Id(id).Title(p.title).Description(p.about).Unit(p.unit).Span(p.width).Height(height).Datasource(source).Targets(p.targets()).
			LineWidth(1).FillOpacity(10).ShowPoints(common.VisibilityModeNever).
			Legend(common.NewVizLegendOptionsBuilder().ShowLegend(true).DisplayMode(common.LegendDisplayModeList).Placement(common.LegendPlacementBottom)).
			Tooltip(common.NewVizTooltipOptionsBuilder().Mode(common.TooltipDisplayModeMulti).Sort(common.SortOrderDescending))
		if p.logarithmic {
			b.ScaleDistribution(common.NewScaleDistributionConfigBuilder().Type(common.ScaleDistributionLog).Log(10))
		} else {
			b.Min(0)
		}
		if p.most > 0 {
			b.Max(p.most)
		}
		for _, name := range slices.Sorted(maps.Keys(p.names)) {
			b.OverrideByName(name, []dashboard.DynamicConfigValue{{Id: "color", Value: map[string]string{"mode": "fixed", "fixedColor": p.names[name]}}})
		}
		if p.kind == stack {
			b.FillOpacity(60).Stacking(common.NewStackingConfigBuilder().Mode(common.StackingModeNormal).Group("A"))
		}
		return b
	}
}

func (p panel) targets() []cog.Builder[variants.Dataquery] {
	var all []cog.Builder[variants.Dataquery]
	for i, q := range p.queries {
		b := prometheus.NewDataqueryBuilder().RefId(string(rune('A' + i))).Datasource(source).Expr(q.expr).LegendFormat(q.legend)
		if p.kind == number {
			b.Instant()
		} else {
			b.Range()
		}
		all = append(all, b)
	}
	return all
}

func (p panel) thresholds() cog.Builder[dashboard.ThresholdsConfig] {
	steps := []dashboard.Threshold{{Color: blue}}
	for i, c := range p.colours {
		if i == 0 {
			// Whatever is less than the least has its colour too.
			steps[0].Color = c.name
			continue
		}
		steps = append(steps, dashboard.Threshold{Value: &c.from, Color: c.name})
	}
	return dashboard.NewThresholdsConfigBuilder().Mode(dashboard.ThresholdsModeAbsolute).Steps(steps)
}

func (p panel) mappings() []dashboard.ValueMapping {
	if len(p.words) == 0 {
		return nil
	}
	options := map[string]dashboard.ValueMappingResult{}
	for value, w := range p.words {
		options[value] = dashboard.ValueMappingResult{Text: &w.text, Color: &w.colour}
	}
	return []dashboard.ValueMapping{{ValueMap: &dashboard.ValueMap{Type: dashboard.MappingTypeValueToText, Options: options}}}
}

// process is what the Go runtime tells of the Pods that show a metric.
func process(of string) row {
	return row{"Pods", []panel{
		{kind: graph, title: "CPU", about: "Cores that each Pod uses.", unit: units.Short, width: 8, queries: []query{
			{`rate(process_cpu_seconds_total[$__rate_interval]) and on (namespace, pod, instance) ` + of, "{{pod}}"}}},
		{kind: graph, title: "Memory", about: "Resident memory of each Pod.", unit: units.BytesIEC, width: 8, queries: []query{
			{`process_resident_memory_bytes and on (namespace, pod, instance) ` + of, "{{pod}}"}}},
		{kind: graph, title: "Goroutines", about: "If they grow for hours, something leaks.", unit: units.Short, width: 8, queries: []query{
			{`go_goroutines and on (namespace, pod, instance) ` + of, "{{pod}}"}}},
	}}
}

// quantiles are the half, the ninetieth and the ninety-ninth part in a hundred of a histogram, over all its labels.
func quantiles(selector string) []query {
	var all []query
	for _, q := range []struct{ share, name string }{{"0.5", "50 %"}, {"0.9", "90 %"}, {"0.99", "99 %"}} {
		all = append(all, query{"histogram_quantile(" + q.share + ", sum by (le) (rate(" + selector + "[$__rate_interval])))", q.name})
	}
	return all
}

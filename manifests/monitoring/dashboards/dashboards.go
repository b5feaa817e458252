// Package dashboards says what the Grafana dashboards show, and writes them as the JSON files beside it, which kustomize puts
// into ConfigMaps. It knows metrics by their names alone; what they mean is in docs/reference.
package dashboards

//go:generate go run ./write .

import (
	"encoding/json"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
)

// board is a dashboard.
type board struct {
	// name is that of the file, and part of the uid, by which Grafana knows a dashboard that was imported before.
	name, title, about string
	// application is a metric with the label application: only what belongs to the chosen ones is shown. Empty: there is
	// nothing to choose.
	application string
	rows        []row
}

// row is a heading with what stands below it. Widths of panels add up to 24.
type row struct {
	title  string
	panels []panel
}

// All gives the files by their names.
func All() (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, b := range []board{overview, agent, gateway, validator} {
		built, err := b.build()
		if err != nil {
			return nil, err
		}
		text, err := json.MarshalIndent(built, "", "  ")
		if err != nil {
			return nil, err
		}
		files[b.name+".json"] = append(text, '\n')
	}
	return files, nil
}

// source is the variable for Prometheus, of which an installation may have several.
var source = common.DataSourceRef{Type: cog.ToPtr("prometheus"), Uid: cog.ToPtr("${datasource}")}

//nolint:staticcheck // the newer form is read by new versions of Grafana only
func (b board) build() (dashboard.Dashboard, error) {
	builder := dashboard.NewDashboardBuilder(b.title).
		Uid("application-connector-"+b.name).
		Description(b.about).
		Tags([]string{"application-connector"}).
		Readonly().
		Timezone(common.TimeZoneBrowser).
		Time("now-3h", "now").
		Refresh("1m").
		Tooltip(dashboard.DashboardCursorSyncCrosshair).
		Link(dashboard.NewDashboardLinkBuilder("Application Connector").
			Type(dashboard.DashboardLinkTypeDashboards).Tags([]string{"application-connector"}).AsDropdown(true).IncludeVars(true).KeepTime(true)).
		WithVariable(dashboard.NewDatasourceVariableBuilder("datasource").Label("Prometheus").Type("prometheus"))
	if b.application != "" {
		// All are those with a name: a call that finds no API has none.
		builder.WithVariable(dashboard.NewQueryVariableBuilder("application").Label("Application").
			Query(dashboard.StringOrMap{String: cog.ToPtr("label_values(" + b.application + ", application)")}).
			Datasource(source).
			Refresh(dashboard.VariableRefreshOnTimeRangeChanged).
			Sort(dashboard.VariableSortAlphabeticalAsc).
			Multi(true).IncludeAll(true).AllValue(".+"))
	}
	id := uint32(0)
	for _, r := range b.rows {
		id++
		builder.WithRow(dashboard.NewRowBuilder(r.title).Id(id))
		for _, p := range r.panels {
			id++
			builder.WithPanel(p.builder(id))
		}
	}
	return builder.Build()
}

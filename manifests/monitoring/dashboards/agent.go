package dashboards

import "github.com/grafana/grafana-foundation-sdk/go/units"

var agent = board{
	name: "agent", title: "Application Connector / Agent", about: "The connection with Compass, its certificate, and what is synced.",
	rows: []row{
		{"Connection", []panel{
			connected, certificateEnds,
			{kind: number, title: "Renewal in", about: "Time until the client certificate is renewed; less than 0: it is overdue.", unit: units.Seconds, width: 4, colours: []colour{{-1, red}, {0, green}},
				queries: []query{{`max(compass_runtime_agent_certificate_renewal_timestamp_seconds > 0) - time()`, "due in"}}},
			lastSync,
			{kind: number, title: "Agents", about: "One acts, the others wait for its Lease.", unit: units.Short, width: 4, colours: []colour{{0, red}, {1, green}},
				queries: []query{{`count(compass_runtime_agent_connection_up)`, "running"}}},
			{kind: number, title: "Drift mended", about: "Applications that somebody changed, and that were put right again, in the last day.", unit: units.Short, width: 4, colours: trouble(orange),
				queries: []query{{`sum(increase(compass_runtime_agent_drift_repairs_total[1d]))`, "in a day"}}},
			conditions[0], conditions[1],
		}},
		{"Compass", []panel{
			{kind: stack, title: "Calls to Compass", about: "In the ten minutes before, by operation.", unit: units.Short, width: 8,
				queries: []query{{`sum by (operation) (increase(compass_runtime_agent_compass_requests_total[10m]))`, "{{operation}}"}}},
			{kind: graph, title: "Calls to Compass by result", about: "In the ten minutes before: OK, or the kind of the error.", unit: units.Short, width: 8, names: map[string]string{"OK": green},
				queries: []query{{`sum by (code) (increase(compass_runtime_agent_compass_requests_total[10m]))`, "{{code}}"}}},
			{kind: graph, title: "Certificates", about: "Attempts to get a client certificate in the hour before, by why and with what success.", unit: units.Short, width: 8,
				queries: []query{{`sum by (reason, result) (increase(compass_runtime_agent_renewals_total[1h]))`, "{{reason}}: {{result}}"}}},
		}},
		{"Applications", []panel{
			{kind: graph, title: "Applications by state", about: "After the last sync: in place, with every credential, failed, and kept although Compass no longer names them.", unit: units.Short, width: 8,
				queries: []query{{`max by (state) (compass_runtime_agent_applications)`, "{{state}}"}}},
			{kind: graph, title: "Failed, by reason", about: "Systems that the last sync could not bring into place.", unit: units.Short, width: 8,
				queries: []query{{`max by (reason) (compass_runtime_agent_failed_applications)`, "{{reason}}"}}},
			{kind: graph, title: "Duration of syncs", about: "So many in a hundred syncs took no longer, in the hour before.", unit: units.Seconds, width: 8, queries: []query{
				{`histogram_quantile(0.5, sum by (le) (rate(compass_runtime_agent_sync_duration_seconds_bucket[1h])))`, "50 %"},
				{`histogram_quantile(0.99, sum by (le) (rate(compass_runtime_agent_sync_duration_seconds_bucket[1h])))`, "99 %"}}},
		}},
		process("compass_runtime_agent_connection_up"),
	},
}

package dashboards

import "github.com/grafana/grafana-foundation-sdk/go/units"

var yesNo = map[string]word{"0": {"no", red}, "1": {"yes", green}}

// Panels that more than one dashboard has. An agent that waits for the Lease shows 0 for what only the one that acts knows.
var (
	connected = panel{kind: number, title: "Connected", about: "Whether the last call to Compass with the client certificate succeeded.", unit: units.Short, width: 4, words: yesNo,
		queries: []query{{`max(compass_runtime_agent_connection_up)`, "connected"}}}
	certificateEnds = panel{kind: number, title: "Certificate ends in", about: "Time until the client certificate for Compass ends.", unit: units.Seconds, width: 4,
		colours: []colour{{0, red}, {7 * 24 * 3600, green}},
		queries: []query{{`max(compass_runtime_agent_certificate_not_after_timestamp_seconds > 0) - time()`, "ends in"}}}
	lastSync = panel{kind: number, title: "Since the last sync", about: "Time since Applications were last brought into place.", unit: units.Seconds, width: 4,
		colours: []colour{{0, green}, {1800, red}},
		queries: []query{{`time() - max(compass_runtime_agent_sync_last_success_timestamp_seconds)`, "since"}}}
	conditions = []panel{
		{kind: states, title: "Conditions that should be True", about: "Of the CompassConnection.", unit: units.Short, width: 12, words: map[string]word{"0": {"False", red}, "1": {"True", green}},
			queries: []query{{`max by (type) (compass_runtime_agent_condition{type=~"Ready|Connected|CertificateReady|ApplicationsSynced"})`, "{{type}}"}}},
		{kind: states, title: "Conditions that should not be True for long", about: "Of the CompassConnection.", unit: units.Short, width: 12, words: map[string]word{"0": {"False", green}, "1": {"True", orange}},
			queries: []query{{`max by (type) (compass_runtime_agent_condition{type!~"Ready|Connected|CertificateReady|ApplicationsSynced"})`, "{{type}}"}}},
	}
)

var overview = board{
	name: "overview", title: "Application Connector / Overview", about: "Whether the cluster is connected, and what goes through it.",
	rows: []row{
		{"Connection with Compass", []panel{
			connected, certificateEnds, lastSync,
			{kind: number, title: "Applications", about: "After the last sync: in place, and of these with every credential.", unit: units.Short, width: 4, queries: []query{
				{`max(compass_runtime_agent_applications{state="synced"})`, "in place"}, {`max(compass_runtime_agent_applications{state="ready"})`, "ready"}}},
			{kind: number, title: "Not in place", about: "Systems that failed, and Applications that are kept although Compass no longer names them.", unit: units.Short, width: 4, colours: trouble(red), queries: []query{
				{`max(compass_runtime_agent_applications{state="failed"})`, "failed"}, {`max(compass_runtime_agent_applications{state="pending_deletion"})`, "kept"}}},
			{kind: number, title: "Alerts", about: "Alerts of Application Connector that fire.", unit: units.Short, width: 4, colours: trouble(red),
				queries: []query{{`count(ALERTS{part_of="application-connector", alertstate="firing"}) or vector(0)`, "firing"}}},
			conditions[0], conditions[1],
		}},
		{"Calls of workloads to external systems", []panel{
			{kind: stack, title: "Calls", about: "By the class of the status that callers got.", unit: units.RequestsPerSecond, width: 8, names: outcomes,
				queries: classes("central_application_gateway_requests_total")},
			{kind: graph, title: "Calls that end by an error", about: "By where the error lies.", unit: units.RequestsPerSecond, width: 8,
				queries: []query{{`sum by (source) (rate(central_application_gateway_requests_total{source!="none"}[$__rate_interval]))`, "{{source}}"}}},
			{kind: graph, title: "Duration of calls", about: "So many in a hundred calls took no longer, the external systems' own time included.", unit: units.Seconds, width: 8, logarithmic: true,
				queries: quantiles("central_application_gateway_request_duration_seconds_bucket")},
		}},
		{"Events of external systems", []panel{
			{kind: stack, title: "Events", about: "Requests by what the validator decided; failed are those that it let through and the publisher did not take.", unit: units.RequestsPerSecond, width: 8, names: outcomes,
				queries: []query{{`sum by (decision) (rate(validator_requests_total[$__rate_interval]))`, "{{decision}}"}}},
			{kind: graph, title: "Events that are not delivered", about: "By the reason.", unit: units.RequestsPerSecond, width: 8,
				queries: []query{{`sum by (reason) (rate(validator_requests_total{decision!="accepted"}[$__rate_interval]))`, "{{reason}}"}}},
			{kind: graph, title: "Duration of the publisher", about: "So many in a hundred answers began no later.", unit: units.Seconds, width: 8, logarithmic: true,
				queries: quantiles("validator_publisher_duration_seconds_bucket")},
		}},
	},
}

package dashboards

import "github.com/grafana/grafana-foundation-sdk/go/units"

var validator = board{
	name: "validator", title: "Application Connector / Validator", about: "Events of external systems.",
	application: "validator_requests_total",
	rows: []row{
		{"State", []panel{
			{kind: number, title: "Ready", about: "Pods that take events.", unit: units.Short, width: 4, colours: []colour{{0, red}, {1, green}},
				queries: []query{{`sum(validator_ready)`, "ready"}}},
			{kind: number, title: "Applications", about: "Applications that the validator knows.", unit: units.Short, width: 4,
				queries: []query{{`max(validator_applications)`, "known"}}},
			{kind: number, title: "Denied certificates", about: "On the list of denied certificates.", unit: units.Short, width: 4,
				queries: []query{{`max(validator_denied_certificates)`, "denied"}}},
			{kind: number, title: "Unreadable lines", about: "Lines of that list that deny nobody since they can't be read.", unit: units.Short, width: 4, colours: trouble(red),
				queries: []query{{`max(validator_denied_certificates_unreadable)`, "lines"}}},
			{kind: number, title: "Claimed identities", about: "Requests in a day in which the ingress gateway forwarded what it should replace.", unit: units.Short, width: 4, colours: trouble(red),
				queries: []query{{`sum(increase(validator_surplus_elements_total[1d]))`, "in a day"}}},
			{kind: number, title: "In flight", about: "Requests that are being served.", unit: units.Short, width: 4,
				queries: []query{{`sum(validator_requests_in_flight)`, "in flight"}}},
		}},
		{"Events", []panel{
			{kind: stack, title: "Events by Application", about: "Requests, whatever became of them. (unknown): the name is no Application's.", unit: units.RequestsPerSecond, width: 8,
				queries: []query{{`sum by (application) (rate(validator_requests_total` + of + `[$__rate_interval]))`, "{{application}}"}}},
			{kind: stack, title: "Events by decision", about: "Failed are those that were let through and that the publisher did not take.", unit: units.RequestsPerSecond, width: 8, names: outcomes,
				queries: []query{{`sum by (decision) (rate(validator_requests_total` + of + `[$__rate_interval]))`, "{{decision}}"}}},
			{kind: stack, title: "Events by form", about: "v1: the old format; v2 and events: CloudEvents; none: no such path.", unit: units.RequestsPerSecond, width: 8,
				queries: []query{{`sum by (route) (rate(validator_requests_total` + of + `[$__rate_interval]))`, "{{route}}"}}},
			{kind: graph, title: "Not delivered, by reason", about: "The reasons are explained in the reference of the validator.", unit: units.RequestsPerSecond, width: 8,
				queries: []query{{`sum by (reason) (rate(validator_requests_total{application=~"$application", decision!="accepted"}[$__rate_interval]))`, "{{reason}}"}}},
			{kind: graph, title: "Refused, by Application", about: "Share of its requests.", unit: units.PercentUnit, width: 8, most: 1, queries: []query{
				{`sum by (application) (rate(validator_requests_total{application=~"$application", decision="refused"}[$__rate_interval])) / sum by (application) (rate(validator_requests_total` + of + `[$__rate_interval]))`, "{{application}}"}}},
			{kind: graph, title: "Events with another source", about: "CloudEvents whose source is not the Application, and what was done with them.", unit: units.RequestsPerSecond, width: 8,
				queries: []query{{`sum by (application, action) (rate(validator_source_violations_total` + of + `[$__rate_interval]))`, "{{application}}: {{action}}"}}},
		}},
		{"Eventing publisher", []panel{
			{kind: graph, title: "Duration of the publisher", about: "So many in a hundred answers began no later.", unit: units.Seconds, width: 8, logarithmic: true,
				queries: quantiles("validator_publisher_duration_seconds_bucket")},
			{kind: stack, title: "Attempts by status", about: "The status that the publisher answered; 0: it did not answer.", unit: units.RequestsPerSecond, width: 8,
				queries: []query{{`sum by (code) (rate(validator_publisher_duration_seconds_count[$__rate_interval]))`, "{{code}}"}}},
			{kind: graph, title: "Repeats", about: "Attempts after the first.", unit: units.RequestsPerSecond, width: 8,
				queries: []query{{`sum by (route) (rate(validator_publisher_retries_total[$__rate_interval]))`, "{{route}}"}}},
		}},
		{"Clients", []panel{
			{kind: graph, title: "Certificates of clients end in", about: "Time until the certificate ends that a client showed last. Only of those that sent events lately.", unit: units.Seconds, width: 24,
				queries: []query{{`max by (application, client) (validator_client_certificate_not_after_timestamp_seconds` + of + `) - time()`, "{{application}}: {{client}}"}}},
		}},
		process("validator_ready"),
	},
}

package dashboards

import "github.com/grafana/grafana-foundation-sdk/go/units"

const of = `{application=~"$application"}`

var gateway = board{
	name: "gateway", title: "Application Connector / Gateway", about: "Calls of workloads to external systems.",
	application: "central_application_gateway_requests_total",
	rows: []row{
		{"State", []panel{
			{kind: number, title: "Gateways", about: "Pods that are scraped.", unit: units.Short, width: 4, colours: []colour{{0, red}, {1, green}},
				queries: []query{{`count(central_application_gateway_applications)`, "running"}}},
			{kind: number, title: "Applications", about: "Applications that the gateway knows.", unit: units.Short, width: 4,
				queries: []query{{`max(central_application_gateway_applications)`, "known"}}},
			{kind: number, title: "Faults", about: "Faults in Applications and their Secrets, as in the condition RoutesReady.", unit: units.Short, width: 4, colours: trouble(orange),
				queries: []query{{`sum(max by (reason) (central_application_gateway_route_problems)) or vector(0)`, "faults"}}},
			{kind: number, title: "TLS not verified", about: "Applications with spec.skipVerify.", unit: units.Short, width: 4, colours: trouble(red),
				queries: []query{{`max(central_application_gateway_applications_without_tls_verification)`, "Applications"}}},
			{kind: number, title: "Breakers open", about: "APIs of which calls are kept back.", unit: units.Short, width: 4, colours: trouble(orange),
				queries: []query{{`sum(max by (application, service, entry) (central_application_gateway_breaker_open)) or vector(0)`, "APIs"}}},
			{kind: number, title: "Next certificate ends in", about: "Of all client certificates for APIs, the one that ends first.", unit: units.Seconds, width: 4, colours: []colour{{0, red}, {14 * 24 * 3600, green}},
				queries: []query{{`min(central_application_gateway_client_certificate_not_after_timestamp_seconds) - time()`, "ends in"}}},
		}},
		{"Calls", []panel{
			{kind: stack, title: "Calls by Application", about: "Whatever became of them. Those that found no API are not among them.", unit: units.RequestsPerSecond, width: 8,
				queries: []query{{`sum by (application) (rate(central_application_gateway_requests_total` + of + `[$__rate_interval]))`, "{{application}}"}}},
			{kind: stack, title: "Calls by status", about: "The class of the status that callers got.", unit: units.RequestsPerSecond, width: 8, names: outcomes,
				queries: classes("central_application_gateway_requests_total" + of)},
			{kind: graph, title: "Calls in flight", about: "Calls that have not ended, by Pod.", unit: units.Short, width: 8,
				queries: []query{{`sum by (pod) (central_application_gateway_requests_in_flight)`, "{{pod}}"}}},
			{kind: graph, title: "Duration of calls", about: "So many in a hundred calls took no longer, the external systems' own time included.", unit: units.Seconds, width: 12, logarithmic: true,
				queries: quantiles("central_application_gateway_request_duration_seconds_bucket" + of)},
			{kind: graph, title: "Duration by Application", about: "Ninety in a hundred calls took no longer.", unit: units.Seconds, width: 12, logarithmic: true,
				queries: []query{{`histogram_quantile(0.9, sum by (application, le) (rate(central_application_gateway_request_duration_seconds_bucket` + of + `[$__rate_interval])))`, "{{application}}"}}},
		}},
		{"Errors", []panel{
			{kind: graph, title: "Errors by where they lie", about: "none of these: no error. limits are those that an Application sets itself.", unit: units.RequestsPerSecond, width: 8,
				queries: []query{{`sum by (source) (rate(central_application_gateway_requests_total{application=~"$application", source!="none"}[$__rate_interval]))`, "{{source}}"}}},
			{kind: graph, title: "Errors by reason", about: "The reasons are explained in the reference of the gateway.", unit: units.RequestsPerSecond, width: 8,
				queries: []query{{`sum by (reason) (rate(central_application_gateway_errors_total` + of + `[$__rate_interval]))`, "{{reason}}"}}},
			{kind: graph, title: "APIs that fail most", about: "Share of calls that end by an error of the API or of its credentials.", unit: units.PercentUnit, width: 8, most: 1, queries: []query{
				{`topk(10, sum by (application, service, entry) (rate(central_application_gateway_requests_total{application=~"$application", source=~"target|credentials"}[$__rate_interval]))` +
					` / sum by (application, service, entry) (rate(central_application_gateway_requests_total` + of + `[$__rate_interval])) > 0)`, "{{application}}/{{service}}/{{entry}}"}}},
		}},
		{"Credentials", []panel{
			{kind: graph, title: "Calls to token endpoints", about: "In the ten minutes before, by the kind of credentials, and with what success.", unit: units.Short, width: 8,
				queries: []query{{`sum by (type, result) (increase(central_application_gateway_token_fetches_total[10m]))`, "{{type}}: {{result}}"}}},
			{kind: graph, title: "Calls to CSRF token endpoints", about: "In the ten minutes before, and with what success.", unit: units.Short, width: 8, names: map[string]string{"success": green, "failure": red},
				queries: []query{{`sum by (result) (increase(central_application_gateway_csrf_fetches_total[10m]))`, "{{result}}"}}},
			{kind: graph, title: "Found in the cache", about: "Share of the times that a token or a CSRF session was asked for, and was there.", unit: units.PercentUnit, width: 8, most: 1, queries: []query{
				{`sum by (cache) (rate(central_application_gateway_cache_lookups_total{result="hit"}[$__rate_interval])) / sum by (cache) (rate(central_application_gateway_cache_lookups_total[$__rate_interval]))`, "{{cache}}"}}},
		}},
		{"Limits", []panel{
			{kind: states, title: "Circuit breakers", about: "Open: calls are kept back.", unit: units.Short, width: 12, words: map[string]word{"0": {"closed", green}, "1": {"open", red}},
				queries: []query{{`max by (application, service, entry) (central_application_gateway_breaker_open` + of + `)`, "{{application}}/{{service}}/{{entry}}"}}},
			{kind: graph, title: "In flight, of APIs with limits", about: "Calls that have not ended.", unit: units.Short, width: 12,
				queries: []query{{`sum by (application, service, entry) (central_application_gateway_limited_requests_in_flight` + of + `)`, "{{application}}/{{service}}/{{entry}}"}}},
		}},
		{"TLS", []panel{
			{kind: graph, title: "Client certificates end in", about: "Time until the client certificate for an API ends.", unit: units.Seconds, width: 8,
				queries: []query{{`min by (application, service, entry) (central_application_gateway_client_certificate_not_after_timestamp_seconds` + of + `) - time()`, "{{application}}/{{service}}/{{entry}}"}}},
			{kind: graph, title: "Certificates of APIs end in", about: "Time until the certificate ends that an API showed last. Only of those that were called lately.", unit: units.Seconds, width: 8,
				queries: []query{{`min by (application, service, entry) (central_application_gateway_target_certificate_not_after_timestamp_seconds` + of + `) - time()`, "{{application}}/{{service}}/{{entry}}"}}},
			{kind: graph, title: "TLS handshakes", about: "With APIs and token endpoints, in the ten minutes before. untrusted: their certificate is not believed; refused: they sent an alert.", unit: units.Short, width: 8,
				names:   map[string]string{"accepted": green, "untrusted": red, "refused": orange},
				queries: []query{{`sum by (outcome) (increase(central_application_gateway_tls_handshakes_total[10m]))`, "{{outcome}}"}}},
		}},
		{"Configuration", []panel{
			{kind: graph, title: "Faults by reason", about: "The reasons are those of the condition RoutesReady.", unit: units.Short, width: 8,
				queries: []query{{`max by (reason) (central_application_gateway_route_problems)`, "{{reason}}"}}},
			{kind: graph, title: "Changes put in force", about: "Changes of Applications and Secrets, in the five minutes before.", unit: units.Short, width: 8,
				queries: []query{{`sum by (pod) (increase(central_application_gateway_route_snapshots_total[5m]))`, "{{pod}}"}}},
			{kind: graph, title: "Tokens and CSRF sessions kept", about: "In all Pods.", unit: units.Short, width: 8,
				queries: []query{{`sum by (cache) (central_application_gateway_cache_entries)`, "{{cache}}"}}},
		}},
		process("central_application_gateway_applications"),
	},
}

package up

import (
	"fmt"

	"github.com/google/uuid"
)

// tour is what appconn up shows. Everything in it can be pasted into a shell, after the preamble.
func (w *world) tour() []chapter {
	if w.ConnectorURL != "" {
		return []chapter{w.clusterChapter("Synchronized"), w.statusChapter()}
	}
	return []chapter{
		w.clusterChapter(`Synchronized`, `mp-shop\s+True\s+True\s+True`, `mp-crm\s+True\s+True\s+True`, `warehouse`),
		w.gatewayChapter(), w.eventsChapter(), w.statusChapter(w.doctor()),
	}
}

func (w *world) clusterChapter(want ...string) chapter {
	return chapter{"What the cluster knows", []stop{
		{title: "the connection to Compass, and the external systems", command: "kubectl get cconn,app", want: want},
	}}
}

func (w *world) gatewayChapter() chapter {
	call := func(title string, port int, request string, want ...string) stop {
		return stop{
			title: title, command: fmt.Sprintf("curl -sS -w '%%{http_code}\\n' http://%s%s", address(port), request),
			want: append(want, `(?m)^200$`),
		}
	}
	// What each target says of its caller; the answer holds the whole request as the target saw it.
	kind := func(k string) string { return `"kind": "` + k + `"` }
	bundles, standalone := w.ports.GatewayCompass, w.ports.Gateway
	return chapter{"Workloads call external systems; the gateway brings the credentials", []stop{
		call("an open API", bundles, "/mp-shop/catalog/items/1", kind("none"), `"path": "/api/none/1"`),
		call("Basic", bundles, "/mp-shop/orders/orders", kind("basic"), `"user": "`),
		call("OAuth 2.0", bundles, "/mp-shop/prices/prices", kind("oauth"), `"clientId": "`),
		call("OAuth 2.0 over mTLS", bundles, "/mp-shop/stock/stock", kind("oauth-mtls"), `"certificateSubject": "CN=this-cluster"`),
		call("Basic, and a CSRF token on top", bundles, `/mp-shop/sales/sales -d '{"item":1}'`, kind("basic"), `"csrf": true`, `"method": "POST"`),
		call("an API key in a header, and a parameter in the query", bundles, "/mp-shop/maps/maps", kind("parameters"), `"query": "region=eu"`),
		call("a client certificate, for an Application written by hand", standalone, "/warehouse/stock", kind("certificate"), `"certificateSubject": "CN=this-cluster"`),
	}}
}

func (w *world) eventsChapter() chapter {
	post := func(id, options string) string {
		return fmt.Sprintf("curl -sS -w '%%{http_code}\\n' --cacert edge-ca.crt%s -H 'Content-Type: application/cloudevents+json'"+
			` -d '{"specversion":"1.0","type":"order.created.v1","source":"mp-shop","id":"%s","data":{"orderCode":"4711"}}'`+
			" https://localhost:%d/mp-shop/v2/events", options, id, w.ports.Edge)
	}
	certificate := func(who string) string { return fmt.Sprintf(" --cert %s.crt --key %s.key", who, who) }
	accepted, others, nobodys, strangers := uuid.NewString(), uuid.NewString(), uuid.NewString(), uuid.NewString()
	// In TLS 1.3 a client has sent its request before it learns that its certificate was refused, and may see no more than
	// a closed connection; in TLS 1.2 it always sees the reason.
	const explained = " --tls-max 1.2"
	return chapter{"External systems send events, with their client certificates", []stop{
		{title: "the shop sends an event", command: post(accepted, certificate("shop")), want: []string{`(?m)^20[04]$`}},
		{title: "another system's certificate: refused", command: post(others, certificate("crm")), want: []string{`(?m)^403$`}},
		{title: "no certificate: no connection", command: post(nobodys, explained), want: []string{`(?m)^000$`, `curl: \(\d+\) .*(?i:handshake|certificate|alert|reset)`}, refused: true},
		{title: "a certificate of another authority: no connection", command: post(strangers, explained+certificate("stranger")), want: []string{`(?m)^000$`, `curl: \(\d+\) .*(?i:handshake|unknown ca|certificate|alert|reset)`}, refused: true},
		{
			title: "the shop's event is in JetStream, and no other", command: fmt.Sprintf("curl -sS 'http://%s/events?source=mp-shop&type=order.created.v1'", address(w.ports.Eventing)),
			want: []string{accepted}, absent: []string{others, nobodys, strangers},
		},
	}}
}

func (w *world) statusChapter(more ...stop) chapter {
	return chapter{"How it is", append([]stop{
		{title: "connection, certificate, sync and Applications in one view", command: "appconn status", want: []string{`(?i)synchronized`}},
		{
			title: "the same for a browser, at http://" + address(w.ports.StatusPage), command: "curl -sS http://" + address(w.ports.StatusPage) + " | grep -o '<title>.*</title>'",
			want: []string{`<title>\w+ · Application Connector</title>`},
		},
	}, more...)}
}

// doctor looks for what is wrong, of the way to Compass and of one API, with the authorities that agent and gateway are given.
func (w *world) doctor() stop {
	return stop{
		title:   "what is wrong, link by link, to Compass and to one API",
		command: "APP_COMPASS_CA_FILE=compass-ca.crt appconn doctor mp-shop/prices/prices --target-ca-file systems-ca.crt --allowed-targets " + host,
		want:    []string{`(?m)^HEALTH +Healthy$`, `(?m)^OK +Director `, `(?m)^OK +Token `, `(?m)^OK +Answer `},
	}
}

package impostor

import (
	"encoding/pem"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"pgregory.net/rapid"
)

// field is one line of a request's header; separator is ": " unless it should not be.
type field struct{ name, value, separator string }

// request is one as it stands on the wire.
type request struct {
	method, target string
	fields         []field
	body           string
	// also is sent behind the body on the same connection.
	also string
}

// attemptHeader tells the publisher which attempt an event belongs to.
const attemptHeader = "X-Attempt"

func (r request) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\n", r.method, r.target)
	for _, f := range r.fields {
		separator := f.separator
		if separator == "" {
			separator = ": "
		}
		b.WriteString(f.name + separator + f.value + "\r\n")
	}
	return b.String() + "\r\n" + r.body + r.also
}

// event is an event in one of the forms that are taken, at an Application's path.
func event(rt *rapid.T, app, source string) request {
	r := request{method: "POST"}
	form := rapid.SampledFrom([]string{"binary", "structured", "batch", "legacy"}).Draw(rt, "form")
	structured := fmt.Sprintf(`{"specversion":"1.0","type":"order.created.v1","source":%q,"id":"1","data":{}}`, source)
	set := func(pairs ...string) {
		for i := 0; i < len(pairs); i += 2 {
			r.fields = append(r.fields, field{name: pairs[i], value: pairs[i+1]})
		}
	}
	switch form {
	case "binary":
		set("Content-Type", "application/json", "Ce-Specversion", "1.0", "Ce-Type", "order.created.v1", "Ce-Source", source, "Ce-Id", "1")
		r.body = "{}"
	case "structured":
		set("Content-Type", "application/cloudevents+json")
		r.body = structured
	case "batch":
		set("Content-Type", "application/cloudevents-batch+json")
		r.body = "[" + structured + "]"
	case "legacy":
		set("Content-Type", "application/json")
		r.body = `{"event-type":"order.created","event-type-version":"v1","event-time":"2026-01-02T03:04:05Z","data":{}}`
		r.target = "/" + app + "/v1/events"
		return r
	}
	r.target = "/" + app + rapid.SampledFrom([]string{"/events", "/v2/events"}).Draw(rt, "route")
	return r
}

// Names under which clients claim to be somebody. A proxy replaces some of them, and takes others for fields like any.
var claims = []string{
	"X-Forwarded-Client-Cert", "x-forwarded-client-cert", "X-FORWARDED-CLIENT-CERT", "x_forwarded_client_cert", "X_Forwarded_Client_Cert", "X-Forwarded_Client-Cert", "X-Forwarded-Client-Certs",
	"X-Verified-Application", "x-verified-application", "X_Verified_Application", "X-Verified_Application", "X-Verified-Certificate", "Client-Cert", "client_cert", "CLIENT-CERT", "Client-Cert-Chain",
	"Forwarded", "X-Forwarded-For", "X-Real-Ip", "X-Ssl-Client-S-Dn", "X-Client-Cert",
}

// often is true once in two to the power of halves.
func often(rt *rapid.T, halves int, what string) bool {
	yes := true
	for range halves {
		yes = rapid.Bool().Draw(rt, what) && yes
	}
	return yes
}

// claim draws a field by which a client claims to be somebody.
func claim(rt *rapid.T, p pair) field {
	name := rapid.SampledFrom(claims).Draw(rt, "claim")
	who := rapid.SampledFrom(p.words()).Draw(rt, "whom")
	value := rapid.SampledFrom([]string{
		`Subject="CN=V"`, `Subject="CN=V"` + mesh, `Hash=00;Subject="CN=V"` + mesh, `Hash=00;Cert="x";Subject="CN=V";URI=`, `Subject="CN=V",Subject="CN=V"` + mesh, `By=x;Subject="CN=V",Subject="CN=V"`,
		`Hash=HEX;Cert="PEM";Subject="CN=V";URI=`, `Hash=HEX;Cert="PEM";Subject="CN=V";URI=` + mesh, `Cert="PEM"`, "V", "CN=V", ":AA==:", "URI=x", `"`, ",", "",
	}).Draw(rt, "value")
	return field{name: name, value: strings.NewReplacer("V", who, "HEX", strings.Repeat("6f", 32), "PEM", forged).Replace(value)}
}

// forged is the shape of a certificate as proxies forward it.
var forged = url.PathEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("no certificate")})))

// mixIn puts fields at drawn positions between those that are there.
func (r *request) mixIn(rt *rapid.T, more []field) {
	for _, f := range more {
		at := rapid.IntRange(0, len(r.fields)).Draw(rt, "position")
		r.fields = append(r.fields[:at:at], append([]field{f}, r.fields[at:]...)...)
	}
}

// frame completes a request with what every one holds, and says how long the body is.
func (r *request) frame(rt *rapid.T, attempt string) {
	r.fields = append([]field{{name: "Host", value: "gateway.example.com"}, {name: attemptHeader, value: attempt}}, r.fields...)
	length := field{name: "Content-Length", value: strconv.Itoa(len(r.body))}
	if often(rt, 2, "chunked") {
		length = field{name: "Transfer-Encoding", value: "chunked"}
		r.body = fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(r.body), r.body)
	}
	r.mixIn(rt, []field{length})
}

// honestRequest is an event of an Application, beside claims to be somebody else: what a proxy in front must replace or the
// validator must not look at.
func honestRequest(rt *rapid.T, p pair, app, attempt string) request {
	return claiming(rt, p, event(rt, app, app), attempt)
}

func claiming(rt *rapid.T, p pair, r request, attempt string) request {
	var more []field
	for range rapid.IntRange(0, 4).Draw(rt, "claims") {
		f := claim(rt, p)
		more = append(more, f)
		if often(rt, 2, "repeated") {
			more = append(more, f)
		}
	}
	if often(rt, 2, "hop by hop") {
		more = append(more, field{name: "Connection", value: rapid.SampledFrom([]string{"X-Forwarded-Client-Cert", "x-verified-application, keep-alive", "close"}).Draw(rt, "connection")})
	}
	r.mixIn(rt, more)
	r.frame(rt, attempt)
	return r
}

// targets are paths of Application TWO, and paths that some reader may take for its, by kind. ONE is an Application that the
// client may or may not speak for, ENC is TWO with an encoded letter.
var targets = [][]string{
	{"/TWO/events", "/TWO/v1/events", "/TWO/v2/events", "/UPPER/events", "/ENC/events", "/ENC/v1/events", "/TWO%20/events", "/TWO./events", "/TWO%00/events", "http://gateway.example.com/TWO/events"},
	{
		"/ONE/v1/events/../../../TWO/v1/events", "/ONE/v1/events/%2e%2e/%2E%2e/%2e%2e/TWO/v1/events", "/ONE/v1/events/..%2f..%2F..%2fTWO/v1/events", "/ONE/v1/events/x/../../../../TWO/v1/events", "/ONE/events/../../TWO/events",
		"/ONE%2F..%2FTWO/events", `/ONE/v1/events/..\..\..\TWO/v1/events`, "/ONE/v1/events/%5c..%5c..%5cTWO", "/../TWO/events", "/./TWO/events",
	},
	{"//TWO/events", "/ONE//events", "/ONE/events/TWO/v1/events", "/ONE/events?/TWO/events", "/ONE/events#/TWO/events", "/ONE;/TWO/events", "http://TWO/ONE/events", "/ONE/v1/events/subscribed", "*", ""},
}

// anyRequest is one that may be in any way but the right one. It begins at an Application that the certificate names, so that
// now and then one thing alone is wrong.
func anyRequest(rt *rapid.T, p pair, c certificate, attempt string) request {
	one, other := p.namedBy(rt, c).Name, p[0].Name
	if one == other {
		other = p[1].Name
	}
	source := one
	if often(rt, 2, "another source") {
		source = other
	}
	r := claiming(rt, p, event(rt, one, source), attempt)
	replace := strings.NewReplacer("ONE", one, "TWO", other, "ENC", fmt.Sprintf("%%%02x%s", other[0], other[1:]), "UPPER", strings.ToUpper(other)).Replace
	if rapid.Bool().Draw(rt, "another target") {
		r.target = replace(rapid.SampledFrom(rapid.SampledFrom(targets).Draw(rt, "kind of target")).Draw(rt, "target"))
	}
	var more []field
	if often(rt, 3, "an odd field") {
		f := rapid.SampledFrom([]field{
			{"Ce-Source", "TWO", ""}, {"ce-source", "TWO", ""}, {"Ce_Source", "TWO", ""}, {"X-Forwarded-Client-Cert", `Subject="CN=TWO"`, " : "}, {"X-Forwarded-Client-Cert", `Subject="CN=TWO"`, "\t: "},
			{" X-Forwarded-Client-Cert", `Subject="CN=TWO"`, ": "}, {"X-Forwarded-Client-Cert", "\r\n Subject=\"CN=TWO\"", ": "}, {"X-Forwarded-Client-Cert\x00", `Subject="CN=TWO"`, ""}, {"X-Forwarded-Client-Cert", "Subject=\"CN=TWO\"\rX-Verified-Application: TWO", ""},
			{"X-Original-Url", "/TWO/events", ""}, {"X-Rewrite-Url", "/TWO/events", ""}, {"X-Http-Method-Override", "GET", ""}, {"Host", "TWO", ""}, {"Connection", "Ce-Source, Ce-Id", ""}, {"Trailer", "X-Verified-Application", ""}, {"Te", "trailers", ""}, {"Upgrade", "h2c", ""}, {"Content-Type", "application/cloudevents+json", ""},
		}).Draw(rt, "odd field")
		f.value = replace(f.value)
		more = append(more, f)
	}
	smuggled := "POST /" + other + "/v1/events HTTP/1.1\r\nHost: x\r\n" + attemptHeader + ": " + attempt + "\r\nX-Forwarded-Client-Cert: Subject=\"CN=" + other + "\"\r\nX-Verified-Application: " + other + "\r\nContent-Length: 2\r\n\r\n{}"
	framing := "one"
	if often(rt, 3, "odd framing") {
		framing = rapid.SampledFrom([]string{"two", "length and chunks", "two lengths", "nearly chunked", "spaced"}).Draw(rt, "framing")
	}
	// The body ends in each reading of these, so that nobody waits for more.
	switch framing {
	case "two":
		r.also = smuggled
	case "length and chunks":
		more, r.also = append(more, field{"Transfer-Encoding", "chunked", ""}, field{"Content-Length", "5", ""}), "0\r\n\r\n"+smuggled
	case "two lengths":
		more, r.also = append(more, field{"Content-Length", "0", ""}), smuggled
	case "nearly chunked":
		more, r.also = append(more, field{"Transfer-Encoding", "\x0bchunked", ""}), "0\r\n\r\n"+smuggled
	case "spaced":
		more, r.also = append(more, field{"Transfer-Encoding", "chunked", " : "}), "0\r\n\r\n"+smuggled
	}
	r.mixIn(rt, more)
	return r
}

package compass

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const applicationsQuery = `query($id: ID!, $first: Int, $after: PageCursor) { applicationsForRuntime(runtimeID: $id, first: $first, after: $after) { totalCount pageInfo { endCursor hasNextPage } data { name bundles { totalCount data { name defaultInstanceAuth { certCommonName } } } } } }`

// faultFixture is a paired Runtime with three Applications.
type faultFixture struct {
	*testing.T
	server *Server
	runtime,
	anonymous caller
}

func newFaultFixture(t *testing.T) faultFixture {
	seed := shopSeed()
	for _, name := range []string{"B", "C"} {
		seed.Tenants[0].Applications = append(seed.Tenants[0].Applications, Application{Name: name, Formations: []string{"default"}})
	}
	s := startCompass(t, Options{Seed: seed})
	return faultFixture{T: t, server: s, runtime: caller{t: t, server: s, cert: pairRuntime(t, s, testRuntime), tenant: testTenant}, anonymous: caller{t: t, server: s}}
}

func (f faultFixture) set(fault Fault) string {
	f.Helper()
	id, err := f.server.Admin().SetFault(fault)
	if err != nil {
		f.Fatal(err)
	}
	return id
}

func (f faultFixture) applications(variables map[string]any) reply {
	f.Helper()
	all := map[string]any{"id": testRuntime, "first": 2}
	for key, value := range variables {
		all[key] = value
	}
	return f.runtime.query(f.server.DirectorURL(), applicationsQuery, all)
}

func (f faultFixture) viewer() reply {
	f.Helper()
	return f.runtime.query(f.server.DirectorURL(), `{ viewer { type } }`, nil)
}

const viewerAnswer = `{"data":{"viewer":{"type":"RUNTIME"}}}`

// configuration asks with a fresh token and says whether the token is burnt.
func (f faultFixture) configuration() (answered reply, burnt bool) {
	f.Helper()
	token, err := f.server.Admin().RuntimeToken(testRuntime)
	if err != nil {
		f.Fatal(err)
	}
	asking := f.anonymous
	asking.token = token.Token
	answered = asking.query(f.server.TokenURL(), configurationQuery, nil)
	f.server.Admin().ClearFaults()
	return answered, asking.query(f.server.TokenURL(), configurationQuery, nil).Status == 400
}

func (f faultFixture) want(got reply, status int, body string) {
	f.Helper()
	if got.Err != nil {
		f.Fatal(got.Err)
	}
	if diff := cmp.Diff(body, string(got.Body)); diff != "" || got.Status != status {
		f.Errorf("status %d, want %d; body (-want +got):\n%s", got.Status, status, diff)
	}
}

// page is the part of an answer that paging is about.
type page struct {
	ApplicationsForRuntime struct {
		TotalCount int
		PageInfo   struct {
			EndCursor   string
			HasNextPage bool
		}
		Data []struct {
			Name    string
			Bundles *struct{ TotalCount int }
		}
	}
}

// faultTests has a test for each kind of fault.
var faultTests = map[FaultKind]func(f faultFixture){
	FaultStatus: func(f faultFixture) {
		f.set(Fault{Kind: FaultStatus, Operation: "viewer", Status: 503, Body: "busy", ContentType: "text/plain", RetryAfter: "7", Count: 1})
		got := f.viewer()
		f.want(got, 503, "busy")
		if got.Header.Get("Retry-After") != "7" || got.Header.Get("Content-Type") != "text/plain" {
			f.Errorf("header %v", got.Header)
		}
		f.want(f.viewer(), 200, viewerAnswer)

		f.set(Fault{Kind: FaultStatus, Operation: "configuration", Status: 500})
		got, burnt := f.configuration()
		f.want(got, 500, "")
		if burnt {
			f.Error("the token is burnt by a request that had no effect")
		}
		f.set(Fault{Kind: FaultStatus, Operation: "configuration", Status: 500, Executed: true})
		if _, burnt := f.configuration(); !burnt {
			f.Error("the token is not burnt by a request that had its effect")
		}
	},
	FaultGraphQLError: func(f faultFixture) {
		f.set(Fault{Kind: FaultGraphQLError, Operation: "viewer", Count: 1})
		f.want(f.viewer(), 200, `{"errors":[{"message":"simulated error","path":["viewer"]}],"data":null}`)
		f.set(Fault{Kind: FaultGraphQLError, Operation: "viewer", Status: 500, Message: "no", Error: "NotFound", Code: 20})
		f.want(f.viewer(), 500, `{"errors":[{"message":"no","path":["viewer"],"extensions":{"error":"NotFound","error_code":20}}],"data":null}`)
	},
	FaultStatusWithData: func(f faultFixture) {
		f.set(Fault{Kind: FaultStatusWithData, Status: 500})
		f.want(f.viewer(), 500, viewerAnswer)
	},
	FaultNullData: func(f faultFixture) {
		f.set(Fault{Kind: FaultNullData, Operation: "viewer"})
		f.want(f.viewer(), 200, `{"data":null}`)
	},
	FaultFieldError: func(f faultFixture) {
		f.set(Fault{Kind: FaultFieldError, Operation: "applicationsForRuntime", Field: "bundles", Message: "broken", Error: "InvalidData", Code: 22})
		got := f.applications(map[string]any{"first": 1})
		f.want(got, 200, `{"errors":[{"message":"broken","path":["applicationsForRuntime","data",0,"bundles"],"extensions":{"error":"InvalidData","error_code":22}}],`+
			`"data":{"applicationsForRuntime":{"totalCount":3,"pageInfo":{"endCursor":"RHBLdEo0ajlqRHEx","hasNextPage":true},"data":[{"name":"mp-shop-eu-12","bundles":null}]}}}`)
	},
	FaultFieldNull: func(f faultFixture) {
		f.set(Fault{Kind: FaultFieldNull, Field: "defaultInstanceAuth"})
		f.want(f.applications(map[string]any{"first": 1}), 200, `{"data":{"applicationsForRuntime":{"totalCount":3,"pageInfo":{"endCursor":"RHBLdEo0ajlqRHEx","hasNextPage":true},`+
			`"data":[{"name":"mp-shop-eu-12","bundles":{"totalCount":1,"data":[{"name":"Orders","defaultInstanceAuth":null}]}}]}}}`)
		f.server.Admin().ClearFaults()
		f.set(Fault{Kind: FaultFieldNull, Operation: "configuration", Field: "managementPlaneInfo"})
		got, _ := f.configuration()
		if !strings.Contains(string(got.Body), `"managementPlaneInfo":null`) || strings.Contains(string(got.Body), "errors") {
			f.Errorf("body %s", got.Body)
		}
	},
	FaultScopeLost: func(f faultFixture) {
		f.set(Fault{Kind: FaultScopeLost, Scope: "application:read"})
		f.want(f.applications(nil), 200, `{"errors":[{"message":"insufficient scopes provided [actual=runtime:read;runtime:write;runtime.auths:read;bundle.instance_auths:read;`+
			`runtime.webhooks:read;webhook:write; required=application:read]","path":["applicationsForRuntime"],"extensions":{"error":"InsufficientScopes","error_code":23}}],"data":null}`)
	},
	FaultSlow: func(f faultFixture) {
		f.set(Fault{Kind: FaultSlow, Operation: "viewer", Delay: Duration(time.Millisecond), Count: 1})
		f.want(f.viewer(), 200, viewerAnswer)
		f.set(Fault{Kind: FaultSlow, Operation: "viewer", Delay: Duration(24 * time.Hour)})
		f.want(f.whileWaiting(f.viewer, func() { f.server.Admin().ClearFaults() }), 200, viewerAnswer)
	},
	FaultHang: func(f faultFixture) {
		f.set(Fault{Kind: FaultHang, Operation: "viewer"})
		f.want(f.whileWaiting(f.viewer, func() { f.server.Admin().ClearFaults() }), 200, viewerAnswer)
		f.set(Fault{Kind: FaultHang, Operation: "viewer"})
		impatient := f.runtime
		impatient.timeout = 100 * time.Millisecond
		if got := impatient.query(f.server.DirectorURL(), `{ viewer { type } }`, nil); !errors.Is(got.Err, context.DeadlineExceeded) {
			f.Errorf("error %v, want a deadline", got.Err)
		}
	},
	FaultReset: func(f faultFixture) {
		f.set(Fault{Kind: FaultReset, Operation: "configuration"})
		got, burnt := f.configuration()
		if got.Err == nil || burnt {
			f.Errorf("error %v, burnt %t; want an error and an unburnt token", got.Err, burnt)
		}
		f.set(Fault{Kind: FaultReset, Operation: "configuration", Executed: true})
		if got, burnt := f.configuration(); got.Err == nil || !burnt {
			f.Errorf("error %v, burnt %t; want an error and a burnt token", got.Err, burnt)
		}
	},
	FaultTruncated: func(f faultFixture) {
		f.set(Fault{Kind: FaultTruncated, Operation: "viewer", Bytes: 5})
		got := f.viewer()
		if diff := cmp.Diff(viewerAnswer[:5], string(got.Body)); diff != "" || !errors.Is(got.Err, io.ErrUnexpectedEOF) {
			f.Errorf("error %v, body %q", got.Err, got.Body)
		}
	},
	FaultOversized: func(f faultFixture) {
		f.set(Fault{Kind: FaultOversized, Operation: "viewer", Bytes: 100_000})
		f.want(f.viewer(), 200, viewerAnswer+strings.Repeat(" ", 100_000))
	},
	FaultShortPage: func(f faultFixture) {
		f.set(Fault{Kind: FaultShortPage, Field: "applicationsForRuntime", By: 1, Count: 1})
		var got page
		f.applications(nil).data(f.T, &got)
		if p := got.ApplicationsForRuntime; len(p.Data) != 1 || p.TotalCount != 3 || !p.PageInfo.HasNextPage || p.PageInfo.EndCursor != encodeCursor(2) {
			f.Errorf("page %+v", p)
		}
	},
	FaultWrongCount: func(f faultFixture) {
		f.set(Fault{Kind: FaultWrongCount, Field: "bundles", By: -1})
		var got page
		f.applications(nil).data(f.T, &got)
		if p := got.ApplicationsForRuntime; p.TotalCount != 3 || p.Data[0].Bundles.TotalCount != 0 {
			f.Errorf("page %+v", p)
		}
	},
	FaultEndlessPages: func(f faultFixture) {
		f.set(Fault{Kind: FaultEndlessPages, Field: "applicationsForRuntime"})
		var got page
		f.applications(map[string]any{"after": encodeCursor(2)}).data(f.T, &got)
		if p := got.ApplicationsForRuntime; !p.PageInfo.HasNextPage || p.PageInfo.EndCursor != encodeCursor(2) {
			f.Errorf("page %+v", p)
		}
	},
	FaultRateLimited: func(f faultFixture) {
		f.set(Fault{Kind: FaultRateLimited, Count: 1})
		got := f.viewer()
		f.want(got, 429, "local_rate_limited")
		if _, ok := got.Header["Retry-After"]; ok {
			f.Errorf("header %v", got.Header)
		}
		f.set(Fault{Kind: FaultRateLimited, RetryAfter: "30"})
		if got := f.viewer(); got.Status != 429 || got.Header.Get("Retry-After") != "30" {
			f.Errorf("status %d, header %v", got.Status, got.Header)
		}
	},
	FaultOtherURLs: func(f faultFixture) {
		f.set(Fault{Kind: FaultOtherURLs, DirectorURL: "https://elsewhere.example.com/director/graphql"})
		got, _ := f.configuration()
		var configuration configurationResult
		got.data(f.T, &configuration)
		if urls := configuration.Result.ManagementPlaneInfo; urls.DirectorURL != "https://elsewhere.example.com/director/graphql" || urls.CertificateSecuredConnectorURL != f.server.MTLSConnectorURL() {
			f.Errorf("URLs %+v", urls)
		}
	},
	FaultCertificateTimes: func(f faultFixture) {
		f.set(Fault{Kind: FaultCertificateTimes, Operation: "signCertificateSigningRequest", Shift: Duration(time.Hour), Validity: Duration(time.Minute)})
		before := time.Now()
		cert := pairRuntime(f.T, f.server, testRuntime)
		leaf, err := x509.ParseCertificate(cert.Certificate[0])
		if err != nil {
			f.Fatal(err)
		}
		if leaf.NotBefore.Before(before.Add(time.Hour).Truncate(time.Second)) || leaf.NotAfter.Sub(leaf.NotBefore) != time.Minute {
			f.Errorf("valid from %s to %s", leaf.NotBefore, leaf.NotAfter)
		}
		early := f.runtime
		early.cert = cert
		if got := early.query(f.server.DirectorURL(), `{ viewer { type } }`, nil); got.Err == nil {
			f.Errorf("a certificate of the future was taken: status %d", got.Status)
		}
	},
	FaultDirectorDown: func(f faultFixture) {
		f.set(Fault{Kind: FaultDirectorDown})
		f.want(f.viewer(), 502, "")
		got, burnt := f.configuration()
		f.want(got, 400, "")
		if burnt {
			f.Error("the token is burnt")
		}
	},
	FaultConnectorDown: func(f faultFixture) {
		f.set(Fault{Kind: FaultConnectorDown})
		f.want(f.viewer(), 200, viewerAnswer)
		got, burnt := f.configuration()
		f.want(got, 502, "")
		if !burnt {
			f.Error("the token is not burnt")
		}
	},
	FaultGatewayDown: func(f faultFixture) {
		f.set(Fault{Kind: FaultGatewayDown})
		f.want(f.viewer(), 502, "")
		if _, burnt := f.configuration(); !burnt {
			f.Error("the token is not burnt")
		}
	},
	FaultHydratorDown: func(f faultFixture) {
		f.set(Fault{Kind: FaultHydratorDown})
		f.want(f.viewer(), 500, `{"error":{"code":500,"status":"Internal Server Error","message":"An internal server error occurred, please contact the system administrator"}}`)
		if _, burnt := f.configuration(); burnt {
			f.Error("the token is burnt")
		}
	},
	FaultDatabaseDown: func(f faultFixture) {
		f.set(Fault{Kind: FaultDatabaseDown})
		f.want(f.applications(nil), 200, `{"errors":[{"message":"insufficient scopes provided [actual=; required=application:read]","path":["applicationsForRuntime"],"extensions":{"error":"InsufficientScopes","error_code":23}}],"data":null}`)
		got, burnt := f.configuration()
		f.want(got, 400, "")
		if burnt {
			f.Error("the token is burnt")
		}
	},
}

// whileWaiting sends, waits until the request was received, does what is to be
// done and returns the answer.
func (f faultFixture) whileWaiting(send func() reply, do func()) reply {
	f.Helper()
	f.server.Admin().ResetCounters()
	answered := make(chan reply, 1)
	go func() { answered <- send() }()
	ctx, cancel := context.WithTimeout(f.Context(), testDeadline)
	defer cancel()
	if err := f.server.Admin().WaitForRequests(ctx, "viewer", 1); err != nil {
		f.Fatal(err)
	}
	if got := f.server.Admin().Counters().Operations["viewer"]; got != (Counter{Received: 1}) {
		f.Errorf("counter %+v, want one request without an answer", got)
	}
	do()
	return <-answered
}

func TestEachKindOfFaultDoesWhatItSays(t *testing.T) {
	shared := newFaultFixture(t)
	for _, kind := range faultKinds {
		t.Run(string(kind.Kind), func(t *testing.T) {
			test := faultTests[kind.Kind]
			if test == nil {
				t.Fatal("this kind has no test")
			}
			f := shared
			f.T, f.runtime.t, f.anonymous.t = t, t, t
			f.server.Admin().ClearFaults()
			test(f)
		})
	}
}

func TestAFaultSkipsAndCountsOnlyRequestsOfItsOperation(t *testing.T) {
	f := newFaultFixture(t)
	f.set(Fault{Kind: FaultStatus, Operation: "viewer", Status: 503, Skip: 1, Count: 2})
	var got []int
	for range 4 {
		got = append(got, f.viewer().Status)
		var apps page
		f.applications(nil).data(t, &apps)
	}
	if diff := cmp.Diff([]int{200, 503, 503, 200}, got); diff != "" {
		t.Error(diff)
	}
	if left := f.server.Admin().Faults(); len(left) != 0 {
		t.Errorf("faults left: %+v", left)
	}
	counters := f.server.Admin().Counters().Operations
	if counters["viewer"] != (Counter{4, 4}) || counters["applicationsForRuntime"] != (Counter{4, 4}) {
		t.Errorf("counters %+v", counters)
	}
}

func TestAFaultThatMeansNothingIsRefused(t *testing.T) {
	s := startCompass(t, Options{})
	for name, test := range map[string]struct {
		fault Fault
		want  string
	}{
		"an unknown kind":       {Fault{Kind: "Flood"}, `fault: kind: "Flood" is not known`},
		"an unknown operation":  {Fault{Kind: FaultHang, Operation: "nope"}, `fault: operation: "nope" is none of ` + strings.Join(operations, ", ")},
		"a setting is missing":  {Fault{Kind: FaultStatus}, `fault: status: is required for a fault of kind Status`},
		"a setting too much":    {Fault{Kind: FaultHang, Status: 500}, `fault: status: means nothing to a fault of kind Hang`},
		"a status out of range": {Fault{Kind: FaultStatus, Status: 99}, `fault: status: 99: want 200 to 599`},
		"a negative count":      {Fault{Kind: FaultHang, Count: -1}, `fault: count: -1: want 0 or more`},
		"a list without pages":  {Fault{Kind: FaultWrongCount, Field: "auths", By: 1}, `fault: field: "auths" is none of the lists ` + strings.Join(pagedFields, ", ")},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.Admin().SetFault(test.fault)
			if err == nil {
				t.Fatal("it was taken")
			}
			if diff := cmp.Diff(test.want, err.Error()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestAFaultGoesThroughJSONUnchanged(t *testing.T) {
	want := Fault{ID: "x", Kind: FaultCertificateTimes, Operation: "signCertificateSigningRequest", Count: 1, Shift: Duration(time.Minute), Validity: Duration(90 * time.Second)}
	raw, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(`{"id":"x","kind":"CertificateTimes","operation":"signCertificateSigningRequest","count":1,"shift":"1m0s","validity":"1m30s"}`, string(raw)); diff != "" {
		t.Error(diff)
	}
	var got Fault
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

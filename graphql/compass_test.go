package graphql_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/application-connector/application-connector/certs"
	"github.com/application-connector/application-connector/graphql"
	"github.com/application-connector/application-connector/graphql/connector"
	"github.com/application-connector/application-connector/graphql/director"
	"github.com/application-connector/application-connector/secret"
	"github.com/application-connector/application-connector/simulator/compass"
)

const (
	tenantID  = "3e64ebae-38b5-46a0-b1ed-9ccee153a0ae"
	runtimeID = "1ae04041-17e5-478f-91f8-3a2ddc7700de"
)

// paired is a simulated Compass and a transport that is paired with it.
type paired struct {
	*compass.Server
	transport *graphql.Transport
	director  *director.Client
}

func startCompass(t *testing.T, applications []compass.Application, change func(*graphql.Options)) *paired {
	t.Helper()
	server, err := compass.Start(context.Background(), compass.Options{Seed: compass.Seed{Tenants: []compass.Tenant{{
		ID:           tenantID,
		Runtimes:     []compass.Runtime{{ID: runtimeID, Name: "local", Formations: []string{"default"}}},
		Applications: applications,
	}}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	var o graphql.Options
	if o.RootCAs, err = graphql.Roots(server.ServerCA()); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&o)
	}
	transport := graphql.NewTransport(o)
	t.Cleanup(transport.CloseIdleConnections)
	p := &paired{Server: server, transport: transport, director: director.New(transport, server.DirectorURL(), tenantID)}
	token, err := server.Admin().RuntimeToken(runtimeID)
	if err != nil {
		t.Fatal(err)
	}
	transport.SetCertificate(p.sign(t, connector.New(transport, token.ConnectorURL), secret.Value(token.Token)))
	return p
}

// sign gets a certificate: with a token, or over mTLS if it is empty.
func (p *paired) sign(t *testing.T, client *connector.Client, token secret.Value) *tls.Certificate {
	t.Helper()
	configuration, err := client.Configuration(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	if configuration.DirectorURL != p.DirectorURL() || configuration.ConnectorURL != p.MTLSConnectorURL() || (token == "") != (configuration.Token == "") {
		t.Errorf("configuration %+v", configuration)
	}
	subject, err := certs.ParseSubject(configuration.Subject)
	if err != nil {
		t.Fatal(err)
	}
	key, err := certs.GenerateKey(2048)
	if err != nil {
		t.Fatal(err)
	}
	request, err := certs.NewRequest(key, subject)
	if err != nil {
		t.Fatal(err)
	}
	issued, err := client.Sign(t.Context(), configuration.Token, request)
	if err != nil {
		t.Fatal(err)
	}
	out := &tls.Certificate{PrivateKey: key}
	for _, c := range issued.Chain {
		out.Certificate = append(out.Certificate, c.Raw)
	}
	return out
}

func shop() compass.Application {
	return compass.Application{
		ID: "5b0d0000-0000-4000-8000-000000000001", Name: "Shop (EU)", Formations: []string{"default"},
		Bundles: []compass.Bundle{
			{ID: "5b0d0000-0000-4000-8000-0000000000b1", Name: "Orders",
				Auth:   &compass.Auth{Credential: compass.Credential{Basic: &compass.Basic{Username: "u", Password: "p"}}},
				APIs:   []compass.API{{Name: "Orders API", TargetURL: "https://shop.example.com/orders"}},
				Events: []compass.Event{{Name: "order.created"}}},
			{ID: "5b0d0000-0000-4000-8000-0000000000b2", Name: "Open", APIs: []compass.API{{Name: "Open API", TargetURL: "https://shop.example.com/open"}}},
		},
	}
}

func TestBothClientsGoTheWholeRoadWithASimulatedCompass(t *testing.T) {
	p := startCompass(t, []compass.Application{shop()}, nil)
	ctx := t.Context()
	check := func(what string, err error, want graphql.Kind) {
		t.Helper()
		if graphql.KindOf(err) != want || (err == nil) != (want == "") {
			t.Errorf("%s: got %v, want kind %q", what, err, want)
		}
	}
	viewer, err := p.director.Viewer(ctx)
	check("viewer", err, "")
	if viewer != runtimeID {
		t.Errorf("the viewer is %s, want %s", viewer, runtimeID)
	}
	snapshot, err := p.director.Snapshot(ctx, runtimeID)
	check("snapshot", err, "")
	if !snapshot.Complete || len(snapshot.Applications) != 1 || snapshot.Applications[0].Name != "mp-shop-eu" || len(snapshot.Applications[0].Bundles) != 2 {
		t.Fatalf("snapshot %+v", snapshot)
	}
	orders, open := snapshot.Applications[0].Bundles[0], snapshot.Applications[0].Bundles[1]
	if orders.Auth == nil || orders.Auth.Credential != (director.Basic{Username: "u", Password: "p"}) || open.Auth != nil || open.AuthPending {
		t.Errorf("bundles %+v", snapshot.Applications[0].Bundles)
	}

	check("set a label", p.director.SetRuntimeLabel(ctx, runtimeID, "runtime_consoleUrl", "https://console.example.com"), "")
	labels, err := p.director.RuntimeLabels(ctx, runtimeID)
	check("labels", err, "")
	if labels["runtime_consoleUrl"] != "https://console.example.com" {
		t.Errorf("labels %v", labels)
	}
	check("delete a label", p.director.DeleteRuntimeLabel(ctx, runtimeID, "runtime_consoleUrl"), "")
	check("delete it again", p.director.DeleteRuntimeLabel(ctx, runtimeID, "runtime_consoleUrl"), graphql.Rejected)
	check("a key with a dash", p.director.SetRuntimeLabel(ctx, runtimeID, "a-b", "c"), graphql.Rejected)
	_, err = p.director.Snapshot(ctx, "deadbeef-dead-4ead-8ead-deadbeefdead")
	check("an unknown runtime", err, graphql.Rejected)
	_, err = director.New(p.transport, p.DirectorURL(), "b2222222-2222-4222-8222-222222222222").Snapshot(ctx, runtimeID)
	check("a tenant that does not exist", err, graphql.Ambiguous)
	_, err = p.director.RequestOneTimeTokenForApplication(ctx, shop().ID)
	check("a token for an application", err, graphql.ScopeMissing)
	token, err := p.director.RequestOneTimeTokenForRuntime(ctx, runtimeID)
	check("a token for the runtime", err, "")
	if token.ConnectorURL != p.TokenURL() || time.Until(token.ExpiresAt) > 2*time.Hour || token.Token == "" {
		t.Errorf("token %+v", token)
	}

	// Tokens are good once.
	plain := connector.New(p.transport, token.ConnectorURL)
	_, err = plain.Configuration(ctx, token.Token)
	check("the token", err, "")
	_, err = plain.Configuration(ctx, token.Token)
	check("the token again", err, graphql.Ambiguous)
	_, err = plain.Configuration(ctx, "nonsense")
	check("no token", err, graphql.Ambiguous)
	check("revoking without a certificate", plain.Revoke(ctx), graphql.Ambiguous)

	// Renewal, and revocation of the old certificate with itself.
	secured := connector.New(p.transport, p.MTLSConnectorURL())
	renewed := p.sign(t, secured, "")
	check("revoke", secured.Revoke(ctx), "")
	check("the revoked certificate", secured.Revoke(ctx), graphql.Ambiguous)
	_, err = p.director.Snapshot(ctx, runtimeID)
	check("a snapshot with the revoked certificate", err, graphql.Ambiguous)
	_, err = p.director.Viewer(ctx)
	check("viewer with the revoked certificate", err, graphql.Server)
	p.transport.SetCertificate(renewed)
	_, err = p.director.Viewer(ctx)
	check("viewer with the renewed certificate", err, "")
}

func TestASimulatedInventoryOfManyPagesArrivesWhole(t *testing.T) {
	var applications []compass.Application
	for n := range 201 {
		applications = append(applications, compass.Application{Name: fmt.Sprintf("app-%03d", n), Formations: []string{"default"}})
	}
	wide := compass.Application{Name: "wide", Formations: []string{"default"}}
	for n := range 201 {
		wide.Bundles = append(wide.Bundles, compass.Bundle{Name: fmt.Sprintf("bundle-%03d", n)})
	}
	// Among the bundles of a further page too: its lists are paged by themselves.
	for _, b := range []int{0, 200} {
		for n := range 201 {
			wide.Bundles[b].APIs = append(wide.Bundles[b].APIs, compass.API{Name: fmt.Sprintf("api-%03d", n), TargetURL: "https://x.example.com"})
			wide.Bundles[b].Events = append(wide.Bundles[b].Events, compass.Event{Name: fmt.Sprintf("event-%03d", n)})
		}
	}
	p := startCompass(t, append(applications, wide), nil)
	got, err := p.director.Snapshot(t.Context(), runtimeID)
	if err != nil || !got.Complete || len(got.Invalid) != 0 || len(got.Applications) != 202 {
		t.Fatalf("%v; complete %v (%s), %d applications", err, got.Complete, got.Incomplete, len(got.Applications))
	}
	// 3 pages of applications, and their ids again; 2 more pages of bundles, and all 3 again; the same of APIs and of events for
	// each of two bundles.
	if want := 3 + 3 + (2 + 3) + 2*(2+3+2+3); got.Queries != want {
		t.Errorf("%d queries, want %d", got.Queries, want)
	}
	i := slices.IndexFunc(got.Applications, func(a director.Application) bool { return a.Name == "mp-wide" })
	if i < 0 || len(got.Applications[i].Bundles) != 201 {
		t.Fatalf("wide at %d: %d bundles", i, len(got.Applications[i].Bundles))
	}
	var apis, events int
	for _, b := range got.Applications[i].Bundles {
		apis += len(b.APIs)
		events += len(b.Events)
	}
	if apis != 402 || events != 402 {
		t.Errorf("%d APIs, %d events, want 402 each", apis, events)
	}
	if !slices.IsSortedFunc(got.Applications, func(a, b director.Application) int { return strings.Compare(a.ID, b.ID) }) {
		t.Error("applications are not in the order of their ids")
	}
}

func TestCredentialsThatAreRequestedButNotThereAreNotTakenForAnOpenAPI(t *testing.T) {
	p := startCompass(t, []compass.Application{shop()}, nil)
	const bundle = "5b0d0000-0000-4000-8000-0000000000b1"
	other, err := p.Admin().PutRuntime(tenantID, compass.Runtime{Name: "other", Formations: []string{"default"}})
	if err != nil {
		t.Fatal(err)
	}
	own := &compass.Auth{Credential: compass.Credential{Basic: &compass.Basic{Username: "own", Password: "x"}}}
	tests := []struct {
		runtime, condition string
		auth               *compass.Auth
		want               *director.Auth
		pending            bool
	}{
		{other, "PENDING", nil, &director.Auth{Credential: director.Basic{Username: "u", Password: "p"}}, false},
		{runtimeID, "PENDING", nil, nil, true},
		{runtimeID, "FAILED", nil, nil, true},
		{runtimeID, "SUCCEEDED", own, &director.Auth{Credential: director.Basic{Username: "own", Password: "x"}}, false},
		{runtimeID, "UNUSED", own, &director.Auth{Credential: director.Basic{Username: "own", Password: "x"}}, false},
	}
	for _, test := range tests {
		if _, err := p.Admin().SetInstanceAuth(bundle, test.runtime, test.condition, test.auth); err != nil {
			t.Fatal(err)
		}
		got, err := p.director.Snapshot(t.Context(), runtimeID)
		if err != nil {
			t.Fatal(err)
		}
		b := got.Applications[0].Bundles[0]
		if b.AuthPending != test.pending || (b.Auth == nil) != (test.want == nil) || b.Auth != nil && b.Auth.Credential != test.want.Credential {
			t.Errorf("%s for %s: auth %+v, pending %v; want %+v, %v", test.condition, test.runtime, b.Auth, b.AuthPending, test.want, test.pending)
		}
	}
}

func TestCredentialsThatDirectorHidesAreNotTakenForNone(t *testing.T) {
	p := startCompass(t, []compass.Application{shop()}, nil)
	if _, err := p.Admin().SetFault(compass.Fault{Kind: compass.FaultScopeLost, Scope: "bundle.instance_auths:read"}); err != nil {
		t.Fatal(err)
	}
	got, err := p.director.Snapshot(t.Context(), runtimeID)
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range got.Applications[0].Bundles {
		if b.Auth != nil || !b.AuthPending {
			t.Errorf("bundle %s: auth %+v, pending %v", b.Name, b.Auth, b.AuthPending)
		}
	}
}

func TestFaultsOfASimulatedCompassAreUnderstood(t *testing.T) {
	p := startCompass(t, []compass.Application{shop()}, func(o *graphql.Options) { o.MaxResponseBytes, o.Timeout = 1<<20, 5*time.Second })
	const operation = "applicationsForRuntime"
	failing := map[string]struct {
		fault compass.Fault
		want  graphql.Kind
		after time.Duration
	}{
		"HTTP 503":             {compass.Fault{Kind: compass.FaultStatus, Status: 503, RetryAfter: "7"}, graphql.Server, 7 * time.Second},
		"HTTP 401":             {compass.Fault{Kind: compass.FaultStatus, Status: 401}, graphql.Refused, 0},
		"GraphQL error":        {compass.Fault{Kind: compass.FaultGraphQLError, Error: "InternalError", Code: 10}, graphql.Server, 0},
		"unauthorized":         {compass.Fault{Kind: compass.FaultGraphQLError, Error: "Unauthorized", Code: 26}, graphql.Refused, 0},
		"500 with good data":   {compass.Fault{Kind: compass.FaultStatusWithData, Status: 500}, graphql.Server, 0},
		"data: null":           {compass.Fault{Kind: compass.FaultNullData}, graphql.Malformed, 0},
		"partial data":         {compass.Fault{Kind: compass.FaultFieldError, Field: "bundles", Error: "InternalError", Code: 10}, graphql.Server, 0},
		"a scope is lost":      {compass.Fault{Kind: compass.FaultScopeLost, Scope: "application:read"}, graphql.ScopeMissing, 0},
		"hang":                 {compass.Fault{Kind: compass.FaultHang}, graphql.Timeout, 0},
		"reset":                {compass.Fault{Kind: compass.FaultReset}, graphql.Unreachable, 0},
		"truncated":            {compass.Fault{Kind: compass.FaultTruncated}, graphql.Malformed, 0},
		"oversized":            {compass.Fault{Kind: compass.FaultOversized, Bytes: 2 << 20}, graphql.TooLarge, 0},
		"endless pages":        {compass.Fault{Kind: compass.FaultEndlessPages, Field: operation}, graphql.Malformed, 0},
		"endless nested pages": {compass.Fault{Kind: compass.FaultEndlessPages, Field: "bundles"}, graphql.Malformed, 0},
		"rate limit":           {compass.Fault{Kind: compass.FaultRateLimited}, graphql.Throttled, 0},
		"rate limit with time": {compass.Fault{Kind: compass.FaultRateLimited, RetryAfter: "120"}, graphql.Throttled, 2 * time.Minute},
		"Director down":        {compass.Fault{Kind: compass.FaultDirectorDown}, graphql.Server, 0},
		"hydrator down":        {compass.Fault{Kind: compass.FaultHydratorDown}, graphql.Server, 0},
		"database down":        {compass.Fault{Kind: compass.FaultDatabaseDown}, graphql.Ambiguous, 0},
	}
	for name, test := range failing {
		t.Run(name, func(t *testing.T) {
			if test.fault.Kind != compass.FaultDirectorDown && test.fault.Kind != compass.FaultHydratorDown && test.fault.Kind != compass.FaultDatabaseDown {
				test.fault.Operation = operation
			}
			if test.fault.Field == "bundles" && test.fault.Kind == compass.FaultEndlessPages {
				test.fault.Operation = ""
			}
			defer p.Admin().ClearFaults()
			if _, err := p.Admin().SetFault(test.fault); err != nil {
				t.Fatal(err)
			}
			_, err := p.director.Snapshot(t.Context(), runtimeID)
			var e *graphql.Error
			if !errors.As(err, &e) || e.Kind != test.want || e.RetryAfter != test.after {
				t.Errorf("got %v, want kind %s", err, test.want)
			}
		})
	}
	unproven := map[string]struct {
		fault      compass.Fault
		incomplete string
	}{
		"a short page of applications": {compass.Fault{Kind: compass.FaultShortPage, Field: operation, By: 1}, "applications: 0 read, Director counts 1"},
		"a wrong count of bundles":     {compass.Fault{Kind: compass.FaultWrongCount, Field: "bundles", By: 1}, "application " + shop().ID + ": bundles: 2 read, Director counts 3"},
		"a list is null":               {compass.Fault{Kind: compass.FaultFieldNull, Field: "bundles"}, "application " + shop().ID + ": bundles: null instead of a list"},
	}
	for name, test := range unproven {
		t.Run(name, func(t *testing.T) {
			defer p.Admin().ClearFaults()
			if _, err := p.Admin().SetFault(test.fault); err != nil {
				t.Fatal(err)
			}
			got, err := p.director.Snapshot(t.Context(), runtimeID)
			if err != nil || got.Complete || got.Incomplete != test.incomplete || len(got.Applications) != 0 {
				t.Errorf("%v; complete %v, %q, want %q", err, got.Complete, got.Incomplete, test.incomplete)
			}
		})
	}
}

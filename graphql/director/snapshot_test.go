package director_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/application-connector/application-connector/graphql"
	"github.com/application-connector/application-connector/graphql/director"
	"github.com/application-connector/application-connector/secret"
)

func TestEveryListArrivesWholeHoweverLongItIs(t *testing.T) {
	// The first page of a list within comes with its application. If it is not the only one, all are read again.
	within := func(size int) int {
		return map[int]int{0: 1, 1: 1, 100: 1, 101: 1 + 1 + 2, 201: 1 + 2 + 3, 401: 1 + 4 + 5, 1001: 1 + 10 + 11}[size]
	}
	for _, size := range []int{0, 1, 100, 101, 201, 401, 1001} {
		levels := map[string]struct {
			inventory *inventory
			count     func(director.Snapshot) []string
			queries   int
		}{
			"applications": {
				inventory: &inventory{apps: many(size, func(n int) object { return app(n) })},
				count: func(s director.Snapshot) (ids []string) {
					for _, a := range s.Applications {
						ids = append(ids, a.ID)
					}
					return ids
				},
				// More than one page is read twice.
				queries: map[int]int{0: 1, 1: 1, 100: 1, 101: 2 * 2, 201: 2 * 3, 401: 2 * 5, 1001: 2 * 11}[size],
			},
			"bundles": {
				inventory: &inventory{apps: []object{app(1), app(2, many(size, func(n int) object { return bundle(n, nil, nil) })...)}},
				count: func(s director.Snapshot) (ids []string) {
					for _, b := range s.Applications[1].Bundles {
						ids = append(ids, b.ID)
					}
					return ids
				},
				queries: within(size),
			},
			"APIs": {
				inventory: &inventory{apps: []object{app(1, bundle(1, nil, nil), bundle(2, many(size, api), many(3, event)))}},
				count: func(s director.Snapshot) (ids []string) {
					for _, a := range s.Applications[0].Bundles[1].APIs {
						ids = append(ids, a.ID)
					}
					return ids
				},
				queries: within(size),
			},
			"events": {
				inventory: &inventory{apps: []object{app(1, bundle(1, many(3, api), many(size, event)))}},
				count: func(s director.Snapshot) (ids []string) {
					for _, e := range s.Applications[0].Bundles[0].Events {
						ids = append(ids, e.ID)
					}
					return ids
				},
				queries: within(size),
			},
		}
		kinds := map[string]string{"applications": "app", "bundles": "bundle", "APIs": "api", "events": "event"}
		for level, test := range levels {
			t.Run(fmt.Sprintf("%d %s", size, level), func(t *testing.T) {
				snapshot, err := test.inventory.start(t).Snapshot(t.Context(), runtimeID)
				if err != nil {
					t.Fatal(err)
				}
				if !snapshot.Complete || snapshot.Incomplete != "" || len(snapshot.Invalid) != 0 {
					t.Errorf("incomplete: %q, invalid: %v", snapshot.Incomplete, snapshot.Invalid)
				}
				var want []string
				for n := range size {
					want = append(want, fmt.Sprintf("%s-%05d", kinds[level], n))
				}
				if diff := cmp.Diff(want, test.count(snapshot)); diff != "" {
					t.Errorf("ids (-want +got):\n%s", diff)
				}
				if snapshot.Queries != test.queries || len(test.inventory.asked) != test.queries {
					t.Errorf("%d queries counted, %d seen, want %d", snapshot.Queries, len(test.inventory.asked), test.queries)
				}
			})
		}
	}
}

func TestASnapshotHasEveryFieldThatDirectorSends(t *testing.T) {
	schema := `{"type": "object"}`
	auths := func(condition, runtime string) []any {
		return []any{object{"runtimeID": runtime, "status": object{"condition": condition}}}
	}
	withAuth := func(n int, auth object) object {
		b := bundle(n, nil, nil)
		b["defaultInstanceAuth"] = auth
		return b
	}
	full := bundle(1, []object{{
		"id": "api-1", "name": "Orders API", "description": "orders", "targetURL": "https://shop.example.com/orders", "group": "g",
		"version": object{"value": "v1", "deprecated": true, "deprecatedSince": "v0", "forRemoval": true},
	}}, []object{{"id": "event-1", "name": "order.created", "description": "an order", "group": "h", "version": object{"value": "v2"}}})
	full["description"] = "all about orders"
	full["instanceAuthRequestInputSchema"] = schema
	full["defaultInstanceAuth"] = object{
		"credential":            object{"__typename": "BasicCredentialData", "username": "u", "password": "p"},
		"additionalHeaders":     object{"X-Key": []any{"k1", "k2"}},
		"additionalQueryParams": object{"region": []any{"eu"}},
		"requestAuth":           object{"csrf": object{"tokenEndpointURL": "https://shop.example.com/csrf"}},
	}
	pending, failed, foreign, unused := bundle(6, nil, nil), bundle(7, nil, nil), bundle(8, nil, nil), bundle(9, nil, nil)
	unused["instanceAuths"] = auths("UNUSED", runtimeID)
	pending["instanceAuths"], failed["instanceAuths"] = auths("PENDING", runtimeID), auths("FAILED", runtimeID)
	foreign["instanceAuths"] = auths("PENDING", "another-runtime")

	a := app(1, full,
		withAuth(2, object{"credential": object{"__typename": "OAuthCredentialData", "clientId": "c", "clientSecret": "s", "url": "https://idp.example.com"}}),
		withAuth(3, object{"credential": object{"__typename": "CertificateOAuthCredentialData", "clientId": "c", "certificate": "PEM", "url": "https://idp.example.com"}}),
		withAuth(4, object{"credential": object{"__typename": "PasskeyCredentialData"}}),
		withAuth(5, object{"credential": nil}),
		pending, failed, foreign, unused,
	)
	a["providerName"], a["description"], a["auths"] = "ACME", "a shop", []any{object{"id": "auth-1"}, object{"id": "auth-2"}}

	got, err := (&inventory{apps: []object{a}}).start(t).Snapshot(t.Context(), runtimeID)
	if err != nil {
		t.Fatal(err)
	}
	want := director.Snapshot{
		RuntimeLabels: map[string]any{"isNormalized": "true"},
		Complete:      true,
		Queries:       1,
		Applications: []director.Application{{
			ID: "app-00001", Name: "mp-app-1", ProviderName: "ACME", Description: "a shop",
			Labels: map[string]any{"managed": "false"}, AuthIDs: []string{"auth-1", "auth-2"}, Status: "CONNECTED",
			Bundles: []director.Bundle{
				{
					ID: "bundle-00001", Name: "Bundle 1", Description: "all about orders", AuthRequestSchema: &schema,
					Auth: &director.Auth{
						Credential: director.Basic{Username: "u", Password: secret.Value("p")},
						Headers:    map[string][]string{"X-Key": {"k1", "k2"}},
						Query:      map[string][]string{"region": {"eu"}},
						CSRF:       &director.CSRF{TokenEndpointURL: "https://shop.example.com/csrf"},
					},
					APIs: []director.API{{
						ID: "api-1", Name: "Orders API", Description: "orders", TargetURL: "https://shop.example.com/orders", Group: "g",
						Version: director.Version{Value: "v1", Deprecated: true, DeprecatedSince: "v0", ForRemoval: true},
					}},
					Events: []director.Event{{
						ID: "event-1", Name: "order.created", Description: "an order", Group: "h", Version: director.Version{Value: "v2"},
					}},
				},
				{ID: "bundle-00002", Name: "Bundle 2", Auth: &director.Auth{
					Credential: director.OAuth{ClientID: "c", ClientSecret: "s", URL: "https://idp.example.com"}}},
				{ID: "bundle-00003", Name: "Bundle 3", Auth: &director.Auth{
					Credential: director.CertificateOAuth{ClientID: "c", Certificate: "PEM", URL: "https://idp.example.com"}}},
				{ID: "bundle-00004", Name: "Bundle 4", Auth: &director.Auth{
					Credential: director.Unknown{Typename: "PasskeyCredentialData"}}},
				{ID: "bundle-00005", Name: "Bundle 5", Auth: &director.Auth{}},
				{ID: "bundle-00006", Name: "Bundle 6", AuthPending: true},
				{ID: "bundle-00007", Name: "Bundle 7", AuthPending: true},
				{ID: "bundle-00008", Name: "Bundle 8"},
				{ID: "bundle-00009", Name: "Bundle 9", AuthPending: true},
			},
		}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("snapshot (-want +got):\n%s", diff)
	}
}

func TestAnInventoryThatChangesWhileItIsReadIsIncomplete(t *testing.T) {
	wide := func() []object { return []object{app(1), app(2, bundle(1, many(201, api), many(201, event)))} }
	tests := map[string]struct {
		apps       []object
		before     func(i *inventory) func(n int, operation string)
		edit       func(n int, operation string, answer object)
		incomplete string
		left       int
		invalid    []director.InvalidApplication
	}{
		"an application is removed between pages": {
			apps: many(250, func(n int) object { return app(n) }),
			before: func(i *inventory) func(int, string) {
				return func(n int, _ string) {
					if n == 2 {
						i.apps = i.apps[1:]
					}
				}
			},
			incomplete: "applications: the count changed while the pages were read",
			left:       249, // one was skipped: its page had been read when it moved there
		},
		"an application is added between pages, which brings one twice": {
			apps: many(250, func(n int) object { return app(n + 1) }),
			before: func(i *inventory) func(int, string) {
				return func(n int, _ string) {
					if n == 2 {
						i.apps = append([]object{app(0)}, i.apps...)
					}
				}
			},
			incomplete: "applications: the count changed while the pages were read",
			left:       250,
		},
		"one goes and another comes between pages, so that the count is the same": {
			apps: many(250, func(n int) object { return app(n) }),
			before: func(i *inventory) func(int, string) {
				return func(n int, _ string) {
					if n == 2 {
						i.apps = append(i.apps[1:], app(250))
					}
				}
			},
			incomplete: "applications: others when they were read again",
			left:       250, // app-00100 was skipped, app-00000 is gone
		},
		"one goes before the applications are read again": {
			apps: many(250, func(n int) object { return app(n) }),
			before: func(i *inventory) func(int, string) {
				return func(n int, _ string) {
					if n == 4 {
						i.apps = i.apps[1:]
					}
				}
			},
			incomplete: "applications: others when they were read again",
			left:       250,
		},
		"one goes while the applications are read again": {
			apps: many(250, func(n int) object { return app(n) }),
			before: func(i *inventory) func(int, string) {
				return func(n int, _ string) {
					if n == 5 {
						i.apps = i.apps[1:]
					}
				}
			},
			incomplete: "applications, read again: the count changed while the pages were read",
			left:       250,
		},
		"the count is wrong": {
			apps: many(3, func(n int) object { return app(n) }),
			edit: func(_ int, _ string, answer object) {
				answer["data"].(object)["applicationsForRuntime"].(object)["totalCount"] = 4
			},
			incomplete: "applications: 3 read, Director counts 4",
			left:       3,
		},
		"an application has no id": {
			apps: []object{app(1), {"id": "", "name": "x", "bundles": []object{}}},
			edit: func(int, string, object) {}, incomplete: "applications: 1 without an id", left: 1,
		},
		"an API is added between pages": {
			apps: wide(),
			before: func(i *inventory) func(int, string) {
				return func(_ int, operation string) {
					if operation == "APIsOfBundle" {
						b := i.apps[1]["bundles"].([]object)[0]
						b["apis"] = append(b["apis"].([]object), api(99999))
					}
				}
			},
			incomplete: "application app-00002: bundle bundle-00001: APIs: the count changed while the pages were read",
			left:       1,
			invalid: []director.InvalidApplication{{ID: "app-00002", Name: "mp-app-2",
				Reason: "bundle bundle-00001: APIs: the count changed while the pages were read"}},
		},
		"an API goes and another comes between pages, so that the count is the same": {
			apps: wide(),
			before: func(i *inventory) func(int, string) {
				asked := 0
				return func(_ int, operation string) {
					if operation != "APIsOfBundle" {
						return
					}
					if asked++; asked == 1 {
						b := i.apps[1]["bundles"].([]object)[0]
						b["apis"] = append(b["apis"].([]object)[1:], api(99999))
					}
				}
			},
			incomplete: "application app-00002: bundle bundle-00001: APIs: others when they were read again",
			left:       1,
			invalid:    []director.InvalidApplication{{ID: "app-00002", Name: "mp-app-2", Reason: "bundle bundle-00001: APIs: others when they were read again"}},
		},
		"a kind of events goes and another comes between pages": {
			apps: wide(),
			before: func(i *inventory) func(int, string) {
				asked := 0
				return func(_ int, operation string) {
					if operation != "EventsOfBundle" {
						return
					}
					if asked++; asked == 1 {
						b := i.apps[1]["bundles"].([]object)[0]
						b["events"] = append(b["events"].([]object)[1:], event(99999))
					}
				}
			},
			incomplete: "application app-00002: bundle bundle-00001: events: others when they were read again",
			left:       1,
			invalid:    []director.InvalidApplication{{ID: "app-00002", Name: "mp-app-2", Reason: "bundle bundle-00001: events: others when they were read again"}},
		},
		"a bundle goes and another comes between pages": {
			apps: []object{app(1), app(2, many(201, func(n int) object { return bundle(n, nil, nil) })...)},
			before: func(i *inventory) func(int, string) {
				return func(n int, _ string) {
					if n == 2 {
						i.apps[1]["bundles"] = append(i.apps[1]["bundles"].([]object)[1:], bundle(99999, nil, nil))
					}
				}
			},
			incomplete: "application app-00002: bundles: others when they were read again",
			left:       1,
			invalid:    []director.InvalidApplication{{ID: "app-00002", Name: "mp-app-2", Reason: "bundles: others when they were read again"}},
		},
		"a bundle goes while the bundles are read again": {
			apps: []object{app(1), app(2, many(201, func(n int) object { return bundle(n, nil, nil) })...)},
			before: func(i *inventory) func(int, string) {
				return func(n int, _ string) {
					if n == 5 {
						i.apps[1]["bundles"] = i.apps[1]["bundles"].([]object)[1:]
					}
				}
			},
			incomplete: "application app-00002: bundles, read again: the count changed while the pages were read",
			left:       1,
			invalid:    []director.InvalidApplication{{ID: "app-00002", Name: "mp-app-2", Reason: "bundles, read again: the count changed while the pages were read"}},
		},
		"the bundles are null when they are read again": {
			apps: []object{app(1), app(2, many(101, func(n int) object { return bundle(n, nil, nil) })...)},
			edit: func(n int, _ string, answer object) {
				if n == 3 {
					answer["data"].(object)["application"].(object)["bundles"] = nil
				}
			},
			incomplete: "application app-00002: bundles, read again: null instead of a list",
			left:       1,
			invalid:    []director.InvalidApplication{{ID: "app-00002", Name: "mp-app-2", Reason: "bundles, read again: null instead of a list"}},
		},
		"the application goes away between pages": {
			apps: wide(),
			before: func(i *inventory) func(int, string) {
				return func(_ int, operation string) {
					if operation == "EventsOfBundle" {
						i.apps = i.apps[:1]
					}
				}
			},
			incomplete: "application app-00002: went away while its pages were read",
			left:       1,
			invalid:    []director.InvalidApplication{{ID: "app-00002", Name: "mp-app-2", Reason: "went away while its pages were read"}},
		},
		"the application may not be read alone any more": {
			apps: wide(),
			edit: func(_ int, operation string, answer object) {
				if operation == "APIsOfBundle" {
					answer["data"] = object{"application": nil}
					answer["errors"] = []any{object{"message": "The operation is not allowed", "path": []any{"application"},
						"extensions": object{"error": "InvalidOperation", "error_code": 27}}}
				}
			},
			incomplete: "application app-00002: went away while its pages were read",
			left:       1,
			invalid:    []director.InvalidApplication{{ID: "app-00002", Name: "mp-app-2", Reason: "went away while its pages were read"}},
		},
		"bundles are null": {
			apps: wide(),
			edit: func(_ int, _ string, answer object) {
				apps := answer["data"].(object)["applicationsForRuntime"].(object)["data"].([]any)
				apps[1].(object)["bundles"] = nil
			},
			incomplete: "application app-00002: bundles: null instead of a list",
			left:       1,
			invalid:    []director.InvalidApplication{{ID: "app-00002", Name: "mp-app-2", Reason: "bundles: null instead of a list"}},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			i := &inventory{apps: test.apps, edit: test.edit}
			if test.before != nil {
				i.before = test.before(i)
			}
			got, err := i.start(t).Snapshot(t.Context(), runtimeID)
			if err != nil {
				t.Fatal(err)
			}
			if got.Complete || got.Incomplete != test.incomplete {
				t.Errorf("complete %v, %q, want %q", got.Complete, got.Incomplete, test.incomplete)
			}
			if len(got.Applications) != test.left {
				t.Errorf("%d applications, want %d", len(got.Applications), test.left)
			}
			if diff := cmp.Diff(test.invalid, got.Invalid); diff != "" {
				t.Errorf("invalid (-want +got):\n%s", diff)
			}
		})
	}
}

func TestWhatDirectorHidesIsNotTakenForNothing(t *testing.T) {
	own := func(n int, conditions ...string) object {
		b, auths := bundle(n, nil, nil), []any{}
		for _, condition := range conditions {
			auths = append(auths, object{"runtimeID": runtimeID, "status": object{"condition": condition}})
		}
		b["instanceAuths"], b["defaultInstanceAuth"] = auths, nil
		return b
	}
	hidden := bundle(1, nil, nil)
	hidden["instanceAuths"] = nil
	for name, test := range map[string]struct {
		change func(app object)
		want   director.Application
		// doubt makes the snapshot incomplete.
		doubt string
	}{
		"no auths": {func(a object) { a["auths"] = nil }, director.Application{AuthsUnknown: true}, "auths: null instead of a list"},
		"no instance auths": {
			func(a object) { a["bundles"] = []object{hidden} },
			director.Application{Bundles: []director.Bundle{{ID: "bundle-00001", Name: "Bundle 1", AuthPending: true}}},
			"bundle bundle-00001: instanceAuths: null instead of a list",
		},
		"no credentials though the runtime's own were issued": {
			func(a object) { a["bundles"] = []object{own(1, "SUCCEEDED"), own(2)} },
			director.Application{Bundles: []director.Bundle{{ID: "bundle-00001", Name: "Bundle 1", AuthPending: true}, {ID: "bundle-00002", Name: "Bundle 2"}}},
			"bundle bundle-00001: defaultInstanceAuth: null, although the runtime has credentials of its own",
		},
		"no credentials, as those that were issued are not the first": {
			func(a object) { a["bundles"] = []object{own(1, "PENDING", "SUCCEEDED")} },
			director.Application{Bundles: []director.Bundle{{ID: "bundle-00001", Name: "Bundle 1", AuthPending: true}}}, "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := app(1)
			test.change(a)
			got, err := (&inventory{apps: []object{a, app(2)}}).start(t).Snapshot(t.Context(), runtimeID)
			if err != nil {
				t.Fatal(err)
			}
			labels := map[string]any{"managed": "false"}
			test.want.ID, test.want.Name, test.want.Labels, test.want.Status = "app-00001", "mp-app-1", labels, "CONNECTED"
			want := director.Snapshot{
				RuntimeLabels: map[string]any{"isNormalized": "true"},
				Applications:  []director.Application{test.want, {ID: "app-00002", Name: "mp-app-2", Labels: labels, Status: "CONNECTED"}},
				Complete:      test.doubt == "",
				Queries:       1,
			}
			if test.doubt != "" {
				want.Incomplete = "application app-00001: " + test.doubt
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("snapshot (-want +got):\n%s", diff)
			}
		})
	}
}

func TestARuntimeWithApplicationsHasLabels(t *testing.T) {
	for applications, want := range map[int]director.Snapshot{
		0: {Complete: true, Queries: 1},
		1: {
			Applications: []director.Application{{ID: "app-00000", Name: "mp-app-0", Labels: map[string]any{"managed": "false"}, Status: "CONNECTED"}},
			Incomplete:   "runtime.labels: null instead of an object", Queries: 1,
		},
	} {
		i := &inventory{apps: many(applications, func(n int) object { return app(n) }), edit: func(_ int, _ string, answer object) {
			answer["data"].(object)["runtime"] = object{"labels": nil}
		}}
		got, err := i.start(t).Snapshot(t.Context(), runtimeID)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%d applications: snapshot (-want +got):\n%s", applications, diff)
		}
	}
}

func TestOneBadApplicationDoesNotSpoilTheOthers(t *testing.T) {
	withAuth := func(auth object) object {
		b := bundle(1, nil, nil)
		b["defaultInstanceAuth"] = auth
		return app(2, b)
	}
	badAPI := api(1)
	badAPI["targetURL"] = ""
	badLabels := app(2)
	badLabels["labels"] = []any{"x"}
	noName := app(2)
	noName["name"] = ""
	longID := app(2, bundle(1, nil, nil))
	longID["bundles"].([]object)[0]["id"] = strings.Repeat("x", 257)
	tests := map[string]struct {
		app    object
		name   string
		reason string
	}{
		"an API without target":    {app(2, bundle(1, []object{badAPI}, nil)), "mp-app-2", "Bundles[0].APIs[0].TargetURL: want required"},
		"labels of another shape":  {badLabels, "mp-app-2", "labels: want an object"},
		"no name":                  {noName, "", "Name: want required"},
		"an id that is too long":   {longID, "mp-app-2", "Bundles[0].ID: want max=256"},
		"headers of another shape": {withAuth(object{"additionalHeaders": object{"X": "canary"}}), "mp-app-2", "bundle bundle-00001: defaultInstanceAuth.additionalHeaders: want an object of lists of strings"},
		"query of another shape":   {withAuth(object{"additionalQueryParams": "canary"}), "mp-app-2", "bundle bundle-00001: defaultInstanceAuth.additionalQueryParams: want an object of lists of strings"},
		"CSRF without endpoint":    {withAuth(object{"requestAuth": object{"csrf": object{"tokenEndpointURL": ""}}}), "mp-app-2", "Bundles[0].Auth.CSRF.TokenEndpointURL: want required"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := (&inventory{apps: []object{app(1), test.app, app(3)}}).start(t).Snapshot(t.Context(), runtimeID)
			if err != nil {
				t.Fatal(err)
			}
			if !got.Complete || len(got.Applications) != 2 {
				t.Errorf("complete %v (%s), %d applications, want 2", got.Complete, got.Incomplete, len(got.Applications))
			}
			want := []director.InvalidApplication{{ID: "app-00002", Name: test.name, Reason: test.reason}}
			if diff := cmp.Diff(want, got.Invalid); diff != "" {
				t.Errorf("invalid (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPagesThatLeadNowhereAreAnError(t *testing.T) {
	info := func(answer object, list string) object {
		data := answer["data"].(object)
		if list == "applications" {
			return data["applicationsForRuntime"].(object)["pageInfo"].(object)
		}
		return data["application"].(object)["bundles"].(object)["pageInfo"].(object)
	}
	tests := map[string]struct {
		apps []object
		edit func(n int, operation string, answer object)
		want string
	}{
		"a next page without a cursor": {
			apps: many(3, func(n int) object { return app(n) }),
			edit: func(_ int, _ string, a object) { info(a, "applications")["hasNextPage"] = true },
			want: "applications: the cursor of page 1 does not advance",
		},
		"the same cursor again": {
			apps: many(201, func(n int) object { return app(n) }),
			edit: func(_ int, _ string, a object) {
				info(a, "applications")["hasNextPage"], info(a, "applications")["endCursor"] = true, "prefix"
			},
			want: "applications: the cursor of page 2 does not advance",
		},
		"the same cursor again, within an application": {
			apps: []object{app(1, many(101, func(n int) object { return bundle(n, nil, nil) })...)},
			edit: func(_ int, operation string, a object) {
				if operation == "BundlesOfApplication" {
					info(a, "bundles")["hasNextPage"], info(a, "bundles")["endCursor"] = true, "prefix"
				}
			},
			want: "application app-00001: bundles: the cursor of page 3 does not advance",
		},
		"pages without end": {
			apps: many(3, func(n int) object { return app(n) }),
			edit: func(n int, _ string, a object) {
				info(a, "applications")["hasNextPage"], info(a, "applications")["endCursor"] = true, fmt.Sprint("cursor-", n)
			},
			want: "applications: no end after 1000 pages",
		},
		"no list": {
			edit: func(_ int, _ string, a object) {
				a["data"].(object)["applicationsForRuntime"].(object)["data"] = nil
			},
			want: "applicationsForRuntime.data: null instead of a list",
		},
		"no list when the applications are read again": {
			apps: many(101, func(n int) object { return app(n) }),
			edit: func(_ int, operation string, a object) {
				if operation == "ApplicationIDs" {
					a["data"].(object)["applicationsForRuntime"].(object)["data"] = nil
				}
			},
			want: "applicationsForRuntime.data: null instead of a list",
		},
		"a cursor that does not advance when the applications are read again": {
			apps: many(101, func(n int) object { return app(n) }),
			edit: func(_ int, operation string, a object) {
				if operation == "ApplicationIDs" {
					info(a, "applications")["hasNextPage"] = true
				}
			},
			want: "applications, read again: the cursor of page 2 does not advance",
		},
		"runtime labels of another shape": {
			edit: func(_ int, _ string, a object) { a["data"].(object)["runtime"] = object{"labels": 7} },
			want: "runtime.labels: want an object",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			snapshot, err := (&inventory{apps: test.apps, edit: test.edit}).start(t).Snapshot(t.Context(), runtimeID)
			if diff := cmp.Diff(director.Snapshot{}, snapshot); diff != "" {
				t.Errorf("a snapshot beside an error: %s", diff)
			}
			var e *graphql.Error
			if !errors.As(err, &e) || e.Kind != graphql.Malformed || e.Err.Error() != test.want {
				t.Errorf("got %v, want Malformed: %s", err, test.want)
			}
		})
	}
}

func TestAnErrorOnAnyPageIsAnErrorOfTheSnapshot(t *testing.T) {
	apps := many(101, func(n int) object { return app(n) })
	apps[0] = app(0, bundle(1, many(101, api), nil))
	for _, operation := range []string{"ApplicationsForRuntime", "ApplicationIDs", "APIsOfBundle"} {
		t.Run(operation, func(t *testing.T) {
			i := &inventory{apps: apps, edit: func(n int, op string, answer object) {
				if n > 1 && op == operation {
					// Data and an error: partial.
					answer["errors"] = []any{object{"message": "Internal Server Error [errorID=x]", "path": []any{"data"},
						"extensions": object{"error": "InternalError", "error_code": 10}}}
				}
			}}
			snapshot, err := i.start(t).Snapshot(t.Context(), runtimeID)
			if graphql.KindOf(err) != graphql.Server {
				t.Errorf("got %v, want Server", err)
			}
			if diff := cmp.Diff(director.Snapshot{}, snapshot); diff != "" {
				t.Errorf("a snapshot beside an error: %s", diff)
			}
		})
	}
}

func TestAnUnknownRuntimeIsRejected(t *testing.T) {
	i := &inventory{edit: func(_ int, _ string, answer object) { answer["data"].(object)["runtime"] = nil }}
	_, err := i.start(t).Snapshot(t.Context(), runtimeID)
	if graphql.KindOf(err) != graphql.Rejected {
		t.Errorf("got %v, want Rejected", err)
	}
}

package compass

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// directorFixture is a Runtime and an administrator of the same tenant.
type directorFixture struct {
	faultFixture
	admin caller
}

func newDirectorFixture(t *testing.T) directorFixture {
	f := newFaultFixture(t)
	return directorFixture{f, caller{t: t, server: f.server, tenant: testTenant}}
}

func (f directorFixture) asAdmin(query string, variables map[string]any) string {
	f.Helper()
	return string(f.admin.query(f.server.AdminURL()+"/director/graphql", query, variables).Body)
}

func (f directorFixture) asRuntime(query string, variables map[string]any) string {
	f.Helper()
	return string(f.runtime.query(f.server.DirectorURL(), query, variables).Body)
}

func (f directorFixture) same(want, got string) {
	f.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		f.Error(diff)
	}
}

const ordersAuth = `query($id: ID!, $app: ID!, $bundle: ID!) { applicationsForRuntime(runtimeID: $id, first: 1) { data { bundles { data { defaultInstanceAuth { credential { ... on BasicCredentialData { username } } } } } } } application(id: $app) { bundle(id: $bundle) { defaultInstanceAuth { credential { ... on BasicCredentialData { username } } } } } }`

func TestARuntimesOwnCredentialsReplaceTheDefaultOnesInLists(t *testing.T) {
	f := newDirectorFixture(t)
	app := f.server.Admin().Inventory().Tenants[0].Applications[0]
	bundle := app.Bundles[0].ID
	answer := func(list string) string {
		return `{"data":{"applicationsForRuntime":{"data":[{"bundles":{"data":[{"defaultInstanceAuth":` + list +
			`}]}}]},"application":{"bundle":{"defaultInstanceAuth":{"credential":{"username":"u"}}}}}}`
	}
	for _, step := range []struct {
		condition string
		auth      *Auth
		want      string
	}{
		{"PENDING", nil, `null`},
		{"SUCCEEDED", &Auth{Credential: Credential{Basic: &Basic{"own", "p"}}}, `{"credential":{"username":"own"}}`},
		{"UNUSED", &Auth{Credential: Credential{Basic: &Basic{"own", "p"}}}, `{"credential":{"username":"own"}}`},
		{"FAILED", nil, `null`},
	} {
		if _, err := f.server.Admin().SetInstanceAuth(bundle, testRuntime, step.condition, step.auth); err != nil {
			t.Fatal(err)
		}
		f.same(answer(step.want), f.asRuntime(ordersAuth, map[string]any{"id": testRuntime, "app": app.ID, "bundle": bundle}))
	}
	if _, err := f.server.Admin().SetInstanceAuth(bundle, testRuntime, "MAYBE", nil); err == nil ||
		err.Error() != `condition: "MAYBE" is none of [PENDING SUCCEEDED FAILED UNUSED]` {
		t.Errorf("error %v", err)
	}
}

func TestARequestForCredentialsCanBeTakenBack(t *testing.T) {
	f := newDirectorFixture(t)
	bundle := f.server.Admin().Inventory().Tenants[0].Applications[0].Bundles[0].ID
	f.same(`{"errors":[{"message":"Invalid data BundleInstanceAuthRequestInput [context=must be valid JSON]","path":["requestBundleInstanceAuthCreation"],"extensions":{"error":"InvalidData","error_code":22}}],"data":null}`,
		f.asRuntime(`mutation($b: ID!) { requestBundleInstanceAuthCreation(bundleID: $b, in: {context: "{"}) { id } }`, map[string]any{"b": bundle}))
	var created struct {
		RequestBundleInstanceAuthCreation struct {
			ID     string
			Status struct{ Condition, Reason string }
		}
	}
	f.runtime.query(f.server.DirectorURL(), `mutation($b: ID!) { requestBundleInstanceAuthCreation(bundleID: $b, in: {}) { id status { condition reason } } }`,
		map[string]any{"b": bundle}).data(t, &created)
	if got := created.RequestBundleInstanceAuthCreation.Status; got.Condition != "SUCCEEDED" || got.Reason != "CredentialsProvided" {
		t.Errorf("status %+v", got)
	}
	id := created.RequestBundleInstanceAuthCreation.ID
	f.same(`{"data":{"bundleInstanceAuth":{"runtimeID":"`+testRuntime+`"}}}`, f.asRuntime(`query($id: ID!) { bundleInstanceAuth(id: $id) { runtimeID } }`, map[string]any{"id": id}))
	f.same(`{"data":{"requestBundleInstanceAuthDeletion":{"id":"`+id+`"}}}`, f.asRuntime(`mutation($id: ID!) { requestBundleInstanceAuthDeletion(authID: $id) { id } }`, map[string]any{"id": id}))
	f.same(`{"data":{"bundleInstanceAuth":null}}`, f.asRuntime(`query($id: ID!) { bundleInstanceAuth(id: $id) { runtimeID } }`, map[string]any{"id": id}))
}

func TestAnAdministratorOnboardsARuntime(t *testing.T) {
	f := newDirectorFixture(t)
	var registered struct{ RegisterRuntime struct{ ID string } }
	f.admin.query(f.server.AdminURL()+"/director/graphql", `mutation { registerRuntime(in: {name: "second", labels: {region: "eu"}}) { id } }`, nil).data(t, &registered)
	id := registered.RegisterRuntime.ID
	f.same(`{"errors":[{"message":"Object name is not unique [object=runtime]","path":["registerRuntime"],"extensions":{"error":"NotUniqueName","error_code":31}}],"data":null}`,
		f.asAdmin(`mutation { registerRuntime(in: {name: "second"}) { id } }`, nil))
	f.same(`{"data":{"assignFormation":{"name":"default"}}}`,
		f.asAdmin(`mutation($id: ID!) { assignFormation(objectID: $id, objectType: RUNTIME, formation: {name: "default"}) { name } }`, map[string]any{"id": id}))
	f.same(`{"data":{"runtimes":{"data":[{"id":"`+id+`","labels":{"isNormalized":"true","region":"eu","runtimeType":"kyma","scenarios":["default"]},"status":{"condition":"INITIAL"}}]}}}`,
		f.asAdmin(`query { runtimes(filter: [{key: "scenarios", query: "$[*] ? (@ == \"default\")"}, {key: "region", query: "\"eu\""}]) { data { id labels status { condition } } } }`, nil))

	second := caller{t: t, server: f.server, cert: pairRuntime(t, f.server, id)}
	count := `query($id: ID!) { applicationsForRuntime(runtimeID: $id) { totalCount } }`
	f.same(`{"data":{"applicationsForRuntime":{"totalCount":3}}}`, string(second.query(f.server.DirectorURL(), count, map[string]any{"id": id}).Body))
	f.same(`{"data":{"unassignFormation":{"name":"default"}}}`,
		f.asAdmin(`mutation($id: ID!) { unassignFormation(objectID: $id, objectType: RUNTIME, formation: {name: "default"}) { name } }`, map[string]any{"id": id}))
	f.same(`{"data":{"applicationsForRuntime":{"totalCount":0}}}`, string(second.query(f.server.DirectorURL(), count, map[string]any{"id": id}).Body))

	var auths struct {
		Runtime struct{ Auths []struct{ ID string } }
	}
	f.admin.query(f.server.AdminURL()+"/director/graphql", `query($id: ID!) { runtime(id: $id) { auths { id } } }`, map[string]any{"id": id}).data(t, &auths)
	f.same(fmt.Sprintf(`{"data":{"deleteSystemAuthForRuntime":{"id":"%s"}}}`, auths.Runtime.Auths[0].ID),
		f.asAdmin(`mutation($id: ID!) { deleteSystemAuthForRuntime(authID: $id) { id } }`, map[string]any{"id": auths.Runtime.Auths[0].ID}))
	if got := second.query(f.server.MTLSConnectorURL(), configurationQuery, nil); got.Status != 400 {
		t.Errorf("without its system auth: status %d", got.Status)
	}
	f.same(`{"data":{"unregisterRuntime":{"name":"second"}}}`, f.asAdmin(`mutation($id: ID!) { unregisterRuntime(id: $id) { name } }`, map[string]any{"id": id}))
	f.same(`{"data":{"runtime":null}}`, f.asAdmin(`query($id: ID!) { runtime(id: $id) { id } }`, map[string]any{"id": id}))
}

func TestAnAdministratorAddsAnApplication(t *testing.T) {
	f := newDirectorFixture(t)
	var registered struct {
		RegisterApplication struct {
			ID      string
			Bundles struct{ TotalCount int }
		}
	}
	f.admin.query(f.server.AdminURL()+"/director/graphql", `mutation { registerApplication(in: {name: "CRM (EU)"}) { id bundles { totalCount } } }`, nil).data(t, &registered)
	id := registered.RegisterApplication.ID
	f.same(`{"errors":[{"message":"Object name is not unique [object=application]","path":["registerApplication"],"extensions":{"error":"NotUniqueName","error_code":31}}],"data":null}`,
		f.asAdmin(`mutation { registerApplication(in: {name: "crm-eu"}) { id } }`, nil))
	f.same(`{"errors":[{"message":"Invalid data ApplicationRegisterInput [in.name: is required]","path":["registerApplication"],"extensions":{"error":"InvalidData","error_code":22}}],"data":null}`,
		f.asAdmin(`mutation { registerApplication(in: {name: ""}) { id } }`, nil))
	read := `query($id: ID!) { application(id: $id) { name } }`
	f.same(`{"errors":[{"message":"The operation is not allowed [reason=requested application does not belong to a common formation with the runtime]","path":["application"],"extensions":{"error":"InvalidOperation","error_code":27}}],"data":{"application":null}}`,
		f.asRuntime(read, map[string]any{"id": id}))
	f.asAdmin(`mutation($id: ID!) { assignFormation(objectID: $id, objectType: APPLICATION, formation: {name: "default"}) { name } }`, map[string]any{"id": id})
	f.same(`{"data":{"application":{"name":"CRM (EU)"}}}`, f.asRuntime(read, map[string]any{"id": id}))
	var token struct {
		RequestOneTimeTokenForApplication struct{ Token, Type, LegacyConnectorURL string }
	}
	f.admin.query(f.server.AdminURL()+"/director/graphql", `mutation($id: ID!) { requestOneTimeTokenForApplication(id: $id) { token type legacyConnectorURL } }`, map[string]any{"id": id}).data(t, &token)
	got := token.RequestOneTimeTokenForApplication
	if got.Type != "Application" || !strings.HasSuffix(got.LegacyConnectorURL, got.Token) {
		t.Errorf("token of type %s, legacy URL %s", got.Type, got.LegacyConnectorURL)
	}
	asApplication := caller{t: t, server: f.server, cert: pair(t, f.server, got.Token)}
	f.same(`{"data":{"viewer":{"id":"`+id+`","type":"APPLICATION"}}}`, string(asApplication.query(f.server.DirectorURL(), `{ viewer { id type } }`, nil).Body))
	f.same(`{"data":{"application":{"status":{"condition":"CONNECTED"}}}}`, f.asAdmin(`query($id: ID!) { application(id: $id) { status { condition } } }`, map[string]any{"id": id}))
	f.same(`{"data":{"unregisterApplication":{"name":"CRM (EU)"}}}`, f.asAdmin(`mutation($id: ID!) { unregisterApplication(id: $id) { name } }`, map[string]any{"id": id}))
	f.same(`{"data":{"application":null}}`, f.asRuntime(read, map[string]any{"id": id}))
}

func TestAnAdministratorNamesATenant(t *testing.T) {
	f := newDirectorFixture(t)
	f.admin.tenant = ""
	f.same(`{"errors":[{"message":"Tenant is required","path":["runtimes"],"extensions":{"error":"TenantRequired","error_code":24}}],"data":null}`, f.asAdmin(`{ runtimes { totalCount } }`, nil))
	f.admin.tenant = "d0000000-0000-4000-8000-000000000000"
	got := f.admin.query(f.server.AdminURL()+"/director/graphql", `{ runtimes { totalCount } }`, nil)
	f.want(got, 400, `{"errors":[{"message":"Tenant not found [externalTenant=d0000000-0000-4000-8000-000000000000]","extensions":{"error":"TenantNotFound","error_code":25}}],"data":null}`)
}

func TestHiddenApplicationsAndThoseOfOtherFormationsAreNotSeen(t *testing.T) {
	f := newDirectorFixture(t)
	if _, err := f.server.Admin().PutApplications(testTenant, Application{Name: "hidden", Hidden: true, Formations: []string{"default"}},
		Application{Name: "elsewhere", Formations: []string{"other"}}, Application{Name: "nowhere"}); err != nil {
		t.Fatal(err)
	}
	f.same(`{"data":{"applicationsForRuntime":{"totalCount":3},"applications":{"totalCount":3}}}`,
		f.asRuntime(`query($id: ID!) { applicationsForRuntime(runtimeID: $id) { totalCount } applications { totalCount } }`, map[string]any{"id": testRuntime}))
	f.same(`{"data":{"applications":{"totalCount":6}}}`, f.asAdmin(`{ applications { totalCount } }`, nil))
}

func TestTwoApplicationsCanBeShownUnderOneName(t *testing.T) {
	f := newDirectorFixture(t)
	if _, err := f.server.Admin().PutApplications(testTenant,
		Application{ID: "00000000-0000-4000-8000-000000000001", Name: "a 1", Formations: []string{"default"}},
		Application{ID: "00000000-0000-4000-8000-000000000002", Name: "a", SystemNumber: "1", Formations: []string{"default"}}); err != nil {
		t.Fatal(err)
	}
	f.same(`{"data":{"applicationsForRuntime":{"data":[{"name":"mp-a-1"},{"name":"mp-a-1"}]}}}`,
		f.asRuntime(`query($id: ID!) { applicationsForRuntime(runtimeID: $id, first: 2) { data { name } } }`, map[string]any{"id": testRuntime}))
}

func TestABundleBelongsToOneApplication(t *testing.T) {
	f := newDirectorFixture(t)
	bundle := f.server.Admin().Inventory().Tenants[0].Applications[0].Bundles[0]
	_, err := f.server.Admin().PutApplication(testTenant, Application{Name: "thief", Bundles: []Bundle{{ID: bundle.ID, Name: "mine"}}})
	if want := `application "thief": bundle id ` + bundle.ID + ` is used by application "Shop (EU)" already`; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestARuntimeThatIsNotNormalizedSeesNamesAsTheyAre(t *testing.T) {
	f := newDirectorFixture(t)
	if _, err := f.server.Admin().PutRuntime(testTenant, Runtime{ID: testRuntime, Name: "local", Formations: []string{"default"}, Labels: map[string]any{"isNormalized": "false"}}); err != nil {
		t.Fatal(err)
	}
	f.same(`{"data":{"applicationsForRuntime":{"data":[{"name":"Shop (EU)"}]}}}`,
		f.asRuntime(`query($id: ID!) { applicationsForRuntime(runtimeID: $id, first: 1) { data { name } } }`, map[string]any{"id": testRuntime}))
}

func TestLabelsThatCannotBe(t *testing.T) {
	f := newDirectorFixture(t)
	set := `mutation($id: ID!, $k: String!, $v: Any!) { setRuntimeLabel(runtimeID: $id, key: $k, value: $v) { value } }`
	invalid := func(message string) string {
		return `{"errors":[{"message":"Invalid data ` + message + `","path":["setRuntimeLabel"],"extensions":{"error":"InvalidData","error_code":22}}],"data":null}`
	}
	for name, test := range map[string]struct {
		key   string
		value any
		want  string
	}{
		"no key and no value": {"", "", invalid("LabelInput [key=cannot be blank; value=cannot be blank]")},
		"false":               {"k", false, invalid("LabelInput [value=cannot be blank]")},
		"true":                {"k", true, `{"data":{"setRuntimeLabel":{"value":true}}}`},
		"formations":          {"scenarios", []string{"x"}, invalid("[reason=could not set unmodifiable label with key scenarios]")},
	} {
		t.Run(name, func(t *testing.T) {
			f.T = t
			f.same(test.want, f.asRuntime(set, map[string]any{"id": testRuntime, "k": test.key, "v": test.value}))
		})
	}
	f.same(invalid("LabelInput [value=cannot be blank]"), f.asRuntime(`mutation($id: ID!) { setRuntimeLabel(runtimeID: $id, key: "k", value: 0) { value } }`, map[string]any{"id": testRuntime}))
	got := f.asRuntime(set, map[string]any{"id": "deadbeef-dead-4ead-8ead-deadbeefdead", "k": "k", "v": "v"})
	if !strings.Contains(got, `Runtime with ID deadbeef-dead-4ead-8ead-deadbeefdead doesn't exist`) || !strings.Contains(got, `"error_code":10`) {
		t.Errorf("an unknown Runtime: %s", got)
	}
	f.same(`{"data":{"deleteRuntimeLabel":{"key":"k","value":true}}}`, f.asRuntime(`mutation($id: ID!) { deleteRuntimeLabel(runtimeID: $id, key: "k") { key value } }`, map[string]any{"id": testRuntime}))
	f.same(`{"data":{"runtime":{"labels":{}}}}`, f.asRuntime(`query($id: ID!) { runtime(id: $id) { labels(key: "k") } }`, map[string]any{"id": testRuntime}))
	f.same(`{"data":{"runtime":{"labels":{"runtimeType":"kyma"}}}}`, f.asRuntime(`query($id: ID!) { runtime(id: $id) { labels(key: "runtimeType") } }`, map[string]any{"id": testRuntime}))
}

func TestManyCallersAtOnceSeeWholeAnswers(t *testing.T) {
	f := newDirectorFixture(t)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 5 {
				if _, err := f.server.Admin().PutApplication(testTenant, Application{Name: fmt.Sprintf("app-%d-%d", i, n), Formations: []string{"default"}}); err != nil {
					t.Error(err)
				}
				got := f.asRuntime(`query($id: ID!) { applicationsForRuntime(runtimeID: $id) { totalCount data { name labels bundles { totalCount } } } }`, map[string]any{"id": testRuntime})
				if !strings.HasPrefix(got, `{"data":{"applicationsForRuntime":{"totalCount":`) {
					t.Errorf("answer %s", got)
				}
				f.asRuntime(`mutation($id: ID!, $v: Any!) { setRuntimeLabel(runtimeID: $id, key: "k", value: $v) { key } }`, map[string]any{"id": testRuntime, "v": n + 1})
			}
		})
	}
	wg.Wait()
	f.same(`{"data":{"applicationsForRuntime":{"totalCount":43}}}`, f.asRuntime(`query($id: ID!) { applicationsForRuntime(runtimeID: $id) { totalCount } }`, map[string]any{"id": testRuntime}))
}

func TestThousandsOfApplicationsAreNoBurden(t *testing.T) {
	seed := shopSeed()
	for i := range 3000 {
		seed.Tenants[0].Applications = append(seed.Tenants[0].Applications, Application{Name: fmt.Sprintf("app-%d", i), Formations: []string{"default"},
			Bundles: []Bundle{{Name: "b", APIs: []API{{Name: "api", TargetURL: "https://example.com"}}}}})
	}
	s := startCompass(t, Options{Seed: seed})
	c := caller{t: t, server: s, cert: pairRuntime(t, s, testRuntime)}
	seen, after := map[string]bool{}, ""
	for {
		var got page
		c.query(s.DirectorURL(), applicationsQuery, map[string]any{"id": testRuntime, "first": 200, "after": after}).data(t, &got)
		for _, a := range got.ApplicationsForRuntime.Data {
			seen[a.Name] = true
		}
		if after = got.ApplicationsForRuntime.PageInfo.EndCursor; after == "" {
			break
		}
	}
	if len(seen) != 3001 {
		t.Errorf("saw %d applications, want 3001", len(seen))
	}
}

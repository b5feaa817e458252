package compass

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const contractSeed = `
tenants:
- id: 3e64ebae-38b5-46a0-b1ed-9ccee153a0ae
  runtimes:
  - {id: 1ae04041-17e5-478f-91f8-3a2ddc7700de, name: local, labels: {isNormalized: "true"}, formations: [default]}
  applications:
  - id: 5b0d0000-0000-4000-8000-000000000001
    name: Shop
    systemNumber: "12"
    description: a shop
    providerName: Example
    labels: {region: eu}
    formations: [default]
    bundles:
    - id: 5b0d0000-0000-4000-8000-000000000002
      name: Orders
      instanceAuthRequestInputSchema: '{"type":"object"}'
      auth:
        oauth: {clientId: c, clientSecret: s, url: https://auth.example.com/token}
        headers: {X-Api-Key: [k]}
        query: {region: [eu]}
        csrf: {tokenEndpointURL: https://shop.example.com/csrf}
      apis:
      - {id: 5b0d0000-0000-4000-8000-000000000003, name: Orders API, targetURL: https://shop.example.com/orders, group: g, version: {value: v1}}
      events:
      - {name: order.created}
`

func TestASeedIsReadAsItIsWritten(t *testing.T) {
	got, err := ParseSeed(strings.NewReader(contractSeed))
	if err != nil {
		t.Fatal(err)
	}
	event := got.Tenants[0].Applications[0].Bundles[0].Events[0]
	if event.ID == "" {
		t.Error("the event has no id")
	}
	want := Seed{Tenants: []Tenant{{
		ID: testTenant,
		Runtimes: []Runtime{{ID: testRuntime, Name: "local", Labels: map[string]any{"isNormalized": "true"},
			Formations: []string{"default"}}},
		Applications: []Application{{
			ID: "5b0d0000-0000-4000-8000-000000000001", Name: "Shop", SystemNumber: "12", Description: "a shop", ProviderName: "Example",
			Labels: map[string]any{"region": "eu"}, Formations: []string{"default"},
			Bundles: []Bundle{{
				ID: "5b0d0000-0000-4000-8000-000000000002", Name: "Orders", InstanceAuthRequestInputSchema: `{"type":"object"}`,
				Auth: &Auth{
					Credential: Credential{OAuth: &OAuth{"c", "s", "https://auth.example.com/token"}},
					Headers:    map[string][]string{"X-Api-Key": {"k"}}, Query: map[string][]string{"region": {"eu"}},
					CSRF: &CSRF{TokenEndpointURL: "https://shop.example.com/csrf"},
				},
				APIs: []API{{ID: "5b0d0000-0000-4000-8000-000000000003", Name: "Orders API", TargetURL: "https://shop.example.com/orders",
					Group: "g", Version: &Version{Value: "v1"}}},
				Events: []Event{{ID: event.ID, Name: "order.created"}},
			}},
		}},
	}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	again, err := ParseSeed(strings.NewReader(contractSeed))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, again); diff != "" {
		t.Errorf("ids that are left out differ from time to time:\n%s", diff)
	}
}

func TestASeedThatCannotBeIsRefusedWithTheNameOfTheField(t *testing.T) {
	const tenant = "tenants:\n- id: 3e64ebae-38b5-46a0-b1ed-9ccee153a0ae\n"
	const app = tenant + "  applications:\n  - name: A\n"
	const bundle = app + "    bundles:\n    - name: B\n"
	for name, test := range map[string]struct{ seed, want string }{
		"an unknown field": {"tenant: []", `parse seed: error unmarshaling JSON: while decoding JSON: json: unknown field "tenant"`},
		"no YAML":          {"tenants: [", `parse seed: error converting YAML to JSON: yaml: line 1: did not find expected node content`},
		"an id":            {"tenants:\n- id: X\n", `seed: tenants[0].id: "X" is not a UUID in lower case`},
		"no name":          {tenant + "  runtimes:\n  - {}\n", `seed: tenants[0].runtimes[0].name: is required`},
		"an id twice": {tenant + "  runtimes:\n  - {id: 3e64ebae-38b5-46a0-b1ed-9ccee153a0ae, name: r}\n",
			`seed: tenants[0].runtimes[0].id: 3e64ebae-38b5-46a0-b1ed-9ccee153a0ae is used by tenants[0].id already`},
		"a name twice": {app + "  - {id: 5b0d0000-0000-4000-8000-000000000001, name: mp-a}\n",
			`seed: tenants[0].applications[1].name: "mp-a" is, normalized, the name of tenants[0].applications[0] already`},
		"a long name":      {tenant + "  applications:\n  - name: " + strings.Repeat("x", 101) + "\n", `seed: tenants[0].applications[0].name: has 101 characters, at most 100 are allowed`},
		"a label's key":    {app + "    labels: {a-b: x}\n", `seed: tenants[0].applications[0].labels.a-b: key must be in a valid format`},
		"a label's value":  {app + "    labels: {a: ''}\n", `seed: tenants[0].applications[0].labels.a: value cannot be blank`},
		"Director's label": {app + "    labels: {name: x}\n", `seed: tenants[0].applications[0].labels.name: is set by Director itself`},
		"a condition": {app + "    condition: FINE\n",
			`seed: tenants[0].applications[0].condition: "FINE" is none of [INITIAL CONNECTED FAILED CREATING CREATE_FAILED CREATE_SUCCEEDED UPDATING UPDATE_FAILED UPDATE_SUCCEEDED DELETING DELETE_FAILED DELETE_SUCCEEDED UNPAIRING UNPAIR_FAILED]`},
		"two credentials": {bundle + "      auth: {basic: {username: u, password: p}, oauth: {clientId: c, clientSecret: s, url: 'https://a.example.com'}}\n",
			`seed: tenants[0].applications[0].bundles[0].auth: has 2 of basic, oauth and certificateOAuth; at most one is allowed`},
		"a schema that is no JSON": {bundle + "      instanceAuthRequestInputSchema: '{'\n", `seed: tenants[0].applications[0].bundles[0].instanceAuthRequestInputSchema: is not JSON`},
		"a target":                 {bundle + "      apis: [{name: a, targetURL: 'ftp://x'}]\n", `seed: tenants[0].applications[0].bundles[0].apis[0].targetURL: "ftp://x" is not an http or https URL`},
		"no target":                {bundle + "      apis: [{name: a}]\n", `seed: tenants[0].applications[0].bundles[0].apis[0].targetURL: is required`},
		"a token endpoint":         {bundle + "      auth: {csrf: {tokenEndpointURL: x}}\n", `seed: tenants[0].applications[0].bundles[0].auth.csrf.tokenEndpointURL: "x" is not an http or https URL`},
		"a type of specification":  {bundle + "      events: [{name: e, spec: {type: ODATA, format: JSON}}]\n", `seed: tenants[0].applications[0].bundles[0].events[0].spec.type: "ODATA" is none of [ASYNC_API]`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseSeed(strings.NewReader(test.seed))
			if err == nil {
				t.Fatal("it was taken")
			}
			if diff := cmp.Diff(test.want, err.Error()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestNamesAreNormalizedAsDirectorDoes(t *testing.T) {
	for name, want := range map[string]string{
		"Commerce Cloud (EU 10)": "mp-commerce-cloud-eu-10",
		"mp-already-normalized":  "mp-already-normalized",
		"events-only":            "mp-events-only",
		"A__B":                   "mp-a-b",
		"Ünïcode":                "mp-n-code",
		"trailing!":              "mp-trailing",
	} {
		if got := normalizeName(name); got != want {
			t.Errorf("normalizeName(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestJSONIsWrittenAsPostgreSQLDoes(t *testing.T) {
	for in, want := range map[string]string{
		`{"type":"object","properties":{"who":{"type":"string"}},"required":["who"]}`: `{"type": "object", "required": ["who"], "properties": {"who": {"type": "string"}}}`,
		`{"b":1,"a":2.50,"aa":null}`: `{"a": 2.50, "b": 1, "aa": null}`,
		`{"a":1,"a":2}`:              `{"a": 2}`,
		`[]`:                         `[]`,
		`"<&>"`:                      `"<&>"`,
		`no JSON`:                    `no JSON`,
	} {
		if got := formatJSONB(in); got != want {
			t.Errorf("formatJSONB(%s) = %s, want %s", in, got, want)
		}
	}
}

func FuzzParseSeed(f *testing.F) {
	f.Add(contractSeed)
	f.Add("tenants: [{id: x}]")
	if world, err := os.ReadFile("testdata/replay.yaml"); err == nil {
		f.Add(string(world[:min(len(world), 4000)]))
	}
	f.Fuzz(func(t *testing.T, text string) {
		seed, err := ParseSeed(strings.NewReader(text))
		if err != nil {
			return
		}
		raw, err := json.Marshal(seed)
		if err != nil {
			t.Fatalf("a seed that was taken cannot be written: %v", err)
		}
		again, err := ParseSeed(strings.NewReader(string(raw)))
		if err != nil {
			t.Fatalf("what was written is refused: %v", err)
		}
		if diff := cmp.Diff(seed, again); diff != "" {
			t.Errorf("a seed changes on the way through JSON:\n%s", diff)
		}
	})
}

func FuzzDecodeCursor(f *testing.F) {
	for _, cursor := range []string{"", "nonsense", "RHBLdEo0ajlqRHEyMDA=", encodeCursor(1)} {
		f.Add(cursor)
	}
	f.Fuzz(func(t *testing.T, cursor string) {
		offset, err := decodeCursor(cursor)
		if err != nil {
			return
		}
		if offset < 0 {
			t.Fatalf("offset %d", offset)
		}
		if again, err := decodeCursor(encodeCursor(offset)); err != nil || again != offset {
			t.Errorf("offset %d became %d, error %v", offset, again, err)
		}
	})
}

func FuzzRootFields(f *testing.F) {
	for _, body := range []string{`{"query":"{ viewer { id } }"}`, `{"query":"query { ...a } fragment a on Query { ...a runtime(id: 1) { id } }"}`, `[`, ``} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, name := range rootFields(body) {
			if name == "" {
				t.Error("a field without a name")
			}
		}
	})
}

func FuzzFormatJSONB(f *testing.F) {
	for _, text := range []string{`{"b":[1,{"a":"<"}],"aa":null}`, `no JSON`, `1e999`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		once := formatJSONB(text)
		if json.Valid([]byte(text)) {
			if !json.Valid([]byte(once)) {
				t.Errorf("%q became %q, which is no JSON", text, once)
			}
			if twice := formatJSONB(once); twice != once {
				t.Errorf("%q became %q", once, twice)
			}
		}
	})
}

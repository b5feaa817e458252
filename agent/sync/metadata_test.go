package sync

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	v1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/graphql/director"
)

// described is the shop with all the metadata that Director can send.
func described() director.Application {
	app := shop()
	app.ProviderName = "ACME"
	app.Labels = map[string]any{
		"name": "mp-shop", "managed": "false", "scenarios": []any{"default"}, // those that every system has
		"applicationType": "shop", "empty": "", "nothing": nil, "test": true, "size": json.Number("12345678901234567890"), "shape": map[string]any{"b": "<&>", "a": []any{}},
	}
	app.Bundles[0].APIs[0].Description, app.Bundles[0].APIs[0].Group = "takes orders", "sales"
	app.Bundles[0].APIs[0].Version = director.Version{Value: "1.2.0", Deprecated: true, DeprecatedSince: "1.1.0", ForRemoval: true}
	app.Bundles[0].Events[0].Description, app.Bundles[0].Events[0].Group = "an order came", "sales events"
	app.Bundles[0].Events[0].Version = director.Version{Value: "v1"}
	return app
}

var describedMetadata = &v1alpha1.CompassMetadata{
	ApplicationID:  "5b0d0000-0000-0000-0000-000000000000",
	Authentication: v1alpha1.Authentication{ClientIDs: []string{"2f6c0000-0000-0000-0000-000000000000"}},
	ProviderName:   "ACME",
	Labels:         map[string]string{"applicationType": "shop", "empty": "", "test": "true", "size": "12345678901234567890", "shape": `{"a":[],"b":"<&>"}`},
}

// describedEntries makes the entries of the shop those of the described one.
func describedEntries(plain []v1alpha1.Entry) []v1alpha1.Entry {
	entries := append([]v1alpha1.Entry{}, plain...)
	entries[0].Description, entries[0].Group = "takes orders", "sales"
	entries[0].Version = &v1alpha1.Version{Value: "1.2.0", Deprecated: true, DeprecatedSince: "1.1.0", ForRemoval: true}
	entries[1].Description, entries[1].Group, entries[1].Version = "an order came", "sales events", &v1alpha1.Version{Value: "v1"}
	return entries
}

func TestMetadataIsKeptBesideWhatWasThereBefore(t *testing.T) {
	plain := mapApplication("mp-shop", shop(), nil, gateway, false)
	w := mapApplication("mp-shop", described(), nil, gateway, false)
	want := plain.application.DeepCopy()
	want.Spec.CompassMetadata = describedMetadata
	want.Spec.Services[0].Entries = describedEntries(want.Spec.Services[0].Entries)
	if diff := cmp.Diff(want, w.application); diff != "" {
		t.Errorf("want (-), got (+):\n%s", diff)
	}
	if w.synchronized != plain.synchronized {
		t.Errorf("verdict %+v", w.synchronized)
	}
}

func TestLabelsThatEverySystemHasLeaveNoTrace(t *testing.T) {
	app := shop()
	app.Labels = map[string]any{"name": "mp-shop", "managed": "false", "scenarios": []any{"default"}}
	want := toJSON(t, mapApplication("mp-shop", shop(), nil, gateway, false).application)
	if diff := cmp.Diff(string(want), string(toJSON(t, mapApplication("mp-shop", app, nil, gateway, false).application))); diff != "" {
		t.Error(diff)
	}
}

func TestMetadataBeyondItsBoundIsLeftOutAndTheSystemIsSynchronised(t *testing.T) {
	app := described()
	app.Labels["zz"] = strings.Repeat("l", metadataBudget) // what is too long alone takes no room from the rest
	api := app.Bundles[0].APIs[0]
	for i := range 200 {
		api.ID, api.Name, api.Description = fmt.Sprint(i), fmt.Sprint("API ", i), strings.Repeat("d", 4<<10)
		app.Bundles[0].APIs = append(app.Bundles[0].APIs, api)
	}
	w := mapApplication("mp-shop", app, nil, gateway, false)
	if diff := cmp.Diff(describedMetadata, w.application.Spec.CompassMetadata); diff != "" {
		t.Error(diff)
	}
	kept, with := 0, 0
	for _, entry := range w.application.Spec.Services[0].Entries {
		kept += len(entry.Description)
		if entry.Description != "" {
			with++
		}
		if entry.Version == nil || entry.Group == "" {
			t.Errorf("a description took the room of the version and the group of %s", entry.Name)
		}
	}
	if kept > metadataBudget || kept < metadataBudget*3/4 || with < 50 {
		t.Errorf("%d bytes of %d descriptions are kept", kept, with)
	}
	if want := (Verdict{"True", ReasonUpToDate, "the Application holds what Compass says, but for metadata of its APIs, events and labels beyond 256 KiB in all"}); w.synchronized != want {
		t.Errorf("verdict %+v", w.synchronized)
	}
	c := newCluster(t)
	if result, _ := c.sync(whole(app)); result.Synced != 1 || result.Failed != 0 {
		t.Errorf("result %+v", result)
	}
	if _, writes := c.sync(whole(app)); len(writes) != 0 {
		t.Errorf("a quiet sync writes %v", writes)
	}
}

func TestMetadataComesChangesAndGoesWithTheSystem(t *testing.T) {
	bare := func(app director.Application) director.Application {
		app.Bundles[0].Auth = nil // then the Application is created whole, by one request
		return app
	}
	for _, test := range []struct {
		name  string
		start func(*cluster)
		plain func(director.Application) director.Application
	}{
		{"created by this agent", func(c *cluster) { c.sync(whole(described())) }, func(app director.Application) director.Application { return app }},
		{"created by this agent, without Secrets", func(c *cluster) { c.sync(whole(bare(described()))) }, bare},
		{"created by an older agent", func(c *cluster) { c.byOlderAgent(shop()) }, func(app director.Application) director.Application { return app }},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newCluster(t)
			test.start(c)
			c.sync(whole(test.plain(described())))
			app := c.application("mp-shop")
			if diff := cmp.Diff(describedMetadata, app.Spec.CompassMetadata); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(describedEntries(app.Spec.Services[0].Entries), app.Spec.Services[0].Entries); diff != "" {
				t.Error(diff)
			}
			if _, writes := c.sync(whole(test.plain(described()))); len(writes) != 0 {
				t.Errorf("a quiet sync writes %v", writes)
			}

			other := test.plain(described())
			other.Labels = map[string]any{"applicationType": "store"}
			other.Bundles[0].APIs[0].Version = director.Version{Value: "2"}
			c.sync(whole(other))
			app = c.application("mp-shop")
			if diff := cmp.Diff(map[string]string{"applicationType": "store"}, app.Spec.CompassMetadata.Labels); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(&v1alpha1.Version{Value: "2"}, app.Spec.Services[0].Entries[0].Version); diff != "" {
				t.Error(diff)
			}

			c.sync(whole(test.plain(shop())))
			want := mapApplication("mp-shop", test.plain(shop()), nil, gateway, false).application
			if diff := cmp.Diff(want.Spec, c.application("mp-shop").Spec); diff != "" {
				t.Errorf("nothing of it (-), left (+):\n%s", diff)
			}
			if _, writes := c.sync(whole(test.plain(shop()))); len(writes) != 0 {
				t.Errorf("a quiet sync writes %v", writes)
			}
		})
	}
}

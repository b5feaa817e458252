package plan

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/application-connector/application-connector/agent/sync/internal/systems"
)

func TestMetadataIsKeptBesideWhatWasThereBefore(t *testing.T) {
	plain := mapApplication("mp-shop", systems.Shop(), past{}, systems.Gateway, false)
	w := mapApplication("mp-shop", systems.Described(), past{}, systems.Gateway, false)
	want := plain.application.DeepCopy()
	want.Spec.CompassMetadata = systems.DescribedMetadata()
	want.Spec.Services[0].Entries = systems.DescribedEntries(want.Spec.Services[0].Entries)
	if diff := cmp.Diff(want, w.application); diff != "" {
		t.Errorf("want (-), got (+):\n%s", diff)
	}
	if w.synchronized != plain.synchronized {
		t.Errorf("verdict %+v", w.synchronized)
	}
}

func TestLabelsThatEverySystemHasLeaveNoTrace(t *testing.T) {
	app := systems.Shop()
	app.Labels = map[string]any{"name": "mp-shop", "managed": "false", "scenarios": []any{"default"}}
	want := toJSON(t, mapApplication("mp-shop", systems.Shop(), past{}, systems.Gateway, false).application)
	if diff := cmp.Diff(string(want), string(toJSON(t, mapApplication("mp-shop", app, past{}, systems.Gateway, false).application))); diff != "" {
		t.Error(diff)
	}
}

func TestMetadataBeyondItsBoundIsLeftOutAndTheSystemIsSynchronised(t *testing.T) {
	app := systems.Described()
	app.Labels["zz"] = strings.Repeat("l", metadataBudget) // what is too long alone takes no room from the rest
	api := app.Bundles[0].APIs[0]
	for i := range 200 {
		api.ID, api.Name, api.Description = fmt.Sprint(i), fmt.Sprint("API ", i), strings.Repeat("d", 4<<10)
		app.Bundles[0].APIs = append(app.Bundles[0].APIs, api)
	}
	w := mapApplication("mp-shop", app, past{}, systems.Gateway, false)
	if diff := cmp.Diff(systems.DescribedMetadata(), w.application.Spec.CompassMetadata); diff != "" {
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
}

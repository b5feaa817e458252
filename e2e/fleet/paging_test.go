package fleet_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/controller-runtime/pkg/client"

	applicationv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/simulator/compass"
)

// numbered makes the names of a list: what-0000, what-0001 and so on.
func numbered(what string, n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("%s-%04d", what, i)
	}
	return names
}

// wide is an Application with n items in one of its lists.
func wide(list string, n int) compass.Application {
	app := compass.Application{Name: fmt.Sprintf("wide-%s-%d", list, n), Formations: []string{"default"}}
	if list == "bundles" {
		for _, name := range numbered("bundle", n) {
			app.Bundles = append(app.Bundles, compass.Bundle{Name: name})
		}
		return app
	}
	// The list that is long stands in the second of two bundles.
	second := compass.Bundle{Name: "second"}
	for _, name := range numbered("item", n) {
		switch list {
		case "APIs":
			second.APIs = append(second.APIs, compass.API{Name: name, TargetURL: "https://x.example.com"})
		case "events":
			second.Events = append(second.Events, compass.Event{Name: name})
		}
	}
	app.Bundles = []compass.Bundle{{Name: "first"}, second}
	return app
}

// arrived are the names of what an Application holds of that list, in order.
func arrived(app applicationv1alpha1.Application, list string) []string {
	names := []string{}
	for _, service := range app.Spec.Services {
		if list == "bundles" {
			names = append(names, service.DisplayName)
		}
		for _, entry := range service.Entries {
			if list != "bundles" && entry.Type == map[string]string{"APIs": "API", "events": "Events"}[list] {
				names = append(names, entry.Name)
			}
		}
	}
	slices.Sort(names)
	return names
}

func TestEveryListArrivesInTheClusterWholeHoweverManyPagesItHas(t *testing.T) {
	sizes := []int{201, 401, 1001}
	lists := []string{"bundles", "APIs", "events"}
	var wides []compass.Application
	for _, size := range sizes {
		for _, list := range lists {
			wides = append(wides, wide(list, size))
		}
	}
	server := startCompass(t, seedOf(wides...))
	f := newFleet(t, server.ServerCA())
	f.configure(runtimeToken(t, server))
	f.start()
	f.synchronised(patience)

	plain := 0 // Applications without anything, which make up the number
	for _, size := range sizes {
		t.Run(fmt.Sprintf("%d applications", size), func(t *testing.T) {
			f := *f
			f.tb = t
			want := []string{}
			for _, w := range wides {
				want = append(want, "mp-"+lower(w.Name))
			}
			var more []compass.Application
			for ; len(wides)+plain < size; plain++ {
				more = append(more, compass.Application{Name: fmt.Sprintf("plain-%04d", plain), Formations: []string{"default"}})
			}
			want = append(want, numbered("mp-plain", plain)...)
			_, err := server.Admin().PutApplications(tenant, more...)
			must(t, err)
			connection := f.resync()
			if counts := connection.Status.Applications; counts == nil || int(counts.Total) != size || int(counts.Synced) != size {
				t.Errorf("the status counts %+v", counts)
			}
			if got, want := f.traffic.deleted(), 0; got != want {
				t.Errorf("%d objects were deleted", got)
			}
			slices.Sort(want)
			if diff := cmp.Diff(want, f.applicationNames()); diff != "" {
				t.Errorf("Applications (-want +got):\n%s", diff)
			}
		})
	}
	var all applicationv1alpha1.ApplicationList
	must(t, f.client.List(t.Context(), &all))
	byName := map[string]applicationv1alpha1.Application{}
	for _, app := range all.Items {
		byName[app.Name] = app
	}
	for _, size := range sizes {
		for _, list := range lists {
			t.Run(fmt.Sprintf("%d %s", size, list), func(t *testing.T) {
				want := numbered(map[string]string{"bundles": "bundle", "APIs": "item", "events": "item"}[list], size)
				if diff := cmp.Diff(want, arrived(byName["mp-"+lower(wide(list, size).Name)], list)); diff != "" {
					t.Errorf("names (-want +got):\n%s", diff)
				}
			})
		}
	}
}

func (f *fleet) applicationNames() []string {
	f.tb.Helper()
	var all applicationv1alpha1.ApplicationList
	must(f.tb, f.client.List(f.tb.Context(), &all, client.Limit(0)))
	names := []string{}
	for _, app := range all.Items {
		names = append(names, app.Name)
	}
	slices.Sort(names)
	return names
}

package sync

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/application-connector/application-connector/agent/sync/internal/systems"
	v1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/graphql/director"
)

func TestASystemWithMoreMetadataThanAnObjectHoldsIsSynchronised(t *testing.T) {
	app := systems.Described()
	api := app.Bundles[0].APIs[0]
	for i := range 500 {
		api.ID, api.Name, api.Description = fmt.Sprint(i), fmt.Sprint("API ", i), strings.Repeat("d", 4<<10)
		app.Bundles[0].APIs = append(app.Bundles[0].APIs, api)
	}
	c := newCluster(t)
	if result, _ := c.sync(systems.Whole(app)); result.Synced != 1 || result.Failed != 0 {
		t.Errorf("result %+v", result)
	}
	if _, writes := c.sync(systems.Whole(app)); len(writes) != 0 {
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
		{"created by this agent", func(c *cluster) { c.sync(systems.Whole(systems.Described())) }, func(app director.Application) director.Application { return app }},
		{"created by this agent, without Secrets", func(c *cluster) { c.sync(systems.Whole(bare(systems.Described()))) }, bare},
		{"created by an older agent", func(c *cluster) { c.byOlderAgent(systems.Shop()) }, func(app director.Application) director.Application { return app }},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newCluster(t)
			test.start(c)
			c.sync(systems.Whole(test.plain(systems.Described())))
			app := c.application("mp-shop")
			if diff := cmp.Diff(systems.DescribedMetadata(), app.Spec.CompassMetadata); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(systems.DescribedEntries(app.Spec.Services[0].Entries), app.Spec.Services[0].Entries); diff != "" {
				t.Error(diff)
			}
			if _, writes := c.sync(systems.Whole(test.plain(systems.Described()))); len(writes) != 0 {
				t.Errorf("a quiet sync writes %v", writes)
			}

			other := test.plain(systems.Described())
			other.Labels = map[string]any{"applicationType": "store"}
			other.Bundles[0].APIs[0].Version = director.Version{Value: "2"}
			c.sync(systems.Whole(other))
			app = c.application("mp-shop")
			if diff := cmp.Diff(map[string]string{"applicationType": "store"}, app.Spec.CompassMetadata.Labels); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(&v1alpha1.Version{Value: "2"}, app.Spec.Services[0].Entries[0].Version); diff != "" {
				t.Error(diff)
			}

			c.sync(systems.Whole(test.plain(systems.Shop())))
			want := wanted(test.plain(systems.Shop())).Wanted
			if diff := cmp.Diff(want.Spec, c.application("mp-shop").Spec); diff != "" {
				t.Errorf("nothing of it (-), left (+):\n%s", diff)
			}
			if _, writes := c.sync(systems.Whole(test.plain(systems.Shop()))); len(writes) != 0 {
				t.Errorf("a quiet sync writes %v", writes)
			}
		})
	}
}

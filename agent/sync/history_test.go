package sync

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/graphql/director"
	"github.com/application-connector/application-connector/secret"
)

// randomSystems makes a small inventory in which names collide and every kind of credentials occurs. Pending credentials
// do not: of those alone the former state matters.
func randomSystems(r *rand.Rand) []director.Application {
	var all []director.Application
	for i := range 4 {
		if r.IntN(3) == 0 {
			continue
		}
		app := director.Application{ID: fmt.Sprintf("id-%d", i), Name: []string{"One", "one", "Two", "Three!"}[r.IntN(4)], AuthIDs: []string{fmt.Sprint(r.IntN(2))}}
		for b := range r.IntN(3) {
			bundle := director.Bundle{ID: fmt.Sprintf("00000000-0000-0000-0000-0000000000%d%d", i, b), Name: fmt.Sprintf("B%d", r.IntN(2))}
			for a := range r.IntN(3) {
				bundle.APIs = append(bundle.APIs, director.API{ID: fmt.Sprint(a), Name: fmt.Sprintf("API %d", a), TargetURL: "https://t"})
			}
			auth := &director.Auth{}
			value := secret.Value(fmt.Sprintf("secret %d", r.IntN(2)))
			switch r.IntN(6) {
			case 0:
				auth = nil
			case 1:
				auth.Credential = director.Basic{Username: "u", Password: value}
			case 2:
				auth.Credential = director.OAuth{ClientID: "c", ClientSecret: value, URL: "https://i"}
			case 3:
				auth.Credential = director.CertificateOAuth{ClientID: "c", Certificate: value, URL: "https://i"}
			case 4:
				auth.Credential = director.Unknown{Typename: "Passkey"}
			case 5:
				auth.Credential = director.Basic{Username: "u"}
			}
			if auth != nil && r.IntN(2) == 0 {
				auth.Headers = map[string][]string{"h": {value.Reveal()}}
			}
			if auth != nil && r.IntN(2) == 0 {
				auth.Query = map[string][]string{"q": {value.Reveal()}}
			}
			bundle.Auth = auth
			app.Bundles = append(app.Bundles, bundle)
		}
		all = append(all, app)
	}
	return all
}

// content is what a sync is answerable for: specs, conditions, Secrets and to whom they belong. An Application whose
// system got the name of another is left out, with its Secrets: it stays on purpose, until the name is put right.
func (c *cluster) content() map[string]string {
	c.t.Helper()
	out := map[string]string{}
	print := func(kind, name string, values ...any) {
		text, err := json.Marshal(values)
		c.must(err)
		out[kind+" "+name] = string(text)
	}
	var applications v1alpha1.ApplicationList
	c.must(c.List(c.t.Context(), &applications))
	names := map[any]string{}
	for _, app := range applications.Items {
		if c := meta.FindStatusCondition(app.Status.Conditions, v1alpha1.ConditionSynchronized); c != nil && c.Reason == ReasonDuplicateName {
			continue
		}
		names[app.UID] = app.Name
		verdicts := map[string]string{}
		for _, condition := range app.Status.Conditions {
			verdicts[condition.Type] = condition.Reason + " " + condition.Message
		}
		print("application", app.Name, app.Spec, app.Labels, verdicts)
	}
	var secrets corev1.SecretList
	c.must(c.List(c.t.Context(), &secrets, client.InNamespace(c.namespace)))
	for _, s := range secrets.Items {
		// Of an Application that is gone, the garbage collector is about to delete the Secrets.
		if owner := names[s.OwnerReferences[0].UID]; owner != "" {
			print("secret", s.Name, s.Data, s.Labels, owner)
		}
	}
	return out
}

func TestWhatWasBeforeDoesNotMatter(t *testing.T) {
	for seed := range uint64(15) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 0))
			a, b := whole(randomSystems(r)...), whole(randomSystems(r)...)
			c := newCluster(t)
			c.sync(a)
			c.confirmDeletions()
			c.sync(b)
			got := c.content()
			if _, writes := c.sync(b); len(writes) != 0 {
				t.Errorf("a quiet sync writes %v", writes)
			}

			c.removeApplications()
			fresh := newCluster(t)
			fresh.sync(b)
			if diff := cmp.Diff(fresh.content(), got); diff != "" {
				t.Errorf("without a past (-), with one (+):\n%s", diff)
			}
		})
	}
}

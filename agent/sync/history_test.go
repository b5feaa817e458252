package sync

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/agent/sync/apply"
	"github.com/application-connector/application-connector/agent/sync/internal/systems"
	"github.com/application-connector/application-connector/agent/sync/plan"
	v1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/graphql/director"
	"github.com/application-connector/application-connector/secret"
)

// inventories makes small states of Director in which systems come and go, change their names, collide and are wrong in
// every way that the sync knows, and in which every kind of credentials occurs. Pending credentials do not: of those alone
// the former state matters.
type inventories struct {
	*rand.Rand
	certificate, key string
}

// one in n.
func (r inventories) oneIn(n int) bool { return r.IntN(n) == 0 }

func oneOf[T any](r inventories, values ...T) T { return values[r.IntN(len(values))] }

func (r inventories) state() director.Snapshot {
	snap := systems.Whole()
	if r.oneIn(5) {
		snap.RuntimeLabels = map[string]any{"isNormalized": "true"}
	}
	for i := range 5 {
		if r.oneIn(3) {
			continue
		}
		app := director.Application{
			ID: fmt.Sprintf("id-%d", i), Description: oneOf(r, "", "a", "b"), AuthIDs: []string{fmt.Sprint(r.IntN(2))},
			// Two are the same once they are normalized, and what Director did not normalize is no name in Kubernetes.
			Name: oneOf(r, "One", "one", "mp-two", "mp-two", "Three!", "mp-a-name-that-is-longer-than-the-part-of-it-in-secrets", strings.Repeat("long", 70)),
		}
		if r.oneIn(2) {
			app.ProviderName, app.Labels = oneOf(r, "", "ACME"), map[string]any{"managed": "false", "size": oneOf[any](r, nil, "s", true, []any{"m", "l"})}
		}
		for b := range r.IntN(3) {
			app.Bundles = append(app.Bundles, r.bundle(fmt.Sprintf("00000000-0000-0000-0000-0000000000%d%d", i, b)))
		}
		if r.oneIn(8) {
			snap.Invalid = append(snap.Invalid, director.InvalidApplication{ID: app.ID, Name: app.Name, Reason: "Bundles[0].Name: want required"})
			continue
		}
		snap.Applications = append(snap.Applications, app)
	}
	return snap
}

func (r inventories) bundle(id string) director.Bundle {
	bundle := director.Bundle{ID: id, Name: fmt.Sprintf("B%d", r.IntN(2)), Description: oneOf(r, "", "d"), Auth: r.auth()}
	if r.oneIn(12) {
		bundle.ID = "No_Name " + id
	}
	if r.oneIn(3) {
		bundle.AuthRequestSchema = new(oneOf(r, "{}", `{"type":"object"}`))
	}
	for a := range r.IntN(3) {
		api := director.API{ID: fmt.Sprint(a), Name: fmt.Sprintf("API %d", a), TargetURL: oneOf(r, "https://t", "https://u"), Description: oneOf(r, "", "d"), Version: r.version()}
		if r.oneIn(20) {
			api.TargetURL = ""
		}
		bundle.APIs = append(bundle.APIs, api)
	}
	for e := range r.IntN(2) {
		bundle.Events = append(bundle.Events, director.Event{ID: fmt.Sprint("e", e), Name: oneOf(r, "made", "gone"), Group: oneOf(r, "", "g"), Version: r.version()})
	}
	return bundle
}

func (r inventories) version() director.Version {
	return oneOf(r, director.Version{}, director.Version{Value: "1"}, director.Version{Value: "2", Deprecated: true})
}

func (r inventories) auth() *director.Auth {
	if r.oneIn(6) {
		return nil
	}
	value := secret.Value(fmt.Sprintf("secret %d", r.IntN(2)))
	auth := &director.Auth{Credential: oneOf[director.Credential](r,
		nil,
		director.Basic{Username: "u", Password: value},
		director.Basic{Username: "u"},
		director.OAuth{ClientID: "c", ClientSecret: value, URL: "https://i"},
		director.OAuth{ClientID: "c", ClientSecret: value},
		director.CertificateOAuth{ClientID: "c", Certificate: secret.Value(r.certificate + r.key), URL: "https://i"},
		director.CertificateOAuth{ClientID: "c", Certificate: secret.Value(r.certificate), URL: "https://i"},
		director.CertificateOAuth{ClientID: "c", Certificate: value, URL: "https://i"},
		director.Unknown{Typename: "Passkey"},
		director.Unknown{Typename: "Basic"},
	)}
	if r.oneIn(2) {
		auth.Headers = map[string][]string{"h": {value.Reveal()}}
	}
	if r.oneIn(2) {
		auth.Query = map[string][]string{"q": {value.Reveal()}}
	}
	if r.oneIn(3) {
		auth.CSRF = &director.CSRF{TokenEndpointURL: "https://csrf"}
	}
	return auth
}

// disturb changes some of what the agent manages, as a person or another program may.
func (r inventories) disturb(c *cluster) {
	c.t.Helper()
	var secrets corev1.SecretList
	c.must(c.List(c.t.Context(), &secrets, client.InNamespace(c.namespace), client.HasLabels{"app", "bundleId"}))
	for i := range secrets.Items {
		s := &secrets.Items[i]
		switch r.IntN(6) {
		case 0:
			c.must(c.Delete(c.t.Context(), s))
		case 1:
			s.Data = map[string][]byte{"password": []byte("mine"), "stray": []byte("key")}
			c.must(c.Update(c.t.Context(), s))
		}
	}
	var applications v1alpha1.ApplicationList
	c.must(c.List(c.t.Context(), &applications))
	for i := range applications.Items {
		app := &applications.Items[i]
		switch r.IntN(6) {
		case 0:
			app.Spec.Description = "mine"
		case 1:
			app.Spec.Services, app.Spec.Labels = nil, nil
		case 2:
			app.Spec.CompassMetadata.Authentication.ClientIDs = []string{"mine"}
		default:
			continue
		}
		c.must(c.Update(c.t.Context(), app))
	}
}

// object is an Application or Secret with what a sync is answerable for.
type object struct {
	// application is the name of the Application, and system the id of its system.
	application, system string
	// held is content and labels; told are the conditions, without times.
	held, told string
}

// content is what is in the cluster, by kind and name.
func (c *cluster) content() map[string]object {
	c.t.Helper()
	out := map[string]object{}
	text := func(values ...any) string {
		text, err := json.Marshal(values)
		c.must(err)
		return string(text)
	}
	var applications v1alpha1.ApplicationList
	c.must(c.List(c.t.Context(), &applications))
	owners := map[any]object{}
	for _, app := range applications.Items {
		verdicts := map[string]string{}
		for _, condition := range app.Status.Conditions {
			verdicts[condition.Type] = string(condition.Status) + " " + condition.Reason + " " + condition.Message
		}
		owners[app.UID] = object{application: app.Name, system: app.Spec.CompassMetadata.ApplicationID}
		out["application "+app.Name] = object{app.Name, owners[app.UID].system, text(app.Spec, app.Labels, app.Annotations), text(verdicts)}
	}
	var secrets corev1.SecretList
	c.must(c.List(c.t.Context(), &secrets, client.InNamespace(c.namespace)))
	for _, s := range secrets.Items {
		// Of an Application that is gone, the garbage collector is about to delete the Secrets.
		if owner, ok := owners[s.OwnerReferences[0].UID]; ok {
			out["secret "+s.Name] = object{owner.application, owner.system, text(s.Data, s.Labels, s.OwnerReferences[0].Name), ""}
		}
	}
	return out
}

func TestWhatWasBeforeDoesNotMatter(t *testing.T) {
	certificate, key := systems.KeyPair(t)
	for seed := range uint64(25) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := inventories{rand.New(rand.NewPCG(seed, 0)), certificate, key}
			a, b := r.state(), r.state()
			c := newCluster(t)
			c.sync(a)
			r.disturb(c)
			c.confirmDeletions()
			before := c.content()
			result, _ := c.sync(b)
			got := c.content()
			if again, writes := c.sync(b); len(writes) != 0 || again.Writes != 0 {
				t.Errorf("a quiet sync writes %v", writes)
			}
			c.removeApplications()
			fresh := newCluster(t)
			without, _ := fresh.sync(b)
			want := fresh.content()

			failed := map[string]bool{}
			for _, f := range result.Failures {
				failed[f.ID], failed[plan.ApplicationName(f.Name, b.RuntimeLabels)] = true, true
			}
			for _, name := range slices.Sorted(maps.Keys(got)) {
				is, was := got[name], before[name]
				if _, ok := want[name]; ok {
					continue
				}
				// What stands for a system that fails, by its id or its name, stays as it was, but for the word that it may be
				// deleted.
				if !failed[is.system] && !failed[is.application] {
					t.Errorf("%s is left over: %+v", name, is)
				}
				was.held = strings.Replace(was.held, `{"`+v1alpha1.ConfirmDeletionAnnotation+`":"true"}`, "null", 1)
				if is.held != was.held {
					t.Errorf("%s of a system that fails was changed:\n%s", name, cmp.Diff(was.held, is.held))
				}
				delete(got, name)
			}
			if diff := cmp.Diff(want, got, cmp.AllowUnexported(object{})); diff != "" {
				t.Errorf("without a past (-), with one (+):\n%s", diff)
			}
			for _, r := range []*apply.Result{&result, &without} {
				r.Created, r.Updated, r.Deleted, r.Writes = 0, 0, 0, 0
			}
			if diff := cmp.Diff(without, result); diff != "" {
				t.Errorf("result without a past (-), with one (+):\n%s", diff)
			}
		})
	}
}

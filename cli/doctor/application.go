package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/gateway/routes"
)

const (
	// pageSize is how many Applications are asked for at a time.
	pageSize = 500
	// atOnce is how many APIs are looked at at the same time.
	atOnce = 8
	// named is how many names are told at most, of many.
	named = 10
)

// target is what the command's argument names. Service and Entry are as in URLs of the gateway, or empty for all.
type target struct{ application, service, entry string }

// parseTarget reads application[/service[/entry]].
func parseTarget(text string) (target, error) {
	parts := strings.Split(text, "/")
	if len(parts) > 3 || slices.Contains(parts, "") {
		return target{}, fmt.Errorf("%q: application, application/service or application/service/entry is needed, as in URLs of the gateway", text)
	}
	parts = append(parts, "", "")
	return target{parts[0], parts[1], parts[2]}, nil
}

// applications looks at what agent and gateway say of every Application.
func (w *walk) applications(ctx context.Context) []Step {
	var c chain
	c.do(ctx, StepApplications, nil, func(ctx context.Context) outcome {
		var bad []string
		first, total := "", 0
		err := w.each(ctx, func(a *v1alpha1.Application) {
			total++
			for _, o := range []outcome{synchronized(a), served(a)} {
				if o.state == Wrong {
					if bad = append(bad, a.Name); len(bad) == 1 {
						first = o.finding
					}
					return
				}
			}
		})
		switch {
		case err != nil:
			return unreadable(err)
		case len(bad) == 1:
			return wrong("run appconn doctor "+bad[0], "Application %s: %s", bad[0], first)
		case len(bad) > 1:
			return wrong("run appconn doctor for each", "%d of %d Applications are not as they should be: %s; the first: %s", len(bad), total, list(bad), first)
		}
		return fine("%d, and neither agent nor gateway says that one is not as it should be", total)
	})
	return c.steps
}

// each reads every Application, by pages.
func (w *walk) each(ctx context.Context, do func(*v1alpha1.Application)) error {
	options := &client.ListOptions{Limit: pageSize}
	for {
		var page v1alpha1.ApplicationList
		if err := w.cluster.List(ctx, &page, options); err != nil {
			return err
		}
		for i := range page.Items {
			do(&page.Items[i])
		}
		if options.Continue = page.Continue; options.Continue == "" {
			return nil
		}
	}
}

// api is one API of an Application.
type api struct {
	service, entry string // as in URLs
	route          *routes.Route
	err            error // why there is no route
	only           bool  // there is no other API of its service
	problems       []routes.Problem
	spec           v1alpha1.Entry
	// alone is the Application as if it had no other API; it shares everything else with it. uses are the Secrets that it names.
	alone v1alpha1.Application
	uses  []string
}

// path is how it is called.
func (a *api) path(application string) string {
	return strings.TrimRight(application+"/"+a.service+"/"+a.entry, "/")
}

// application looks at one Application, and at those of its APIs that are meant.
func (w *walk) application(ctx context.Context, t target) []Step {
	c := chain{about: t.application}
	app := &v1alpha1.Application{}
	c.do(ctx, StepApplication, nil, func(ctx context.Context) outcome {
		switch err := w.cluster.Get(ctx, types.NamespacedName{Name: t.application}, app); {
		case apierrors.IsNotFound(err):
			return w.missing(ctx, t.application)
		case err != nil:
			return unreadable(err)
		}
		return synchronized(app)
	})
	if app.Name == "" {
		c.do(ctx, StepAPI, []string{StepApplication}, nil)
		return c.steps
	}
	// An Application that is not as it should be may all the same have APIs that are.
	found, none := choose(apisOf(app, nil), t)
	if none != nil {
		c.do(ctx, StepAPI, nil, func(context.Context) outcome { return *none })
	}
	var names []string
	for _, a := range found {
		names = append(names, a.uses...)
	}
	data, failed := w.secrets(ctx, names)
	found, _ = choose(apisOf(app, data), t)
	parts := make([][]Step, len(found))
	var group errgroup.Group
	group.SetLimit(atOnce)
	for i, a := range found {
		group.Go(func() error {
			parts[i] = w.api(ctx, app, a, data, failed)
			return nil
		})
	}
	_ = group.Wait() // no function above fails
	last := chain{about: t.application}
	last.do(ctx, StepGateway, nil, func(context.Context) outcome { return served(app) })
	return slices.Concat(c.steps, slices.Concat(parts...), last.steps)
}

// missing is for an Application that is not there.
func (w *walk) missing(ctx context.Context, name string) outcome {
	var all []string
	if err := w.each(ctx, func(a *v1alpha1.Application) { all = append(all, a.Name) }); err != nil {
		return unreadable(err)
	}
	remedy := "if it comes from Compass, appconn diff says what the next sync does about it, and its formation in Compass must be the runtime's"
	if near := nearest(name, all); len(near) > 0 {
		return wrong("correct the name; "+remedy, "there is no Application %s; near to it: %s", name, list(near))
	}
	return wrong(remedy, "there is no Application %s, nor any with a name like that, of %d", name, len(all))
}

// synchronized judges by what the agent says of an Application that it manages.
func synchronized(app *v1alpha1.Application) outcome {
	for _, kind := range []string{v1alpha1.ConditionSynchronized, v1alpha1.ConditionCredentialsReady} {
		if c := meta.FindStatusCondition(app.Status.Conditions, kind); c != nil && c.Status == metav1.ConditionFalse {
			return wrong("do what the message says, in Compass; the agent takes it over with its next sync", "the agent says that %s is False, %s: %s", c.Type, c.Reason, c.Message)
		}
	}
	if app.Spec.CompassMetadata == nil {
		return fine("it was written by hand")
	}
	return fine("it comes from Compass, as system %s", orNone(app.Spec.CompassMetadata.ApplicationID))
}

// served judges by what the gateway says of an Application.
func served(app *v1alpha1.Application) outcome {
	c := meta.FindStatusCondition(app.Status.Conditions, v1alpha1.ConditionRoutesReady)
	const look = "if it lasts for more than some seconds, look at the gateway's Pods and their log"
	switch {
	case c == nil:
		return wrong(look, "the gateway has not said anything of the Application: it does not run, or cannot write its condition RoutesReady")
	case c.ObservedGeneration < app.Generation:
		return wrong(look, "the gateway knows generation %d of the Application, which is at %d by now: it does not run, or cannot reach the API server", c.ObservedGeneration, app.Generation)
	case c.Status == metav1.ConditionFalse:
		return wrong("do what the message says", "the gateway says that RoutesReady is False, %s: %s", c.Reason, c.Message)
	}
	return fine("it serves generation %d: %s", c.ObservedGeneration, c.Message)
}

// secrets reads Secrets of APIs. Those that cannot be read have an error; those that are missing have nothing.
func (w *walk) secrets(ctx context.Context, names []string) (data map[string]map[string][]byte, failed map[string]error) {
	data, failed = map[string]map[string][]byte{}, map[string]error{}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		var s corev1.Secret
		switch err := w.cluster.Get(ctx, types.NamespacedName{Namespace: w.agent.IntegrationNamespace, Name: name}, &s); {
		case err == nil:
			data[name] = s.Data
		case !apierrors.IsNotFound(err):
			failed[name] = err
		}
	}
	return data, failed
}

// apisOf is what the gateway makes of an Application, in the order of its entries. Several that go by one address are one.
func apisOf(app *v1alpha1.Application, secrets map[string]map[string][]byte) []*api {
	snapshot := routes.NewSnapshot([]v1alpha1.Application{*app}, secrets)
	report, _ := snapshot.Report(app.Name)
	var all []*api
	for _, service := range app.Spec.Services {
		for _, entry := range service.Entries {
			if entry.Type != v1alpha1.EntryTypeAPI {
				continue
			}
			a := &api{service: routes.Segment(service.DisplayName), entry: routes.Segment(entry.Name), spec: entry}
			if slices.ContainsFunc(all, func(b *api) bool { return b.service == a.service && b.entry == a.entry }) {
				continue
			}
			a.route, a.err = snapshot.Entry(app.Name, a.service, a.entry)
			_, several := snapshot.Service(app.Name, a.service)
			a.only = several == nil
			for _, p := range report.Problems {
				if p.Service == service.Name && p.Entry == entry.Name {
					a.problems = append(a.problems, p)
				}
			}
			a.alone = *app
			service.Entries = []v1alpha1.Entry{entry}
			a.alone.Spec.Services = []v1alpha1.Service{service}
			a.uses = routes.SecretNames(&a.alone)
			all = append(all, a)
		}
	}
	return all
}

// choose finds the APIs that are meant, by segments of URLs or by the names that these are made of. If there are none, the
// outcome says so.
func choose(all []*api, t target) ([]*api, *outcome) {
	is := func(segment, wanted string) bool {
		return wanted == "" || segment == wanted || segment == routes.Segment(wanted)
	}
	var found []*api
	var services, entries []string
	for _, a := range all {
		services = append(services, a.service)
		if !is(a.service, t.service) {
			continue
		}
		entries = append(entries, a.entry)
		if is(a.entry, t.entry) {
			found = append(found, a)
		}
	}
	services = slices.Compact(services)
	var none outcome
	switch {
	case len(found) > 0:
		return found, nil
	case len(all) == 0 && t.service == "":
		none = fine("the Application has none")
	case len(all) == 0:
		none = wrong("add it to the Application or, if that comes from Compass, to its bundle there", "the Application has none at all")
	case len(entries) == 0:
		none = wrong("correct the name", "the Application has no service %s with an API; it has: %s", t.service, list(closest(t.service, services)))
	default:
		none = wrong("correct the name", "service %s has no API %s; it has: %s", t.service, t.entry, list(closest(t.entry, entries)))
	}
	return nil, &none
}

// addressed says how an API is called, or why it cannot be.
func (a *api) addressed(application string) outcome {
	if ambiguous, ok := errors.AsType[*routes.AmbiguousError](a.err); ok {
		var all []string
		for _, m := range ambiguous.Matches {
			all = append(all, fmt.Sprintf("%q of service %q (id %s)", m.EntryName, m.DisplayName, m.ServiceID))
		}
		return wrong("give the services other displayNames, or the entries other names, in Compass or by hand",
			"%d APIs go by this address, so the gateway refuses each: %s", len(all), list(all))
	}
	switch {
	case a.entry == "" && a.only:
		return fine("called /%s on port 8080 of the gateway", a.path(application))
	case a.entry == "":
		return wrong("give the entry a name with a letter or a digit, in Compass or by hand", "it cannot be called: its name is nothing in a URL, and it is not the only API of its service")
	case a.only:
		return fine("called /%s on port 8082 of the gateway, or /%s/%s on port 8080", a.path(application), application, a.service)
	}
	return fine("called /%s on port 8082 of the gateway", a.path(application))
}

// closest gives all names if they are few, and else those that are near.
func closest(name string, all []string) []string {
	if len(all) <= named {
		return all
	}
	if near := nearest(name, all); len(near) > 0 {
		return near
	}
	return all
}

// nearest gives up to three names that may have been meant.
func nearest(name string, all []string) []string {
	type scored struct {
		name     string
		distance int
	}
	var near []scored
	for _, other := range all {
		distance := levenshtein.ComputeDistance(name, other)
		if distance <= max(2, len(name)/3) || len(name) > 2 && strings.Contains(other, name) {
			near = append(near, scored{other, distance})
		}
	}
	slices.SortStableFunc(near, func(a, b scored) int { return a.distance - b.distance })
	var out []string
	for _, s := range near[:min(len(near), 3)] {
		out = append(out, s.name)
	}
	return out
}

// list names many, up to a bound.
func list(names []string) string {
	if len(names) > named {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:named], ", "), len(names)-named)
	}
	return strings.Join(names, ", ")
}

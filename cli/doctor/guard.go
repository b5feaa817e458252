package doctor

import (
	"context"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// eventsPort is the validator's port for events, as Istio's policies name ports: in text.
const eventsPort = "8080"

// guarded judges who reaches the validator within the mesh. It believes what the ingress gateway says of a client's certificate,
// so that nobody else may say it. Whoever may not read the policy is told nothing of it.
func (e *edge) guarded(ctx context.Context) (text string, problem *outcome) {
	name := e.agent.IntegrationNamespace + "/" + validator
	policy, err := e.object(ctx, authorizations, e.agent.IntegrationNamespace, validator)
	switch {
	case meta.IsNoMatchError(err):
		return "", nil
	case apierrors.IsForbidden(err):
		return "; who else reaches the validator is not known, since you may not read AuthorizationPolicies", nil
	case apierrors.IsNotFound(err):
		o := wrong(applyManifests, "there is no AuthorizationPolicy %s: whoever reaches the validator from within the cluster can pass for any external system", name)
		return "", &o
	case err != nil:
		o := unreadable(err)
		return "", &o
	}
	action, _, _ := unstructured.NestedString(policy.Object, "spec", "action")
	if action != "" && action != "ALLOW" {
		o := wrong(applyManifests, "AuthorizationPolicy %s has the action %s, and must have ALLOW: whoever it does not name reaches the validator, and can pass for any external system", name, action)
		return "", &o
	}
	rules, _, _ := unstructured.NestedSlice(policy.Object, "spec", "rules")
	hosts, led := []string{}, false
	for _, r := range rules {
		rule, _ := r.(map[string]any)
		open, admitted := admits(rule)
		if !open {
			continue
		}
		if !onlyPrincipals(rule) {
			o := wrong(applyManifests, "AuthorizationPolicy %s lets callers without a principal reach port %s of the validator: they can pass for any external system", name, eventsPort)
			return "", &o
		}
		led = led || len(admitted) == 0 || slices.Contains(admitted, e.host)
		hosts = append(hosts, admitted...)
	}
	if !led {
		remedy := "give it the domain of the Gateway: " + applyManifests
		o := wrong(remedy, "AuthorizationPolicy %s lets no events for %s reach the validator, only for: %s; senders get 403", name, e.host, strings.Join(hosts, ", "))
		if len(hosts) == 0 {
			o = wrong(applyManifests, "AuthorizationPolicy %s lets nobody reach port %s of the validator: senders get 403", name, eventsPort)
		}
		return "", &o
	}
	return "", nil
}

// admits says whether a rule is about events, and for which hosts; none means for all.
func admits(rule map[string]any) (open bool, hosts []string) {
	to, _, _ := unstructured.NestedSlice(rule, "to")
	if len(to) == 0 {
		return true, nil
	}
	all := false
	for _, t := range to {
		target, _ := t.(map[string]any)
		ports, _, _ := unstructured.NestedStringSlice(target, "operation", "ports")
		if len(ports) > 0 && !slices.Contains(ports, eventsPort) {
			continue
		}
		open = true
		named, _, _ := unstructured.NestedStringSlice(target, "operation", "hosts")
		all = all || len(named) == 0
		hosts = append(hosts, named...)
	}
	if all {
		hosts = nil
	}
	return open, hosts
}

// onlyPrincipals says whether each of the sources that a rule admits is known by its certificate.
func onlyPrincipals(rule map[string]any) bool {
	from, _, _ := unstructured.NestedSlice(rule, "from")
	for _, f := range from {
		source, _ := f.(map[string]any)
		principals, _, _ := unstructured.NestedStringSlice(source, "source", "principals")
		if len(principals) == 0 || slices.Contains(principals, "*") {
			return false
		}
	}
	return len(from) > 0
}

package deploy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	applicationv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
)

func TestTheAgentCanNotTouchSecretsOfOthers(t *testing.T) {
	install(t, "compass")
	asAgent, err := client.New(as(t, agentName), client.Options{Scheme: kube.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	secret := func(namespace, name string, labels map[string]string) *corev1.Secret {
		return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels}}
	}
	foreign, token := secret(system, "foreign", nil), secret(system, "token-of-another", map[string]string{"app": "shop", "bundleId": "b"})
	token.Type, token.Annotations = corev1.SecretTypeServiceAccountToken, map[string]string{corev1.ServiceAccountNameKey: "default"}
	for _, o := range []client.Object{foreign.DeepCopy(), token.DeepCopy()} {
		if err := kube.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := kube.Delete(context.Background(), o); err != nil {
				t.Error(err)
			}
		})
	}
	// An issuer of another namespace is paired by a Secret there, which somebody labelled and gave the agent the right to.
	const elsewhere = "issuer-elsewhere"
	pairing := map[string]string{"compass.kyma-project.io/pairing": "true"}
	paired, unlabelled := secret(elsewhere, "paired", pairing), secret(elsewhere, "unlabelled", nil)
	for _, o := range []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: elsewhere}}, paired.DeepCopy(), unlabelled.DeepCopy(),
		&rbacv1.Role{
			ObjectMeta: metav1.ObjectMeta{Namespace: elsewhere, Name: "issuer"},
			Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"get", "patch", "create", "delete"}}},
		},
		&rbacv1.RoleBinding{
			ObjectMeta: metav1.ObjectMeta{Namespace: elsewhere, Name: "issuer"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "issuer"},
			Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: system, Name: agentName}},
		},
	} {
		if err := kube.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := kube.Delete(context.Background(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: elsewhere}}); err != nil {
			t.Error(err)
		}
	})
	merge := func(text string) client.Patch { return client.RawPatch(types.MergePatchType, []byte(text)) }
	credentials := map[string]string{"app": "shop", "bundleId": "b"}
	label := client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"labels":{"app":"shop","bundleId":"b"}}}`))
	held := secret(system, "held", credentials)
	held.Finalizers = []string{"example.com/held"}
	watched := secret(system, "watched", maps.Clone(credentials))
	watched.Labels["operator.example.com/config"] = "true"
	known := secret(system, "known", credentials)
	for _, s := range []*corev1.Secret{known, secret("istio-system", "kyma-gateway-certs-cacert", nil)} {
		if err := kube.Create(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := kube.Delete(context.Background(), s); err != nil {
				t.Error(err)
			}
		})
	}
	refused := map[string]func() error{
		"having a token of another account made": func() error {
			another := token.DeepCopy()
			another.Name = "another-token"
			return asAgent.Create(t.Context(), another, client.DryRunAll)
		},
		"changing the token of another account": func() error {
			return asAgent.Patch(t.Context(), token.DeepCopy(), merge(`{"metadata":{"annotations":{"a":"b"}}}`), client.DryRunAll)
		},
		"a token by the name of one of its own": func() error {
			another := token.DeepCopy()
			another.Name, another.Labels = "cluster-client-certificates", nil
			return asAgent.Create(t.Context(), another, client.DryRunAll)
		},
		"credentials that nobody can delete":     func() error { return asAgent.Create(t.Context(), held, client.DryRunAll) },
		"credentials that another program reads": func() error { return asAgent.Create(t.Context(), watched, client.DryRunAll) },
		"holding back credentials": func() error {
			return asAgent.Patch(t.Context(), known.DeepCopy(), merge(`{"metadata":{"finalizers":["example.com/held"]}}`), client.DryRunAll)
		},
		"another cluster for the mesh": func() error {
			s := secret("istio-system", "kyma-gateway-certs-cacert", nil)
			return asAgent.Patch(t.Context(), s, merge(`{"metadata":{"labels":{"istio/multiCluster":"true"}}}`), client.DryRunAll)
		},
		"creating a Secret that is neither": func() error { return asAgent.Create(t.Context(), secret(system, "other", nil), client.DryRunAll) },
		"changing a Secret of others":       func() error { return asAgent.Patch(t.Context(), foreign.DeepCopy(), label, client.DryRunAll) },
		"deleting a Secret of others":       func() error { return asAgent.Delete(t.Context(), foreign.DeepCopy(), client.DryRunAll) },
		"another Secret beside the ingress": func() error {
			return asAgent.Create(t.Context(), secret("istio-system", "kyma-gateway-certs", nil), client.DryRunAll)
		},
		"credentials in another namespace": func() error {
			return asAgent.Create(t.Context(), secret("istio-system", "c", credentials), client.DryRunAll)
		},
		"labelling a Secret of an issuer's namespace": func() error {
			return asAgent.Patch(t.Context(), unlabelled.DeepCopy(), merge(`{"metadata":{"labels":{"compass.kyma-project.io/pairing":"true"}}}`), client.DryRunAll)
		},
		"changing a Secret of an issuer's namespace": func() error {
			return asAgent.Patch(t.Context(), unlabelled.DeepCopy(), merge(`{"data":{"token":null}}`), client.DryRunAll)
		},
		"taking the label away": func() error {
			return asAgent.Patch(t.Context(), paired.DeepCopy(), merge(`{"metadata":{"labels":null}}`), client.DryRunAll)
		},
		"making a Secret to pair by": func() error {
			return asAgent.Create(t.Context(), secret(elsewhere, "another", pairing), client.DryRunAll)
		},
		"deleting a Secret to pair by": func() error { return asAgent.Delete(t.Context(), paired.DeepCopy(), client.DryRunAll) },
	}
	// The API server takes a moment to put a policy into force.
	eventually(t, "the policy to be in force", func() error {
		if err := refused["changing a Secret of others"](); !apierrors.IsForbidden(err) {
			return fmt.Errorf("not refused: %v", err) //nolint:errorlint // it is told, not judged
		}
		return nil
	})
	for what, attempt := range refused {
		if err := attempt(); !apierrors.IsForbidden(err) {
			t.Errorf("%s: not refused: %v", what, err)
		}
	}
	for _, own := range []*corev1.Secret{
		secret(system, "cluster-client-certificates", nil), secret(system, "cluster-client-certificates-pending", nil),
		secret(system, "credentials", credentials),
	} {
		if err := errors.Join(asAgent.Create(t.Context(), own), asAgent.Delete(t.Context(), own)); err != nil {
			t.Errorf("%s: %v", own.Name, err)
		}
	}
	// What somebody else put there stays, and keeps the agent from nothing.
	if err := kube.Patch(t.Context(), known.DeepCopy(), merge(`{"metadata":{"labels":{"of":"somebody"},"finalizers":["example.com/held"]}}`)); err != nil {
		t.Fatal(err)
	}
	if err := asAgent.Patch(t.Context(), known.DeepCopy(), merge(`{"data":{"password":"MQ=="}}`)); err != nil {
		t.Errorf("credentials with a label and a finalizer of somebody else: %v", err)
	}
	if err := kube.Patch(t.Context(), known.DeepCopy(), merge(`{"metadata":{"finalizers":null}}`)); err != nil {
		t.Fatal(err)
	}
	if err := asAgent.Patch(t.Context(), paired.DeepCopy(), merge(`{"data":{"token":null,"issuedRequest":"MQ=="}}`)); err != nil {
		t.Errorf("taking the token out of a Secret that an issuer was paired by: %v", err)
	}
}

// TestTheAgentCanNotTouchApplicationsOfOthers is for those that somebody wrote by hand, in a cluster that Compass manages too.
func TestTheAgentCanNotTouchApplicationsOfOthers(t *testing.T) {
	install(t, "compass")
	asAgent, err := client.New(as(t, agentName), client.Options{Scheme: kube.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	application := func(name string, labels map[string]string, metadata *applicationv1alpha1.CompassMetadata) *applicationv1alpha1.Application {
		return &applicationv1alpha1.Application{
			ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
			Spec:       applicationv1alpha1.ApplicationSpec{CompassMetadata: metadata, Services: []applicationv1alpha1.Service{}},
		}
	}
	metadata := &applicationv1alpha1.CompassMetadata{ApplicationID: "1", Authentication: applicationv1alpha1.Authentication{ClientIDs: []string{}}}
	label := map[string]string{applicationv1alpha1.ManagedByLabel: applicationv1alpha1.ManagedByAgent}
	byHand, ofBefore, labelled := application("by-hand", nil, nil), application("of-before", nil, metadata), application("labelled", label, nil)
	for _, a := range []*applicationv1alpha1.Application{byHand, ofBefore, labelled} {
		if err := kube.Create(t.Context(), a.DeepCopy()); err != nil {
			t.Fatal(err)
		}
	}
	take := client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"`+applicationv1alpha1.ManagedByLabel+`":"`+applicationv1alpha1.ManagedByAgent+`"}},`+
		`"spec":{"compassMetadata":{"applicationId":"1","authentication":{"clientIds":[]}}}}`))
	refused := map[string]func() error{
		"changing":                    func() error { return asAgent.Patch(t.Context(), byHand.DeepCopy(), take, client.DryRunAll) },
		"deleting":                    func() error { return asAgent.Delete(t.Context(), byHand.DeepCopy(), client.DryRunAll) },
		"creating one of nobody":      func() error { return asAgent.Create(t.Context(), application("another", nil, nil), client.DryRunAll) },
		"deleting one without a mark": func() error { return asAgent.Delete(t.Context(), ofBefore.DeepCopy(), client.DryRunAll) },
	}
	eventually(t, "the policy to be in force", func() error {
		if err := refused["changing"](); !apierrors.IsForbidden(err) {
			return fmt.Errorf("not refused: %v", err) //nolint:errorlint // it is told, not judged
		}
		return nil
	})
	for what, attempt := range refused {
		if err := attempt(); !apierrors.IsForbidden(err) {
			t.Errorf("%s: not refused: %v", what, err)
		}
	}
	for _, a := range []*applicationv1alpha1.Application{ofBefore, labelled} {
		if err := errors.Join(asAgent.Patch(t.Context(), a.DeepCopy(), take), asAgent.Delete(t.Context(), a.DeepCopy())); err != nil {
			t.Errorf("adopting and deleting %s: %v", a.Name, err)
		}
	}
}

// TestTheAgentSignsNothingForOtherIssuers is for component agent-cert-manager, by which the agent may write the status of requests in
// every namespace: of those of cert-manager's other issuers it would put certificates and authorities of its own into their Secrets.
func TestTheAgentSignsNothingForOtherIssuers(t *testing.T) {
	install(t, "compass", "agent-cert-manager")
	asAgent, err := client.New(as(t, agentName), client.Options{Scheme: kube.Scheme()})
	if err != nil {
		t.Fatal(err)
	}
	request := func(name, group, kind string) *unstructured.Unstructured {
		r := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "cert-manager.io/v1", "kind": "CertificateRequest", "metadata": map[string]any{"namespace": system, "name": name},
			"spec": map[string]any{"request": "MQ==", "issuerRef": map[string]any{"group": group, "kind": kind, "name": "an-issuer"}},
		}}
		if group == "" {
			unstructured.RemoveNestedField(r.Object, "spec", "issuerRef", "group")
		}
		if err := kube.Create(t.Context(), r.DeepCopy()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := kube.Delete(context.Background(), r); err != nil {
				t.Error(err)
			}
		})
		return r
	}
	sign := func(r *unstructured.Unstructured) error {
		patch := client.RawPatch(types.MergePatchType, []byte(`{"status":{"certificate":"MQ==","ca":"MQ=="}}`))
		return asAgent.SubResource("status").Patch(t.Context(), r.DeepCopy(), patch)
	}
	others := []*unstructured.Unstructured{request("by-default", "", "Issuer"), request("by-cert-manager", "cert-manager.io", "ClusterIssuer"), request("by-another", "example.com", "CompassIssuer")}
	eventually(t, "the policy to be in force", func() error {
		if err := sign(others[0]); !apierrors.IsForbidden(err) {
			return fmt.Errorf("not refused: %v", err) //nolint:errorlint // it is told, not judged
		}
		return nil
	})
	for _, r := range others {
		if err := sign(r); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "compass.kyma-project.io") {
			t.Errorf("%s: not refused, or without a reason: %v", r.GetName(), err)
		}
	}
	if err := sign(request("by-compass", "compass.kyma-project.io", "CompassIssuer")); err != nil {
		t.Errorf("signing by Compass: %v", err)
	}
}

package deploy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	clientfeatures "k8s.io/client-go/features"
	clientfeaturestesting "k8s.io/client-go/features/testing"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	applicationv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/e2e/leaktest"
	"github.com/application-connector/application-connector/e2e/rights"
	"github.com/application-connector/application-connector/simulator/compass"
)

const (
	tenant    = "3e64ebae-38b5-46a0-b1ed-9ccee153a0ae"
	runtimeID = "1ae04041-17e5-478f-91f8-3a2ddc7700de"
)

// authorities are the Secrets that the agent writes those of clients to, by overlay.
var authorities = map[string]client.ObjectKey{
	"compass":  {Namespace: "istio-system", Name: "kyma-gateway-certs-cacert"},
	"no-istio": {Namespace: "application-connector-edge", Name: "client-authorities"},
}

// TestEachComponentDoesItsWorkByTheRightsThatItIsGivenAndNeedsThemAll has agent, gateway and validator do all that they do, each by
// its own service account, and reads in the API server's audit log that nothing was refused, and that each right was used.
func TestEachComponentDoesItsWorkByTheRightsThatItIsGivenAndNeedsThemAll(t *testing.T) {
	for overlay, names := range workloads {
		t.Run(overlay, func(t *testing.T) {
			install(t, overlay)
			c, w := &components{objects: objects(t, overlay)}, watching(t)
			target, server := orders(t), simulated(t)
			t.Cleanup(func() { // when the agent, which would repair them, has ended
				own := []client.ObjectKey{authorities[overlay]}
				for _, name := range []string{"compass-agent-configuration", "cluster-client-certificates", "cluster-client-certificates-pending"} {
					own = append(own, client.ObjectKey{Namespace: system, Name: name})
				}
				for _, name := range []string{agentName, gatewayName} {
					lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: name}}
					if err := kube.Delete(context.Background(), lease); client.IgnoreNotFound(err) != nil {
						t.Error(err)
					}
				}
				for _, key := range own {
					secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
					if err := kube.Delete(context.Background(), secret); key.Name != "" && client.IgnoreNotFound(err) != nil {
						t.Error(err)
					}
				}
			})
			api := compass.API{Name: "Orders API", TargetURL: target}
			if slices.Contains(names, agentName) {
				if err := putSystems(server, api); err != nil {
					t.Fatal(err)
				}
			}
			t.Run("caches are filled by lists, as older API servers need", func(t *testing.T) {
				clientfeaturestesting.SetFeatureDuringTest(t, clientfeatures.WatchListClient, false)
				if slices.Contains(names, agentName) {
					page := c.runAgent(t, server)
					eventually(t, "the status page", func() error { return answers(page, http.StatusOK) })
				}
				c.runGateway(t)
				c.runValidator(t)
				for _, account := range names {
					eventually(t, "lists of "+account, func() error {
						for _, right := range unused(t, w, account) {
							if right.Verb == "list" {
								return errors.New(right.String())
							}
						}
						return nil
					})
				}
			})
			t.Run("all of the work", func(t *testing.T) {
				var page string
				if slices.Contains(names, agentName) {
					page = c.runAgent(t, server)
				} else {
					byHand(t, target)
				}
				calls, validator := c.runGateway(t), c.runValidator(t)
				if slices.Contains(names, agentName) {
					compassWork(t, server, overlay)
					eventually(t, "the status page to show it", func() error {
						return holds(page, "<b><bdi>Paired</bdi></b>", "<bdi>mp-shop</bdi>")
					})
				}
				eventually(t, "a call with the credentials", func() error {
					return answers(calls+"/mp-shop/orders/orders-api", http.StatusOK)
				})
				eventually(t, "the validator has its caches", func() error { return answers(validator+"/readyz", http.StatusOK) })
				if slices.Contains(names, agentName) {
					eventually(t, "the agent to tell the same twice", func() error { return loseBoth(t, w, authorities[overlay]) })
				}
				for _, account := range names {
					eventually(t, account+" to need all of its rights", func() error {
						if left := unused(t, w, account); len(left) > 0 {
							return fmt.Errorf("not needed: %v", left)
						}
						return nil
					})
				}
			})
			for _, account := range names {
				requests, refused, err := w.Requests(rights.Account{Namespace: system, Name: account})
				if err != nil {
					t.Fatal(err)
				}
				if len(requests) == 0 {
					t.Errorf("%s asked for nothing", account)
				}
				for _, r := range refused {
					t.Errorf("%s was refused: %s", account, r)
				}
			}
			for name, log := range map[string]*leaktest.Log{"agent": &c.agent, "gateway": &c.gateway, "validator": &c.validator, "library of one of them": libraries} {
				for line := range strings.SplitSeq(log.String(), "\n") {
					if strings.Contains(line, "forbidden") {
						t.Errorf("the %s was refused something: %s", name, line)
					}
				}
			}
		})
	}
}

func watching(t *testing.T) *rights.Witness {
	t.Helper()
	w, err := rights.NewWitness(auditLog)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// unused are rights of an account that nothing needed so far. There are rights.
func unused(t *testing.T, w *rights.Witness, account string) []rights.Right {
	t.Helper()
	who := rights.Account{Namespace: system, Name: account}
	set, err := kubernetes.NewForConfig(&cluster)
	if err != nil {
		t.Fatal(err)
	}
	all, err := rights.Granted(t.Context(), set, who)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Fatalf("%s has no rights", account)
	}
	left, err := w.Unused(who, all)
	if err != nil {
		t.Fatal(err)
	}
	return left
}

// orders is an external system that wants credentials. It gives its URL.
func orders(t *testing.T) string {
	t.Helper()
	target := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "user" || password != "passwd" {
			w.WriteHeader(http.StatusUnauthorized)
		}
	})}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- target.Serve(listener) }()
	t.Cleanup(func() {
		if err := errors.Join(target.Close(), <-served); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return "http://" + listener.Addr().String()
}

// simulated is a Compass with one runtime.
func simulated(t *testing.T) *compass.Server {
	t.Helper()
	server, err := compass.Start(t.Context(), compass.Options{Seed: compass.Seed{Tenants: []compass.Tenant{{
		ID: tenant, Runtimes: []compass.Runtime{{ID: runtimeID, Name: "local", Formations: []string{"default"}}},
	}}}, OnSecret: leaktest.Of(t).Add})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return server
}

const storeID = "5b1c1b0a-6f1e-4f5a-9d0c-0c3f8b7d2a11"

// putSystems has Compass know two systems.
func putSystems(server *compass.Server, api compass.API) error {
	_, err := server.Admin().PutApplications(tenant,
		compass.Application{
			Name: "Shop", ProviderName: "SAP", Formations: []string{"default"},
			Bundles: []compass.Bundle{{Name: "Orders", APIs: []compass.API{api},
				Auth: &compass.Auth{Credential: compass.Credential{Basic: &compass.Basic{Username: "user", Password: "passwd"}}}}},
		},
		compass.Application{ID: storeID, Name: "Store", ProviderName: "SAP", Formations: []string{"default"}},
	)
	return err
}

// byHand is what an administrator writes where there is no agent.
func byHand(t *testing.T, target string) {
	t.Helper()
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: "orders"}, StringData: map[string]string{"username": "user", "password": "passwd"},
	}
	application := &applicationv1alpha1.Application{
		ObjectMeta: metav1.ObjectMeta{Name: "mp-shop"},
		Spec: applicationv1alpha1.ApplicationSpec{Services: []applicationv1alpha1.Service{{
			ID: "1", Name: "orders", DisplayName: "orders", ProviderDisplayName: "SAP", Description: "orders",
			Entries: []applicationv1alpha1.Entry{{
				Type: "API", Name: "orders api", TargetURL: target,
				Credentials: applicationv1alpha1.Credentials{Type: "Basic", SecretName: "orders"},
			}},
		}}},
	}
	if err := errors.Join(kube.Create(t.Context(), secret), kube.Create(t.Context(), application)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := kube.Delete(context.Background(), secret); err != nil {
			t.Error(err)
		}
	})
}

// compassWork pairs the cluster, and has the agent do all else that it ever does: renew its certificate, repair what somebody
// changed, delete a system that is gone, and complain.
func compassWork(t *testing.T, server *compass.Server, overlay string) {
	t.Helper()
	token, err := server.Admin().RuntimeToken(runtimeID)
	if err != nil {
		t.Fatal(err)
	}
	configuration := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: "compass-agent-configuration"},
		StringData: map[string]string{"CONNECTOR_URL": token.ConnectorURL, "RUNTIME_ID": runtimeID, "TENANT": tenant, "TOKEN": token.Token},
	}
	if err := kube.Create(t.Context(), configuration); err != nil {
		t.Fatal(err)
	}
	synchronised(t, "the agent pairs, saves the authorities and syncs")
	var saved corev1.Secret
	if err := kube.Get(t.Context(), authorities[overlay], &saved); err != nil {
		t.Fatal(err)
	}
	renew(t)

	var app applicationv1alpha1.Application
	if err := kube.Get(t.Context(), client.ObjectKey{Name: "mp-shop"}, &app); err != nil {
		t.Fatal(err)
	}
	changed := app.DeepCopy()
	changed.Spec.Description = "changed by somebody"
	if err := kube.Patch(t.Context(), changed, client.MergeFrom(&app)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the repair", func() error {
		if err := kube.Get(t.Context(), client.ObjectKey{Name: "mp-shop"}, &app); err != nil {
			return err
		}
		if app.Spec.Description == changed.Spec.Description {
			return errors.New("it is still what somebody wrote")
		}
		return nil
	})

	if err := server.Admin().DeleteApplication(storeID); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the deletion", func() error {
		err := kube.Get(t.Context(), client.ObjectKey{Name: "mp-store"}, &app)
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("the Application is still there: %v", err) //nolint:errorlint // it is told, not judged
	})

	var told corev1.EventList
	eventually(t, "an event of the agent", func() error {
		if err := kube.List(t.Context(), &told, client.InNamespace("default")); err != nil {
			return err
		}
		for _, e := range told.Items {
			if e.InvolvedObject.Kind == "CompassConnection" {
				return nil
			}
		}
		return errors.New("there is none")
	})
}

// loseBoth deletes both Secrets of the connection once they are there, until an event about the one was taken for another of
// that about the other: that is so if the agent misses both at once.
func loseBoth(t *testing.T, w *rights.Witness, authorities client.ObjectKey) error {
	merging := func(r rights.Right) bool { return r.Verb == "patch" && r.Group == "events.k8s.io" }
	if !slices.ContainsFunc(unused(t, w, agentName), merging) {
		return nil
	}
	secrets := []client.Object{&corev1.Secret{}, &corev1.Secret{}}
	for i, key := range []client.ObjectKey{{Namespace: system, Name: "cluster-client-certificates"}, authorities} {
		if err := kube.Get(t.Context(), key, secrets[i]); err != nil {
			return err
		}
	}
	for _, secret := range secrets {
		if err := kube.Delete(t.Context(), secret); err != nil {
			return err
		}
	}
	return errors.New("the agent has not told twice of a Secret that it restored")
}

// renew asks for a new certificate and waits for it.
func renew(t *testing.T) {
	t.Helper()
	var connection compassv1alpha1.CompassConnection
	if err := kube.Get(t.Context(), client.ObjectKey{Name: compassv1alpha1.ConnectionName}, &connection); err != nil {
		t.Fatal(err)
	}
	changed := connection.DeepCopy()
	changed.Spec.RefreshCredentialsNow = true
	if err := kube.Patch(t.Context(), changed, client.MergeFrom(&connection)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the renewal", func() error {
		if err := kube.Get(t.Context(), client.ObjectKey{Name: compassv1alpha1.ConnectionName}, &connection); err != nil {
			return err
		}
		if connection.Spec.RefreshCredentialsNow {
			return fmt.Errorf("not done yet: %+v", connection.Status)
		}
		return nil
	})
}

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

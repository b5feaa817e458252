package deploy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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

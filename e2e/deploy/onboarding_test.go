package deploy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	clientfeatures "k8s.io/client-go/features"
	clientfeaturestesting "k8s.io/client-go/features/testing"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/cli/onboard/controller"
	"github.com/application-connector/application-connector/cli/onboard/directortest"
	"github.com/application-connector/application-connector/e2e/kubetest"
	"github.com/application-connector/application-connector/e2e/leaktest"
	"github.com/application-connector/application-connector/e2e/rights"
	"github.com/application-connector/application-connector/secret/canary"
	"github.com/application-connector/application-connector/simulator/compass"
)

// onboarding is the name of the namespace of the controller, of its service account, and of that in the target cluster.
const onboarding = "application-connector-onboarding"

// renderedOnboarding is what manifests/onboarding says, with components.
func renderedOnboarding(t *testing.T, components string) string {
	t.Helper()
	copied := t.TempDir()
	if err := os.CopyFS(copied, os.DirFS(manifests(t, "onboarding"))); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(copied, "kustomization.yaml")
	text, err := os.ReadFile(file)
	if err != nil || !bytes.Contains(text, []byte("components: []")) {
		t.Fatalf("%s has no components: %v", file, err)
	}
	if err := os.WriteFile(file, bytes.ReplaceAll(text, []byte("components: []"), []byte("components: ["+components+"]")), 0o600); err != nil {
		t.Fatal(err)
	}
	built, err := kubectl(t.Context(), "", "kustomize", copied)
	if err != nil {
		t.Fatal(err)
	}
	return built
}

// apply installs what an administrator would, and removes it after the test.
func apply(t *testing.T, text string) {
	t.Helper()
	t.Cleanup(func() {
		if _, err := kubectl(context.Background(), text, "delete", "-f", "-", "--ignore-not-found", "--wait=false"); err != nil {
			t.Error(err)
		}
		gone(t, text) // the next test may install it again
	})
	if _, err := kubectl(t.Context(), text, "apply", "--server-side", "--field-manager=administrator", "--validate=strict", "-f", "-"); err != nil {
		t.Fatal(err)
	}
}

// accountToken is one of a service account, as in a Pod or a kubeconfig.
func accountToken(t *testing.T, namespace, name string) string {
	t.Helper()
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: ptr.To(int64(3600))}}
	if err := kube.SubResource("token").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}, request); err != nil {
		t.Fatal(err)
	}
	return request.Status.Token
}

// startOnboarding runs the controller as its Deployment says, by its service account, but for what is of a machine.
func startOnboarding(t *testing.T, objects map[string]*unstructured.Unstructured, director *httptest.Server, token string, log *leaktest.Log) (stop func()) {
	t.Helper()
	watch := leaktest.Of(t)
	watch.Add("the client secret of the onboarding", directortest.ClientSecret)
	watch.Add("the access token of the onboarding", directortest.AccessToken)
	watch.Add("the token of "+onboarding, token)
	out := watch.Tee("onboard controller", log)
	o := controller.NewOptions(genericiooptions.IOStreams{Out: out, ErrOut: out})
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	o.BindFlags(flags)
	args := deployment(t, objects, onboarding).Spec.Template.Spec.Containers[0].Args
	if command := strings.Join(args[:3], " "); command != "/appconn onboard controller" {
		t.Fatalf("the Deployment runs %s", command)
	}
	if err := flags.Parse(args[3:]); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	o.CredentialsFile, o.CAFile = filepath.Join(dir, "credentials.yaml"), filepath.Join(dir, "ca.pem")
	err := errors.Join(
		os.WriteFile(o.CredentialsFile, []byte(directortest.Credentials(director)), 0o600),
		os.WriteFile(o.CAFile, directortest.Authority(director), 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}
	o.Kubernetes = rest.AnonymousClientConfig(&cluster)
	o.Kubernetes.BearerToken = token
	o.DirectorURL, o.Tenant, o.PollInterval, o.LogLevel = directortest.URL(director), tenant, time.Second, "debug"
	o.HealthAddress, o.MetricsAddress, o.AllowLoopback = "127.0.0.1:0", "127.0.0.1:0", true
	listening := make(chan struct{})
	o.Listening = func(net.Addr, net.Addr) { close(listening) }
	if err := errors.Join(o.Validate(), o.Complete()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- o.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the controller ended by: %v", err)
		}
	}
	t.Cleanup(stop)
	select {
	case <-listening:
	case err := <-ended:
		ended <- err
		t.Fatalf("the controller does not start: %v", err)
	}
	return stop
}

// TestAClusterIsOnboardedPairedSyncedAndOffboardedTwiceOverByTheRightsOfTheManifests has the controller and the agent do all that
// they do, each by its own service account, and the controller by another one in the target cluster. The controller is ended in the
// middle, and another one goes on. Then the API server's audit log says that nothing was refused, and that each right was used.
func TestAClusterIsOnboardedPairedSyncedAndOffboardedTwiceOverByTheRightsOfTheManifests(t *testing.T) {
	install(t, "compass")
	text := renderedOnboarding(t, "offboard")
	apply(t, text)
	target, err := kubectl(t.Context(), "", "kustomize", manifests(t, "onboarding/target"))
	if err != nil {
		t.Fatal(err)
	}
	apply(t, target)
	all := parsed(t, text)
	template := deployment(t, all, onboarding).Spec.Template
	pod := &corev1.Pod{ObjectMeta: *template.ObjectMeta.DeepCopy(), Spec: template.Spec}
	pod.Namespace, pod.GenerateName = onboarding, "controller-"
	if err := kube.Create(t.Context(), pod); err != nil {
		t.Errorf("a Pod of the controller is not admitted: %v", err)
	}

	server := simulated(t)
	if err := putSystems(server, compass.API{Name: "Orders API", TargetURL: "https://orders.example.com"}); err != nil {
		t.Fatal(err)
	}
	if err := server.Admin().DeleteRuntime(runtimeID); err != nil {
		t.Fatal(err)
	}
	director, w, log, canaries := directortest.Start(t, server.AdminURL(), directortest.Hooks{}), watching(t), &leaktest.Log{}, &canary.Set{}
	own, theirs := accountToken(t, onboarding, onboarding), accountToken(t, system, onboarding)
	for name, secret := range map[string]string{"the client secret": directortest.ClientSecret, "the access token": directortest.AccessToken, "the controller's token": own, "the kubeconfig": theirs} {
		canaries.Add(name, secret)
	}
	t.Cleanup(func() {
		own := []client.Object{&coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: system, Name: agentName}}}
		for _, key := range []client.ObjectKey{authorities["compass"], {Namespace: system, Name: "cluster-client-certificates"}, {Namespace: system, Name: "cluster-client-certificates-pending"}, {Namespace: system, Name: "compass-agent-configuration"}} {
			own = append(own, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}})
		}
		for _, object := range own {
			if err := kube.Delete(context.Background(), object); client.IgnoreNotFound(err) != nil {
				t.Error(err)
			}
		}
	})
	config := rest.AnonymousClientConfig(&cluster)
	config.BearerToken = theirs
	path, err := kubetest.Kubeconfig(config, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	enlist := func(name string) {
		err := kube.Create(t.Context(), &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: onboarding, Name: name, Labels: map[string]string{controller.LabelName: name}},
			Data:       map[string][]byte{"config": kubeconfig},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	record := func(name string) (*corev1.ConfigMap, error) {
		found := &corev1.ConfigMap{}
		err := kube.Get(t.Context(), client.ObjectKey{Namespace: onboarding, Name: name + "-onboarding"}, found)
		return found, err
	}
	inState := func(name, state string) {
		t.Helper()
		eventually(t, name+" to be "+state, func() error {
			found, err := record(name)
			if err == nil && found.Data["state"] != state {
				err = fmt.Errorf("%v", found.Data)
			}
			return err
		})
	}
	runtimes := func() (ids []string) {
		for _, each := range server.Admin().Inventory().Tenants {
			for _, r := range each.Runtimes {
				ids = append(ids, r.ID)
			}
		}
		return ids
	}

	clientfeaturestesting.SetFeatureDuringTest(t, clientfeatures.WatchListClient, false)
	stop := startOnboarding(t, all, director, own, log)
	c := &components{objects: objects(t, "compass")}
	for round := range 2 {
		enlist("cluster")
		if round == 1 {
			clientfeaturestesting.SetFeatureDuringTest(t, clientfeatures.WatchListClient, true)
		}
		if round == 0 { // the agent comes later
			inState("cluster", string(controller.Waiting))
		} else {
			eventually(t, "a runtime", func() error {
				if len(runtimes()) == 0 {
					return errors.New("there is none")
				}
				return nil
			})
		}
		stop()
		assign(t, server)
		if round == 0 {
			c.runAgent(t, server)
		}
		stop = startOnboarding(t, all, director, own, log)
		inState("cluster", string(controller.Connected))
		synchronised(t, "the agent pairs and syncs")
		ids := runtimes()
		found, err := record("cluster")
		if err != nil || len(ids) != 1 || found.Data["runtime"] != ids[0] {
			t.Errorf("round %d: runtimes %v, record %v, %v", round, ids, found.Data, err)
		}
		if auths := server.Admin().SystemAuths(ids[0]); len(auths) != 1 || len(auths[0].Certificates) == 0 {
			t.Errorf("round %d: identities %+v", round, auths)
		}
		if round == 0 { // somebody deletes the record; another Secret comes, and is not meant any more
			if err := kube.Delete(t.Context(), found); err != nil {
				t.Fatal(err)
			}
			inState("cluster", string(controller.Connected))
			enlist("twin")
			inState("twin", string(controller.Failed))
			twin := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: onboarding, Name: "twin"}}
			if err := kube.Patch(t.Context(), twin, client.RawPatch("application/merge-patch+json", []byte(`{"metadata":{"labels":null}}`))); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the record of the twin to go", func() error {
				_, err := record("twin")
				return isGone(err)
			})
		}
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: onboarding, Name: "cluster"}}
		if err := kube.Delete(t.Context(), secret); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the cluster to be removed", func() error {
			configuration := &corev1.Secret{}
			return errors.Join(isGone(kube.Get(t.Context(), client.ObjectKeyFromObject(secret), &corev1.Secret{})),
				isGone(kube.Get(t.Context(), client.ObjectKey{Namespace: system, Name: "compass-agent-configuration"}, configuration)))
		})
		if left := runtimes(); len(left) != 0 {
			t.Errorf("round %d: left are runtimes %v", round, left)
		}
	}
	stop()
	set, err := kubernetes.NewForConfig(&cluster)
	if err != nil {
		t.Fatal(err)
	}
	for _, account := range []rights.Account{{Namespace: onboarding, Name: onboarding}, {Namespace: system, Name: onboarding}} {
		granted, err := rights.Granted(t.Context(), set, account)
		if err != nil || len(granted) == 0 {
			t.Fatalf("%v has rights %v: %v", account, granted, err)
		}
		eventually(t, "the audit log to have all", func() error {
			unused, err := w.Unused(account, granted)
			if len(unused) > 0 {
				err = fmt.Errorf("not needed: %v", unused)
			}
			return err
		})
		_, refused, err := w.Requests(account)
		if err != nil || len(refused) > 0 {
			t.Errorf("%v was refused: %v %v", account, refused, err)
		}
	}
	var connection compassv1alpha1.CompassConnection
	if err := kube.Get(t.Context(), client.ObjectKey{Name: compassv1alpha1.ConnectionName}, &connection); err != nil {
		t.Error(err)
	}
	for _, name := range canaries.In(log.String()) {
		t.Errorf("%s is told: in the log", name)
	}
	if strings.Contains(log.String(), "forbidden") {
		t.Errorf("the controller was refused something:\n%s", log.String())
	}
}

// assign has every runtime see the systems.
func assign(t *testing.T, server *compass.Server) {
	t.Helper()
	for _, each := range server.Admin().Inventory().Tenants {
		for _, r := range each.Runtimes {
			r.Formations = []string{"default"}
			if _, err := server.Admin().PutRuntime(each.ID, r); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// isGone is nil for what is not there.
func isGone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return fmt.Errorf("it is still there: %v", err) //nolint:errorlint // it is told, not judged
}

func TestTheControllerOfOnboardingHasNoRightToChangeSecretsUnlessItIsToOffboard(t *testing.T) {
	for components, want := range map[string]string{"": "get list watch", "offboard": "get list watch patch"} {
		all := parsed(t, renderedOnboarding(t, components))
		rules, _, err := unstructured.NestedSlice(all["Role/"+onboarding].Object, "rules")
		if err != nil {
			t.Fatal(err)
		}
		verbs, _, err := unstructured.NestedStringSlice(rules[0].(map[string]any), "verbs")
		if got := strings.Join(verbs, " "); err != nil || got != want {
			t.Errorf("with %q: %s %v, not %s", components, got, err, want)
		}
		args := strings.Join(deployment(t, all, onboarding).Spec.Template.Spec.Containers[0].Args, " ")
		if strings.Contains(args, "--on-delete=offboard") != (components == "offboard") {
			t.Errorf("with %q: %s", components, args)
		}
	}
}

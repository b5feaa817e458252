package certmanager_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientfeatures "k8s.io/client-go/features"
	clientfeaturestesting "k8s.io/client-go/features/testing"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/e2e/kubetest"
	"github.com/application-connector/application-connector/e2e/rights"
	"github.com/application-connector/application-connector/simulator/compass"
)

var agentAccount = rights.Account{Namespace: "kyma-system", Name: "compass-runtime-agent"}

// TestTheAgentLeavesItsCertificateToCertManagerByTheRightsOfTheComponentAndNeedsThemAll has the agent, by its own service account, do
// all that component agent-cert-manager lets it, and reads in the API server's audit log that nothing was refused, and that each
// right was used.
func TestTheAgentLeavesItsCertificateToCertManagerByTheRightsOfTheComponentAndNeedsThemAll(t *testing.T) {
	s := newStage(t, compass.Options{})
	s.eventually("issuers of other tests, whose namespaces take no more events, to be gone", func() bool {
		var left compassv1alpha1.CompassIssuerList
		return s.client.List(t.Context(), &left) == nil && len(left.Items) == 0
	})
	s.system = agentAccount.Namespace
	deployment := s.installRights()
	for _, e := range deployment.Spec.Template.Spec.Containers[0].Env {
		if _, fixed := s.env[e.Name]; !fixed || strings.HasSuffix(e.Name, "_SECRET") {
			s.env[e.Name] = e.Value
		}
	}
	if s.env["APP_CERT_MANAGER"] != "true" {
		t.Fatalf("the component's Deployment has APP_CERT_MANAGER=%q", s.env["APP_CERT_MANAGER"])
	}
	delete(s.env, "APP_INTEGRATION_NAMESPACE")
	maps.Copy(s.env, map[string]string{"APP_LEADER_ELECTION": "true", "APP_LOG_LEVEL": "debug"})
	s.as = s.asAgent()
	witness, err := rights.NewWitness(auditLog)
	if err != nil {
		t.Fatal(err)
	}
	set, err := kubernetes.NewForConfig(cluster)
	if err != nil {
		t.Fatal(err)
	}
	granted, err := rights.Granted(t.Context(), set, agentAccount, "compass-runtime-agent-issuer", "compass-runtime-agent-certificate")
	if err != nil {
		t.Fatal(err)
	}
	if len(granted) == 0 {
		t.Fatal("the component grants nothing")
	}
	unused := func() []rights.Right {
		left, err := witness.Unused(agentAccount, granted)
		if err != nil {
			t.Fatal(err)
		}
		return left
	}

	t.Run("caches are filled by lists, as older API servers need", func(t *testing.T) {
		clientfeaturestesting.SetFeatureDuringTest(t, clientfeatures.WatchListClient, false)
		of := *s
		of.t = t
		of.start()
		of.eventually("lists", func() bool {
			return !slices.ContainsFunc(unused(), func(r rights.Right) bool { return r.Verb == "list" })
		})
	})

	s.start()
	s.configure()
	s.synchronized()
	s.ask(func(spec *compassv1alpha1.CompassConnectionSpec) { spec.RefreshCredentialsNow = true })
	s.eventually("the renewal", func() bool { return !s.connection().Spec.RefreshCredentialsNow })

	// A workload's certificate, by an issuer for all namespaces; and one that waits for what is not there, and says so again and again.
	subject := s.connection().Status.ConnectionStatus.CertificateStatus.Subject
	workload := kubetest.Namespace(t, cluster)
	s.create(&compassv1alpha1.CompassClusterIssuer{ObjectMeta: metav1.ObjectMeta{Name: "compass"}, Spec: compassv1alpha1.CompassIssuerSpec{ClientSecretName: "cluster-client-certificates"}})
	events := s.certificate("events", subject, cmmeta.IssuerReference{Group: compassv1alpha1.GroupVersion.Group, Kind: "CompassClusterIssuer", Name: "compass"})
	events.Namespace = workload
	s.create(events)
	s.ready(events, 1)
	s.grantSecrets(workload)
	s.create(&compassv1alpha1.CompassIssuer{ObjectMeta: metav1.ObjectMeta{Namespace: workload, Name: "waiting"}, Spec: compassv1alpha1.CompassIssuerSpec{ClientSecretName: "missing"}})
	waiting := s.certificate("waiting", subject, cmmeta.IssuerReference{Group: compassv1alpha1.GroupVersion.Group, Kind: "CompassIssuer", Name: "waiting"})
	waiting.Namespace = workload
	s.create(waiting)

	s.leave()

	var left []rights.Right
	t.Cleanup(func() {
		if len(left) > 0 {
			t.Errorf("not needed: %v", left)
		}
	})
	s.eventually("all rights to be needed", func() bool {
		left = unused()
		return len(left) == 0
	})
	_, refused, err := witness.Requests(agentAccount)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range refused {
		t.Errorf("refused: %s", r)
	}
}

// installRights installs, of overlay compass with the component, what says what the agent may do, and gives its Deployment.
func (s *stage) installRights() *appsv1.Deployment {
	s.t.Helper()
	for _, name := range []string{"kyma-system", "istio-system"} {
		namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		s.create(namespace)
		s.t.Cleanup(func() {
			if err := s.client.Delete(context.Background(), namespace); err != nil {
				s.t.Error(err)
			}
		})
	}
	dir := s.t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(filepath.Join("..", "..", "manifests"))); err != nil {
		s.t.Fatal(err)
	}
	folder := filepath.Join(dir, "built")
	text := "resources: [../overlays/compass]\ncomponents: [../components/agent-cert-manager]\n"
	if err := errors.Join(os.Mkdir(folder, 0o700), os.WriteFile(filepath.Join(folder, "kustomization.yaml"), []byte(text), 0o600)); err != nil {
		s.t.Fatal(err)
	}
	built, err := s.kubectl(s.t.Context(), "", "kustomize", folder)
	if err != nil {
		s.t.Fatal(err)
	}
	var deployment appsv1.Deployment
	var chosen []string
	for document := range strings.SplitSeq(built, "\n---\n") {
		var object metav1.PartialObjectMetadata
		if err := yaml.Unmarshal([]byte(document), &object); err != nil {
			s.t.Fatal(err)
		}
		switch {
		case object.Name == agentAccount.Name && object.Kind == "Deployment":
			if err := yaml.UnmarshalStrict([]byte(document), &deployment); err != nil {
				s.t.Fatal(err)
			}
		case slices.Contains([]string{"ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}, object.Kind):
			chosen = append(chosen, document)
		}
	}
	if len(deployment.Spec.Template.Spec.Containers) == 0 {
		s.t.Fatalf("there is no Deployment %s", agentAccount.Name)
	}
	rules := strings.Join(chosen, "\n---\n")
	if _, err := s.kubectl(s.t.Context(), rules, "apply", "--server-side", "-f", "-"); err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		if _, err := s.kubectl(context.Background(), rules, "delete", "--ignore-not-found", "-f", "-"); err != nil {
			s.t.Error(err)
		}
	})
	return &deployment
}

// grantSecrets lets the agent read the Secrets of a namespace, as docs/cert-manager.md says that an administrator must.
func (s *stage) grantSecrets(namespace string) {
	meta := metav1.ObjectMeta{Namespace: namespace, Name: "compass-runtime-agent"}
	s.create(&rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"get"}}}})
	s.create(&rbacv1.RoleBinding{
		ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: meta.Name},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: agentAccount.Namespace, Name: agentAccount.Name}},
	})
}

// asAgent is how the agent reaches the cluster: by a token of its service account, as in a Pod.
func (s *stage) asAgent() *rest.Config {
	s.t.Helper()
	request := &authenticationv1.TokenRequest{}
	holder := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: agentAccount.Namespace, Name: agentAccount.Name}}
	if err := s.client.SubResource("token").Create(s.t.Context(), holder, request); err != nil {
		s.t.Fatal(err)
	}
	config := rest.AnonymousClientConfig(cluster)
	config.BearerToken = request.Status.Token
	return config
}

// kubectl runs it as administrator and gives what it prints; its error tells what it said.
func (s *stage) kubectl(ctx context.Context, stdin string, args ...string) (string, error) {
	program := os.Getenv("KUBECTL")
	if program == "" {
		return "", errors.New("KUBECTL is not set: run the tests by \"make test\", or set it to the program that \"make build\" put at bin/kubectl")
	}
	config, err := kubetest.Kubeconfig(cluster, s.t.TempDir())
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, program, append([]string{"--kubeconfig", config}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("kubectl %s: %w: %s", args[0], err, stderr.String())
	}
	return stdout.String(), nil
}

package certmanager_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/agent"
	applicationv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/certs"
	"github.com/application-connector/application-connector/certs/issuer"
	"github.com/application-connector/application-connector/e2e/kubetest"
	"github.com/application-connector/application-connector/e2e/leaktest"
	"github.com/application-connector/application-connector/graphql"
	"github.com/application-connector/application-connector/graphql/connector"
	"github.com/application-connector/application-connector/secret"
	"github.com/application-connector/application-connector/simulator/compass"
)

const (
	tenant    = "3e64ebae-38b5-46a0-b1ed-9ccee153a0ae"
	runtimeID = "1ae04041-17e5-478f-91f8-3a2ddc7700de"
	patience  = 3 * time.Minute
)

var seed = compass.Seed{Tenants: []compass.Tenant{{ID: tenant, Runtimes: []compass.Runtime{{ID: runtimeID, Name: "local", Formations: []string{"default"}}}}}}

// stage is a simulated Compass, a namespace, and an agent that leaves its certificate to cert-manager.
type stage struct {
	t       *testing.T
	client  client.Client
	compass *compass.Server
	options compass.Options
	system  string
	log     *leaktest.Log
	env     map[string]string
	as      *rest.Config
}

func newStage(t *testing.T, o compass.Options) *stage {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, applicationv1alpha1.AddToScheme, compassv1alpha1.AddToScheme, cmapi.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	c, err := client.New(cluster, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	watch := leaktest.Of(t)
	watch.Cluster(t, cluster)
	o.Seed, o.StateDir, o.OnSecret = seed, t.TempDir(), watch.Add
	server, err := compass.Start(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{t: t, client: c, compass: server, options: o, system: kubetest.Namespace(t, cluster), log: watch.Log("agent"), as: cluster}
	t.Cleanup(func() {
		if err := s.compass.Close(); err != nil {
			t.Error(err)
		}
	})
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, server.ServerCA(), 0o600); err != nil {
		t.Fatal(err)
	}
	s.env = map[string]string{
		"APP_CERT_MANAGER": "true", "APP_AGENT_CONFIGURATION_SECRET": s.system + "/compass-agent-configuration",
		"APP_CLUSTER_CERTIFICATES_SECRET": s.system + "/cluster-client-certificates", "APP_CA_CERTIFICATES_SECRET": s.system + "/kyma-gateway-certs-cacert",
		"APP_INTEGRATION_NAMESPACE": s.system, "APP_COMPASS_CA_FILE": ca, "APP_CERT_KEY_SIZE": "2048", "APP_MINIMAL_COMPASS_SYNC_TIME": "200ms",
		"APP_CONTROLLER_SYNC_PERIOD": "2h", "APP_LISTEN_ADDRESS": "127.0.0.1", "APP_HEALTH_PORT": "0", "APP_METRICS_PORT": "0", "APP_STATUS_PAGE_ADDRESS": "off",
		"APP_LEADER_ELECTION": "false", "APP_LOG_LEVEL": "debug",
	}
	t.Cleanup(func() {
		for _, kind := range []client.Object{&compassv1alpha1.CompassConnection{}, &compassv1alpha1.CompassClusterIssuer{}} {
			if err := s.client.DeleteAllOf(context.Background(), kind); err != nil {
				t.Error(err)
			}
		}
		if t.Failed() {
			t.Logf("the agent's log:\n%s", s.log)
			s.describe()
		}
	})
	return s
}

// describe logs what cert-manager says, for a test that failed.
func (s *stage) describe() {
	var requests cmapi.CertificateRequestList
	if err := s.client.List(context.Background(), &requests); err == nil {
		for _, r := range requests.Items {
			s.t.Logf("request %s/%s: %+v", r.Namespace, r.Name, r.Status.Conditions)
		}
	}
	var all cmapi.CertificateList
	if err := s.client.List(context.Background(), &all); err == nil {
		for _, c := range all.Items {
			s.t.Logf("certificate %s/%s: %+v", c.Namespace, c.Name, c.Status)
		}
	}
}

// start runs the agent, with the issuer in it, until the test ends or stop is called.
func (s *stage) start() (stop func()) {
	s.t.Helper()
	o, err := agent.FromEnvironment(func(name string) string { return s.env[name] })
	if err != nil {
		s.t.Fatal(err)
	}
	o.Kubernetes, o.LogTo = rest.CopyConfig(s.as), s.log
	open, page := make(chan struct{}), ""
	o.Listening = func(_, metrics net.Addr) {
		page = "http://" + metrics.String() + "/metrics"
		close(open)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- agent.Run(ctx, o) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				s.t.Errorf("the agent ended with: %v", err)
			}
		case <-time.After(patience):
			s.t.Error("the agent does not end")
		}
	})
	s.t.Cleanup(stop)
	select {
	case <-open:
		leaktest.Of(s.t).Scrape(s.t, "metrics of the agent", page)
	case err := <-ended:
		ended <- nil
		s.t.Fatalf("the agent did not start: %v", err)
	case <-time.After(patience):
		s.t.Fatal("the agent does not start")
	}
	return stop
}

// pair spends a first token and puts the second one into a pairing Secret. It gives the subject for a Certificate.
func (s *stage) pair(name string) string {
	s.t.Helper()
	first, err := s.compass.Admin().RuntimeToken(runtimeID)
	if err != nil {
		s.t.Fatal(err)
	}
	roots, err := graphql.Roots(s.compass.ServerCA())
	if err != nil {
		s.t.Fatal(err)
	}
	transport := graphql.NewTransport(graphql.Options{RootCAs: roots})
	defer transport.CloseIdleConnections()
	configuration, err := connector.New(transport, first.ConnectorURL).Configuration(s.t.Context(), secret.Value(first.Token))
	if err != nil {
		s.t.Fatal(err)
	}
	s.create(&corev1.Secret{ObjectMeta: s.meta(name), StringData: map[string]string{
		issuer.KeyToken: configuration.Token.Reveal(), issuer.KeyTokenURL: first.ConnectorURL, issuer.KeySubject: configuration.Subject,
	}})
	subject, err := certs.ParseSubject(configuration.Subject)
	if err != nil {
		s.t.Fatal(err)
	}
	return subject.String()
}

func (s *stage) meta(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: s.system, Name: name}
}

func (s *stage) create(o client.Object) {
	s.t.Helper()
	if err := s.client.Create(s.t.Context(), o); err != nil {
		s.t.Fatal(err)
	}
}

// certificate is a Certificate as docs/cert-manager.md says that it should be.
func (s *stage) certificate(name, subject string, issuerRef cmmeta.IssuerReference) *cmapi.Certificate {
	return &cmapi.Certificate{ObjectMeta: s.meta(name), Spec: cmapi.CertificateSpec{
		SecretName: name, LiteralSubject: subject, IssuerRef: issuerRef, Usages: []cmapi.KeyUsage{cmapi.UsageDigitalSignature, cmapi.UsageClientAuth},
		PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.RSAKeyAlgorithm, Size: 2048, Encoding: cmapi.PKCS1, RotationPolicy: cmapi.RotationPolicyAlways},
	}}
}

func (s *stage) namespaced(spec compassv1alpha1.CompassIssuerSpec) cmmeta.IssuerReference {
	s.create(&compassv1alpha1.CompassIssuer{ObjectMeta: s.meta("compass"), Spec: spec})
	return cmmeta.IssuerReference{Group: compassv1alpha1.GroupVersion.Group, Kind: "CompassIssuer", Name: "compass"}
}

// ready waits until a Certificate of at least that revision is Ready, and gives its Secret.
func (s *stage) ready(c *cmapi.Certificate, revision int) *corev1.Secret {
	s.t.Helper()
	key := client.ObjectKeyFromObject(c)
	s.eventually("Certificate "+key.String()+" to be Ready", func() bool {
		found := &cmapi.Certificate{}
		if err := s.client.Get(s.t.Context(), key, found); err != nil || found.Status.Revision == nil || *found.Status.Revision < revision {
			return false
		}
		for _, condition := range found.Status.Conditions {
			if condition.Type == cmapi.CertificateConditionReady {
				return condition.Status == cmmeta.ConditionTrue
			}
		}
		return false
	})
	return s.secret(types.NamespacedName{Namespace: key.Namespace, Name: c.Spec.SecretName})
}

func (s *stage) secret(key types.NamespacedName) *corev1.Secret {
	s.t.Helper()
	found := &corev1.Secret{}
	if err := s.client.Get(s.t.Context(), key, found); err != nil {
		s.t.Fatal(err)
	}
	return found
}

// request gives the Ready condition of the newest CertificateRequest for a Certificate.
func (s *stage) request(c *cmapi.Certificate) cmapi.CertificateRequestCondition {
	var all cmapi.CertificateRequestList
	if err := s.client.List(s.t.Context(), &all, client.InNamespace(c.Namespace)); err != nil {
		return cmapi.CertificateRequestCondition{}
	}
	for _, r := range all.Items {
		if r.Annotations[cmapi.CertificateNameKey] != c.Name {
			continue
		}
		for _, condition := range r.Status.Conditions {
			if condition.Type == cmapi.CertificateRequestConditionReady {
				return condition
			}
		}
	}
	return cmapi.CertificateRequestCondition{}
}

// signed is how many requests for a signature Compass received.
func (s *stage) signed() int {
	return s.compass.Admin().Counters().Operations["signCertificateSigningRequest"].Received
}

func (s *stage) eventually(what string, is func() bool) {
	s.t.Helper()
	err := wait.PollUntilContextTimeout(s.t.Context(), 50*time.Millisecond, patience, true, func(context.Context) (bool, error) { return is(), nil })
	if err != nil {
		s.t.Fatalf("waiting for %s: %v", what, err)
	}
}

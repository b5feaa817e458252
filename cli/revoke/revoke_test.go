package revoke

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/rest"
	testingclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/certs"
	"github.com/application-connector/application-connector/e2e/kubetest"
	"github.com/application-connector/application-connector/e2e/leaktest"
	"github.com/application-connector/application-connector/graphql"
	"github.com/application-connector/application-connector/graphql/connector"
	"github.com/application-connector/application-connector/graphql/director"
	"github.com/application-connector/application-connector/secret"
	"github.com/application-connector/application-connector/simulator/compass"
)

var cluster rest.Config

func TestMain(m *testing.M) { kubetest.Run(m, &cluster) }

const (
	tenantID  = "3e64ebae-38b5-46a0-b1ed-9ccee153a0ae"
	runtimeID = "1ae04041-17e5-478f-91f8-3a2ddc7700de"
)

// stage is a cluster whose client Secret was had from a simulated Compass.
type stage struct {
	t          *testing.T
	client     client.Client
	secret     *corev1.Secret
	credential certs.Credential
	compass    *compass.Server
	transport  *graphql.Transport
	args       []string
}

func newStage(t *testing.T) *stage {
	t.Helper()
	watch := leaktest.Of(t)
	watch.Cluster(t, &cluster)
	server, err := compass.Start(t.Context(), compass.Options{OnSecret: watch.Add, Seed: compass.Seed{Tenants: []compass.Tenant{{ID: tenantID, Runtimes: []compass.Runtime{{ID: runtimeID, Name: "local"}}}}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	s := &stage{t: t, compass: server}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var options graphql.Options
	options.RootCAs, err = graphql.Roots(server.ServerCA())
	must(err)
	s.transport = graphql.NewTransport(options)
	t.Cleanup(s.transport.CloseIdleConnections)
	token, err := server.Admin().RuntimeToken(runtimeID)
	must(err)
	c := connector.New(s.transport, token.ConnectorURL)
	configuration, err := c.Configuration(t.Context(), secret.Value(token.Token))
	must(err)
	subject, err := certs.ParseSubject(configuration.Subject)
	must(err)
	key, err := certs.GenerateKey(2048)
	must(err)
	csr, err := certs.NewRequest(key, subject)
	must(err)
	issued, err := c.Sign(t.Context(), configuration.Token, csr)
	must(err)
	s.credential, err = certs.Verify(certs.Issuance{Key: key, Subject: subject, Certificate: issued.Certificate, Chain: issued.Chain, CA: issued.CA, Now: time.Now()})
	must(err)
	s.transport.SetCertificate(s.credential.TLS())

	data, err := certs.EncodeClient(s.credential)
	must(err)
	s.secret = &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: kubetest.Namespace(t, &cluster), Name: "cluster-client-certificates", Annotations: map[string]string{annotationConnectorURL: configuration.ConnectorURL}},
		Data:       data,
	}
	scheme := runtime.NewScheme()
	must(corev1.AddToScheme(scheme))
	s.client, err = client.New(&cluster, client.Options{Scheme: scheme})
	must(err)
	must(s.client.Create(t.Context(), s.secret))
	dir := t.TempDir()
	kubeconfig, err := kubetest.Kubeconfig(&cluster, dir)
	must(err)
	ca := filepath.Join(dir, "ca.pem")
	must(os.WriteFile(ca, server.ServerCA(), 0o600))
	s.args = []string{"--kubeconfig", kubeconfig, "--secret", s.secret.Namespace + "/" + s.secret.Name, "--compass-ca-file", ca}
	return s
}

// run runs the command, at a time.
func (s *stage) run(at time.Time, args ...string) (stdout string, err error) {
	s.t.Helper()
	var out bytes.Buffer
	defer func() {
		watch := leaktest.Of(s.t)
		watch.Told("output of appconn revoke", out.String())
		watch.Told("error of appconn revoke", fmt.Sprint(err))
	}()
	o := NewOptions(genericiooptions.IOStreams{Out: &out, ErrOut: &out})
	o.Clock = testingclock.NewFakePassiveClock(at)
	flags := pflag.NewFlagSet("revoke", pflag.ContinueOnError)
	o.BindFlags(flags)
	if err := flags.Parse(append(s.args, args...)); err != nil {
		s.t.Fatal(err)
	}
	if err := o.Complete(); err != nil {
		return out.String(), err
	}
	err = o.Run(s.t.Context())
	return out.String(), err
}

func (s *stage) update(edit func(*corev1.Secret)) {
	s.t.Helper()
	edit(s.secret)
	if err := s.client.Update(s.t.Context(), s.secret); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) viewer() error {
	_, err := director.New(s.transport, s.compass.DirectorURL(), tenantID).Viewer(s.t.Context())
	return err
}

func code(err error) int {
	var coded interface{ ExitCode() int }
	switch {
	case err == nil:
		return 0
	case errors.As(err, &coded):
		return coded.ExitCode()
	}
	return 1
}

func TestACertificateIsShownAndOnlyWithYesRevoked(t *testing.T) {
	s := newStage(t)
	out, err := s.run(time.Now())
	if code(err) != 2 || !strings.Contains(err.Error(), "--yes") || !strings.Contains(out, s.credential.Fingerprint()) || !strings.Contains(out, s.compass.MTLSConnectorURL()) {
		t.Errorf("%v, %s", err, out)
	}
	if err := s.viewer(); err != nil {
		t.Fatalf("it was revoked, or never worked: %v", err)
	}
	out, err = s.run(time.Now(), "--yes")
	if err != nil || !strings.Contains(out, "The certificate is revoked.") {
		t.Errorf("%v, %s", err, out)
	}
	if err := s.viewer(); err == nil {
		t.Error("Compass accepts the certificate still")
	}
	out, err = s.run(time.Now(), "--yes")
	if code(err) != 1 || !strings.Contains(err.Error(), "it is revoked already, or parts of Compass are down") {
		t.Errorf("%v, %s", err, out)
	}
}

func TestWhatKeepsACertificateFromBeingRevokedIsSaid(t *testing.T) {
	s := newStage(t)
	now := time.Now()
	if out, err := s.run(now.AddDate(10, 0, 0), "--yes"); err != nil || !strings.Contains(out, "there is nothing to revoke") {
		t.Errorf("one that has ended: %v, %s", err, out)
	}
	for _, test := range []struct {
		name string
		args []string
		edit func(*corev1.Secret)
		code int
		says string
	}{
		{"no namespace", []string{"--secret", "name"}, nil, 2, `--secret "name": namespace/name is needed`},
		{"no such Secret", []string{"--secret", s.secret.Namespace + "/other"}, nil, 2, "--secret names another one"},
		{"no such file", []string{"--compass-ca-file", "/nonexistent/ca.pem"}, nil, 2, "--compass-ca-file: "},
		{"no such kubeconfig", []string{"--kubeconfig", "/nonexistent/kubeconfig"}, nil, 2, "the kubeconfig cannot be used: "},
		{"an authority nobody knows", []string{"--yes", "--compass-ca-file", ""}, nil, 1, "--compass-ca-file names further authorities"},
		{"no Connector", []string{"--yes"}, func(s *corev1.Secret) { s.Annotations = nil }, 2, "nothing says where the Connector is"},
		{"no key", []string{"--yes"}, func(s *corev1.Secret) { delete(s.Data, certs.ClientKey) }, 2, `data["key"] is missing`},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.edit != nil {
				s.update(test.edit)
			}
			if out, err := s.run(now, test.args...); code(err) != test.code || !strings.Contains(err.Error(), test.says) {
				t.Errorf("exit code %d, %v, %s; want %d and %q", code(err), err, out, test.code, test.says)
			}
		})
	}
	if err := s.viewer(); err != nil {
		t.Errorf("it was revoked: %v", err)
	}
}

func TestTheReferenceListsEveryFlag(t *testing.T) {
	text, err := os.ReadFile("../../docs/reference/appconn-revoke.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `--([a-z-]+)`").FindAllStringSubmatch(string(text), -1) {
		documented[m[1]] = true
	}
	flags := map[string]bool{}
	NewCommand(genericiooptions.IOStreams{}).Flags().VisitAll(func(f *pflag.Flag) { flags[f.Name] = true })
	if diff := cmp.Diff(flags, documented); diff != "" {
		t.Errorf("flags in docs/reference/appconn-revoke.md (-code +docs):\n%s", diff)
	}
}

package leaktest

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	applicationv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/certs"
	"github.com/application-connector/application-connector/e2e/kubetest"
)

var cluster rest.Config

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	kubetest.Run(m, &cluster)
}

const planted = "planted-password-93ab"

func page(t *testing.T, text string) string {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, text) }))
	t.Cleanup(s.Close)
	return s.URL
}

func TestASecretIsFoundWhereverItIsTold(t *testing.T) {
	said := fmt.Sprintf("a line\ncalling with %s\n", planted)
	for name, test := range map[string]struct {
		tell func(*testing.T, *Watch)
		want []string
	}{
		"nothing": {func(_ *testing.T, w *Watch) { w.Told("stderr", "all is well") }, nil},
		"log":     {func(_ *testing.T, w *Watch) { fmt.Fprint(w.Log("agent"), said) }, []string{"it is told: log agent, line 2"}},
		"the same log, given twice": {func(_ *testing.T, w *Watch) {
			fmt.Fprint(w.Log("agent"), "a line\n")
			fmt.Fprint(w.Log("agent"), planted)
		}, []string{"it is told: log agent, line 2"}},
		"log in base64": {func(_ *testing.T, w *Watch) {
			fmt.Fprint(w.Log("agent"), base64.StdEncoding.EncodeToString([]byte("user:"+planted)))
		}, []string{"it is told: log agent, line 1"}},
		"text":                {func(_ *testing.T, w *Watch) { w.Told("stderr", said) }, []string{"it is told: stderr, line 2"}},
		"text among texts":    {func(_ *testing.T, w *Watch) { w.Told("stderr", "x"); w.Told("stderr", said); w.Told("stderr", "y") }, []string{"it is told: stderr, line 2"}},
		"error":               {func(_ *testing.T, w *Watch) { w.Told("error", errors.New(planted).Error()) }, []string{"it is told: error, line 1"}},
		"answer":              {func(_ *testing.T, w *Watch) { w.Answer("gateway", 502, http.Header{}, said) }, []string{"it is told: gateway, line 2"}},
		"header of an answer": {func(_ *testing.T, w *Watch) { w.Answer("gateway", 502, http.Header{"X-Why": {planted}}, "") }, []string{"it is told: gateway, line 1"}},
		"answer of somebody else": {func(_ *testing.T, w *Watch) {
			w.Answer("gateway", 200, http.Header{}, said)
			w.Told("stderr", "all is well")
		}, nil},
		"metrics": {func(t *testing.T, w *Watch) { w.Scrape(t, "metrics", page(t, said)) }, []string{"it is told: metrics, line 2"}},
		"file": {func(t *testing.T, w *Watch) {
			dir := t.TempDir()
			w.Files(t, filepath.Join(dir, "*.log"))
			if err := os.WriteFile(filepath.Join(dir, "agent.log"), []byte(said), 0o600); err != nil {
				t.Fatal(err)
			}
		}, []string{"it is told: agent.log, line 2"}},
		"nothing was told":                  {func(*testing.T, *Watch) {}, []string{"leaktest: the harness gave nothing to look for, or nothing to look at"}},
		"another log beside":                {func(_ *testing.T, w *Watch) { fmt.Fprint(w.Tee("agent", io.Discard), said) }, []string{"it is told: log agent, line 2"}},
		"logger at debug level":             {func(_ *testing.T, w *Watch) { w.Logger("agent").Debug("it", "password", planted) }, []string{"it is told: log agent, line 1"}},
		"log to which nobody says anything": {func(_ *testing.T, w *Watch) { w.Log("agent") }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWatch(t)
			w.Add("it", planted)
			t.Run("", func(t *testing.T) { test.tell(t, w) })
			got := w.leaks()
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
			if strings.Contains(fmt.Sprint(got), planted) {
				t.Error("it says what the secret is")
			}
		})
	}
	w := newWatch(t)
	w.Told("stderr", "all is well")
	if got := w.leaks(); len(got) != 1 {
		t.Errorf("without anything to look for: %v", got)
	}
}

func TestTheCredentialsOfARequestAreSecret(t *testing.T) {
	for field, c := range map[string]struct{ value, told string }{
		"Authorization":    {"Bearer abcdefgh12345678", "abcdefgh12345678"},
		"authorization":    {"Basic dXNlcjpwYXNzd29yZA==", "dXNlcjpwYXNzd29yZA"},
		"X-Csrf-Token":     {"0123456789abcdef", "0123456789abcdef"},
		"Cookie":           {"a=0123456789abcdef; b=fedcba9876543210", "fedcba9876543210"},
		"Access-Token":     {"0123456789abcdef", "0123456789abcdef"},
		"X-Correlation-Id": {"0123456789abcdef", ""},
	} {
		w := newWatch(t)
		w.Add("something", "something-else")
		w.AddHeader(http.Header{field: {c.value}})
		w.Told("log", "it: "+c.value)
		var want []string
		if c.told != "" {
			want = []string{"header " + field + " is told: log, line 1"}
			w.Told("log", "it: "+c.told)
		}
		if diff := cmp.Diff(want, w.leaks()); diff != "" {
			t.Errorf("%s: %s", field, diff)
		}
	}
}

// keyText is a private key, and pieces of it.
func keyText(t *testing.T) (text, line, middle string) {
	t.Helper()
	key, err := certs.GenerateKey(2048)
	if err != nil {
		t.Fatal(err)
	}
	der := x509.MarshalPKCS1PrivateKey(key)
	text = string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: der}))
	at := bytes.Index(der, key.D.Bytes())
	return text, strings.Split(text, "\n")[15], base64.StdEncoding.EncodeToString(der[at : at+60])
}

func TestWhatStandsInASecretOfTheClusterIsFoundInEveryKindOfObject(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), applicationv1alpha1.AddToScheme(scheme), compassv1alpha1.AddToScheme(scheme)); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(&cluster, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	namespace := kubetest.Namespace(t, &cluster)
	key, line, middle := keyText(t)
	meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Name: name, Namespace: namespace} }
	global := metav1.ObjectMeta{Name: "it"}
	failed := func(message string) []metav1.Condition {
		return []metav1.Condition{{Type: "Ready", Status: metav1.ConditionFalse, Reason: "Failed", Message: message, LastTransitionTime: metav1.Now()}}
	}
	secret := func(data map[string]string) *corev1.Secret {
		return &corev1.Secret{ObjectMeta: meta("it"), StringData: data}
	}
	const kubeconfig = "{apiVersion: v1, kind: Config, clusters: [{name: c, cluster: {server: 'https://api.somewhere.example.com'}}], users: [{name: u, user: {token: " + planted + "}}]}"
	password := secret(map[string]string{"username": "somebody-in-particular", "password": planted})
	for name, test := range map[string]struct {
		secret *corev1.Secret
		object client.Object
		status func(client.Object) // nil if nothing of the status is told
		want   []string
	}{
		"a ConfigMap": {password, &corev1.ConfigMap{ObjectMeta: meta("it"), Data: map[string]string{"why": "not " + planted}}, nil, []string{"key password of Secret it is told: ConfigMap it, line 1"}},
		"an Event": {password, &eventsv1.Event{
			ObjectMeta: meta("it"), EventTime: metav1.NowMicro(), ReportingController: "it", ReportingInstance: "it", Action: "Pair", Reason: "Failed", Type: "Warning", Note: "not " + planted,
			Regarding: corev1.ObjectReference{Kind: "Namespace", Namespace: namespace, Name: namespace},
		}, nil, []string{"key password of Secret it is told: Event Failed, line 1"}},
		"an Application": {password, &applicationv1alpha1.Application{ObjectMeta: global, Spec: applicationv1alpha1.ApplicationSpec{Description: planted}}, nil,
			[]string{"key password of Secret it is told: Application it, line 1"}},
		"the status of an Application": {password, &applicationv1alpha1.Application{ObjectMeta: global}, func(o client.Object) {
			o.(*applicationv1alpha1.Application).Status.Conditions = failed("not " + planted)
		}, []string{"key password of Secret it is told: Application it, line 1"}},
		"a CompassConnection": {secret(map[string]string{"TOKEN": planted}), &compassv1alpha1.CompassConnection{ObjectMeta: global}, func(o client.Object) {
			o.(*compassv1alpha1.CompassConnection).Status = compassv1alpha1.CompassConnectionStatus{
				State: compassv1alpha1.ConnectionFailed, ConnectionStatus: &compassv1alpha1.ConnectionStatus{Error: "not " + planted},
			}
		}, []string{"key TOKEN of Secret it is told: CompassConnection it, line 1"}},
		"a CompassIssuer": {password, &compassv1alpha1.CompassIssuer{ObjectMeta: meta("it"), Spec: compassv1alpha1.CompassIssuerSpec{ClientSecretName: "c"}}, func(o client.Object) {
			o.(*compassv1alpha1.CompassIssuer).Status.Conditions = failed("not " + planted)
		}, []string{"key password of Secret it is told: CompassIssuer it, line 1"}},
		"a line of a key": {secret(map[string]string{"tls.key": key}), &corev1.ConfigMap{ObjectMeta: meta("it"), Data: map[string]string{"why": line}}, nil,
			[]string{"key tls.key of Secret it is told: ConfigMap it, line 1"}},
		"a piece of a key": {secret(map[string]string{"anything": key}), &corev1.ConfigMap{ObjectMeta: meta("it"), Data: map[string]string{"why": middle}}, nil,
			[]string{"key anything of Secret it is told: ConfigMap it, line 1"}},
		"a header field": {secret(map[string]string{"headers": `{"X-Well-Known-Name-Of-A-Field":["` + planted + `"]}`}),
			&corev1.ConfigMap{ObjectMeta: meta("it"), Data: map[string]string{"why": planted, "field": "X-Well-Known-Name-Of-A-Field"}}, nil,
			[]string{"key headers of Secret it is told: ConfigMap it, line 1"}},
		"a field's name": {secret(map[string]string{"headers": `{"X-Well-Known-Name-Of-A-Field":["` + planted + `"]}`}),
			&corev1.ConfigMap{ObjectMeta: meta("it"), Data: map[string]string{"field": "X-Well-Known-Name-Of-A-Field"}}, nil, nil},
		"a kubeconfig's token": {secret(map[string]string{"config": kubeconfig}), &corev1.ConfigMap{ObjectMeta: meta("it"), Data: map[string]string{"why": planted}}, nil,
			[]string{"key config of Secret it is told: ConfigMap it, line 1"}},
		"a kubeconfig's server": {secret(map[string]string{"config": kubeconfig}), &corev1.ConfigMap{ObjectMeta: meta("it"), Data: map[string]string{"why": "https://api.somewhere.example.com"}}, nil, nil},
		"a user":                {password, &corev1.ConfigMap{ObjectMeta: meta("it"), Data: map[string]string{"why": "somebody-in-particular"}}, nil, nil},
		"the cluster's token": {password, &corev1.ConfigMap{ObjectMeta: meta("it"), Data: map[string]string{"why": cluster.BearerToken}}, nil,
			[]string{"the bearer token of the kubeconfig is told: ConfigMap it, line 1"}},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWatch(t)
			t.Run("", func(t *testing.T) {
				w.Cluster(t, &cluster)
				object := test.object.DeepCopyObject().(client.Object)
				if err := c.Create(t.Context(), object); err != nil {
					t.Fatal(err)
				}
				if test.status != nil {
					test.status(object)
					if err := c.Status().Update(t.Context(), object); err != nil {
						t.Fatal(err)
					}
				}
				// The Secret comes last, and is gone before the end.
				secret := test.secret.DeepCopy()
				if err := errors.Join(c.Create(t.Context(), secret), c.Delete(t.Context(), secret)); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					if err := c.Delete(context.Background(), object); err != nil {
						t.Error(err)
					}
				})
			})
			if diff := cmp.Diff(test.want, w.leaks()); diff != "" {
				t.Error(diff)
			}
			var left corev1.SecretList
			if err := c.List(t.Context(), &left, client.InNamespace(metav1.NamespaceDefault)); err != nil || len(left.Items) > 0 {
				t.Errorf("%d Secrets are left in namespace default, %v", len(left.Items), err)
			}
		})
	}
}

func TestAVersionThatIsOverwrittenAndDeletedWasSeenAllTheSame(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(&cluster, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	namespace := kubetest.Namespace(t, &cluster)
	w := newWatch(t)
	t.Run("", func(t *testing.T) {
		w.Cluster(t, &cluster)
		w.Cluster(t, &cluster) // once is enough
		for _, o := range []client.Object{
			&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "it", Namespace: namespace}, StringData: map[string]string{"password": planted}},
			&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "it", Namespace: namespace}, Data: map[string]string{"password": planted}},
		} {
			if err := c.Create(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			switch o := o.(type) {
			case *corev1.Secret:
				o.StringData = map[string]string{"password": "another-password"}
			case *corev1.ConfigMap:
				o.Data = nil
			}
			if err := errors.Join(c.Update(t.Context(), o), c.Delete(t.Context(), o)); err != nil {
				t.Fatal(err)
			}
		}
	})
	if diff := cmp.Diff([]string{"key password of Secret it is told: ConfigMap it, line 1"}, w.leaks()); diff != "" {
		t.Error(diff)
	}
}

func TestAPartOfATestBelongsToTheWatchOfTheWhole(t *testing.T) {
	whole := Of(t)
	whole.Add("it", planted)
	whole.Told("stderr", "all is well")
	if Of(t) != whole {
		t.Error("a test has two")
	}
	for range 2 {
		t.Run("part", func(t *testing.T) {
			t.Run("of it", func(t *testing.T) {
				if Of(t) != whole {
					t.Error("a part has its own")
				}
			})
		})
	}
	watchesMu.Lock()
	defer watchesMu.Unlock()
	if len(watches) != 1 {
		t.Errorf("there are %d", len(watches))
	}
}

func TestNothingIsKeptOfWhatIsMeasured(t *testing.T) {
	var w *Watch
	testing.Benchmark(func(b *testing.B) {
		w = Of(b)
		w.Add("it", planted)
		w.Told("stderr", planted)
		w.Logger("agent").Error(planted)
		fmt.Fprint(w.Tee("agent", io.Discard), planted)
		w.Cluster(b, &cluster)
	})
	if w.Secrets.Len() != 0 || len(w.told)+len(w.logs) != 0 {
		t.Errorf("%d forms, %d texts", w.Secrets.Len(), len(w.told))
	}
}

// recorder is a test whose failures are counted.
type recorder struct {
	testing.TB
	cleanups []func()
	failures []string
}

func (r *recorder) Cleanup(f func())  { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Error(args ...any) { r.failures = append(r.failures, fmt.Sprint(args...)) }
func (r *recorder) Name() string      { return "a test of its own" }

func TestALeakFailsTheTestThatItIsIn(t *testing.T) {
	r := &recorder{TB: t}
	w := Of(r)
	w.Add("it", planted)
	fmt.Fprint(w.Log("agent"), planted)
	for _, f := range r.cleanups {
		f()
	}
	if diff := cmp.Diff([]string{"it is told: log agent, line 1"}, r.failures); diff != "" {
		t.Error(diff)
	}
	if Of(r) == w {
		t.Error("it lives on")
	}
	w = Of(r)
	w.Add("it", planted)
	w.Told("stderr", "all is well")
	r.failures = nil
	for _, f := range r.cleanups[1:] {
		f()
	}
	if len(r.failures) > 0 {
		t.Errorf("failures %v without a leak", r.failures)
	}
}

package doctor_test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/cli/doctor"
)

// versions are those of all that the command looks at.
func (w *world) versions() map[string]string {
	w.t.Helper()
	var secrets corev1.SecretList
	var apps v1alpha1.ApplicationList
	var connections compassv1alpha1.CompassConnectionList
	for list, options := range map[client.ObjectList][]client.ListOption{&secrets: {client.InNamespace(w.namespace)}, &apps: nil, &connections: nil} {
		if err := w.client.List(w.t.Context(), list, options...); err != nil {
			w.t.Fatal(err)
		}
	}
	out := map[string]string{}
	for _, o := range secrets.Items {
		out["Secret "+o.Name] = o.ResourceVersion
	}
	for _, o := range apps.Items {
		out["Application "+o.Name] = o.ResourceVersion
	}
	for _, o := range connections.Items {
		out["CompassConnection "+o.Name] = o.ResourceVersion
	}
	return out
}

// counts are the requests to the external systems since the process began.
func (w *world) counts() map[string]int {
	out := map[string]int{}
	for endpoint, c := range w.systems.Counts() {
		out[endpoint] = c.Requests
	}
	return out
}

// since takes the counts of before off.
func since(before, now map[string]int) map[string]int {
	out := map[string]int{}
	for endpoint, n := range now {
		if n > before[endpoint] {
			out[endpoint] = n - before[endpoint]
		}
	}
	return out
}

func TestNothingIsWrittenNoTokenIsSpentAndEachAPIIsCalledOnce(t *testing.T) {
	for _, c := range []struct {
		name         string
		prepare      func(w *world)
		args         []string
		compass, api map[string]int
	}{
		{
			name: "paired", args: []string{"shop"},
			compass: map[string]int{"viewer": 1, "runtime": 1},
			api: map[string]int{
				"any /api/none/…": 1, "any /api/basic/…": 1, "any /api/oauth/…": 1, "any /api/oauth-mtls/…": 1, "any /api/certificate/…": 2, "any /api/parameters/…": 1,
				"any /api/csrf/…": 2, "POST /oauth/token": 1, "POST /oauth-mtls/token": 1, // of a token that is good for a while, one is enough
			},
		},
		{name: "without calls", args: []string{"shop", "--no-calls"}, compass: map[string]int{"viewer": 1, "runtime": 1}, api: map[string]int{}},
		{name: "without an Application", compass: map[string]int{"viewer": 1, "runtime": 1}, api: map[string]int{}},
		{name: "with an unused token", prepare: (*world).unpair, compass: map[string]int{}, api: map[string]int{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			if c.prepare != nil {
				c.prepare(w)
			}
			versions, counts := w.versions(), w.counts()
			w.compass.Admin().ResetCounters()
			for i := range c.args {
				c.args[i] = w.named(c.args[i])
			}
			w.examine(c.args...)
			if diff := cmp.Diff(versions, w.versions()); diff != "" {
				t.Errorf("versions before and after (-,+):\n%s", diff)
			}
			got := map[string]int{}
			for operation, n := range w.compass.Admin().Counters().Operations {
				if n.Received > 0 {
					got[operation] = n.Received
				}
			}
			if diff := cmp.Diff(c.compass, got); diff != "" {
				t.Errorf("calls of Compass, want and got (-,+):\n%s", diff)
			}
			if diff := cmp.Diff(c.api, since(counts, w.counts())); diff != "" {
				t.Errorf("calls of the systems, want and got (-,+):\n%s", diff)
			}
		})
	}
}

func TestWhatCouldNotBeFoundOutIsNotCalledWrong(t *testing.T) {
	w := newWorld(t)
	role := w.reader()
	empty := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { // a Kubernetes without any resource
		if r.URL.Path != "/apis" && r.URL.Path != "/api" {
			http.NotFound(rw, r)
			return
		}
		rw.Header().Set("Content-Type", "application/json")
		_, _ = rw.Write([]byte(`{"kind":"APIGroupList","apiVersion":"v1","groups":[]}`))
	}))
	t.Cleanup(empty.Close)
	w.knows(hostOf(empty.URL), "EMPTY")
	nobody := closed(t)
	w.knows(nobody, "CLOSED")
	for _, c := range []struct {
		name string
		args []string
		code int
		says []string
		step string
	}{
		{"nobody is known by that name", []string{"--as", "nobody"}, 2, []string{"Cluster: you may not read what is needed: ", "; ask for the rights that docs/reference/appconn-doctor.md lists"}, doctor.StepCluster},
		{"Secrets may not be read", []string{w.application + "/orders", "--as", role}, 2, []string{"Configuration: you may not read what is needed: reading Secret NAMESPACE/compass-agent-configuration: "}, doctor.StepConfiguration},
		{"Secrets of APIs may not be read", []string{w.application + "/orders", "--as", role, "--standalone"}, 2, []string{"Credentials of shop/orders/orders-api: you may not read what is needed: "}, doctor.StepCredentials},
		{"no cluster answers", []string{"--server", "https://" + nobody}, 2, []string{"Cluster: the cluster cannot be read: ", "; is it the right --context, and does the server run?"}, doctor.StepCluster},
		{"the resource definitions are missing", []string{"--server", empty.URL}, 1, []string{"Cluster: the cluster does not have the resource definitions of Application Connector: ", "; apply manifests/crds, or choose another cluster by --context"}, doctor.StepCluster},
		{"there is no time", []string{"--timeout", "1ns"}, 2, []string{"Cluster: the time was over before this was looked at; run it again, for less at once, or with a longer --timeout"}, doctor.StepCluster},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.t = t
			r, out := w.report(c.args...)
			if out.code != c.code {
				t.Errorf("exit code %d, want %d", out.code, c.code)
			}
			for _, text := range c.says {
				if !strings.Contains(out.line, text) {
					t.Errorf("%q does not have %q", out.line, text)
				}
			}
			want := map[int]doctor.State{1: doctor.Wrong, 2: doctor.Unknown}[c.code]
			if i := slices.IndexFunc(r.Steps, func(s doctor.Step) bool { return s.Name == c.step }); i < 0 || r.Steps[i].State != want {
				t.Errorf("%s is not %s: %+v", c.step, want, r.Steps)
			}
		})
	}
}

// reader is a user who may read everything but Secrets with credentials.
func (w *world) reader() string {
	w.t.Helper()
	c, err := kubernetes.NewForConfig(&cluster)
	if err != nil {
		w.t.Fatal(err)
	}
	name := "reader-" + w.namespace
	role := &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{v1alpha1.GroupVersion.Group}, Resources: []string{"applications"}, Verbs: []string{"get", "list"}},
		{APIGroups: []string{compassv1alpha1.GroupVersion.Group}, Resources: []string{"compassconnections"}, Verbs: []string{"get"}},
		// Those of the edge, which are looked at before those of APIs.
		{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{"kyma-gateway-certs", "kyma-gateway-certs-cacert"}, Verbs: []string{"get"}},
	}}
	if _, err := c.RbacV1().ClusterRoles().Create(w.t.Context(), role, metav1.CreateOptions{}); err != nil {
		w.t.Fatal(err)
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name}},
	}
	if _, err := c.RbacV1().ClusterRoleBindings().Create(w.t.Context(), binding, metav1.CreateOptions{}); err != nil {
		w.t.Fatal(err)
	}
	return name
}

func TestASettingThatCannotBeMeantIsRefused(t *testing.T) {
	w := newWorld(t)
	missing := filepath.Join(t.TempDir(), "none")
	for _, c := range []struct {
		name string
		args []string
		env  map[string]string
		says string
	}{
		{"format", []string{"-o", "yaml"}, nil, `--output "yaml": one of text, json is needed`},
		{"too many names", []string{"a/b/c/d"}, nil, `"a/b/c/d": application, application/service or application/service/entry is needed, as in URLs of the gateway`},
		{"an empty name", []string{"a//c"}, nil, `"a//c": application, application/service or application/service/entry is needed, as in URLs of the gateway`},
		{"no time", []string{"--timeout", "0s"}, nil, "--timeout=0s: must be positive"},
		{"targets", []string{"--allowed-targets", "http://x"}, nil, `--allowed-targets: "http://x" is none of: an IP address such as 10.0.0.1, a range such as 10.0.0.0/8, a host name without a port`},
		{"authorities of APIs", []string{"--target-ca-file", missing}, nil, "--target-ca-file: open " + missing + ": no such file or directory"},
		{"authorities of Compass", nil, map[string]string{"APP_COMPASS_CA_FILE": missing}, "environment variable APP_COMPASS_CA_FILE: open " + missing + ": no such file or directory"},
		{"a variable of the agent", nil, map[string]string{"APP_CERT_MANAGER": "perhaps"}, `environment variable APP_CERT_MANAGER: "perhaps" is not true or false`},
		{"a kubeconfig", []string{"--kubeconfig", missing}, nil, "the kubeconfig cannot be used: stat " + missing + ": no such file or directory; name a file by --kubeconfig or KUBECONFIG, and a context in it by --context"},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := w.env
			w.t, w.env = t, c.env
			if out := w.examine(c.args...); out.code != 2 || out.line != c.says || out.stdout != "" {
				t.Errorf("exit code %d: %s\n%s", out.code, out.line, out.stdout)
			}
			w.env = before
		})
	}
}

func TestAnAPIThatOnlySomeMayCallIsLookedAtAllTheSame(t *testing.T) {
	w := newWorld(t)
	w.set(v1alpha1.TargetSettings{Target: "*", AllowedCallers: &v1alpha1.AllowedCallers{Namespaces: []string{"shops"}}})
	if out := w.examine(w.application+"/orders", "--standalone"); out.code != 0 {
		t.Error(out.line)
	}
}

func TestUnverifiedAndPlainConnectionsAreNamed(t *testing.T) {
	w := newWorld(t)
	w.flags = w.flags[1:] // the authority is not known
	w.sell(func(a *v1alpha1.Application) { a.Spec.SkipVerify = true })
	if out := w.examine(w.application+"/open", "--standalone"); out.code != 0 || !strings.Contains(out.stdout, "the certificate is NOT verified: whoever is on the way can read and change what is sent") {
		t.Error(out.line, out.stdout)
	}
	w.entry("Open", func(e *v1alpha1.Entry) { e.TargetURL = w.systems.HTTPURL() + "/api/none" })
	if out := w.examine(w.application+"/open", "--standalone"); out.code != 0 || !strings.Contains(out.stdout, "no TLS: whoever is on the way can read and change what is sent") {
		t.Error(out.line, out.stdout)
	}
}

func TestAConnectorAtAnotherPlaceIsReachedToo(t *testing.T) {
	w := newWorld(t)
	w.connect(func(c *compassv1alpha1.CompassConnection) { c.Spec.ManagementInfo.ConnectorURL = w.compass.TokenURL() })
	w.compass.Admin().ResetCounters()
	if out := w.examine(); out.code != 0 || !strings.Contains(out.stdout, "OK        Connector          CONNECTOR accepts connections, and finishes the handshake\n") {
		t.Error(out.line, out.stdout)
	}
	if n := w.compass.Admin().Counters().Operations["configuration"].Received; n != 0 {
		t.Errorf("the Connector was asked %d times", n)
	}
}

func TestWhatIsCutOffByTheTimeoutIsNotCalledWrong(t *testing.T) {
	w := newWorld(t)
	targeted("Open", func(w *world) string {
		return w.peer("SILENT", func(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }) // until the other side gives up
	})(w)
	r, out := w.report(w.application+"/open", "--standalone", "--timeout", "2s")
	if out.code != 2 {
		t.Errorf("exit code %d: %s", out.code, out.line)
	}
	for _, s := range r.Steps {
		if s.State == doctor.Wrong {
			t.Errorf("%s is wrong: %s", s.Name, s.Finding)
		}
	}
}

func TestWithinAClusterNamesOfItAreLookedUp(t *testing.T) {
	w := newWorld(t)
	w.env["KUBERNETES_SERVICE_HOST"] = "10.0.0.1"
	w.entry("Open", func(e *v1alpha1.Entry) { e.TargetURL = "http://stock.backend:8080/v1" })
	r, out := w.report(w.application + "/open")
	if r.From != doctor.FromCluster || out.code != 1 ||
		out.line != "TargetDNS of shop/open/items: the name stock.backend, of the API, does not exist; correct targetUrl of the entry, or the DNS" {
		t.Errorf("from %s, exit code %d: %s", r.From, out.code, out.line)
	}
}

package gateway_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/gateway"
	"github.com/application-connector/application-connector/gateway/conditions"
)

// condition waits for RoutesReady with a reason and for this generation.
func (h *harness) condition(app *v1alpha1.Application, reason string) metav1.Condition {
	h.t.Helper()
	var found *metav1.Condition
	h.eventually(app.Name+" has the reason "+reason, func() error {
		var now v1alpha1.Application
		if err := h.kube.Get(context.Background(), client.ObjectKeyFromObject(app), &now); err != nil {
			return err
		}
		found = apimeta.FindStatusCondition(now.Status.Conditions, v1alpha1.ConditionRoutesReady)
		return expect(found != nil && found.Reason == reason && found.ObservedGeneration == now.Generation, "%+v", found)
	})
	return *found
}

func TestEachApplicationSaysWhetherItsAPIsCanBeCalled(t *testing.T) {
	h := start(t)
	h.secret("good", map[string]string{"username": "u", "password": "p"})
	h.secret("partial", map[string]string{"username": "u"})
	h.secret("bad-pem", map[string]string{"crt": "canary", "key": "canary"})
	h.secret("bad-json", map[string]string{"headers": "canary"})
	h.secret("oauth", map[string]string{"clientId": "c", "clientSecret": "s"})
	const url = "http://127.0.0.1:1/"
	ready := func(reason, message string) metav1.Condition {
		return metav1.Condition{Type: "RoutesReady", Status: metav1.ConditionTrue, ObservedGeneration: 1, Reason: reason, Message: message}
	}
	broken := func(reason, message string) metav1.Condition {
		return metav1.Condition{Type: "RoutesReady", Status: metav1.ConditionFalse, ObservedGeneration: 1, Reason: reason, Message: `service "svc", entry "svc api": ` + message}
	}
	twin := api("svc", url)
	twin.Entries = append(twin.Entries, twin.Entries[0])
	for name, c := range map[string]struct {
		service v1alpha1.Service
		change  func(*v1alpha1.ApplicationSpec)
		want    metav1.Condition
	}{
		"ready":            {service: api("svc", url, with("Basic", "good", "")), want: ready("Ready", "1 APIs can be called")},
		"verification-off": {service: api("svc", url), change: func(s *v1alpha1.ApplicationSpec) { s.SkipVerify = true }, want: ready("VerificationOff", "1 APIs can be called, without verification of TLS certificates (spec.skipVerify): whoever stands between can read credentials")},
		"no-apis":          {service: v1alpha1.Service{ID: "i", Name: "svc", Entries: []v1alpha1.Entry{{Type: "Events"}}}, want: ready("NoAPIs", "the Application has no entry of type API")},
		"secret-missing":   {service: api("svc", url, with("Basic", "absent", "")), want: broken("SecretMissing", "Secret absent, named by credentials.secretName, does not exist")},
		"secret-unnamed":   {service: api("svc", url, with("Basic", "", "")), want: broken("SecretMissing", "credentials.secretName is empty: name the Secret that holds the credentials")},
		"key-missing":      {service: api("svc", url, with("Basic", "partial", "")), want: broken("KeyMissing", "Secret partial: key password is missing")},
		"bad-pem":          {service: api("svc", url, with("CertificateGen", "bad-pem", "")), want: broken("CertificateInvalid", "Secret bad-pem: keys crt and key: tls: failed to find any PEM data in certificate input")},
		"bad-json":         {service: api("svc", url, withParameters("bad-json")), want: broken("ParametersInvalid", `Secret bad-json: key headers is not a JSON object of lists of strings, such as {"name":["value"]}`)},
		"type-unknown":     {service: api("svc", url, with("Kerberos", "good", "")), want: broken("TypeUnknown", `credentials.type "Kerberos" is not known: use None, NoAuth, Basic, OAuth, OAuthWithCert or CertificateGen`)},
		"target-invalid":   {service: api("svc", "example.com/x"), want: broken("TargetInvalid", "targetUrl is not an absolute URL with scheme http or https")},
		"token-url":        {service: api("svc", url, with("OAuth", "oauth", "")), want: broken("TokenURLInvalid", "credentials.authenticationUrl is not an absolute URL with scheme http or https")},
		"csrf-url":         {service: api("svc", url, with("Basic", "good", ""), withCSRF("nowhere")), want: broken("CSRFURLInvalid", "credentials.csrfInfo.tokenEndpointURL is not an absolute URL with scheme http or https")},
		"ambiguous":        {service: twin, want: broken("Ambiguous", "several APIs are called /svc/svc-api in URLs: give services other displayNames, or entries other names")},
	} {
		t.Run(name, func(t *testing.T) {
			spec := v1alpha1.ApplicationSpec{Services: []v1alpha1.Service{c.service}}
			if c.change != nil {
				c.change(&spec)
			}
			app := h.application("condition-"+name, spec)
			got := h.condition(app, c.want.Reason)
			if diff := cmp.Diff(c.want, got, cmpopts.IgnoreFields(metav1.Condition{}, "LastTransitionTime")); diff != "" {
				t.Error(diff)
			}
			if got.LastTransitionTime.IsZero() {
				t.Error("no time")
			}
		})
	}
	if log := h.log.String(); strings.Contains(log, "canary") {
		t.Error("a Secret's content is in the log")
	}
}

func TestTheConditionFollowsTheSecretAndIsOwnedByTheGateway(t *testing.T) {
	h := start(t)
	app := h.application("follows", v1alpha1.ApplicationSpec{Services: []v1alpha1.Service{api("svc", "http://127.0.0.1:1/", with("Basic", "s", ""))}})
	h.condition(app, "SecretMissing")
	h.secret("s", map[string]string{"username": "u", "password": "p"})
	h.condition(app, "Ready")
	var now v1alpha1.Application
	if err := h.kube.Get(context.Background(), client.ObjectKeyFromObject(app), &now); err != nil {
		t.Fatal(err)
	}
	owners := map[string]string{}
	for _, f := range now.ManagedFields {
		owners[f.Manager] = string(f.Operation) + " " + f.Subresource
	}
	if owners[conditions.FieldOwner] != "Apply status" {
		t.Errorf("%v", owners)
	}
	// Another writer's condition stays, and a removed one comes back.
	other := metav1.Condition{Type: "Synchronized", Status: metav1.ConditionTrue, Reason: "Synced", LastTransitionTime: metav1.Now()}
	now.Status.Conditions = []metav1.Condition{other}
	if err := h.kube.Status().Update(context.Background(), &now); err != nil {
		t.Fatal(err)
	}
	h.condition(app, "Ready")
	if err := h.kube.Get(context.Background(), client.ObjectKeyFromObject(app), &now); err != nil {
		t.Fatal(err)
	}
	if apimeta.FindStatusCondition(now.Status.Conditions, "Synchronized") == nil {
		t.Error("the other writer's condition is gone")
	}
	version := now.ResourceVersion
	// A quiet gateway writes nothing: a later change of another Application is handled, this one stays as it was.
	h.condition(h.application("follows-too", v1alpha1.ApplicationSpec{}), "NoAPIs")
	if err := h.kube.Get(context.Background(), client.ObjectKeyFromObject(app), &now); err != nil {
		t.Fatal(err)
	}
	if now.ResourceVersion != version {
		t.Error("the condition was written again without a change")
	}
}

func TestTheReplicaWithTheLeaseWritesAndAnotherTakesOver(t *testing.T) {
	clientset, err := kubernetes.NewForConfig(&cluster)
	if err != nil {
		t.Fatal(err)
	}
	h := start(t)
	holder := func() (string, error) {
		l, err := clientset.CoordinationV1().Leases(h.namespace).Get(context.Background(), conditions.LeaseName, metav1.GetOptions{})
		if err != nil {
			return "", err
		}
		return ptr.Deref(l.Spec.HolderIdentity, ""), nil
	}
	var first string
	h.eventually("the only gateway holds the Lease", func() error {
		var err error
		first, err = holder()
		return errors.Join(err, expect(first != "", "nobody does"))
	})
	// The second one comes when the Lease is taken, so it is certain which one holds it.
	second := start(t, func(o *gateway.Options) { o.SecretsNamespace = h.namespace })
	second.condition(second.application("lease-one", v1alpha1.ApplicationSpec{}), "NoAPIs")
	if now, err := holder(); err != nil || now != first {
		t.Fatalf("%s held the Lease, now %s does: %v", first, now, err)
	}
	if err := h.stop(); err != nil {
		t.Fatal(err)
	}
	second.condition(second.application("lease-two", v1alpha1.ApplicationSpec{}), "NoAPIs")
	if now, err := holder(); err != nil || now == "" || now == first {
		t.Errorf("the Lease is held by %q, it was by %q: %v", now, first, err)
	}
}

func aCallInFlightFinishesWhenTheGatewayEnds(t *testing.T) {
	h := start(t)
	arrived, finish := make(chan struct{}), make(chan struct{})
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(arrived)
		<-finish
		io.WriteString(w, "whole")
	}))
	defer target.Close()
	h.application("drain", v1alpha1.ApplicationSpec{Services: []v1alpha1.Service{api("svc", target.URL)}})
	got := make(chan string, 1)
	go func() {
		a, err := h.try(http.MethodGet, h.addresses.Services, "/drain/svc", nil)
		got <- fmt.Sprint(a.Status, a.Body, err)
	}()
	<-arrived
	ended := make(chan error, 1)
	go func() { ended <- h.stop() }()
	h.eventually("the gateway says that it is ending, and still answers", func() error {
		a, err := h.try(http.MethodGet, h.addresses.Admin, "/readyz", nil)
		if err != nil {
			return err
		}
		return expect(a.Status == 503 && a.problem(t) == "the gateway is ending", "%+v", a)
	})
	close(finish)
	if a := <-got; a != "200whole<nil>" {
		t.Errorf("the call in flight got %s", a)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestTheAdminPortAnswersAsAgreed(t *testing.T) {
	h := start(t)
	const jsonType, textType = "application/json;charset=UTF-8", "text/plain; charset=utf-8"
	const notFound = `{"code":404,"error":"Requested resource could not be found."}` + "\n"
	const notAllowed = `{"code":405,"error":"Method not allowed."}` + "\n"
	for _, c := range []struct {
		request, kind, body string
		status              int
		wantType, want      string
	}{
		{"GET /v1/health", "", "", 200, "", ""},
		{"HEAD /v1/health", "", "", 405, jsonType, ""},
		{"POST /v1/health", "", "", 405, jsonType, notAllowed},
		{"GET /v1/loglevel", "", "", 200, textType, `{"level":"debug"}` + "\n"},
		{"PUT /v1/loglevel", "", `{"level":"warn"}`, 200, textType, `{"level":"warn"}` + "\n"},
		{"PUT /v1/loglevel", "application/json", `{"level":"DEBUG"}`, 200, textType, `{"level":"debug"}` + "\n"},
		{"PUT /v1/loglevel", "application/x-www-form-urlencoded", "level=info", 200, textType, `{"level":"info"}` + "\n"},
		{"PUT /v1/loglevel", "application/x-www-form-urlencoded", "", 400, textType, `{"error":"must specify logging level"}` + "\n"},
		{"PUT /v1/loglevel", "", `{"level":"bogus"}`, 400, textType, `{"error":"malformed request body: unrecognized level: \"bogus\""}` + "\n"},
		{"PUT /v1/loglevel", "", `{}`, 400, textType, `{"error":"must specify logging level"}` + "\n"},
		{"PUT /v1/loglevel", "", `{`, 400, textType, `{"error":"malformed request body: unexpected end of JSON input"}` + "\n"},
		{"POST /v1/loglevel", "", `{}`, 405, jsonType, notAllowed},
		{"GET /v1/loglevel", "", "", 200, textType, `{"level":"info"}` + "\n"},
		{"GET /other", "", "", 404, jsonType, notFound},
		{"GET /v1/health/", "", "", 404, jsonType, notFound},
		{"GET //v1/health", "", "", 301, "text/html; charset=utf-8", "<a href=\"/v1/health\">Moved Permanently</a>.\n\n"},
		{"GET /livez", "", "", 200, "", ""},
		{"GET /readyz", "", "", 200, "", ""},
	} {
		method, path, _ := strings.Cut(c.request, " ")
		header := []string{}
		if c.kind != "" {
			header = []string{"Content-Type", c.kind}
		}
		a := h.do(method, h.addresses.Admin, path, strings.NewReader(c.body), header...)
		if a.Status != c.status || a.Header.Get("Content-Type") != c.wantType || a.Body != c.want {
			t.Errorf("%s %q: %d %q %q, want %d %q %q", c.request, c.body, a.Status, a.Header.Get("Content-Type"), a.Body, c.status, c.wantType, c.want)
		}
	}
}

func metricsCountCallsByRouteAndSource(t *testing.T) {
	h := start(t)
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/token") {
			io.WriteString(w, `{"access_token":"t"}`)
		}
		switch {
		case strings.HasSuffix(r.URL.Path, "/session"):
			w.Header().Set("X-Csrf-Token", "t")
		case strings.HasSuffix(r.URL.Path, "/500"):
			w.WriteHeader(500)
		case strings.HasSuffix(r.URL.Path, "/made-up"):
			w.WriteHeader(288)
		}
	}))
	defer target.Close()
	h.secret("s", map[string]string{"clientId": "c", "clientSecret": "s"})
	h.secret("basic", map[string]string{"username": "u", "password": "p"})
	h.application("counted", v1alpha1.ApplicationSpec{SkipVerify: true, Services: []v1alpha1.Service{
		api("Some API", target.URL), api("oauth", target.URL, with("OAuth", "s", target.URL+"/token")), api("broken", target.URL, with("Basic", "absent", "")),
		api("csrf", target.URL, withCSRF(target.URL+"/session"), with("Basic", "basic", "")), api("no csrf", target.URL, withCSRF(target.URL+"/500"), with("Basic", "basic", "")),
	}})
	h.get("/counted/some-api")
	h.get("/counted/some-api/500")
	h.do(http.MethodGet, h.addresses.Entries, "/counted/some-api/some-api-api", nil)
	h.get("/counted/oauth")
	h.get("/counted/broken")
	h.get("/counted/some-api/made-up")
	h.get("/counted/csrf")
	h.get("/counted/csrf")
	h.get("/counted/no-csrf")
	h.get("/made/up")
	var text string
	h.eventually("the calls have ended", func() error {
		text = h.do(http.MethodGet, h.addresses.Admin, "/metrics", nil).Body
		return expect(strings.Contains(text, "\ncentral_application_gateway_requests_in_flight 0\n"), "calls are in flight")
	})
	for _, line := range []string{
		`central_application_gateway_requests_total{application="counted",code="200",entry="",service="some-api",source="none"} 1`,
		`central_application_gateway_requests_total{application="counted",code="200",entry="some-api-api",service="some-api",source="none"} 1`,
		`central_application_gateway_requests_total{application="counted",code="502",entry="",service="some-api",source="target"} 1`,
		`central_application_gateway_requests_total{application="counted",code="500",entry="",service="broken",source="gateway"} 1`,
		`central_application_gateway_requests_total{application="",code="404",entry="",service="",source="caller"} 1`,
		`central_application_gateway_requests_total{application="counted",code="2xx",entry="",service="some-api",source="none"} 1`,
		`central_application_gateway_requests_total{application="counted",code="200",entry="",service="csrf",source="none"} 2`,
		`central_application_gateway_requests_total{application="counted",code="502",entry="",service="no-csrf",source="credentials"} 1`,
		`central_application_gateway_token_fetches_total{result="success",type="OAuth"} 1`,
		`central_application_gateway_csrf_fetches_total{result="success"} 1`,
		`central_application_gateway_csrf_fetches_total{result="failure"} 1`,
		`central_application_gateway_route_problems{reason="SecretMissing"} 1`,
		`central_application_gateway_applications_without_tls_verification 1`,
		`central_application_gateway_errors_total{application="counted",entry="",reason="TargetFailed",service="some-api"} 1`,
		`central_application_gateway_errors_total{application="",entry="",reason="NotFound",service=""} 1`,
		`central_application_gateway_cache_lookups_total{cache="token",result="miss"} 1`,
		`central_application_gateway_cache_entries{cache="token"} 1`,
		`central_application_gateway_cache_lookups_total{cache="csrf",result="miss"} 2`,
		`central_application_gateway_cache_lookups_total{cache="csrf",result="hit"} 1`,
		`central_application_gateway_cache_entries{cache="csrf"} 1`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("no line %s", line)
		}
	}
	if !strings.Contains(h.log.String(), "TLS verification is off for this Application") {
		t.Error("the log does not say that verification is off")
	}
}

func TestWhatKeepsTheGatewayFromStartingIsOneLine(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	dir := t.TempDir()
	nonsense := filepath.Join(dir, "nonsense")
	if err := os.WriteFile(nonsense, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	absent := filepath.Join(dir, "absent")
	t.Setenv("KUBECONFIG", "")
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"-foo"}, "flag provided but not defined: -foo: see -help"},
		{[]string{"surplus"}, `unexpected argument "surplus": only flags are taken, see -help`},
		{[]string{"-proxyPort=x"}, `invalid value "x" for flag -proxyPort: parse error: see -help`},
		{[]string{"--proxyPort=70000", "--proxyTimeout=0"}, "-proxyPort=70000: use a port from 0 to 65535; -proxyTimeout=0: use whole seconds from 1 to 86400"},
		{[]string{"-requestTimeout", "-1"}, "-requestTimeout=-1: use whole seconds from 0 to 86400"},
		{[]string{"-drainDelay", "-1s"}, "-drainDelay=-1s: use a time from 0s to 1h0m0s"},
		{[]string{"-listenAddress=127.0.0.1:80"}, `-listenAddress="127.0.0.1:80": use an IP address without a port, for example 127.0.0.1`},
		{[]string{"-applicationSecretsNamespace="}, "-applicationSecretsNamespace is empty: name the namespace of the Secrets, for example kyma-system"},
		{[]string{"-allowedTargets=127.0.0.1:80"}, `-allowedTargets: "127.0.0.1:80" is none of: an IP address such as 10.0.0.1, a range such as 10.0.0.0/8, a host name without a port`},
		{[]string{"-logLevel=loud"}, `-logLevel="loud": use debug, info, warn, error, dpanic, panic or fatal`},
		{[]string{"-targetCAFile=" + absent}, "-targetCAFile: open " + absent + ": no such file or directory"},
		{[]string{"-targetCAFile=" + nonsense}, "-targetCAFile: " + nonsense + " holds no certificate in PEM form"},
		{[]string{"-kubeConfig=" + absent}, `kubeconfig "` + absent + `": stat ` + absent + ": no such file or directory"},
		{[]string{"-kubeConfig=" + nonsense}, `kubeconfig "` + nonsense + `": *`},
		{nil, "no Kubernetes cluster: set -kubeConfig or $KUBECONFIG, or run in a cluster: *"},
		{[]string{"-apiServerURL=http://127.0.0.1:1", "-listenAddress=127.0.0.1", "-externalAPIPort=" + port, "-proxyPort=0", "-proxyPortCompass=0"}, "port " + port + " cannot be opened, choose another one by a flag or end what uses it: listen tcp 127.0.0.1:" + port + ": bind: address already in use"},
	} {
		var stderr bytes.Buffer
		code := gateway.Main(c.args, &stderr)
		want, open := strings.CutSuffix("gateway: "+c.want, "*")
		got := stderr.String()
		if code != 1 || strings.Count(got, "\n") != 1 || (open && !strings.HasPrefix(got, want)) || (!open && got != want+"\n") {
			t.Errorf("%v: exit code %d, %q, want %q", c.args, code, got, want)
		}
	}
	var stderr bytes.Buffer
	if code := gateway.Main([]string{"-help"}, &stderr); code != 0 || !strings.Contains(stderr.String(), "-targetCAFile") {
		t.Errorf("-help: %d %s", code, stderr.String())
	}
}

func TestWithoutAnAPIServerTheGatewayStartsIsNotReadyAndRefuses(t *testing.T) {
	config := clientcmdapi.NewConfig()
	config.Clusters["c"] = &clientcmdapi.Cluster{Server: "http://127.0.0.1:1"}
	config.Contexts["c"] = &clientcmdapi.Context{Cluster: "c"}
	config.CurrentContext = "c"
	file := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, file); err != nil {
		t.Fatal(err)
	}
	h := prepare(t, func(o *gateway.Options) { o.Config, o.KubeConfig = nil, file })
	h.run()
	if a := h.do(http.MethodGet, h.addresses.Admin, "/readyz", nil); a.Status != 503 || a.problem(t) != "the Applications and their Secrets have not been read yet" {
		t.Errorf("%+v", a)
	}
	if a := h.do(http.MethodGet, h.addresses.Admin, "/v1/health", nil); a.Status != 200 {
		t.Errorf("%+v", a)
	}
	if a := h.get("/app/svc"); a.Status != 500 {
		t.Errorf("%+v", a)
	}
}

func TestCallsGoOnWhileTheAPIServerIsAway(t *testing.T) {
	front := newFront(t, cluster.Host)
	h := start(t, func(o *gateway.Options) {
		config := *o.Config
		config.Host = front.address
		o.Config = &config
	})
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Header.Get("Authorization")) }))
	defer target.Close()
	h.secret("s", map[string]string{"username": "u", "password": "old"})
	h.application("away", v1alpha1.ApplicationSpec{Services: []v1alpha1.Service{api("svc", target.URL, with("Basic", "s", ""))}})
	front.close()
	h.secret("s", map[string]string{"username": "u", "password": "new"})
	for range 50 {
		if a := h.get("/away/svc"); a.Status != 200 || a.Body != "Basic "+base64Of("u:old") {
			t.Fatalf("%+v", a)
		}
	}
	if a := h.do(http.MethodGet, h.addresses.Admin, "/readyz", nil); a.Status != 200 {
		t.Errorf("not ready: %+v", a)
	}
	front.open()
	h.eventually("the change arrives", func() error {
		a := h.get("/away/svc")
		return expect(a.Body == "Basic "+base64Of("u:new"), "%+v", a)
	})
}

func TestNoCallFailsWhileTheAPIServerIsAwayFor20Seconds(t *testing.T) {
	underLoadWithoutAPIServer(t, 20*time.Second)
}

func TestSoakNoCallFailsWhileTheAPIServerIsAwayForFiveMinutes(t *testing.T) {
	if os.Getenv("APPCONN_SOAK") == "" {
		t.Skip(`it takes five minutes: run it by "make soak", or with APPCONN_SOAK=1`)
	}
	underLoadWithoutAPIServer(t, 5*time.Minute)
}

// underLoadWithoutAPIServer takes the API server away from a gateway under load, for a time that is what the test is about;
// then a change must arrive that was made meanwhile, to an Application and to a Secret.
func underLoadWithoutAPIServer(t *testing.T, away time.Duration) {
	front := newFront(t, cluster.Host)
	h := start(t, func(o *gateway.Options) {
		config := *o.Config
		config.Host = front.address
		o.Config = &config
	})
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Header.Get("Authorization")) }))
	defer target.Close()
	h.secret("s", map[string]string{"username": "u", "password": "old"})
	app := h.application("stopped", v1alpha1.ApplicationSpec{Services: []v1alpha1.Service{api("svc", target.URL, with("Basic", "s", ""))}})
	before, after := "Basic "+base64Of("u:old"), "Basic "+base64Of("u:new")

	ctx, cancel := context.WithCancel(context.Background())
	var calls atomic.Int64
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for range 10 {
		wg.Go(func() {
			tick := time.NewTicker(20 * time.Millisecond) // 500 calls a second by all
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
				}
				a, err := h.try(http.MethodGet, h.addresses.Services, "/stopped/svc", nil)
				calls.Add(1)
				if err != nil || a.Status != http.StatusOK || a.Body != before && a.Body != after {
					t.Errorf("call %d: %+v %v", calls.Load(), a, err)
					return
				}
			}
		})
	}
	h.eventually("calls are made", func() error { return expect(calls.Load() > 100, "%d", calls.Load()) })
	front.close()
	end := time.After(away)
	h.secret("s", map[string]string{"username": "u", "password": "new"})
	unchanged := client.MergeFrom(app.DeepCopy()) // the gateway has written the status meanwhile
	app.Spec.Services = append(app.Spec.Services, api("second", target.URL))
	if err := h.kube.Patch(context.Background(), app, unchanged); err != nil {
		t.Fatal(err)
	}
	<-end
	if a := h.get("/stopped/svc"); a.Body != before {
		t.Errorf("the API server is not away: %+v", a)
	}
	if a := h.do(http.MethodGet, h.addresses.Admin, "/readyz", nil); a.Status != 200 {
		t.Errorf("not ready: %+v", a)
	}
	without := calls.Load()
	front.open()
	h.eventually("the changed Secret arrives", func() error {
		a := h.get("/stopped/svc")
		return expect(a.Body == after, "%+v", a)
	})
	h.eventually("the changed Application arrives", func() error {
		a := h.get("/stopped/second")
		return expect(a.Status == 200, "%+v", a)
	})
	cancel()
	wg.Wait()
	t.Logf("%d calls, of which about %d without an API server for %s", calls.Load(), without, away)
}

// front is a TCP forwarder before the API server that can be closed and opened.
type front struct {
	t                   *testing.T
	backend, address    string
	listener            net.Listener
	connections         chan net.Conn
	scheme, bareAddress string
}

func newFront(t *testing.T, host string) *front {
	scheme, backend, ok := strings.Cut(host, "://")
	if !ok {
		t.Fatalf("%s is no URL", host)
	}
	f := &front{t: t, backend: backend, scheme: scheme, connections: make(chan net.Conn, 1000), bareAddress: "127.0.0.1:0"}
	f.open()
	t.Cleanup(f.close)
	return f
}

func (f *front) open() {
	l, err := net.Listen("tcp", f.bareAddress)
	if err != nil {
		f.t.Fatal(err)
	}
	f.listener, f.bareAddress = l, l.Addr().String()
	f.address = f.scheme + "://" + f.bareAddress
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			back, err := net.Dial("tcp", f.backend)
			if err != nil {
				conn.Close()
				continue
			}
			f.connections <- conn
			f.connections <- back
			go func() { _, _ = io.Copy(conn, back); conn.Close() }()
			go func() { _, _ = io.Copy(back, conn); back.Close() }()
		}
	}()
}

func (f *front) close() {
	_ = f.listener.Close()
	for {
		select {
		case c := <-f.connections:
			_ = c.Close()
		case <-time.After(100 * time.Millisecond): // an Accept that was under way has handed its connections over
			return
		}
	}
}

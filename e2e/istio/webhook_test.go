package istio

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"istio.io/istio/pkg/config/schema/collections"
	"istio.io/istio/pkg/webhooks/validation/server"
	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// answer is what Istio's webhook says of an object.
type answer struct {
	Allowed  bool
	Why      string
	Warnings []string
}

// admission asks Istio's webhook, as the API server does before it stores an object.
func admission(t *testing.T, o object) answer {
	t.Helper()
	mux := http.NewServeMux()
	if _, err := server.New(server.Options{Schemas: collections.Istio, DomainSuffix: "cluster.local", Mux: mux}); err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(o.Object)
	if err != nil {
		t.Fatal(err)
	}
	kind := o.GroupVersionKind()
	review, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID: "1", Operation: admissionv1.Create, Namespace: o.GetNamespace(), Name: o.GetName(),
			Kind:   metav1.GroupVersionKind{Group: kind.Group, Version: kind.Version, Kind: kind.Kind},
			Object: runtime.RawExtension{Raw: raw},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/validate", bytes.NewReader(review))
	request.Header.Set("Content-Type", "application/json")
	recorder := httptest.NewRecorder()
	mux.ServeHTTP(recorder, request)
	var got admissionv1.AdmissionReview
	if err := json.Unmarshal(recorder.Body.Bytes(), &got); err != nil || got.Response == nil {
		t.Fatalf("the webhook answered %d %q: %v", recorder.Code, recorder.Body, err)
	}
	a := answer{Allowed: got.Response.Allowed, Warnings: got.Response.Warnings}
	if got.Response.Result != nil {
		a.Why = got.Response.Result.Message
	}
	return a
}

func TestIstiosWebhookAcceptsEachObjectWithoutAWarning(t *testing.T) {
	withoutAgent := []string{
		"AuthorizationPolicy kyma-system/central-application-connectivity-validator",
		"AuthorizationPolicy kyma-system/central-application-gateway",
		"DestinationRule kyma-system/central-application-connectivity-validator",
		"Gateway kyma-system/kyma-gateway-application-connector",
		"PeerAuthentication kyma-system/central-application-connectivity-validator",
		"PeerAuthentication kyma-system/central-application-gateway",
		"VirtualService kyma-system/central-application-connectivity-validator",
	}
	want := map[string][]string{
		"overlays/standalone": withoutAgent,
		"overlays/compass": append([]string{
			"AuthorizationPolicy kyma-system/compass-runtime-agent",
			"PeerAuthentication kyma-system/compass-runtime-agent",
		}, withoutAgent...),
	}
	for _, overlay := range overlays {
		t.Run(overlay, func(t *testing.T) {
			var asked []string
			for _, o := range rendered(t, overlay) {
				if !o.ofIstio() {
					continue
				}
				asked = append(asked, o.String())
				if diff := cmp.Diff(answer{Allowed: true}, admission(t, o)); diff != "" {
					t.Errorf("%s (-want +got):\n%s", o, diff)
				}
			}
			slices.Sort(asked)
			slices.Sort(want[overlay])
			if diff := cmp.Diff(want[overlay], asked); diff != "" {
				t.Errorf("objects (-want +got):\n%s", diff)
			}
		})
	}
}

func TestIstiosWebhookRefusesOurObjectsWithAMistake(t *testing.T) {
	for name, c := range map[string]struct{ kind, right, wrong, why string }{
		"a Gateway that asks for client certificates without its own": {
			"Gateway", "credentialName: kyma-gateway-certs", "privateKey: \"\"", "MUTUAL TLS requires a client CA bundle",
		},
		"a Gateway with a host that is none": {
			"Gateway", "./gateway.kyma.example.com", "./gateway..example.com", `domain name ".example.com" invalid`,
		},
		"a VirtualService with a path that is no regular expression": {
			"VirtualService", "^/[^/]+/v1/events(/|/.*)?", "^/[^/+/v1/events(/|/.*)?", "missing closing ]",
		},
		"a VirtualService that repeats a negative number of times": {
			"VirtualService", "attempts: 0", "attempts: -1", "attempts cannot be negative",
		},
		"a DestinationRule without a host": {
			"DestinationRule", "host: central-application-connectivity-validator.kyma-system.svc.cluster.local", "host: \"\"", "empty domain name not allowed",
		},
		"an AuthorizationPolicy with a port that is none": {
			"AuthorizationPolicy", "\"8080\"", "\"eighty\"", "bad port (eighty)",
		},
		"a PeerAuthentication with settings of port 0": {
			"PeerAuthentication", "\"8081\":", "\"0\":", "port must be in range 1..65535",
		},
		"a PeerAuthentication with an unknown mode": {
			"PeerAuthentication", "mode: STRICT", "mode: STRICTER", "unknown value",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var mistaken bool
			for _, o := range rendered(t, "overlays/standalone") {
				if o.GetKind() != c.kind || o.GetName() == "central-application-gateway" || !strings.Contains(o.text, c.right) {
					continue
				}
				mistaken = true
				got := admission(t, objects(t, strings.ReplaceAll(o.text, c.right, c.wrong))[0])
				if got.Allowed || !strings.Contains(got.Why, c.why) {
					t.Errorf("the answer is %+v, and should refuse it for %q", got, c.why)
				}
			}
			if !mistaken {
				t.Errorf("no %s has %q, where the mistake was to be made", c.kind, c.right)
			}
		})
	}
}

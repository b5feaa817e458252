package gateway_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/gateway"
)

// secretRequests stands between a gateway and the API server, and notes what is asked about Secrets.
type secretRequests struct {
	mu      sync.Mutex
	reads   []string     // names, in order
	lists   int          // lists, and watches that begin with one
	told    bytes.Buffer // what came of lists and watches
	others  []string     // anything else
	watches []io.Closer
	// instead, if set, answers in place of the API server; nil and nil leave it to that.
	instead func(*http.Request) (*http.Response, error)
}

// between makes a gateway ask through it.
func (s *secretRequests) between(o *gateway.Options) {
	o.Config = rest.CopyConfig(o.Config)
	collection := "/api/v1/namespaces/" + o.SecretsNamespace + "/secrets"
	o.Config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) {
			if !strings.Contains(r.URL.Path, "/secrets") {
				return next.RoundTrip(r)
			}
			name, one := strings.CutPrefix(r.URL.Path, collection+"/")
			s.mu.Lock()
			switch {
			case one && r.Method == http.MethodGet:
				s.reads = append(s.reads, name)
			case r.Method == http.MethodGet && r.URL.Path == collection:
				if listing(r) {
					s.lists++
				}
			default:
				s.others = append(s.others, r.Method+" "+r.URL.String()+" "+r.Header.Get("Accept"))
			}
			instead := s.instead
			s.mu.Unlock()
			if instead != nil {
				if response, err := instead(r); response != nil || err != nil {
					return response, err
				}
			}
			response, err := next.RoundTrip(r)
			if err == nil && !one {
				s.mu.Lock()
				if r.URL.Query().Has("watch") {
					s.watches = append(s.watches, response.Body)
				}
				s.mu.Unlock()
				response.Body = &overheard{response.Body, s}
			}
			return response, err
		})
	})
}

// listing says whether a request is for all Secrets, and not only for changes.
func listing(r *http.Request) bool {
	return !r.URL.Query().Has("watch") || r.URL.Query().Get("sendInitialEvents") == "true"
}

// overheard is a body that is noted as it is read.
type overheard struct {
	io.ReadCloser
	by *secretRequests
}

func (o *overheard) Read(p []byte) (int, error) {
	n, err := o.ReadCloser.Read(p)
	o.by.mu.Lock()
	defer o.by.mu.Unlock()
	o.by.told.Write(p[:n])
	return n, err
}

func (s *secretRequests) answer(instead func(*http.Request) (*http.Response, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.instead = instead
}

func (s *secretRequests) read() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.reads)
}

func (s *secretRequests) listed() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lists
}

// cut ends all watches.
func (s *secretRequests) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range s.watches {
		_ = w.Close() // one that has ended already is none
	}
	s.watches = nil
}

// status is an answer of an API server that gives nothing.
func status(r *http.Request, code int, reason metav1.StatusReason) *http.Response {
	return &http.Response{
		StatusCode: code, Header: http.Header{"Content-Type": {"application/json"}}, Request: r,
		Body: io.NopCloser(strings.NewReader(`{"kind":"Status","apiVersion":"v1","status":"Failure","message":"not now","reason":"` + string(reason) + `"}`)),
	}
}

func TestSecretsAreWatchedByMetadataAndReadOnlyIfTheyAreNamedAndWhenTheyChange(t *testing.T) {
	var asked secretRequests
	h := prepare(t, func(o *gateway.Options) { asked.between(o) })
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Header.Get("Authorization")) }))
	defer target.Close()
	password := func(p string) map[string]string { return map[string]string{"username": "u", "password": "canary-" + p} }
	for _, name := range []string{"first", "second", "unnamed"} {
		h.secret(name, password("1"))
	}
	app := &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Name: "reads"}, Spec: v1alpha1.ApplicationSpec{Services: []v1alpha1.Service{api("a", target.URL, with("Basic", "first", ""))}}}
	if err := h.kube.Create(context.Background(), app); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.kube.Delete(context.Background(), app); err != nil {
			t.Error(err)
		}
	})
	h.run()
	h.eventually("the gateway is ready", h.gateway.Ready)
	inForce := func(service, p string) {
		t.Helper()
		h.eventually("the password of "+service+" is "+p, func() error {
			a := h.get("/reads/" + service)
			return expect(a.Body == "Basic "+base64Of("u:canary-"+p), "%+v", a)
		})
	}
	change := func(services ...v1alpha1.Service) {
		t.Helper()
		unchanged := client.MergeFrom(app.DeepCopy()) // the gateway has written the status meanwhile
		app.Spec.Services = services
		if err := h.kube.Patch(context.Background(), app, unchanged); err != nil {
			t.Fatal(err)
		}
		h.known(app)
	}
	want := []string{"first"}
	check := func(step string) {
		t.Helper()
		if diff := cmp.Diff(want, asked.read()); diff != "" {
			t.Fatalf("%s: %s", step, diff)
		}
	}
	// Events of one watch come in order: what is in force says that all before it was looked at.
	inForce("a", "1")
	check("at the beginning")
	h.secret("unnamed", password("2"))
	h.secret("first", password("2"))
	inForce("a", "2")
	want = append(want, "first")
	check("a named one and another one changed")
	a, b := app.Spec.Services[0], api("b", target.URL, with("Basic", "first", ""))
	change(a, b)
	check("another API names the same one")
	change(b, api("c", target.URL, with("Basic", "second", "")))
	want = append(want, "second")
	check("another one is named")
	change(api("c", target.URL, with("Basic", "second", "")))
	h.secret("first", password("3"))
	h.secret("second", password("3"))
	inForce("c", "3")
	want = append(want, "second")
	check("one is named no more, and changed")

	// All is listed anew, and so the gateway is told of all Secrets, changed or not.
	lists := asked.listed()
	asked.answer(func(r *http.Request) (*http.Response, error) {
		if !listing(r) {
			return status(r, http.StatusGone, metav1.StatusReasonExpired), nil
		}
		return nil, nil
	})
	asked.cut()
	h.eventually("all is listed anew", func() error { return expect(asked.listed() > lists, "%d lists", asked.listed()) })
	asked.answer(nil)
	h.secret("second", password("4"))
	inForce("c", "4")
	want = append(want, "second")
	check("all was listed anew")

	asked.mu.Lock()
	defer asked.mu.Unlock()
	if len(asked.others) > 0 {
		t.Errorf("besides lists, watches and reads: %v", asked.others)
	}
	told := asked.told.String()
	for _, value := range []string{"canary", base64Of("canary-1")[:8]} {
		if strings.Contains(told, value) {
			t.Errorf("values come with lists and watches: %q", told)
		}
	}
	if !strings.Contains(told, "unnamed") || !strings.Contains(told, "PartialObjectMetadata") {
		t.Errorf("lists and watches told %q", told)
	}
}

func TestAGatewayIsReadyOnceTheAPIServerHasAnsweredForEachSecret(t *testing.T) {
	for name, c := range map[string]struct {
		instead func(*http.Request) (*http.Response, error)
		ready   bool // although this goes on
	}{
		"there is no connection": {func(*http.Request) (*http.Response, error) { return nil, errors.New("connection reset") }, false},
		"it has no time": {func(r *http.Request) (*http.Response, error) {
			return status(r, 503, metav1.StatusReasonServiceUnavailable), nil
		}, false},
		"it does not allow it": {func(r *http.Request) (*http.Response, error) {
			return status(r, 403, metav1.StatusReasonForbidden), nil
		}, true},
		"it cannot read it": {func(r *http.Request) (*http.Response, error) {
			return status(r, 500, metav1.StatusReasonInternalError), nil
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			var asked secretRequests
			h := prepare(t, func(o *gateway.Options) { asked.between(o) })
			target := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			defer target.Close()
			h.secret("s", map[string]string{"username": "u", "password": "p"})
			app := &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Name: "unread"}, Spec: v1alpha1.ApplicationSpec{Services: []v1alpha1.Service{api("svc", target.URL, with("Basic", "s", ""))}}}
			if err := h.kube.Create(context.Background(), app); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := h.kube.Delete(context.Background(), app); err != nil {
					t.Error(err)
				}
			})
			asked.answer(func(r *http.Request) (*http.Response, error) {
				if strings.HasSuffix(r.URL.Path, "/secrets/s") {
					return c.instead(r)
				}
				return nil, nil
			})
			h.run()
			if c.ready {
				h.eventually("the gateway is ready", h.gateway.Ready)
				if a := h.get("/unread/svc"); a.Status != 500 || a.Header.Get("Gateway-Error-Reason") != "SecretUnreadable" {
					t.Errorf("%+v", a)
				}
			} else {
				h.eventually("the Secret was asked for", func() error { return expect(len(asked.read()) >= 3, "%v", asked.read()) })
				if a := h.do(http.MethodGet, h.addresses.Admin, "/readyz", nil); a.Status != 503 || a.problem(t) != "the Applications and their Secrets have not been read yet" {
					t.Errorf("%+v", a)
				}
			}
			asked.answer(nil)
			h.eventually("the gateway is ready", h.gateway.Ready)
			if !c.ready {
				if a := h.get("/unread/svc"); a.Status != 200 {
					t.Errorf("the first call: %+v", a)
				}
			}
		})
	}
}

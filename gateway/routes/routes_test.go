package routes_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/gateway/credentials"
	"github.com/application-connector/application-connector/gateway/routes"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestNamesBecomeSegments(t *testing.T) {
	for name, want := range map[string]string{
		"DisplayName": "displayname", "display_!@#$%^&*()name": "display-name", "-----displayname": "displayname", "displayname---": "displayname",
		"Ünï çödé": "n-d", "": "", "!!!": "", "A": "a", "code-500": "code-500", "csrf basic": "csrf-basic",
		strings.Repeat("a", 60):        strings.Repeat("a", 57),
		strings.Repeat("a", 56) + "!b": strings.Repeat("a", 56) + "-",
		"-" + strings.Repeat("a", 60):  strings.Repeat("a", 56),
	} {
		if got := routes.Segment(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

func FuzzASegmentIsShortAndPlain(f *testing.F) {
	f.Add("Orders API")
	f.Add("Ünï")
	f.Fuzz(func(t *testing.T, name string) {
		s := routes.Segment(name)
		if len(s) > 57 || strings.HasPrefix(s, "-") || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || strings.Contains(s, "--") {
			t.Errorf("%q becomes %q", name, s)
		}
		if again := routes.Segment(s); again != strings.TrimSuffix(s, "-") {
			t.Errorf("%q becomes %q, and that %q", name, s, again)
		}
	})
}

func application(name string, services ...v1alpha1.Service) v1alpha1.Application {
	return v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Name: name, Generation: 3}, Spec: v1alpha1.ApplicationSpec{Services: services}}
}

func TestABundleIsCalledByItsEntriesAndAServiceByItself(t *testing.T) {
	s := routes.NewSnapshot([]v1alpha1.Application{application("shop",
		v1alpha1.Service{ID: "b", Name: "bundle-1", DisplayName: "Commerce Bundle", Entries: []v1alpha1.Entry{
			{Type: "API", Name: "Price API", TargetURL: "https://u:p@h/price#f"}, {Type: "API", Name: "Stock API", TargetURL: "https://h/stock"}, {Type: "Events", Name: "Orders"},
		}},
		v1alpha1.Service{ID: "o", Name: "orders", DisplayName: "Orders", Entries: []v1alpha1.Entry{{Type: "API", TargetURL: "https://h/orders"}}},
		v1alpha1.Service{ID: "e", Name: "events", DisplayName: "Only Events", Entries: []v1alpha1.Entry{{Type: "Events"}}},
	)}, nil)
	price, err := s.Entry("shop", "commerce-bundle", "price-api")
	if err != nil {
		t.Fatal(err)
	}
	if price.Target.String() != "https://h/price" || price.Refused != nil || price.ServiceName != "bundle-1" {
		t.Errorf("%+v", price)
	}
	if r, err := s.Service("shop", "orders"); err != nil || r.Target.String() != "https://h/orders" {
		t.Errorf("%+v %v", r, err)
	}
	if r, err := s.Entry("shop", "orders", ""); err != nil || r.Target.String() != "https://h/orders" {
		t.Errorf("%+v %v", r, err)
	}
	_, err = s.Service("shop", "commerce-bundle")
	var ambiguous *routes.AmbiguousError
	want := []routes.Match{{ServiceID: "b", DisplayName: "Commerce Bundle", EntryName: "Price API"}, {ServiceID: "b", DisplayName: "Commerce Bundle", EntryName: "Stock API"}}
	if !errors.As(err, &ambiguous) || cmp.Diff(want, ambiguous.Matches) != "" {
		t.Errorf("%v", err)
	}
	for _, missing := range []func() error{
		func() error { _, err := s.Service("other", "orders"); return err },
		func() error { _, err := s.Service("shop", "bundle-1"); return err },
		func() error { _, err := s.Service("shop", "Orders"); return err },
		func() error { _, err := s.Service("shop", "only-events"); return err },
		func() error { _, err := s.Entry("shop", "commerce-bundle", "orders"); return err },
	} {
		var notFound *routes.NotFoundError
		if err := missing(); !errors.As(err, &notFound) {
			t.Errorf("%v", err)
		}
	}
	report, ok := s.Report("shop")
	if diff := cmp.Diff(routes.Report{Generation: 3, APIs: 3}, report); diff != "" || !ok {
		t.Error(diff)
	}
	if _, ok := s.Report("other"); ok {
		t.Error("a report of nothing")
	}
	if diff := cmp.Diff([]string{"shop"}, s.Applications()); diff != "" {
		t.Error(diff)
	}
}

func TestEachFaultIsReportedAndTheFirstRefusesCalls(t *testing.T) {
	entry := v1alpha1.Entry{
		Type: "API", Name: "e", TargetURL: "ftp://h", RequestParametersSecretName: "params",
		Credentials: v1alpha1.Credentials{Type: "OAuth", SecretName: "creds", CSRFInfo: &v1alpha1.CSRFInfo{TokenEndpointURL: "/csrf"}},
	}
	s := routes.NewSnapshot([]v1alpha1.Application{application("app", v1alpha1.Service{Name: "s", DisplayName: "s", Entries: []v1alpha1.Entry{entry}})},
		map[string]map[string][]byte{"params": {"headers": []byte("[]")}})
	report, _ := s.Report("app")
	var got []string
	for _, p := range report.Problems {
		got = append(got, fmt.Sprintf("%s: %s", p.Reason, p.Message))
	}
	want := []string{
		"SecretMissing: Secret creds, named by credentials.secretName, does not exist",
		`ParametersInvalid: Secret params: key headers is not a JSON object of lists of strings, such as {"name":["value"]}`,
		"CSRFURLInvalid: credentials.csrfInfo.tokenEndpointURL is not an absolute URL with scheme http or https",
		"TokenURLInvalid: credentials.authenticationUrl is not an absolute URL with scheme http or https",
		"TargetInvalid: targetUrl is not an absolute URL with scheme http or https",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	r, err := s.Service("app", "s")
	if err != nil || r.Refused == nil || r.Refused.Answer != "failed to read API for s service, secret 'creds' not found" {
		t.Errorf("%+v %v", r, err)
	}
}

func TestARouteSaysHowItsCallsProveThemselves(t *testing.T) {
	entry := v1alpha1.Entry{Type: "API", Name: "e", TargetURL: "https://h", Credentials: v1alpha1.Credentials{
		Type: "Basic", SecretName: "creds", CSRFInfo: &v1alpha1.CSRFInfo{TokenEndpointURL: "https://h/csrf"},
	}}
	app := application("app", v1alpha1.Service{Name: "s", DisplayName: "S", Entries: []v1alpha1.Entry{entry}})
	app.Spec.SkipVerify = true
	s := routes.NewSnapshot([]v1alpha1.Application{app}, map[string]map[string][]byte{"creds": {"username": []byte("u"), "password": []byte("p")}})
	r, err := s.Service("app", "s")
	if err != nil {
		t.Fatal(err)
	}
	want := credentials.Use{Owner: credentials.Owner{Application: "app", Service: "s", Entry: "e"}, Credentials: r.Credentials, CSRF: "https://h/csrf", Trust: credentials.Trust{SkipVerify: true}}
	if diff := cmp.Diff(want, r.Use()); diff != "" || r.Credentials == nil {
		t.Error(diff)
	}
}

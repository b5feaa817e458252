package conditions_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/gateway/conditions"
	"github.com/application-connector/application-connector/gateway/routes"
)

// service has one API.
func service(name, displayName, entry, target string) v1alpha1.Service {
	return v1alpha1.Service{ID: name, Name: name, DisplayName: displayName, Entries: []v1alpha1.Entry{{Type: "API", Name: entry, TargetURL: target}}}
}

func TestAConditionSaysAllThatIsWrong(t *testing.T) {
	const (
		unverified = "TLS certificates are not verified (spec.skipVerify): whoever stands between can read credentials"
		shared     = `the services ["a" "b"] are all called orders-api in URLs: by port 8080 none of them can be called, by port 8082 those can whose entries have other names; give them other displayNames`
		invalid    = `service "c", entry "c": targetUrl is not an absolute URL with scheme http or https`
		open       = `spec.targetSettings["a/typo"].allowedCallers keeps nobody from any API, for none is called so: use service/entry as in URLs of port 8082, or take it away`
		unused     = `no API is called as spec.targetSettings["b/typo"] says: use service/entry as in URLs of port 8082, or *`
	)
	one, two, bad := service("a", "Orders API", "one", "http://h/"), service("b", "orders-api", "two", "http://h/"), service("c", "c", "c", "nonsense")
	callers := v1alpha1.TargetSettings{Target: "a/typo", AllowedCallers: &v1alpha1.AllowedCallers{Namespaces: []string{"ns"}}}
	plain := v1alpha1.TargetSettings{Target: "b/typo", MaxConcurrent: 1}
	for _, c := range []struct {
		name            string
		spec            v1alpha1.ApplicationSpec
		status          metav1.ConditionStatus
		reason, message string
	}{
		{"all is well", v1alpha1.ApplicationSpec{Services: []v1alpha1.Service{one}}, "True", "Ready", "1 APIs can be called"},
		{"a shared name", v1alpha1.ApplicationSpec{Services: []v1alpha1.Service{one, two}}, "True", "ServiceNameShared", "2 APIs can be called; " + shared},
		{
			"a shared name, unverified", v1alpha1.ApplicationSpec{SkipVerify: true, Services: []v1alpha1.Service{one, two}}, "True", "VerificationOff",
			"2 APIs can be called, without verification of TLS certificates (spec.skipVerify): whoever stands between can read credentials; " + shared,
		},
		{"a problem, unverified", v1alpha1.ApplicationSpec{SkipVerify: true, Services: []v1alpha1.Service{one, bad}}, "False", "TargetInvalid", invalid + "; " + unverified},
		{"settings that no API has", v1alpha1.ApplicationSpec{Services: []v1alpha1.Service{one}, TargetSettings: []v1alpha1.TargetSettings{plain}}, "True", "SettingsUnused", "1 APIs can be called; " + unused},
		{"callers of an API that is not there", v1alpha1.ApplicationSpec{Services: []v1alpha1.Service{one}, TargetSettings: []v1alpha1.TargetSettings{callers}}, "False", "AllowedCallersUnused", open},
		{
			"everything", v1alpha1.ApplicationSpec{SkipVerify: true, Services: []v1alpha1.Service{one, two, bad}, TargetSettings: []v1alpha1.TargetSettings{callers, plain}}, "False", "TargetInvalid",
			invalid + "; " + open + "; " + unverified + "; " + shared + "; " + unused,
		},
		{"services without APIs share names", v1alpha1.ApplicationSpec{Services: []v1alpha1.Service{one, {Name: "e", DisplayName: "Orders API", Entries: []v1alpha1.Entry{{Type: "Events"}}}}}, "True", "Ready", "1 APIs can be called"},
		{"nothing to be called", v1alpha1.ApplicationSpec{SkipVerify: true}, "True", "NoAPIs", "the Application has no entry of type API"},
	} {
		app := v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Name: "app", Generation: 3}, Spec: c.spec}
		report, ok := routes.NewSnapshot([]v1alpha1.Application{app}, nil).Report("app")
		want := metav1.Condition{Type: "RoutesReady", Status: c.status, ObservedGeneration: 3, Reason: c.reason, Message: c.message}
		if diff := cmp.Diff(want, conditions.Condition(report)); diff != "" || !ok {
			t.Errorf("%s: %s", c.name, diff)
		}
	}
}

func TestALongMessageIsCutAndStillSaysThatNothingIsVerified(t *testing.T) {
	report := routes.Report{APIs: 1, SkipVerify: true}
	for range 1000 {
		report.Problems = append(report.Problems, routes.Problem{Service: "ß", Entry: "ß", Reason: "R", Message: "wrong"})
		report.Unused = append(report.Unused, "ß/ß")
	}
	c := conditions.Condition(report)
	if n := len(c.Message); n < 4000 || n > 4110 || !strings.Contains(c.Message, "TLS certificates are not verified") || strings.Count(c.Message, " …") != 2 {
		t.Errorf("%d bytes: %s", len(c.Message), c.Message)
	}
}

package plan

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/application-connector/application-connector/agent/sync/internal/systems"
	v1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/graphql/director"
	"github.com/application-connector/application-connector/secret"
)

// Credentials that are pending are planned by what the cluster has, in the first plan of a process.
func TestPendingCredentialsAreTheFormerOnesIfTheseAreThere(t *testing.T) {
	certificate, key := systems.KeyPair(t)
	csrf := &director.CSRF{TokenEndpointURL: "https://shop/csrf"}
	basic := &director.Auth{Credential: systems.Basic("p")}
	full := &director.Auth{Credential: director.OAuth{ClientID: "c", ClientSecret: "s", URL: "https://idp/token"}, CSRF: csrf, Headers: map[string][]string{"h": {"v"}}}
	stay := Verdict{metav1.ConditionTrue, ReasonStored, `bundle "Bundle One": the former credentials stay until Compass has issued the new ones`}
	useless := Verdict{metav1.ConditionFalse, ReasonPending, `bundle "Bundle One": Compass has not issued the credentials yet, and the former ones lack a part`}
	none := Verdict{metav1.ConditionFalse, ReasonPending, `bundle "Bundle One": Compass has not issued the credentials yet`}
	closed := v1alpha1.Entry{Credentials: v1alpha1.Credentials{Type: "Pending"}}
	drop := func(names ...string) func(*Observed) {
		return func(o *Observed) {
			var left []corev1.Secret
			for _, s := range o.Secrets {
				if s.Name != names[0] {
					left = append(left, s)
				}
			}
			o.Secrets = left
		}
	}
	edit := func(edit func(*v1alpha1.Entry)) func(*Observed) {
		return func(o *Observed) { edit(&o.Applications[0].Spec.Services[0].Entries[0]) }
	}
	// older makes the Secrets those of an agent that recorded nothing.
	older := func(also func(*Observed)) func(*Observed) {
		return func(o *Observed) {
			for i := range o.Secrets {
				o.Secrets[i].Annotations = nil
			}
			if also != nil {
				also(o)
			}
		}
	}
	const credentials, parameters = "mp-shop-" + systems.Bundle1, "params-mp-shop-" + systems.Bundle1
	for _, test := range []struct {
		name   string
		before *director.Auth
		also   func(*Observed)
		// want is the entry, as far as it is about credentials; nil: as before.
		want  *v1alpha1.Entry
		ready Verdict
	}{
		{name: "Basic", before: basic, ready: stay},
		{name: "OAuth with CSRF and headers", before: full, ready: stay},
		{name: "OAuth by certificate", before: &director.Auth{Credential: director.CertificateOAuth{ClientID: "c", Certificate: secret.Value(certificate + key), URL: "https://i"}}, ready: stay},
		{name: "headers alone", before: &director.Auth{Headers: map[string][]string{"h": {"v"}}}, ready: stay},
		{name: "none", before: &director.Auth{}, want: &closed, ready: none},
		{name: "an empty password", before: &director.Auth{Credential: systems.Basic("")}, want: &closed, ready: none},
		{name: "an empty password and headers", before: &director.Auth{Credential: systems.Basic(""), Headers: map[string][]string{"h": {"v"}}}, want: &closed, ready: none},
		{name: "a certificate without key", before: &director.Auth{Credential: director.CertificateOAuth{ClientID: "c", Certificate: secret.Value(certificate), URL: "https://i"}}, ready: useless},
		{name: "an unknown kind", before: &director.Auth{Credential: director.Unknown{Typename: "Passkey"}}, want: &closed, ready: none},
		{name: "Basic, whose Secret was deleted", before: basic, also: drop(credentials), want: &closed, ready: none},
		{name: "OAuth, whose Secret was deleted", before: full, also: drop(credentials), want: &closed, ready: none},
		{name: "OAuth, whose headers were deleted", before: full, also: drop(parameters), ready: useless},
		{name: "Basic, whose Secret has lost its owner", before: basic, also: func(o *Observed) { o.Secrets[0].OwnerReferences = nil }, ready: stay},
		{name: "Basic, of whose Secret a key was removed", before: basic, also: func(o *Observed) { delete(o.Secrets[0].Data, "password") }, ready: useless},
		{name: "an entry that was made an open one", before: full, also: edit(func(e *v1alpha1.Entry) { e.Credentials.Type = "" }), ready: stay},
		{name: "an entry with another token endpoint", before: full, also: edit(func(e *v1alpha1.Entry) { e.Credentials.AuthenticationURL = "https://evil" }), ready: stay},
		{name: "an entry with another CSRF endpoint", before: full, also: edit(func(e *v1alpha1.Entry) { e.Credentials.CSRFInfo.TokenEndpointURL = "https://evil" }), ready: stay},
		{name: "an entry with a foreign Secret", before: full, also: edit(func(e *v1alpha1.Entry) { e.Credentials.SecretName = "cluster-client-certificates" }), ready: stay},
		{name: "an entry without headers", before: full, also: edit(func(e *v1alpha1.Entry) { e.RequestParametersSecretName = "" }), ready: stay},
		{name: "no services", before: full, also: func(o *Observed) { o.Applications[0].Spec.Services = nil }, ready: stay},
		{name: "a record that is no JSON", before: basic, also: func(o *Observed) { o.Secrets[0].Annotations[v1alpha1.MeantAnnotation] = "{" }, ready: stay},
		{name: "a record of a type that is open", before: basic, also: func(o *Observed) { o.Secrets[0].Annotations[v1alpha1.MeantAnnotation] = `{"type":"None"}` }, want: &closed, ready: none},
		{name: "of an older agent", before: full, also: older(nil), ready: stay},
		{name: "of an older agent, headers alone", before: &director.Auth{Headers: map[string][]string{"h": {"v"}}}, also: older(nil), ready: stay},
		{name: "of an older agent, made an open one", before: full, also: older(edit(func(e *v1alpha1.Entry) { e.Credentials.Type = "" })), want: &closed, ready: none},
		{name: "of an older agent, with another type", before: full, also: older(edit(func(e *v1alpha1.Entry) { e.Credentials.Type = "Basic" })), ready: useless,
			want: &v1alpha1.Entry{RequestParametersSecretName: parameters, Credentials: v1alpha1.Credentials{
				Type: "Basic", SecretName: credentials, AuthenticationURL: "https://idp/token", CSRFInfo: &v1alpha1.CSRFInfo{TokenEndpointURL: "https://shop/csrf"}}}},
		{name: "of an older agent, with a type that is open", before: full, also: older(edit(func(e *v1alpha1.Entry) { e.Credentials.Type = "NoAuth" })), want: &closed, ready: none},
		{name: "of an older agent, with a foreign Secret", before: full, also: older(edit(func(e *v1alpha1.Entry) { e.Credentials.SecretName = "cluster-client-certificates" })), want: &closed, ready: none},
	} {
		t.Run(test.name, func(t *testing.T) {
			system := systems.Shop()
			system.Bundles[0].Auth = test.before
			observed := observe([]director.Application{system})
			want := observed.Applications[0].DeepCopy().Spec
			if test.want != nil {
				want.Services[0].Entries[0].Credentials, want.Services[0].Entries[0].RequestParametersSecretName = test.want.Credentials, test.want.RequestParametersSecretName
			}
			if test.also != nil {
				test.also(&observed)
			}
			system.Bundles[0].Auth, system.Bundles[0].AuthPending = nil, true
			step := New(systems.Whole(system), observed, settings, nil).Steps[0]
			if diff := cmp.Diff(want, step.Wanted.Spec); diff != "" {
				t.Errorf("want (-), got (+):\n%s", diff)
			}
			if diff := cmp.Diff(test.ready, step.CredentialsReady); diff != "" {
				t.Error(diff)
			}
			// What is not known takes nothing away.
			if len(step.Secrets) != 0 {
				t.Errorf("Secrets: %+v", step.Secrets)
			}
		})
	}
}

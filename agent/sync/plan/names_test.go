package plan

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"
)

func TestApplicationNamesAreNormalizedAsDirectorDoesIt(t *testing.T) {
	for name, want := range map[string]string{
		"Foo Bar-0001": "mp-foo-bar-0001", "a.b": "mp-a-b", "mp-App": "mp-mp-app", "mp--x": "mp-mp-x", "日本": "mp", "": "mp", "ŁÓDŹ": "mp-d",
		"mp-shop": "mp-shop", "mp-shop-": "mp-mp-shop", "mp": "mp-mp", "Commerce Cloud (EU 10)": "mp-commerce-cloud-eu-10",
		"Foo-12A": "mp-foo-12a", "mp-foo-12A": "mp-mp-foo-12a",
	} {
		if got := normalizeApplicationName(name); got != want {
			t.Errorf("%q becomes %q, want %q", name, got, want)
		}
	}
	for _, name := range []string{
		"Test-Application", "TEST-APPLICATION", "test.application", "test$application", "test&application", "test@application", "test Application",
		"test--application", "test-.-application", "test...application", "test-$$$-application", "test-application-", "test-application---",
		"test-application.", "test-application$$", "-test-application", "--test-application", "$test-application", "..test-application..", "mp-test-application",
	} {
		if got := normalizeApplicationName(name); got != "mp-test-application" {
			t.Errorf("%q becomes %q, want mp-test-application", name, got)
		}
	}
}

func TestOnlyTheTextTrueSaysThatDirectorNormalizes(t *testing.T) {
	for _, test := range []struct {
		labels map[string]any
		want   string
	}{
		{nil, "mp-mp-foo-12a"},
		{map[string]any{"isNormalized": "true"}, "mp-foo-12A"},
		{map[string]any{"isNormalized": true}, "mp-mp-foo-12a"},
		{map[string]any{"isNormalized": "false"}, "mp-mp-foo-12a"},
		{map[string]any{"isNormalized": []any{"true"}}, "mp-mp-foo-12a"},
	} {
		if got := ApplicationName("mp-foo-12A", test.labels); got != test.want {
			t.Errorf("with labels %v the name is %q, want %q", test.labels, got, test.want)
		}
	}
}

func TestSegmentsOfURLs(t *testing.T) {
	for name, want := range map[string]string{
		"display_!@#$%^&*()name": "display-name", "-----displayname": "displayname", "API v1.0": "api-v1-0", "!!!": "", "Ünïcode": "n-code",
		"Orders API": "orders-api", "a-": "a", "": "",
		strings.Repeat("a", 95):                     strings.Repeat("a", 57),
		strings.Repeat("a", 56) + " b":              strings.Repeat("a", 56) + "-",
		"-" + strings.Repeat("a", 95):               strings.Repeat("a", 56),
		strings.Repeat("a", 56) + "!" + "tail-tail": strings.Repeat("a", 56) + "-",
	} {
		if got := segment(name); got != want {
			t.Errorf("%q becomes %q, want %q", name, got, want)
		}
	}
}

func TestServiceNamesCarryAHashOfTheID(t *testing.T) {
	for _, test := range [][3]string{
		{"DisplayName", "id", "displayname-87ea5"},
		{"bundleName1", "bundle1", "bundlename1-43857"},
		{"bundleName2", "bundle2", "bundlename2-4b91a"},
		{"bundleName3", "bundle3", "bundlename3-16aa4"},
		{"!!!", "id", "87ea5"},
	} {
		if got := serviceName(test[0], test[1]); got != test[2] {
			t.Errorf("%q with id %q becomes %q, want %q", test[0], test[1], got, test[2])
		}
	}
}

func TestSecretNamesFitIntoALabel(t *testing.T) {
	const id = "11111111-1111-1111-1111-111111111111"
	for _, test := range []struct{ application, credentials, parameters string }{
		{"toolong_application_aaaaaxxxx", "toolong_application_aaaaax-" + id, "params-toolong_application-" + id},
		{"max_application_aaaaaaaaaa", "max_application_aaaaaaaaaa-" + id, "params-max_application_aaa-" + id},
		{"mp-my-app", "mp-my-app-" + id, "params-mp-my-app-" + id},
	} {
		if got := credentialsSecretName(test.application, id); got != test.credentials || len(got) > 63 {
			t.Errorf("credentials of %s are in %q, want %q", test.application, got, test.credentials)
		}
		if got := parametersSecretName(test.application, id); got != test.parameters || len(got) > 63 {
			t.Errorf("parameters of %s are in %q, want %q", test.application, got, test.parameters)
		}
	}
}

func FuzzNames(f *testing.F) {
	for _, seed := range []string{"Foo Bar-0001", "日本", "mp--x", "\xff\xfe", strings.Repeat("a", 300), "-", "mp-"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		app := normalizeApplicationName(name)
		if normalizeApplicationName(app) != app && app != "mp" {
			t.Errorf("%q becomes %q, which is not stable", name, app)
		}
		if len(app) <= 253 {
			if wrong := validation.IsDNS1123Subdomain(app); len(wrong) > 0 {
				t.Errorf("%q becomes %q: %v", name, app, wrong)
			}
			if wrong := validation.IsValidLabelValue(labelValue(app)); len(wrong) > 0 {
				t.Errorf("label of %q: %v", app, wrong)
			}
		}
		if s := segment(name); len(s) > maxSegment || notInSegment.MatchString(strings.ReplaceAll(s, "-", "")) {
			t.Errorf("%q becomes the segment %q", name, s)
		}
	})
}

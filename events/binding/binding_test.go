package binding_test

import (
	"errors"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/events/binding"
	"github.com/application-connector/application-connector/events/identity"
	"github.com/application-connector/application-connector/events/names"
)

func TestAuthorize(t *testing.T) {
	local := func(change ...func(*v1alpha1.Application)) *v1alpha1.Application {
		app := &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}
		for _, c := range change {
			c(app)
		}
		return app
	}
	managed := func(ids ...string) func(*v1alpha1.Application) {
		return func(app *v1alpha1.Application) {
			app.Spec.CompassMetadata = &v1alpha1.CompassMetadata{Authentication: v1alpha1.Authentication{ClientIDs: ids}}
		}
	}
	deleted := func(app *v1alpha1.Application) { app.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)} }
	for what, tc := range map[string]struct {
		app  *v1alpha1.Application
		cn   string
		want binding.Reason
	}{
		"a local Application's name":                   {local(), "shop", ""},
		"another name":                                 {local(), "other", binding.WrongCertificate},
		"the name in other case":                       {local(), "Shop", binding.WrongCertificate},
		"the name with more behind it":                 {local(), "shop\x00", binding.WrongCertificate},
		"no common name":                               {local(), "", binding.WrongCertificate},
		"no common name and no name":                   {&v1alpha1.Application{}, "", binding.WrongCertificate},
		"a managed Application's client id":            {local(managed("id-1", "id-2")), "id-2", ""},
		"a managed Application's name is no client id": {local(managed("id-1")), "shop", binding.WrongCertificate},
		"part of a client id":                          {local(managed("id-1")), "id-", binding.WrongCertificate},
		"an empty client id matches nothing":           {local(managed("")), "", binding.WrongCertificate},
		"a managed Application without ids has nobody": {local(managed()), "shop", binding.NoClientIDs},
		"an unknown Application":                       {nil, "shop", binding.UnknownApplication},
		"a local Application that is being deleted":    {local(deleted), "shop", binding.BeingDeleted},
		"a managed Application that is being deleted":  {local(managed("id-1"), deleted), "id-1", binding.BeingDeleted},
	} {
		t.Run(what, func(t *testing.T) {
			err := binding.Policy{}.Authorize(tc.app, identity.Identity{CommonName: tc.cn})
			var got binding.Reason
			if e := (*binding.Error)(nil); errors.As(err, &e) {
				got = e.Reason
			}
			if got != tc.want || (err == nil) != (tc.want == "") {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestOrganizationAndUnitMustBeTenantAndGroupIfAskedFor(t *testing.T) {
	app := func(tenant, group string) *v1alpha1.Application {
		return &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Name: "shop"}, Spec: v1alpha1.ApplicationSpec{Tenant: tenant, Group: group}}
	}
	for what, tc := range map[string]struct {
		app     *v1alpha1.Application
		subject string
		ok      bool
	}{
		"both":                              {app("t", "g"), "CN=shop,OU=g,O=t", true},
		"another tenant":                    {app("t", "g"), "CN=shop,OU=g,O=u", false},
		"another group":                     {app("t", "g"), "CN=shop,OU=h,O=t", false},
		"exchanged":                         {app("t", "g"), "CN=shop,OU=t,O=g", false},
		"other case":                        {app("t", "g"), "CN=shop,OU=G,O=t", false},
		"neither in the certificate":        {app("t", "g"), "CN=shop", false},
		"two organisations":                 {app("t", "g"), "CN=shop,OU=g,O=t,O=t", false},
		"an Application without group":      {app("t", ""), "CN=shop,OU=x,O=t", true},
		"an Application without both":       {app("", ""), "CN=shop,O=x", true},
		"a tenant within another attribute": {app("t", ""), `CN=shop,L=x\,O\=t`, false},
		"the wrong common name":             {app("t", "g"), "CN=till,OU=g,O=t", false},
	} {
		subject, err := names.Parse(tc.subject)
		if err != nil {
			t.Fatal(err)
		}
		client := identity.Identity{CommonName: subject.Values(names.OIDCommonName)[0], Subject: subject}
		if err := (binding.Policy{MatchOrganization: true}).Authorize(tc.app, client); (err == nil) != tc.ok {
			t.Errorf("%s: %v", what, err)
		}
		if err := (binding.Policy{}).Authorize(tc.app, client); (err == nil) != (client.CommonName == "shop") {
			t.Errorf("%s, not asked for: %v", what, err)
		}
	}
}

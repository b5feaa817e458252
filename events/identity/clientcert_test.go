package identity_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/application-connector/application-connector/events/identity"
)

func structured(der []byte) string { return ":" + base64.StdEncoding.EncodeToString(der) + ":" }

func TestClientCert(t *testing.T) {
	shop := issue(t, pkix.RDNSequence{attribute(oidOU, "eu"), attribute(oidCN, "shop")})
	two := issue(t, pkix.RDNSequence{attribute(oidCN, "shop"), attribute(oidCN, "till")})
	good := structured(shop.Raw)
	alone := identity.Verifier{Header: identity.ClientCertHeader}
	behind := identity.Verifier{Header: identity.ClientCertHeader, TrustedHops: 1, IngressIdentity: ingress}
	for what, tc := range map[string]struct {
		verifier identity.Verifier
		lines    []string
		xfcc     []string
		want     identity.Reason
	}{
		"a certificate":                        {alone, []string{good}, nil, ""},
		"behind the ingress gateway":           {behind, []string{good}, []string{`Subject="CN=till"` + gateway}, ""},
		"the gateway alone in the other":       {behind, []string{good}, []string{`By=x;URI=` + ingress}, ""},
		"not through the ingress gateway":      {behind, []string{good}, []string{`By=x;URI=spiffe://other`}, identity.UntrustedHop},
		"nobody says where it came through":    {behind, []string{good}, nil, identity.UntrustedHop},
		"two say where it came through":        {behind, []string{good}, []string{`URI=` + ingress, `URI=` + ingress}, identity.UntrustedHop},
		"the other header is broken":           {behind, []string{good}, []string{`"`}, identity.MalformedHeader},
		"no header, though the other is there": {behind, nil, []string{`Subject="CN=shop"` + gateway}, identity.NoHeader},
		"an empty header":                      {alone, []string{" "}, nil, identity.NoHeader},
		"two lines":                            {alone, []string{good, good}, nil, identity.SeveralHeaders},
		"two values":                           {alone, []string{good + ", " + good}, nil, identity.MalformedHeader},
		"parameters":                           {alone, []string{good + ";a=1"}, nil, identity.MalformedHeader},
		"no colons":                            {alone, []string{good[1:]}, nil, identity.MalformedHeader},
		"no base64":                            {alone, []string{":!:"}, nil, identity.MalformedHeader},
		"a colon alone":                        {alone, []string{":"}, nil, identity.MalformedHeader},
		"nothing between the colons":           {alone, []string{"::"}, nil, identity.BadCertificate},
		"no certificate":                       {alone, []string{structured([]byte("cert"))}, nil, identity.BadCertificate},
		"something behind the certificate":     {alone, []string{structured(append(shop.Raw, 0))}, nil, identity.BadCertificate},
		"two common names":                     {alone, []string{structured(two.Raw)}, nil, identity.NotOneCommonName},
	} {
		t.Run(what, func(t *testing.T) {
			got, err := tc.verifier.Of(http.Header{"Client-Cert": tc.lines, "X-Forwarded-Client-Cert": tc.xfcc})
			if tc.want == "" {
				want := identity.Identity{CommonName: "shop", Subject: parsed(t, "CN=shop,OU=eu"), Hash: hash(shop), Certificate: shop}
				if d := cmp.Diff(want, got, cmp.Comparer(func(a, b *x509.Certificate) bool { return a.Equal(b) })); d != "" || err != nil {
					t.Errorf("%v (-want +got)\n%s", err, d)
				}
				return
			}
			if e := (*identity.Error)(nil); !errors.As(err, &e) || e.Reason != tc.want {
				t.Errorf("got %v, want %s", err, tc.want)
			}
		})
	}
	if _, err := (identity.Verifier{}).Of(http.Header{"Client-Cert": {good}}); err == nil {
		t.Error("Client-Cert counts though it was not asked for")
	}
}

func TestChain(t *testing.T) {
	shop := issue(t, pkix.RDNSequence{attribute(oidCN, "shop")})
	ca := issue(t, pkix.RDNSequence{attribute(oidCN, "ca")})
	compatible := identity.Verifier{TrustedHops: 1, IngressIdentity: ingress, Compatible: true}
	for what, tc := range map[string]struct {
		verifier identity.Verifier
		element  string
		want     identity.Reason
	}{
		"the chain alone":                    {strict, `Chain="` + encode(shop) + encode(ca) + `"`, ""},
		"certificate and chain":              {strict, `Cert="` + encode(shop) + `";Chain="` + encode(shop) + encode(ca) + `"`, ""},
		"a chain of another":                 {strict, `Cert="` + encode(shop) + `";Chain="` + encode(ca) + `"`, identity.ChainMismatch},
		"a chain in another order":           {strict, `Cert="` + encode(shop) + `";Chain="` + encode(ca) + encode(shop) + `"`, identity.ChainMismatch},
		"a hash of another":                  {strict, `Hash=` + hash(ca) + `;Chain="` + encode(shop) + `"`, identity.HashMismatch},
		"a subject of another":               {strict, `Chain="` + encode(shop) + `";Subject="CN=ca"`, identity.SubjectMismatch},
		"a chain that is none":               {strict, `Cert="` + encode(shop) + `";Chain="x"`, identity.BadCertificate},
		"text behind the chain":              {strict, `Chain="` + encode(shop) + `x"`, identity.BadCertificate},
		"blank text":                         {strict, `Chain="%0A"`, identity.BadCertificate},
		"compatible: a chain that is none":   {compatible, `Cert="` + encode(shop) + `";Chain="x"`, ""},
		"compatible: a chain of another too": {compatible, `Cert="` + encode(shop) + `";Chain="` + encode(ca) + `"`, identity.ChainMismatch},
	} {
		got, err := tc.verifier.Identify([]string{tc.element + gateway})
		if e := (*identity.Error)(nil); tc.want == "" && (err != nil || got.CommonName != "shop" || got.Hash != hash(shop)) || tc.want != "" && (!errors.As(err, &e) || e.Reason != tc.want) {
			t.Errorf("%s: got %+v, %v, want %q", what, got, err, tc.want)
		}
	}
}

func TestSurplusElementsOfTheIngressGatewayAreToldApart(t *testing.T) {
	for header, want := range map[string]bool{
		`Subject="CN=shop",Subject="CN=till"` + gateway:      true,
		`Subject="CN=shop",Subject="CN=till",URI=spiffe://x`: false, // not through the gateway: anybody could write it
		`URI=` + ingress:                                      false,
		`Subject="CN=shop",URI=spiffe://x`:                    false,
		`Subject="CN=a",Subject="CN=b",Subject="c"` + gateway: true,
	} {
		_, err := strict.Identify([]string{header})
		if e := (*identity.Error)(nil); !errors.As(err, &e) || e.Surplus != want {
			t.Errorf("%s: %v", header, err)
		}
	}
}

// FuzzClientCert checks that any value gives an identity of one common name with its certificate, or a typed error.
func FuzzClientCert(f *testing.F) {
	f.Add("::")
	f.Add(":!:")
	f.Add(structured([]byte("cert")))
	f.Fuzz(func(t *testing.T, value string) {
		id, err := identity.Verifier{Header: identity.ClientCertHeader}.Of(http.Header{"Client-Cert": {value}})
		if e := (*identity.Error)(nil); err != nil && !errors.As(err, &e) || err == nil && (id.CommonName == "" || id.Certificate == nil || id.Hash != hash(id.Certificate)) {
			t.Fatalf("%+v, %v", id, err)
		}
	})
}

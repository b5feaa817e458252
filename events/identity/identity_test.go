package identity_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/application-connector/application-connector/events/identity"
	"github.com/application-connector/application-connector/events/names"
)

const (
	ingress = "spiffe://cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account"
	gateway = `,By=spiffe://cluster.local/ns/kyma-system/sa/default;Hash=` + someHash + `;Subject="";URI=` + ingress
	// someHash is that of no certificate here.
	someHash = "6f1ed002ab5595859014ebf0951522d9a8ae9f16a1ab0a2ac6b45a1f1b8a3d21"
)

var strict = identity.Verifier{TrustedHops: 1, IngressIdentity: ingress}

func issue(t *testing.T, subject pkix.RDNSequence) *x509.Certificate {
	t.Helper()
	raw, err := asn1.Marshal(subject)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(0xabc), RawSubject: raw, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func attribute(oid asn1.ObjectIdentifier, value any) pkix.RelativeDistinguishedNameSET {
	return pkix.RelativeDistinguishedNameSET{{Type: oid, Value: value}}
}

var (
	oidCN = asn1.ObjectIdentifier{2, 5, 4, 3}
	oidOU = asn1.ObjectIdentifier{2, 5, 4, 11}
)

// encode writes a certificate as Envoy does.
func encode(c *x509.Certificate) string {
	text := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	return strings.ReplaceAll(url.QueryEscape(text), "+", "%20")
}

func hash(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

func parsed(t *testing.T, s string) names.Name {
	t.Helper()
	n, err := names.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestIdentify(t *testing.T) {
	shop := issue(t, pkix.RDNSequence{attribute(oidOU, "eu"), attribute(oidCN, "shop")})
	subject := parsed(t, "CN=shop,OU=eu")
	for what, tc := range map[string]struct {
		verifier identity.Verifier
		header   string
		want     identity.Identity
	}{
		"hash and subject": {
			strict, `Hash=` + someHash + `;Subject="CN=shop,OU=eu";URI=` + gateway,
			identity.Identity{CommonName: "shop", Subject: subject, Hash: someHash},
		},
		"a hash in upper case": {
			strict, `Hash=` + strings.ToUpper(someHash) + `;Subject="CN=shop,OU=eu"` + gateway,
			identity.Identity{CommonName: "shop", Subject: subject, Hash: someHash},
		},
		"subject alone": {
			strict, `Subject="CN=shop,OU=eu"` + gateway,
			identity.Identity{CommonName: "shop", Subject: subject},
		},
		"certificate alone": {
			strict, `Cert="` + encode(shop) + `"` + gateway,
			identity.Identity{CommonName: "shop", Subject: subject, Hash: hash(shop), Certificate: shop},
		},
		"everything, in agreement": {
			strict, `Hash=` + hash(shop) + `;Cert="` + encode(shop) + `";Chain="` + encode(shop) + `";Subject="CN=shop,OU=eu";URI=;DNS=a;DNS=b` + gateway,
			identity.Identity{CommonName: "shop", Subject: subject, Hash: hash(shop), Certificate: shop},
		},
		"the direct peer's word if there are no trusted hops": {
			identity.Verifier{}, `Hash=` + someHash + `;Subject="CN=shop,OU=eu"`,
			identity.Identity{CommonName: "shop", Subject: subject, Hash: someHash},
		},
		"two trusted hops": {
			identity.Verifier{TrustedHops: 2, IngressIdentity: ingress}, `Subject="CN=shop,OU=eu",By=a;Subject="CN=balancer";URI=spiffe://balancer` + gateway,
			identity.Identity{CommonName: "shop", Subject: subject},
		},
		"compatible: the client's element alone": {
			identity.Verifier{TrustedHops: 1, IngressIdentity: ingress, Compatible: true}, `Subject="CN=shop,OU=eu"`,
			identity.Identity{CommonName: "shop", Subject: subject},
		},
		"compatible: a hash and a certificate that are none": {
			identity.Verifier{TrustedHops: 1, IngressIdentity: ingress, Compatible: true}, `Hash=hash1;Cert="cert";Subject="CN=shop,OU=eu";URI=` + gateway,
			identity.Identity{CommonName: "shop", Subject: subject},
		},
	} {
		t.Run(what, func(t *testing.T) {
			got, err := tc.verifier.Identify([]string{tc.header})
			if err != nil {
				t.Fatal(err)
			}
			same := cmp.Comparer(func(a, b *x509.Certificate) bool { return a.Equal(b) })
			if d := cmp.Diff(tc.want, got, same); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

func TestIdentifyRefuses(t *testing.T) {
	shop := issue(t, pkix.RDNSequence{attribute(oidCN, "shop")})
	other := issue(t, pkix.RDNSequence{attribute(oidCN, "other")})
	twoNames := issue(t, pkix.RDNSequence{attribute(oidCN, "shop"), attribute(oidCN, "other")})
	noName := issue(t, pkix.RDNSequence{attribute(oidOU, "shop")})
	compatible := identity.Verifier{TrustedHops: 1, IngressIdentity: ingress, Compatible: true}
	direct := identity.Verifier{}
	good := `Subject="CN=shop"`
	for what, tc := range map[string]struct {
		verifier identity.Verifier
		lines    []string
		want     identity.Reason
	}{
		"no header":                            {strict, nil, identity.NoHeader},
		"an empty header":                      {strict, []string{""}, identity.NoHeader},
		"a blank header":                       {strict, []string{"  "}, identity.NoHeader},
		"two lines":                            {strict, []string{good + gateway, good + gateway}, identity.SeveralHeaders},
		"two lines that join to a good one":    {strict, []string{good, gateway[1:]}, identity.SeveralHeaders},
		"an empty line before a good one":      {strict, []string{"", good + gateway}, identity.SeveralHeaders},
		"no grammar":                           {strict, []string{"garbage"}, identity.MalformedHeader},
		"the client's element alone":           {strict, []string{good}, identity.WrongHops},
		"the gateway's element alone":          {strict, []string{gateway[1:]}, identity.WrongHops},
		"a forged element before the client's": {strict, []string{`Subject="CN=victim",` + good + gateway}, identity.WrongHops},
		"a forged pair of elements in front":   {strict, []string{`Subject="CN=victim"` + gateway + "," + good + gateway}, identity.WrongHops},
		"an in-mesh client that speaks to us itself": {
			strict, []string{good + `,By=x;Hash=` + someHash + `;Subject="";URI=spiffe://cluster.local/ns/evil/sa/evil`}, identity.UntrustedHop,
		},
		"a gateway without a URI":                   {strict, []string{good + `,Subject=""`}, identity.UntrustedHop},
		"a gateway with two URIs":                   {strict, []string{good + gateway + ";URI=" + ingress}, identity.UntrustedHop},
		"a gateway whose URI only begins right":     {strict, []string{good + gateway + "-other"}, identity.UntrustedHop},
		"the gateway's URI in another key":          {strict, []string{good + `,By=` + ingress}, identity.UntrustedHop},
		"the gateway's URI at the wrong place":      {strict, []string{`URI=` + ingress + `,` + good}, identity.UntrustedHop},
		"an unknown key":                            {strict, []string{`Name=shop;` + good + gateway}, identity.UnknownKey},
		"an unknown key in the gateway's element":   {strict, []string{good + gateway + ";Name=a"}, identity.UnknownKey},
		"two subjects":                              {strict, []string{good + `;Subject="CN=victim"` + gateway}, identity.RepeatedKey},
		"two subjects in other spelling":            {strict, []string{good + `;SUBJECT="CN=shop"` + gateway}, identity.RepeatedKey},
		"two hashes":                                {strict, []string{`Hash=` + someHash + `;Hash=` + someHash + `;` + good + gateway}, identity.RepeatedKey},
		"two certificates":                          {strict, []string{`Cert="";Cert="` + encode(shop) + `"` + gateway}, identity.RepeatedKey},
		"a URI that holds another pair":             {strict, []string{good + `;URI=spiffe://x;Subject="CN=victim"` + gateway}, identity.RepeatedKey},
		"a URI that holds another element":          {strict, []string{good + `;URI=spiffe://x,Subject="CN=victim"` + gateway}, identity.WrongHops},
		"a hash that is none":                       {strict, []string{`Hash=hash1;` + good + gateway}, identity.BadHash},
		"a hash that is too short":                  {strict, []string{`Hash=abcd;` + good + gateway}, identity.BadHash},
		"a certificate that is none":                {strict, []string{`Cert="cert";` + good + gateway}, identity.BadCertificate},
		"a certificate with broken encoding":        {strict, []string{`Cert="%zz";` + good + gateway}, identity.BadCertificate},
		"a certificate with text in front":          {strict, []string{`Cert="x%0A` + encode(shop) + `";` + good + gateway}, identity.BadCertificate},
		"two certificates in one value":             {strict, []string{`Cert="` + encode(shop) + encode(other) + `";` + good + gateway}, identity.BadCertificate},
		"a PEM block that is no certificate":        {strict, []string{`Cert="` + strings.ReplaceAll(encode(shop), "CERTIFICATE", "FOO") + `";` + good + gateway}, identity.BadCertificate},
		"another certificate's hash":                {strict, []string{`Hash=` + hash(other) + `;Cert="` + encode(shop) + `"` + gateway}, identity.HashMismatch},
		"another certificate's subject":             {strict, []string{`Cert="` + encode(other) + `";` + good + gateway}, identity.SubjectMismatch},
		"a certificate with two common names":       {strict, []string{`Cert="` + encode(twoNames) + `"` + gateway}, identity.NotOneCommonName},
		"a certificate without a common name":       {strict, []string{`Cert="` + encode(noName) + `"` + gateway}, identity.NotOneCommonName},
		"neither subject nor certificate":           {strict, []string{`Hash=` + someHash + gateway}, identity.NoSubject},
		"an empty subject":                          {strict, []string{`Subject=""` + gateway}, identity.NoSubject},
		"the slash form":                            {strict, []string{`Subject="/C=DE/CN=shop"` + gateway}, identity.SlashForm},
		"a subject that is no name":                 {strict, []string{`Subject="O=Foo, Inc.,CN=shop"` + gateway}, identity.MalformedName},
		"two common names":                          {strict, []string{`Subject="CN=shop,CN=victim"` + gateway}, identity.NotOneCommonName},
		"two common names in one RDN":               {strict, []string{`Subject="CN=shop+CN=victim"` + gateway}, identity.NotOneCommonName},
		"a second common name by OID":               {strict, []string{`Subject="CN=shop,2.5.4.3=victim"` + gateway}, identity.NotOneCommonName},
		"an empty common name":                      {strict, []string{`Subject="CN="` + gateway}, identity.NotOneCommonName},
		"a common name that is no text":             {strict, []string{`Subject="CN=#0201FF"` + gateway}, identity.NotOneCommonName},
		"direct: two elements":                      {direct, []string{good + "," + good}, identity.WrongHops},
		"compatible: three elements":                {compatible, []string{`Subject="CN=victim",` + good + gateway}, identity.WrongHops},
		"compatible: a wrong gateway":               {compatible, []string{good + `,URI=spiffe://other`}, identity.UntrustedHop},
		"compatible: no subject":                    {compatible, []string{`Hash=a` + gateway}, identity.NoSubject},
		"compatible: another certificate's subject": {compatible, []string{`Cert="` + encode(other) + `";` + good + gateway}, identity.SubjectMismatch},
	} {
		t.Run(what, func(t *testing.T) {
			got, err := tc.verifier.Identify(tc.lines)
			e := (*identity.Error)(nil)
			if !errors.As(err, &e) || e.Reason != tc.want {
				t.Fatalf("got %+v and %v, want %s", got, err, tc.want)
			}
			if d := cmp.Diff(identity.Identity{}, got); d != "" {
				t.Errorf("an identity beside a refusal: %s", d)
			}
			if strings.Contains(err.Error(), "victim") {
				t.Errorf("the error repeats the header: %s", err)
			}
		})
	}
}

// TestASubjectThatPretends issues certificates whose subjects hold XFCC and name syntax, prints them as Envoy does, and
// sees only the certificate's own common name.
func TestASubjectThatPretends(t *testing.T) {
	for _, text := range []string{
		"victim=x", "x,CN=victim", `x",Subject="CN=victim`, `x\`, `x\",CN=victim`, "x;Subject=\"CN=victim\"", "x+CN=victim", "/CN=victim", `"`, "CN=victim", "#0C0676696374696D",
	} {
		c := issue(t, pkix.RDNSequence{attribute(oidCN, text)})
		name, err := names.FromDER(c.RawSubject)
		if err != nil {
			t.Fatal(err)
		}
		for _, header := range []string{
			`Hash=` + hash(c) + `;Subject="` + name.String() + `"` + gateway,
			`Hash=` + hash(c) + `;Cert="` + encode(c) + `";Subject="` + name.String() + `"` + gateway,
		} {
			got, err := strict.Identify([]string{header})
			if err != nil {
				t.Errorf("%q: %v", text, err)
				continue
			}
			if got.CommonName != text || got.Hash != hash(c) {
				t.Errorf("%q is read as %+v", text, got)
			}
		}
	}
}

func TestSerialIsHexAndEmptyWithoutACertificate(t *testing.T) {
	c := issue(t, pkix.RDNSequence{attribute(oidCN, "shop")})
	if got := (identity.Identity{Certificate: c}).Serial(); got != "abc" {
		t.Error(got)
	}
	if got := (identity.Identity{}).Serial(); got != "" {
		t.Error(got)
	}
}

func FuzzIdentify(f *testing.F) {
	f.Add(`Hash=`+someHash+`;Subject="CN=shop,OU=eu";URI=`+gateway, false)
	f.Add(`Hash=hash1;Cert="cert";Subject="O=client organization,CN=shop";URI=`+gateway, true)
	f.Add(`Cert="-----BEGIN%20CERTIFICATE-----%0AAAAA%0A-----END%20CERTIFICATE-----%0A"`+gateway, false)
	f.Add(`Subject="CN=victim",Subject="CN=shop"`+gateway, false)
	f.Fuzz(func(t *testing.T, header string, compatible bool) {
		v := strict
		v.Compatible = compatible
		id, err := v.Identify([]string{header})
		if err != nil {
			if e := (*identity.Error)(nil); !errors.As(err, &e) || e.Reason == "" || id.CommonName != "" {
				t.Fatalf("%v with %+v", err, id)
			}
			return
		}
		if cn := id.Subject.Values(names.OIDCommonName); len(cn) != 1 || cn[0] != id.CommonName || id.CommonName == "" {
			t.Fatalf("%q: not one common name: %+v", header, id)
		}
		if !compatible && !strings.Contains(header, ingress) {
			t.Fatalf("%q: accepted without the gateway", header)
		}
	})
}

package certs_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/application-connector/application-connector/certs"
)

func TestASubjectIsReadByTheGrammarOfRFC4514(t *testing.T) {
	for name, test := range map[string]struct {
		text, cn, written string
		name              pkix.Name
	}{
		"as the Connector sends it": {
			text: subject, cn: "2f6c0a1e-0000-4000-8000-000000000001",
			written: "CN=2f6c0a1e-0000-4000-8000-000000000001,C=DE,ST=province,L=locality,OU=OrgUnit,O=Org",
			name: pkix.Name{Organization: []string{"Org"}, OrganizationalUnit: []string{"OrgUnit"}, Locality: []string{"locality"},
				Province: []string{"province"}, Country: []string{"DE"}, CommonName: "2f6c0a1e-0000-4000-8000-000000000001"},
		},
		"blanks around separators are no part of a value": {
			text: " O = Org , CN = me ", cn: "me", written: "CN=me,O=Org", name: pkix.Name{Organization: []string{"Org"}, CommonName: "me"},
		},
		"names in any case": {text: "o=Org,cn=me", cn: "me", written: "CN=me,O=Org", name: pkix.Name{Organization: []string{"Org"}, CommonName: "me"}},
		"escaped separators": {
			text: `O=Smith\, Jones \+ Co\=,CN=a\\b\"c`, cn: `a\b"c`, written: `CN=a\\b\"c,O=Smith\, Jones \+ Co=`,
			name: pkix.Name{Organization: []string{"Smith, Jones + Co="}, CommonName: `a\b"c`},
		},
		"hexadecimal escapes": {
			text: `O=\C5\81\C3\B3d\C5\BA,CN=me`, cn: "me", written: "CN=me,O=Łódź", name: pkix.Name{Organization: []string{"Łódź"}, CommonName: "me"},
		},
		"an equals sign in a value": {text: "CN=a=b", cn: "a=b", written: "CN=a=b", name: pkix.Name{CommonName: "a=b"}},
		"repeats keep their order": {
			text: "OU=first,OU=second,CN=me", cn: "me", written: "CN=me,OU=second,OU=first",
			name: pkix.Name{OrganizationalUnit: []string{"first", "second"}, CommonName: "me"},
		},
		"several attributes in one name": {
			text: "OU=a+CN=me,O=Org", cn: "me", written: "O=Org,OU=a+CN=me", name: pkix.Name{Organization: []string{"Org"}, OrganizationalUnit: []string{"a"}, CommonName: "me"},
		},
		"an object identifier": {text: "2.5.4.10=Org,CN=me", cn: "me", written: "CN=me,O=Org", name: pkix.Name{Organization: []string{"Org"}, CommonName: "me"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := mustSubject(t, test.text)
			if s.CommonName() != test.cn || s.String() != test.written {
				t.Errorf("CN %q, written %q; want %q, %q", s.CommonName(), s, test.cn, test.written)
			}
			block, rest := pem.Decode(mustRequest(t, keys[0](), test.text))
			if block == nil || block.Type != "CERTIFICATE REQUEST" || len(rest) != 0 {
				t.Fatalf("the request is no single PEM block: %v", block)
			}
			csr, err := x509.ParseCertificateRequest(block.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			if err := csr.CheckSignature(); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(test.name, csr.Subject, cmpopts.IgnoreFields(pkix.Name{}, "Names")); diff != "" {
				t.Error(diff)
			}
			if len(csr.Extensions) != 0 {
				t.Errorf("the request asks for extensions: %v", csr.Extensions)
			}
		})
	}
}

func TestASubjectThatCannotBeReadSaysWhatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		"":                           "it is empty",
		"  ":                         "it is empty",
		"O=Org":                      "attribute CN is missing",
		"O=Org,CN":                   "incomplete type, value pair",
		"O=Org,,CN=me":               "incomplete type, value pair",
		"CN=me,":                     "incomplete type, value pair",
		"CN=":                        "attribute CN has no value",
		"O= ,CN=me":                  "attribute O has no value",
		"X=1,CN=me":                  `attribute "X" is unknown`,
		"1=1,CN=me":                  `attribute "1" is unknown`,
		`CN=\`:                       "corrupted escaped character",
		`CN=\zz`:                     "failed to decode escaped character",
		`CN=\ff`:                     "is not UTF-8",
		strings.Repeat("CN=a,", 999): "at most 4096 are allowed",
	} {
		_, err := certs.ParseSubject(text)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "RFC 4514") {
			t.Errorf("%.20q: %v; want %q in it", text, err, want)
		}
	}
	if _, err := certs.NewRequest(keys[0](), certs.Subject{}); err == nil {
		t.Error("a request without a subject was made")
	}
}

func FuzzParseSubject(f *testing.F) {
	for _, text := range []string{subject, `OU=a+CN=\,x,O=\C5\81`, "2.5.4.10=#0C024869,CN=me", "CN=#04", "CN=a;O=b", `CN=\`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := certs.ParseSubject(text)
		if err != nil {
			return
		}
		if s.CommonName() == "" {
			t.Errorf("%q: read without a CN", text)
		}
		csr, err := certs.NewRequest(fuzzKey, s)
		if err != nil {
			t.Fatalf("%q: no request: %v", text, err)
		}
		block, _ := pem.Decode(csr)
		parsed, err := x509.ParseCertificateRequest(block.Bytes)
		if err != nil {
			return // crypto/x509 refuses some encodings; Compass, which is written in Go, does as well
		}
		if err := s.Check(&x509.Certificate{RawSubject: parsed.RawSubject, Subject: parsed.Subject}); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	})
}

var fuzzKey = func() crypto.Signer {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return k
}()

func TestKeysAreRSAOfThreeSizesAndAreReadInEveryCommonEncoding(t *testing.T) {
	for _, bits := range []int{0, 1024, 2047, 8192} {
		if _, err := certs.GenerateKey(bits); err == nil || !strings.Contains(err.Error(), "[2048 3072 4096]") {
			t.Errorf("%d bits: %v", bits, err)
		}
	}
	rsaKey, ecKey := keys[0](), fuzzKey.(*ecdsa.PrivateKey)
	if rsaKey.N.BitLen() != 2048 {
		t.Errorf("a key of %d bits", rsaKey.N.BitLen())
	}
	pkcs8 := func(k any) []byte {
		der, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	}
	sec1, err := x509.MarshalECPrivateKey(ecKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		pem  []byte
		want crypto.PublicKey
	}{
		"PKCS#1":     {mustKey(t, rsaKey), rsaKey.Public()},
		"PKCS#8 RSA": {pkcs8(rsaKey), rsaKey.Public()},
		"PKCS#8 EC":  {pkcs8(ecKey), ecKey.Public()},
		"SEC 1":      {pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1}), ecKey.Public()},
	} {
		got, err := certs.DecodeKey(test.pem)
		if err != nil || !got.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(test.want) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if !bytes.HasPrefix(mustKey(t, rsaKey), []byte("-----BEGIN RSA PRIVATE KEY-----")) {
		t.Error("keys are not written as PKCS#1")
	}
	if _, err := certs.DecodeKey([]byte("canary")); err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("garbage: %v", err)
	}
}

func TestVerifyTakesOnlyWhatWasAskedFor(t *testing.T) {
	root := newAuthority(t, "root", keys[1](), nil)
	between := newAuthority(t, "intermediate", keys[2](), &root)
	foreign := newAuthority(t, "foreign", keys[2](), nil)
	csr := mustRequest(t, keys[0](), subject)
	good := between.issue(t, csr, nil)
	type is = certs.Issuance
	for name, test := range map[string]struct {
		edit  func(*is)
		chain []*x509.Certificate
		check certs.Check
		says  string
	}{
		"as asked":                         {chain: []*x509.Certificate{good, between.cert, root.cert}},
		"chain in another order":           {edit: func(i *is) { slices.Reverse(i.Chain) }, chain: []*x509.Certificate{good, between.cert, root.cert}},
		"chain with doubles and strangers": {edit: func(i *is) { i.Chain = append(i.Chain, i.Chain...); i.Chain = append(i.Chain, foreign.cert) }, chain: []*x509.Certificate{good, between.cert, root.cert}},
		"chain without the root":           {edit: func(i *is) { i.Chain = i.Chain[:2] }, chain: []*x509.Certificate{good, between.cert, root.cert}},
		"authority is an intermediate":     {edit: func(i *is) { i.Chain, i.CA = i.Chain[:2], []*x509.Certificate{between.cert} }, chain: []*x509.Certificate{good, between.cert}},
		"no chain at all":                  {edit: func(i *is) { i.Chain, i.CA = nil, []*x509.Certificate{between.cert} }, chain: []*x509.Certificate{good, between.cert}},
		"the Connector's clock is a minute ahead": {edit: func(i *is) {
			i.Certificate = between.issue(t, csr, func(c *x509.Certificate) { c.NotBefore = now.Add(time.Minute) })
		}},
		"no certificate":       {edit: func(i *is) { i.Certificate = nil }, check: certs.CheckComplete, says: "no certificate"},
		"no authority":         {edit: func(i *is) { i.CA = nil }, check: certs.CheckComplete, says: "authority"},
		"another key":          {edit: func(i *is) { i.Key = keys[1]() }, check: certs.CheckKey, says: "another key"},
		"no key":               {edit: func(i *is) { i.Key = nil }, check: certs.CheckKey, says: "missing"},
		"another subject":      {edit: func(i *is) { i.Subject = mustSubject(t, "O=Org,CN=other") }, check: certs.CheckSubject, says: "CN=other"},
		"one OU too many":      {edit: func(i *is) { i.Subject = mustSubject(t, subject+",OU=OrgUnit") }, check: certs.CheckSubject, says: "asked for"},
		"already ended":        {edit: func(i *is) { i.Now = now.AddDate(1, 0, 0) }, check: certs.CheckValidity, says: "compare the clocks"},
		"not yet valid":        {edit: func(i *is) { i.Now = now.Add(-time.Hour) }, check: certs.CheckValidity, says: "valid from"},
		"implausibly short":    {edit: func(i *is) { i.MinValidity = 2400 * time.Hour }, check: certs.CheckValidity, says: "must last"},
		"foreign authority":    {edit: func(i *is) { i.CA = []*x509.Certificate{foreign.cert} }, check: certs.CheckChain, says: "unknown authority"},
		"missing intermediate": {edit: func(i *is) { i.Chain = nil }, check: certs.CheckChain, says: "unknown authority"},
		"not for TLS clients": {edit: func(i *is) {
			i.Certificate = between.issue(t, csr, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} })
		}, check: certs.CheckChain, says: "key usage"},
	} {
		t.Run(name, func(t *testing.T) {
			i := certs.Issuance{
				Key: keys[0](), Subject: mustSubject(t, subject), Certificate: good,
				Chain: []*x509.Certificate{good, between.cert, root.cert}, CA: []*x509.Certificate{root.cert}, Now: now, MinValidity: time.Hour,
			}
			if test.edit != nil {
				test.edit(&i)
			}
			got, err := certs.Verify(i)
			if test.check == "" {
				if err != nil {
					t.Fatal(err)
				}
				if test.chain != nil && !slices.EqualFunc(got.Chain, test.chain, (*x509.Certificate).Equal) {
					t.Errorf("chain %v", names(got.Chain))
				}
				if got.Key != i.Key || !slices.EqualFunc(got.CA, i.CA, (*x509.Certificate).Equal) || len(got.TLS().Certificate) != len(got.Chain) {
					t.Errorf("the credential is not whole: %v", got)
				}
				return
			}
			var refused *certs.IssuanceError
			if !errors.As(err, &refused) || refused.Check != test.check || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%v; want %s and %q", err, test.check, test.says)
			}
		})
	}
}

func names(chain []*x509.Certificate) (n []string) {
	for _, c := range chain {
		n = append(n, c.Subject.CommonName)
	}
	return n
}

func TestRenewalIsDueByThresholdWithAShareOfTheSpreadForEachIdentity(t *testing.T) {
	cert := &x509.Certificate{NotBefore: now, NotAfter: now.Add(100 * 24 * time.Hour)}
	var seen []time.Time
	for i := range 500 {
		p := certs.RenewalPolicy{Threshold: 0.3, Identity: fmt.Sprint("runtime", i)}
		at := p.RenewAt(cert)
		if early, late := now.AddDate(0, 0, 70), now.AddDate(0, 0, 75); at.Before(early) || at.After(late) {
			t.Fatalf("%s: %s is not between %s and %s", p.Identity, at, early, late)
		}
		if !at.Equal(p.RenewAt(cert)) || at.Nanosecond() != 0 {
			t.Errorf("%s: not the same whole second each time", p.Identity)
		}
		seen = append(seen, at)
	}
	slices.SortFunc(seen, time.Time.Compare)
	for day := range 5 {
		n := 0
		for _, at := range seen {
			if d := at.Sub(now.AddDate(0, 0, 70+day)); d >= 0 && d < 24*time.Hour {
				n++
			}
		}
		if n < 60 || n > 140 {
			t.Errorf("%d of 500 renewals are due on day %d of 5: not even", n, day)
		}
	}
	short := &x509.Certificate{NotBefore: now, NotAfter: now.Add(time.Minute)}
	if at := (certs.RenewalPolicy{Threshold: 0.3, Floor: 30 * time.Second}).RenewAt(short); !at.Equal(now.Add(30 * time.Second)) {
		t.Errorf("the floor is not kept: %s", at)
	}
	for threshold, ok := range map[float64]bool{0: false, -1: false, 1: false, 7: false, 0.3: true, 0.999: true} {
		if err := (certs.RenewalPolicy{Threshold: threshold}).Validate(); (err == nil) != ok {
			t.Errorf("threshold %v: %v", threshold, err)
		}
	}
}

func TestSecretsKeepTheCredential(t *testing.T) {
	root := newAuthority(t, "root", keys[1](), nil)
	leaf := root.issue(t, mustRequest(t, keys[0](), subject), nil)
	want := certs.Credential{Key: keys[0](), Chain: []*x509.Certificate{leaf, root.cert}, CA: []*x509.Certificate{root.cert}}
	data, err := certs.EncodeClient(want)
	if err != nil {
		t.Fatal(err)
	}
	if got := slices.Sorted(maps.Keys(data)); !slices.Equal(got, []string{"ca.crt", "crt", "crtChain", "key", "tls.crt", "tls.key"}) {
		t.Errorf("keys %v", got)
	}
	if _, err := tls.X509KeyPair(data["tls.crt"], data["tls.key"]); err != nil {
		t.Errorf("the Secret cannot be used as kubernetes.io/tls: %v", err)
	}
	equal := cmp.Options{cmp.Comparer(func(a, b *x509.Certificate) bool { return a.Equal(b) }), cmp.Comparer(func(a, b crypto.Signer) bool {
		return a.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(b.Public())
	})}
	for name, edit := range map[string]func(map[string][]byte){
		"as written":                  func(map[string][]byte) {},
		"as agents before wrote it":   func(d map[string][]byte) { delete(d, "tls.crt"); delete(d, "tls.key"); delete(d, "ca.crt") },
		"with foreign keys":           func(d map[string][]byte) { d["mine"] = []byte("x") },
		"with the chain out of order": func(d map[string][]byte) { d["crtChain"] = slices.Concat(pemOf(root.cert), pemOf(leaf)) },
		"with a PKCS#8 key": func(d map[string][]byte) {
			der, _ := x509.MarshalPKCS8PrivateKey(keys[0]())
			d["key"] = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
		},
	} {
		d := maps.Clone(data)
		edit(d)
		got, err := certs.DecodeClient(d)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(want, got, equal); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	for name, test := range map[string]struct {
		edit func(map[string][]byte)
		says string
	}{
		"no key":            {func(d map[string][]byte) { delete(d, "key") }, `data["key"] is missing`},
		"no certificate":    {func(d map[string][]byte) { d["crt"] = nil }, `data["crt"] is missing`},
		"no chain":          {func(d map[string][]byte) { delete(d, "crtChain") }, `data["crtChain"] is missing`},
		"garbage key":       {func(d map[string][]byte) { d["key"] = []byte("x") }, `data["key"]`},
		"garbage crt":       {func(d map[string][]byte) { d["crt"] = []byte("x") }, `data["crt"]`},
		"garbage chain":     {func(d map[string][]byte) { d["crtChain"] = []byte("x") }, `data["crtChain"]`},
		"garbage authority": {func(d map[string][]byte) { d["ca.crt"] = []byte("x") }, `data["ca.crt"]`},
		"another key":       {func(d map[string][]byte) { d["key"] = mustKey(t, keys[1]()) }, "another key"},
		"another chain":     {func(d map[string][]byte) { d["crtChain"] = pemOf(root.cert) }, "is not in it"},
	} {
		d := maps.Clone(data)
		test.edit(d)
		if _, err := certs.DecodeClient(d); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v; want %q", name, err, test.says)
		}
	}
	ca, err := certs.EncodeCA(want.CA)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := certs.DecodeCA(ca); err != nil || len(ca) != 1 || !slices.EqualFunc(got, want.CA, (*x509.Certificate).Equal) {
		t.Errorf("CA Secret: %v, %v", got, err)
	}
	if _, err := certs.DecodeCA(nil); err == nil {
		t.Error("an empty CA Secret was read")
	}
	if _, err := certs.EncodeCA(nil); err == nil {
		t.Error("an empty CA Secret was written")
	}
	if _, err := certs.EncodeClient(certs.Credential{}); err == nil {
		t.Error("an empty client Secret was written")
	}
}

func FuzzDecodeClient(f *testing.F) {
	f.Add([]byte("-----BEGIN RSA PRIVATE KEY-----\n-----END RSA PRIVATE KEY-----\n"), []byte("x"), []byte("y"), []byte(""))
	f.Fuzz(func(t *testing.T, key, crt, chain, ca []byte) {
		c, err := certs.DecodeClient(map[string][]byte{"key": key, "crt": crt, "crtChain": chain, "ca.crt": ca})
		if err == nil && (c.Key == nil || len(c.Chain) == 0) {
			t.Error("half a credential was read")
		}
	})
}

func mustKey(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	text, err := certs.EncodeKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func pemOf(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}

func TestOldAuthoritiesAreTrustedUntilTheyEnd(t *testing.T) {
	old := newAuthority(t, "old", keys[1](), nil).cert
	next := newAuthority(t, "next", keys[2](), nil).cert
	if got := names(certs.MergeCA([]*x509.Certificate{old}, []*x509.Certificate{next, next}, now)); !slices.Equal(got, []string{"next", "old"}) {
		t.Errorf("during the overlap: %v", got)
	}
	if got := names(certs.MergeCA([]*x509.Certificate{old}, []*x509.Certificate{next}, old.NotAfter)); !slices.Equal(got, []string{"next"}) {
		t.Errorf("after the end: %v", got)
	}
	if got := names(certs.MergeCA([]*x509.Certificate{old}, []*x509.Certificate{old}, now)); !slices.Equal(got, []string{"old"}) {
		t.Errorf("without a change: %v", got)
	}
}

func TestACredentialPrintsNoKey(t *testing.T) {
	root := newAuthority(t, "root", keys[1](), nil)
	c := certs.Credential{Key: keys[0](), Chain: []*x509.Certificate{root.issue(t, mustRequest(t, keys[0](), subject), nil)}}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "credential", c)
	for _, printed := range []string{log.String(), fmt.Sprintf("%v %+v %#v %s", c, c, c, c), fmt.Sprint(certs.Credential{})} {
		if strings.Contains(printed, keys[0]().D.String()) || strings.Contains(printed, "Primes") {
			t.Errorf("the key is printed: %s", printed)
		}
	}
	if !c.ValidAt(now) || c.ValidAt(now.AddDate(1, 0, 0)) || c.ValidAt(now.Add(-time.Hour)) {
		t.Error("validity is not that of the certificate")
	}
}

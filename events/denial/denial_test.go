package denial_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/application-connector/application-connector/events/denial"
	"github.com/application-connector/application-connector/events/identity"
)

const (
	hash  = "6f1ed002ab5595859014ebf0951522d9a8ae9f16a1ab0a2ac6b45a1f1b8a3d21"
	other = "0000000000000000000000000000000000000000000000000000000000000000"
)

// client is one whose certificate has a serial number and an issuer.
func client(t *testing.T, serial int64, issuer pkix.Name) identity.Identity {
	t.Helper()
	der, err := asn1.Marshal(issuer.ToRDNSequence())
	if err != nil {
		t.Fatal(err)
	}
	return identity.Identity{Hash: hash, Certificate: &x509.Certificate{SerialNumber: big.NewInt(serial), RawIssuer: der}}
}

func TestCheck(t *testing.T) {
	ca := pkix.Name{CommonName: "ca", Organization: []string{"Foo, Inc."}}
	for what, tc := range map[string]struct {
		list   string
		client identity.Identity
		want   denial.Reason
	}{
		"an empty list":                       {"\n# nothing\n  \n", identity.Identity{}, ""},
		"the hash":                            {"sha256 " + hash, identity.Identity{Hash: hash}, denial.DeniedCertificate},
		"the hash as OpenSSL prints it":       {"sha256 " + colons(strings.ToUpper(hash)) + " # left the company", identity.Identity{Hash: hash}, denial.DeniedCertificate},
		"another hash":                        {"sha256 " + other, identity.Identity{Hash: hash}, ""},
		"a hash that is not known":            {"sha256 " + other, identity.Identity{}, denial.DenialUnknown},
		"serial and issuer":                   {`serial 02 CN=ca,O=Foo\, Inc.`, client(t, 2, ca), denial.DeniedCertificate},
		"a long serial with colons":           {`serial 0A:BC CN=ca,O=Foo\, Inc. # paired twice`, client(t, 0xabc, ca), denial.DeniedCertificate},
		"the serial of another issuer":        {`serial 02 CN=ca2,O=Foo\, Inc.`, client(t, 2, ca), ""},
		"another serial of the issuer":        {`serial 03 CN=ca,O=Foo\, Inc.`, client(t, 2, ca), ""},
		"the second of two issuers":           {"serial 2 CN=x\nserial 2 CN=ca,O=Foo\\, Inc.", client(t, 2, ca), denial.DeniedCertificate},
		"a certificate that is not known":     {`serial 02 CN=ca`, identity.Identity{Hash: hash}, denial.DenialUnknown},
		"a good line beside one that is none": {"nonsense\nsha256 " + hash, identity.Identity{Hash: hash}, denial.DeniedCertificate},
	} {
		t.Run(what, func(t *testing.T) {
			list, _ := denial.Parse(map[string]string{"list": tc.list})
			err := list.Check(tc.client)
			var got denial.Reason
			if e := (*denial.Error)(nil); errors.As(err, &e) {
				got = e.Reason
			}
			if got != tc.want || (err == nil) != (tc.want == "") {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
	if err := (*denial.List)(nil).Check(identity.Identity{}); err != nil {
		t.Error(err)
	}
}

func TestParseNamesLinesThatItCannotRead(t *testing.T) {
	list, errs := denial.Parse(map[string]string{
		"b": "sha256 " + hash + "\nsha256 abc\nsha256\nserial 2\nserial xyz CN=ca\nserial -2 CN=ca\nserial 2 /CN=ca\n" + hash,
		"a": "sha1 x\nserial 2 CN=ca",
	})
	var got []string
	for _, err := range errs {
		got = append(got, err.Error())
	}
	want := []string{
		`key a, line 1: must begin with "sha256 " or "serial "`,
		"key b, line 2: after sha256 there must be 64 hex digits",
		"key b, line 3: after sha256 there must be 64 hex digits",
		"key b, line 4: after the serial number there must be the issuer's name by RFC 4514, as CN=ca,O=org",
		"key b, line 5: after serial there must be a number in hex, and then the issuer",
		"key b, line 6: after serial there must be a number in hex, and then the issuer",
		"key b, line 7: after the serial number there must be the issuer's name by RFC 4514, as CN=ca,O=org",
		`key b, line 8: must begin with "sha256 " or "serial "`,
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if list.Len() != 2 {
		t.Errorf("%d entries", list.Len())
	}
}

// FuzzParse checks that any text gives a list, and that each line is either an entry, an error, or nothing.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"", "# x", "sha256 " + hash, "serial 2 CN=ca", "serial 2 /CN=ca", "sha256 " + colons(hash), "x\n\ny", "serial 0:2 CN=a#b #c"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		list, errs := denial.Parse(map[string]string{"k": text})
		if n, lines := list.Len()+len(errs), strings.Count(text, "\n")+1; n > lines {
			t.Fatalf("%d of %d lines", n, lines)
		}
		_ = list.Check(identity.Identity{Hash: hash})
	})
}

func colons(h string) string {
	var pairs []string
	for i := 0; i < len(h); i += 2 {
		pairs = append(pairs, h[i:i+2])
	}
	return strings.Join(pairs, ":")
}

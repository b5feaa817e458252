package names_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"math/big"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/application-connector/application-connector/events/names"
)

const (
	oidC  = "2.5.4.6"
	oidL  = "2.5.4.7"
	oidO  = "2.5.4.10"
	oidOU = "2.5.4.11"
)

func one(oid, value string) names.RDN { return names.RDN{{Type: oid, Value: value}} }

func TestParse(t *testing.T) {
	for what, tc := range map[string]struct {
		in   string
		want names.Name
	}{
		"the empty name":                       {"", nil},
		"one attribute":                        {"CN=shop", names.Name{one(names.OIDCommonName, "shop")}},
		"order is kept":                        {"CN=shop,OU=eu,O=acme,C=DE", names.Name{one(names.OIDCommonName, "shop"), one(oidOU, "eu"), one(oidO, "acme"), one(oidC, "DE")}},
		"keywords ignore case":                 {"cn=shop", names.Name{one(names.OIDCommonName, "shop")}},
		"a dotted type":                        {"2.5.4.3=shop", names.Name{one(names.OIDCommonName, "shop")}},
		"an unknown keyword stays a keyword":   {"shoeSize=44", names.Name{one("SHOESIZE", "44")}},
		"an unknown OID":                       {"1.2.3.4=x", names.Name{one("1.2.3.4", "x")}},
		"an escaped comma is text":             {`O=Foo\, Inc.,CN=a`, names.Name{one(oidO, "Foo, Inc."), one(names.OIDCommonName, "a")}},
		"an escaped comma makes no attribute":  {`CN=a\,CN=victim`, names.Name{one(names.OIDCommonName, "a,CN=victim")}},
		"hex pairs":                            {`CN=a\2CCN=victim`, names.Name{one(names.OIDCommonName, "a,CN=victim")}},
		"hex pairs are UTF-8":                  {`O=M\C3\BCller`, names.Name{one(oidO, "Müller")}},
		"UTF-8 without escapes":                {`O=Müller`, names.Name{one(oidO, "Müller")}},
		"an equals sign in a value is text":    {"CN=victim=attacker", names.Name{one(names.OIDCommonName, "victim=attacker")}},
		"an escaped plus is text":              {`CN=a\+CN=b`, names.Name{one(names.OIDCommonName, "a+CN=b")}},
		"a multi-valued RDN":                   {"CN=a+OU=b,O=c", names.Name{{{Type: names.OIDCommonName, Value: "a"}, {Type: oidOU, Value: "b"}}, one(oidO, "c")}},
		"repeated attributes":                  {"CN=a,CN=b", names.Name{one(names.OIDCommonName, "a"), one(names.OIDCommonName, "b")}},
		"an empty value":                       {"CN=,O=x", names.Name{one(names.OIDCommonName, ""), one(oidO, "x")}},
		"escaped quotes, backslash and angles": {`CN=\"\\\<\>\;`, names.Name{one(names.OIDCommonName, `"\<>;`)}},
		"escaped spaces at both ends":          {`CN=\ a b\ `, names.Name{one(names.OIDCommonName, " a b ")}},
		"an escaped number sign":               {`CN=\#abc`, names.Name{one(names.OIDCommonName, "#abc")}},
		"a number sign inside":                 {`CN=a#b`, names.Name{one(names.OIDCommonName, "a#b")}},
		"a hex value that is a string":         {"CN=#0C0473686F70", names.Name{one(names.OIDCommonName, "shop")}},
		"a hex value that is no string":        {"CN=#0201FF", names.Name{{{Type: names.OIDCommonName, DER: "\x02\x01\xff"}}}},
		"a zero byte by hex pair":              {`CN=a\00`, names.Name{one(names.OIDCommonName, "a\x00")}},
	} {
		t.Run(what, func(t *testing.T) {
			got, err := names.Parse(tc.in)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
			again, err := names.Parse(got.String())
			if err != nil || !again.Equal(got) {
				t.Errorf("printed as %q and read again: %v, %v", got.String(), again, err)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for what, tc := range map[string]struct {
		in   string
		want names.Error
	}{
		"the slash form":                    {"/C=DE/CN=shop", names.Error{Kind: names.SlashForm, Offset: 0}},
		"a piece without an equals sign":    {"O=Foo, Inc.", names.Error{Kind: names.Malformed, Offset: 6}},
		"a comma at the end":                {"CN=a,", names.Error{Kind: names.Malformed, Offset: 5}},
		"a plus at the end":                 {"CN=a+", names.Error{Kind: names.Malformed, Offset: 5}},
		"no type":                           {"=a", names.Error{Kind: names.Malformed, Offset: 0}},
		"a space before a type":             {"CN=a, O=b", names.Error{Kind: names.Malformed, Offset: 5}},
		"a space before a value":            {"CN= a", names.Error{Kind: names.Malformed, Offset: 3}},
		"a space behind a value":            {"CN=a ,O=b", names.Error{Kind: names.Malformed, Offset: 5}},
		"a quoted value":                    {`CN="a"`, names.Error{Kind: names.Malformed, Offset: 3}},
		"a semicolon between names":         {"CN=a;O=b", names.Error{Kind: names.Malformed, Offset: 4}},
		"a lone backslash at the end":       {`CN=a\`, names.Error{Kind: names.Malformed, Offset: 4}},
		"a backslash before a letter":       {`CN=a\z`, names.Error{Kind: names.Malformed, Offset: 4}},
		"half a hex pair":                   {`CN=a\C,O=b`, names.Error{Kind: names.Malformed, Offset: 4}},
		"hex pairs that are not UTF-8":      {`CN=\FF`, names.Error{Kind: names.Malformed, Offset: 6}},
		"bytes that are not UTF-8":          {"CN=\xff", names.Error{Kind: names.Malformed, Offset: 4}},
		"a zero byte":                       {"CN=a\x00", names.Error{Kind: names.Malformed, Offset: 4}},
		"an odd number of hex digits":       {"CN=#0C0", names.Error{Kind: names.Malformed, Offset: 7}},
		"a hex value without digits":        {"CN=#", names.Error{Kind: names.Malformed, Offset: 4}},
		"a hex value that is not DER":       {"CN=#FFFF", names.Error{Kind: names.Malformed, Offset: 8}},
		"text behind a hex value":           {"CN=#0C0161 x", names.Error{Kind: names.Malformed, Offset: 10}},
		"an OID with a leading zero":        {"2.05=a", names.Error{Kind: names.Malformed, Offset: 0}},
		"an OID that ends in a dot":         {"2.5.=a", names.Error{Kind: names.Malformed, Offset: 0}},
		"a keyword with a dot":              {"a.b=c", names.Error{Kind: names.Malformed, Offset: 0}},
		"a type with a hyphen at the start": {"-a=c", names.Error{Kind: names.Malformed, Offset: 0}},
	} {
		t.Run(what, func(t *testing.T) {
			got, err := names.Parse(tc.in)
			e := (*names.Error)(nil)
			if !errors.As(err, &e) {
				t.Fatalf("got %v and %v", got, err)
			}
			if e.Kind != tc.want.Kind || e.Offset != tc.want.Offset || e.Reason == "" {
				t.Errorf("got %+v, want %+v", *e, tc.want)
			}
		})
	}
}

func TestValuesCountsAnAttributeThatIsNoText(t *testing.T) {
	n, err := names.Parse("CN=#0201FF,CN=a")
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"", "a"}, n.Values(names.OIDCommonName)); d != "" {
		t.Error(d)
	}
}

func TestEqualComparesRDNsInOrderAndTheirAttributesAsASet(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want bool
	}{
		{"CN=a+OU=b", "OU=b+CN=a", true},
		{"CN=a,OU=b", "OU=b,CN=a", false},
		{"CN=a,OU=b", "CN=a+OU=b", false},
		{"CN=a", "CN=A", false},
		{"CN=a", "CN=a,O=b", false},
		{"CN=a+CN=a+CN=b", "CN=a+CN=b+CN=b", false},
		{"CN=a b", "CN=a  b", false},
	} {
		a, errA := names.Parse(tc.a)
		b, errB := names.Parse(tc.b)
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		if a.Equal(b) != tc.want || b.Equal(a) != tc.want {
			t.Errorf("%s and %s: want equal=%v", tc.a, tc.b, tc.want)
		}
	}
}

// subjects are names as certificates may hold them, most general RDN first.
func subjects() map[string]pkix.RDNSequence {
	attribute := func(oid asn1.ObjectIdentifier, value any) pkix.RelativeDistinguishedNameSET {
		return pkix.RelativeDistinguishedNameSET{{Type: oid, Value: value}}
	}
	cn, o, ou, c := asn1.ObjectIdentifier{2, 5, 4, 3}, asn1.ObjectIdentifier{2, 5, 4, 10}, asn1.ObjectIdentifier{2, 5, 4, 11}, asn1.ObjectIdentifier{2, 5, 4, 6}
	raw := func(tag int, b string) asn1.RawValue {
		return asn1.RawValue{Class: asn1.ClassUniversal, Tag: tag, Bytes: []byte(b)}
	}
	all := map[string]pkix.RDNSequence{
		"plain":           {attribute(c, "DE"), attribute(o, "acme"), attribute(ou, "eu"), attribute(cn, "shop")},
		"empty":           {},
		"repeated":        {attribute(cn, "a"), attribute(cn, "b"), attribute(ou, "x"), attribute(ou, "x")},
		"multi-valued":    {attribute(o, "acme"), {{Type: cn, Value: "a"}, {Type: ou, Value: "b"}}},
		"IA5":             {attribute(asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 25}, raw(asn1.TagIA5String, "example"))},
		"T61":             {attribute(o, raw(asn1.TagT61String, "M\xfcller"))},
		"BMP":             {attribute(o, raw(asn1.TagBMPString, "\x00M\x00\xfc\x20\xac"))},
		"numeric":         {attribute(o, raw(asn1.TagNumericString, "12 34"))},
		"unknown type":    {attribute(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}, "text")},
		"empty value":     {attribute(o, raw(asn1.TagUTF8String, "")), attribute(cn, "a")},
		"serial and mail": {attribute(asn1.ObjectIdentifier{2, 5, 4, 5}, "17"), attribute(asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}, raw(asn1.TagIA5String, "a@b.c"))},
	}
	for _, k := range [][]int{
		{2, 5, 4, 4}, {2, 5, 4, 7}, {2, 5, 4, 8}, {2, 5, 4, 9}, {2, 5, 4, 12}, {2, 5, 4, 13}, {2, 5, 4, 15}, {2, 5, 4, 16}, {2, 5, 4, 17},
		{2, 5, 4, 18}, {2, 5, 4, 20}, {2, 5, 4, 41}, {2, 5, 4, 42}, {2, 5, 4, 43}, {2, 5, 4, 44}, {2, 5, 4, 45}, {2, 5, 4, 46}, {2, 5, 4, 65}, {2, 5, 4, 72}, {2, 5, 4, 97},
		{0, 9, 2342, 19200300, 100, 1, 1}, {1, 2, 840, 113549, 1, 9, 2}, {1, 2, 840, 113549, 1, 9, 8},
		{1, 3, 6, 1, 4, 1, 311, 60, 2, 1, 1}, {1, 3, 6, 1, 4, 1, 311, 60, 2, 1, 2}, {1, 3, 6, 1, 4, 1, 311, 60, 2, 1, 3},
	} {
		oid := asn1.ObjectIdentifier(k)
		all["type "+oid.String()] = pkix.RDNSequence{attribute(oid, "v")}
	}
	for _, text := range []string{
		"Foo, Inc.", "a+b", "a=b", `a"b`, `a\b`, "a<b>c", "a;b", "#a", "a#", " a", "a ", "  a  ", " ", "a\x00b", "a\nb", "Müller", "日本", "🙂",
		"CN=victim", "a,CN=victim", `a\,CN=victim`, `a",CN=victim`, "a/CN=victim", "a;URI=x", "a\x7fb", `\`, `\\`, `"`, ",", "+", "C3", `\C3\BC`,
	} {
		all["text "+text] = pkix.RDNSequence{attribute(o, text), attribute(cn, text)}
	}
	return all
}

func certificate(t *testing.T, subject pkix.RDNSequence) *x509.Certificate {
	t.Helper()
	raw, err := asn1.Marshal(subject)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(2), RawSubject: raw, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0)}
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

// TestWhatGoPrintsIsTheCertificatesSubject compares with the string form of another implementation, pkix.
func TestWhatGoPrintsIsTheCertificatesSubject(t *testing.T) {
	for what, subject := range subjects() {
		t.Run(what, func(t *testing.T) {
			c := certificate(t, subject)
			want, err := names.FromDER(c.RawSubject)
			if err != nil {
				t.Fatal(err)
			}
			var sequence pkix.RDNSequence
			if _, err := asn1.Unmarshal(c.RawSubject, &sequence); err != nil {
				t.Fatal(err)
			}
			printed := sequence.String()
			if strings.Contains(printed, "\x00") {
				printed = strings.ReplaceAll(printed, "\x00", `\00`) // the one character that pkix should escape and does not
			}
			same(t, printed, want)
			same(t, want.String(), want)
		})
	}
}

var update = flag.Bool("update", false, "record what openssl prints")

const recording = "testdata/openssl-rfc2253.json"

// TestWhatOpenSSLPrintedIsTheCertificatesSubject reads the form that Envoy writes, from a recording of OpenSSL 3.
func TestWhatOpenSSLPrintedIsTheCertificatesSubject(t *testing.T) {
	recorded := map[string]string{}
	text, err := os.ReadFile(recording)
	if err == nil {
		err = json.Unmarshal(text, &recorded)
	}
	if err != nil {
		t.Fatal(err)
	}
	for what, subject := range subjects() {
		t.Run(what, func(t *testing.T) {
			printed, ok := recorded[what]
			if !ok {
				t.Fatalf("not recorded: run this package's tests with -update where openssl is installed")
			}
			want, err := names.FromDER(certificate(t, subject).RawSubject)
			if err != nil {
				t.Fatal(err)
			}
			same(t, printed, want)
		})
	}
}

// TestOpenSSLPrintsWhatIsRecorded ties the recording to the openssl of this machine; where there is none, the recording
// stands for it.
func TestOpenSSLPrintsWhatIsRecorded(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed; TestWhatOpenSSLPrintedIsTheCertificatesSubject covers its recorded output")
	}
	printed := map[string]string{}
	for what, subject := range subjects() {
		cmd := exec.CommandContext(t.Context(), openssl, "x509", "-noout", "-subject", "-nameopt", "rfc2253")
		cmd.Stdin = bytes.NewReader(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate(t, subject).Raw}))
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(what, err)
		}
		line, ok := strings.CutPrefix(strings.TrimSuffix(string(out), "\n"), "subject=")
		if !ok {
			t.Fatalf("%s: openssl printed %q", what, out)
		}
		printed[what] = line
	}
	text, err := json.MarshalIndent(printed, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	text = append(text, '\n')
	if *update {
		if err := os.WriteFile(recording, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	recorded, err := os.ReadFile(recording)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(recorded), string(text)); d != "" {
		t.Errorf("(-recorded +printed)\n%s", d)
	}
}

func same(t *testing.T, printed string, want names.Name) {
	t.Helper()
	got, err := names.Parse(printed)
	if err != nil {
		t.Fatalf("%q: %v", printed, err)
	}
	if d := cmp.Diff(want, got); d != "" || !got.Equal(want) {
		t.Errorf("%q (-certificate +printed)\n%s", printed, d)
	}
}

func TestFromDERRefuses(t *testing.T) {
	for what, der := range map[string]string{
		"nothing":                      "",
		"no sequence":                  "\x02\x01\x00",
		"bytes behind":                 "\x30\x00\x00",
		"an empty relative name":       "\x30\x02\x31\x00",
		"a relative name that is none": "\x30\x02\x30\x00",
		"an attribute that is none":    "\x30\x05\x31\x03\x02\x01\x00",
		"text that is not UTF-8":       "\x30\x0c\x31\x0a\x30\x08\x06\x03\x55\x04\x03\x0c\x01\xff",
		"odd BMP text":                 "\x30\x0c\x31\x0a\x30\x08\x06\x03\x55\x04\x03\x1e\x01\x41",
		"BMP text with a surrogate":    "\x30\x0d\x31\x0b\x30\x09\x06\x03\x55\x04\x03\x1e\x02\xd8\x00",
		"odd universal text":           "\x30\x0c\x31\x0a\x30\x08\x06\x03\x55\x04\x03\x1c\x01\x41",
		"universal text out of range":  "\x30\x0f\x31\x0d\x30\x0b\x06\x03\x55\x04\x03\x1c\x04\x7f\xff\xff\xff",
	} {
		t.Run(what, func(t *testing.T) {
			got, err := names.FromDER([]byte(der))
			if e := (*names.Error)(nil); !errors.As(err, &e) {
				t.Errorf("got %v and %v", got, err)
			}
		})
	}
}

func TestFromDERReadsUniversalString(t *testing.T) {
	got, err := names.FromDER([]byte("\x30\x0f\x31\x0d\x30\x0b\x06\x03\x55\x04\x03\x1c\x04\x00\x00\x20\xac"))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(names.Name{one(names.OIDCommonName, "€")}, got); d != "" {
		t.Error(d)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "CN=a", `CN=a\,b+OU=\C3\BC,O=#0C0161`, "/CN=a/O=b", `CN=\ a\ `, "1.2.3=x", "CN=a,,", `O="a"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := names.Parse(s)
		if err != nil {
			if e := (*names.Error)(nil); !errors.As(err, &e) || n != nil {
				t.Fatalf("%v with %v", err, n)
			}
			return
		}
		again, err := names.Parse(n.String())
		if err != nil || !again.Equal(n) {
			t.Fatalf("%q is read as %v, printed as %q and read as %v (%v)", s, n, n.String(), again, err)
		}
	})
}

func FuzzFromDER(f *testing.F) {
	f.Add([]byte("\x30\x0d\x31\x0b\x30\x09\x06\x03\x55\x04\x03\x0c\x02\x61\x62"))
	f.Add([]byte("\x30\x00"))
	f.Fuzz(func(t *testing.T, der []byte) {
		n, err := names.FromDER(der)
		if err != nil {
			return
		}
		again, err := names.Parse(n.String())
		if err != nil || !again.Equal(n) {
			t.Fatalf("%v is printed as %q and read as %v (%v)", n, n.String(), again, err)
		}
	})
}

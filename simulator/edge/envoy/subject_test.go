package envoy_test

import (
	"encoding/asn1"
	"testing"

	"github.com/application-connector/application-connector/simulator/edge/envoy"
)

type attribute struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

type nameSET []attribute

func text(tag int, s string, oid ...int) attribute {
	return attribute{oid, asn1.RawValue{Tag: tag, Bytes: []byte(s)}}
}

func cn(s string) nameSET { return nameSET{text(asn1.TagUTF8String, s, 2, 5, 4, 3)} }
func org(tag int, s string) nameSET {
	return nameSET{text(tag, s, 2, 5, 4, 10)}
}

func name(t testing.TB, sets ...nameSET) []byte {
	t.Helper()
	der, err := asn1.Marshal(sets)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// The expected texts were printed by OpenSSL 3.0 (x509 -subject -nameopt RFC2253).
func TestSubjectsArePrintedAsOpenSSLDoes(t *testing.T) {
	const utf8, printable, t61, bmp, ia5 = asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagT61String, asn1.TagBMPString, asn1.TagIA5String
	for what, c := range map[string]struct {
		sets []nameSET
		want string
	}{
		"nothing":                       {nil, ""},
		"the last comes first":          {[]nameSET{{text(printable, "DE", 2, 5, 4, 6)}, org(utf8, "Org"), cn("x")}, "CN=x,O=Org,C=DE"},
		"special characters":            {[]nameSET{org(utf8, `Foo, Inc.+"x"\<y>;z`)}, `O=Foo\, Inc.\+\"x\"\\\<y\>\;z`},
		"an equals sign is not escaped": {[]nameSET{cn("victim=attacker")}, "CN=victim=attacker"},
		"a leading hash":                {[]nameSET{org(utf8, "#hash # ümlaut €𝄞")}, `O=\#hash # \C3\BCmlaut \E2\82\AC\F0\9D\84\9E`},
		"outer spaces":                  {[]nameSET{{text(utf8, " lead #x trail ", 2, 5, 4, 7)}}, `L=\ lead #x trail\ `},
		"one space":                     {[]nameSET{cn(" ")}, `CN=\ `},
		"empty value":                   {[]nameSET{cn("")}, "CN="},
		"control characters":            {[]nameSET{cn("ctl\x01\n\x7fend")}, `CN=ctl\01\0A\7Fend`},
		"several values in one":         {[]nameSET{{text(utf8, "a", 2, 5, 4, 11), text(utf8, "multi", 2, 5, 4, 3)}}, "CN=multi+OU=a"},
		"the same type twice":           {[]nameSET{cn("a"), cn("b")}, "CN=b,CN=a"},
		"T61":                           {[]nameSET{org(t61, "t61\xe4")}, `O=t61\C3\A4`},
		"BMP":                           {[]nameSET{org(bmp, "\x00b\x00m\x20\xac")}, `O=bm\E2\82\AC`},
		"an unknown type":               {[]nameSET{{text(utf8, "unknown oid", 1, 2, 3, 4, 5)}}, "1.2.3.4.5=#0C0B756E6B6E6F776E206F6964"},
		"other known types": {[]nameSET{
			{text(utf8, "street = 7", 2, 5, 4, 9)}, {text(ia5, "me@x.test", 1, 2, 840, 113549, 1, 9, 1)}, {text(ia5, "dc", 0, 9, 2342, 19200300, 100, 1, 25)},
			{text(utf8, "uid", 0, 9, 2342, 19200300, 100, 1, 1)}, {text(printable, "serial", 2, 5, 4, 5)}, {text(utf8, "postal", 2, 5, 4, 17)},
			{text(utf8, "title", 2, 5, 4, 12)}, {text(utf8, "sur", 2, 5, 4, 4)}, {text(utf8, "given", 2, 5, 4, 42)}, {text(utf8, "dnq", 2, 5, 4, 46)},
			{text(utf8, "pseud", 2, 5, 4, 65)}, {text(utf8, "bc", 2, 5, 4, 15)}, {text(utf8, "name", 2, 5, 4, 41)}, {text(utf8, "ini", 2, 5, 4, 43)},
			{text(utf8, "gen", 2, 5, 4, 44)}, {text(utf8, "desc", 2, 5, 4, 13)}, {text(utf8, "Waldorf", 2, 5, 4, 8)},
		}, "ST=Waldorf,description=desc,generationQualifier=gen,initials=ini,name=name,businessCategory=bc,pseudonym=pseud,dnQualifier=dnq,GN=given,SN=sur,title=title,postalCode=postal,serialNumber=serial,UID=uid,DC=dc,emailAddress=me@x.test,street=street = 7"},
	} {
		got, err := envoy.PrintSubject(name(t, c.sets...))
		if err != nil || got != c.want {
			t.Errorf("%s:\ngot  %s, %v\nwant %s", what, got, err, c.want)
		}
	}
}

func TestWhatIsNoNameIsAnErrorAndNotAnEmptySubject(t *testing.T) {
	for what, der := range map[string][]byte{
		"no DER":       []byte("x"),
		"more behind":  append(name(t, cn("x")), 0),
		"no string":    name(t, nameSET{{asn1.ObjectIdentifier{2, 5, 4, 3}, asn1.RawValue{Tag: asn1.TagInteger, Bytes: []byte{5}}}}),
		"broken UTF-8": name(t, cn("\xff")),
		"odd BMP":      name(t, org(asn1.TagBMPString, "\x00b\x00")),
	} {
		if got, err := envoy.PrintSubject(der); err == nil {
			t.Errorf("%s: got %q", what, got)
		}
	}
}

func FuzzPrintSubject(f *testing.F) {
	f.Add(name(f, cn("x"), org(asn1.TagUTF8String, `Foo, Inc.+"`)))
	f.Add(name(f, org(asn1.TagBMPString, "\xd8\x00")))
	f.Add([]byte{0x30, 0})
	f.Fuzz(func(t *testing.T, der []byte) {
		got, err := envoy.PrintSubject(der)
		if err != nil {
			return
		}
		quoted := false
		for i := range len(got) {
			switch c := got[i]; {
			case c < ' ' || c > '~':
				t.Fatalf("%q holds a byte that a header cannot", got)
			case quoted:
				quoted = false
			case c == '\\':
				quoted = true
			case c == '"':
				t.Fatalf("%q would end the quotes around it", got)
			}
		}
	})
}

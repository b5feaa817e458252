package impostor

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"slices"
	"strings"
	"unicode/utf16"

	"pgregory.net/rapid"

	"github.com/application-connector/application-connector/simulator/authority"
)

// certificate is a client's certificate, and what it says by the generator's own account.
type certificate struct {
	*tls.Certificate
	// commonNames are all that the subject holds. One that can be read in more than one way stands as unreadable.
	commonNames []string
}

const unreadable = "\x00"

// maySpeakFor says whether the certificate belongs to an Application: it holds one common name, and that is a client's.
func (c certificate) maySpeakFor(a Application) bool {
	return len(c.commonNames) == 1 && slices.Contains(a.Clients, c.commonNames[0])
}

// claimsToSpeakFor says whether one of the common names is a client of an Application.
func (c certificate) claimsToSpeakFor(a Application) bool {
	return slices.ContainsFunc(c.commonNames, func(name string) bool { return slices.Contains(a.Clients, name) })
}

const (
	tagVisibleString   = 26
	tagUniversalString = 28
)

var (
	commonName   = asn1.ObjectIdentifier{2, 5, 4, 3}
	otherTypes   = []asn1.ObjectIdentifier{{2, 5, 4, 10}, {2, 5, 4, 11}, {2, 5, 4, 5}, {2, 5, 4, 7}, {0, 9, 2342, 19200300, 100, 1, 1}, {0, 9, 2342, 19200300, 100, 1, 25}, {1, 2, 840, 113549, 1, 9, 1}, {1, 2, 3, 4}, {2, 5, 4, 3, 1}}
	alternatives = asn1.ObjectIdentifier{2, 5, 29, 17}
)

// plainValue encodes a text in a string type that can hold it, as authorities do.
func plainValue(rt *rapid.T, text string) asn1.RawValue {
	tags := []int{asn1.TagUTF8String}
	ascii, latin, wide := true, true, true
	for _, r := range text {
		ascii, latin, wide = ascii && r < 0x80, latin && r <= 0xff, wide && r <= 0xffff
	}
	printable := strings.Trim(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 '()+,-./:=?") == ""
	for tag, fits := range map[int]bool{asn1.TagPrintableString: printable, asn1.TagIA5String: ascii, asn1.TagT61String: latin, asn1.TagBMPString: wide} {
		if fits {
			tags = append(tags, tag)
		}
	}
	slices.Sort(tags)
	tag := rapid.SampledFrom(tags).Draw(rt, "encoding")
	return asn1.RawValue{Tag: tag, Bytes: encode(tag, text)}
}

func encode(tag int, text string) []byte {
	var b []byte
	switch tag {
	case asn1.TagT61String:
		for _, r := range text {
			b = append(b, byte(r))
		}
	case asn1.TagBMPString:
		for _, u := range utf16.Encode([]rune(text)) {
			b = append(b, byte(u>>8), byte(u))
		}
	case tagUniversalString:
		for _, r := range text {
			b = append(b, 0, byte(r>>16), byte(r>>8), byte(r))
		}
	default:
		b = []byte(text)
	}
	return b
}

// oddValue encodes a text in any string type, whether that can hold it or not, and sometimes in two pieces. It returns what
// the value says.
func oddValue(rt *rapid.T, text string) (asn1.RawValue, string) {
	tag := rapid.SampledFrom([]int{
		asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagT61String, asn1.TagIA5String, asn1.TagBMPString, tagUniversalString, tagVisibleString, asn1.TagNumericString, asn1.TagOctetString,
	}).Draw(rt, "encoding")
	for _, r := range text {
		if r > 0xff && tag != asn1.TagUTF8String || r > 0x7e {
			return asn1.RawValue{Tag: tag, Bytes: []byte(text)}, unreadable
		}
	}
	value := asn1.RawValue{Tag: tag, Bytes: encode(tag, text)}
	if tag == asn1.TagOctetString {
		return value, unreadable
	}
	if len(text) > 1 && often(rt, 3, "in pieces") {
		cut := len(text) / 2
		first, _ := asn1.Marshal(asn1.RawValue{Tag: tag, Bytes: encode(tag, text[:cut])})
		second, _ := asn1.Marshal(asn1.RawValue{Tag: tag, Bytes: encode(tag, text[cut:])})
		return asn1.RawValue{Tag: tag, IsCompound: true, Bytes: append(first, second...)}, unreadable
	}
	return value, text
}

// insert puts an attribute somewhere into a name: as an RDN of its own, or into one that is there.
func insert(rt *rapid.T, name pkix.RDNSequence, a pkix.AttributeTypeAndValue) pkix.RDNSequence {
	at := rapid.IntRange(0, len(name)).Draw(rt, "position")
	if at < len(name) && often(rt, 2, "multi-valued") {
		name[at] = append(name[at], a)
		return name
	}
	return slices.Insert(name, at, pkix.RelativeDistinguishedNameSET{a})
}

// honestCertificate is one of an authority for a common name, with whatever else may stand in a certificate.
func honestCertificate(rt *rapid.T, a *authority.Authority, p pair, cn string) certificate {
	var name pkix.RDNSequence
	for range rapid.IntRange(0, 3).Draw(rt, "other attributes") {
		// OpenSSL prints a value of one "#" without the backslash that it needs, so that it is refused.
		text := texts(p).Filter(func(s string) bool { return s != "#" }).Draw(rt, "value")
		name = insert(rt, name, pkix.AttributeTypeAndValue{Type: rapid.SampledFrom(otherTypes).Draw(rt, "type"), Value: plainValue(rt, text)})
	}
	name = insert(rt, name, pkix.AttributeTypeAndValue{Type: commonName, Value: plainValue(rt, cn)})
	return certificate{issue(rt, a, name, extensions(rt, p, false)), []string{cn}}
}

// anyCertificate is one that an authority would better not have signed.
func anyCertificate(rt *rapid.T, a *authority.Authority, p pair) certificate {
	var name pkix.RDNSequence
	var common []string
	plain := 0
	if rapid.Bool().Draw(rt, "a plain common name") {
		plain = 1
		if often(rt, 2, "two of them") {
			plain = 2
		}
	}
	for range plain {
		cn := rapid.SampledFrom(p.words()).Draw(rt, "common name")
		common = append(common, cn)
		name = insert(rt, name, pkix.AttributeTypeAndValue{Type: commonName, Value: plainValue(rt, cn)})
	}
	for range rapid.IntRange(0, 3).Draw(rt, "other attributes") {
		t := commonName
		if rapid.Bool().Draw(rt, "no common name") {
			t = rapid.SampledFrom(otherTypes).Draw(rt, "type")
		}
		text := texts(p).Draw(rt, "value")
		value, says := plainValue(rt, text), text
		if often(rt, 2, "an odd encoding") {
			value, says = oddValue(rt, text)
		}
		if t.Equal(commonName) {
			common = append(common, says)
		}
		name = insert(rt, name, pkix.AttributeTypeAndValue{Type: t, Value: value})
	}
	return certificate{issue(rt, a, name, extensions(rt, p, often(rt, 2, "odd extensions"))), common}
}

// texts are values that some reader may take for a name, an element or an end.
func texts(p pair) *rapid.Generator[string] {
	word := rapid.SampledFrom(p.words())
	return rapid.OneOf(
		word,
		rapid.Custom(func(rt *rapid.T) string {
			text := rapid.SampledFrom([]string{
				"V,CN=A", "V+CN=A", "V/CN=A", `V\,CN=A`, `V",CN="A`, `V",Subject="CN=A`, `V\",CN=A`, `V";Subject="CN=A`, `V";URI=x,By=y;Subject="CN=A`, "/CN=V", "CN=V", "V=A", `V\`, `V\\`,
				"V;URI=x", "V ", " V", "V\x00", "V\x00A", "V\n", "V\r\nX-Forwarded-Client-Cert: Subject=\"CN=A\"", "V\t", "#0C0676696374696D", "#V", "V\u200b", "\u202eV", "V\u0430", "%V", `V"`, "V'", "<V>", "V#", "",
				`V";URI=` + ingress, `V"` + mesh, "V\u2028A", "ÿV", "V, Inc.", "売V",
			}).Draw(rt, "text")
			return strings.NewReplacer("V", word.Draw(rt, "V"), "A", word.Draw(rt, "A")).Replace(text)
		}),
		rapid.Custom(func(rt *rapid.T) string { return strings.ToUpper(word.Draw(rt, "word")) }),
		rapid.String(),
	)
}

// ingress and mesh are what Istio's sidecar says of the ingress gateway, behind the element of the client.
const (
	ingress = "spiffe://cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account"
	mesh    = `,By=spiffe://cluster.local/ns/kyma-system/sa/central-application-connectivity-validator;Hash=6f1ed002ab5595859014ebf0951522d9a8ae9f16a1ab0a2ac6b45a1f1b8a3d21;Subject="";URI=` + ingress
)

// extensions are alternative names of the kinds that proxies forward, and extensions that nobody knows.
func extensions(rt *rapid.T, p pair, odd bool) []pkix.Extension {
	word := rapid.SampledFrom(p.words())
	const mail, dns, uri = 1, 2, 6 // tags of GeneralName
	var alternative []asn1.RawValue
	for range rapid.IntRange(0, 2).Draw(rt, "alternative names") {
		tag := rapid.SampledFrom([]int{dns, uri, mail, asn1.TagSequence}).Draw(rt, "kind")
		var text string
		switch {
		case tag == asn1.TagSequence: // a directory name
			inner, _ := asn1.Marshal(pkix.RDNSequence{{{Type: commonName, Value: word.Draw(rt, "directory name")}}})
			alternative = append(alternative, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: inner})
			continue
		case odd:
			text = strings.NewReplacer("V", word.Draw(rt, "V")).Replace(rapid.SampledFrom([]string{
				"V", `x;Subject="CN=V"`, `x,Subject="CN=V"`, `spiffe://a;Subject="CN=V"`, `spiffe://a/,Subject="CN=V"`, "spiffe://a/x" + mesh, `spiffe://a/x;Subject="CN=V"` + mesh, ingress, "spiffe://a/CN=V", "x\nV", "*.V",
			}).Draw(rt, "alternative name"))
		case tag == uri:
			text = rapid.SampledFrom([]string{"spiffe://a/b", ingress, "https://victim.example/CN=x"}).Draw(rt, "URI")
		default:
			text = strings.NewReplacer(",", "", "=", "", " ", "", "+", "").Replace(word.Draw(rt, "host")) + ".example"
			if tag == mail {
				text = "CN=x@" + text
			}
		}
		alternative = append(alternative, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, Bytes: []byte(text)})
	}
	var all []pkix.Extension
	if len(alternative) > 0 {
		value, _ := asn1.Marshal(alternative)
		all = append(all, pkix.Extension{Id: alternatives, Value: value})
	}
	if rapid.Bool().Draw(rt, "an unknown extension") {
		text, _ := asn1.Marshal("CN=" + word.Draw(rt, "extension"))
		all = append(all, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3, 4, 5}, Value: text, Critical: odd && often(rt, 3, "critical")})
	}
	return all
}

// issue signs a certificate that is not read back: what stands in it may be more than Go can read.
func issue(rt *rapid.T, a *authority.Authority, name pkix.RDNSequence, extensions []pkix.Extension) *tls.Certificate {
	subject, err := asn1.Marshal(name)
	if err != nil {
		rt.Fatal(err)
	}
	text, key, err := a.Issue(authority.Request{RawSubject: subject, Extensions: extensions})
	if err != nil {
		rt.Fatal(err)
	}
	pair, err := unread(text, key)
	if err != nil {
		rt.Fatal(err)
	}
	return pair
}

func unread(cert, key []byte) (*tls.Certificate, error) {
	leaf, _ := pem.Decode(cert)
	private, _ := pem.Decode(key)
	if leaf == nil || private == nil {
		return nil, errors.New("no PEM")
	}
	signer, err := x509.ParsePKCS8PrivateKey(private.Bytes)
	return &tls.Certificate{Certificate: [][]byte{leaf.Bytes}, PrivateKey: signer}, err
}

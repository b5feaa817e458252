package names_test

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"os"
	"os/exec"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/application-connector/application-connector/events/names"
)

// TestWhatOpenSSLPrintsOfAnyCertificateIsItsSubject generates subjects, has openssl print the certificates' subjects as
// Envoy does, and compares what is read, attribute by attribute, with what was put in. It does not go by names.FromDER.
func TestWhatOpenSSLPrintsOfAnyCertificateIsItsSubject(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil && os.Getenv("CI") != "" {
		t.Fatal("openssl is not installed, and without it nothing is compared")
	}
	if err != nil {
		t.Skip("openssl is not installed; TestWhatOpenSSLPrintedIsTheCertificatesSubject covers its recorded output")
	}
	unnamed := asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 7}
	oids := rapid.SampledFrom([]asn1.ObjectIdentifier{
		{2, 5, 4, 3}, {2, 5, 4, 3}, {2, 5, 4, 6}, {2, 5, 4, 7}, {2, 5, 4, 8}, {2, 5, 4, 10}, {2, 5, 4, 11}, {2, 5, 4, 5}, {0, 9, 2342, 19200300, 100, 1, 25},
		{1, 2, 840, 113549, 1, 9, 1}, unnamed,
	})
	special := rapid.StringOfN(rapid.RuneFrom([]rune(` ,+"\<>;=#/ab0CN`+"\x00\n\x7füé売🙂")), 0, 12, -1)
	texts := rapid.OneOf(special, special, rapid.StringN(0, 20, -1))
	rapid.Check(t, func(rt *rapid.T) {
		var subject pkix.RDNSequence
		var want names.Name
		lone := false
		for range rapid.IntRange(0, 4).Draw(rt, "rdns") {
			var set pkix.RelativeDistinguishedNameSET
			var rdn names.RDN
			for range rapid.IntRange(1, 3).Draw(rt, "attributes") {
				oid, text := oids.Draw(rt, "type"), texts.Draw(rt, "value")
				value := asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: []byte(text)}
				switch rapid.IntRange(0, 3).Draw(rt, "encoding") {
				case 0:
					if latin, ok := latin1(text); ok {
						value = asn1.RawValue{Tag: asn1.TagT61String, Bytes: latin}
					}
				case 1:
					if bmp, ok := ucs2(text); ok {
						value = asn1.RawValue{Tag: asn1.TagBMPString, Bytes: bmp}
					}
				}
				// What OpenSSL has no name for it prints as hex, which is read whatever the text is.
				lone = lone || text == "#" && !oid.Equal(unnamed)
				set = append(set, pkix.AttributeTypeAndValue{Type: oid, Value: value})
				rdn = append(rdn, names.Attribute{Type: oid.String(), Value: text})
			}
			subject = append(subject, set)
			want = append(names.Name{rdn}, want...)
		}
		cmd := exec.CommandContext(t.Context(), openssl, "x509", "-noout", "-subject", "-nameopt", "rfc2253")
		cmd.Stdin = bytes.NewReader(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate(t, subject).Raw}))
		out, err := cmd.Output()
		if err != nil {
			rt.Fatal(err)
		}
		printed, ok := strings.CutPrefix(strings.TrimSuffix(string(out), "\n"), "subject=")
		if !ok {
			rt.Fatalf("openssl printed %q", out)
		}
		got, err := names.Parse(printed)
		if lone {
			// OpenSSL prints a value that is nothing but "#" without its backslash, which RFC 4514 forbids: it is no identity.
			if err == nil {
				rt.Fatalf("%q is read as %v", printed, got)
			}
			return
		}
		if err != nil {
			rt.Fatalf("%q of %v: %v", printed, want, err)
		}
		if !got.Equal(want) {
			rt.Fatalf("%q is read as %v, the certificate holds %v", printed, got, want)
		}
	})
}

// latin1 encodes a text as openssl reads TeletexString; false if it can't be.
func latin1(s string) ([]byte, bool) {
	var b []byte
	for _, r := range s {
		if r > 0xff || r == utf8.RuneError {
			return nil, false
		}
		b = append(b, byte(r))
	}
	return b, true
}

// ucs2 encodes a text as BMPString; false if it can't be.
func ucs2(s string) ([]byte, bool) {
	var b []byte
	for _, r := range s {
		if r > 0xffff {
			return nil, false
		}
		b = append(b, byte(r>>8), byte(r))
	}
	return b, true
}

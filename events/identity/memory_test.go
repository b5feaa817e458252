package identity_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/application-connector/application-connector/events/identity"
)

// byDER compares certificates by what they are, and errors by what they say.
var byDER = cmp.Options{
	cmp.Comparer(func(a, b *x509.Certificate) bool { return a.Equal(b) }),
	cmp.Comparer(func(a, b error) bool {
		one, other := (*identity.Error)(nil), (*identity.Error)(nil)
		return errors.As(a, &one) == errors.As(b, &other) && fmt.Sprint(a) == fmt.Sprint(b)
	}),
}

func TestAMemoryAnswersAsItsVerifierDoesHoweverOftenItIsAsked(t *testing.T) {
	shop, till := issue(t, pkix.RDNSequence{attribute(oidCN, "shop")}), issue(t, pkix.RDNSequence{attribute(oidCN, "till")})
	var lines []string
	for _, c := range []*x509.Certificate{shop, till} {
		element := `Hash=` + hash(c) + `;Cert="` + encode(c) + `";Subject="CN=shop"`
		lines = append(lines, element, element+gateway, `Subject="CN=shop"`+gateway, element+","+element+gateway, element+strings.Replace(gateway, "istio-ingress", "other-ingress", 1),
			":"+base64.StdEncoding.EncodeToString(c.Raw)+":")
	}
	lines = append(lines, "", " ", `Subject="CN=shop"`, gateway[1:], `Subject="CN=`+strings.Repeat("x", 20<<10)+`"`+gateway)
	several := rapid.SliceOfN(rapid.SampledFrom(lines), 0, 2)
	for what, v := range map[string]identity.Verifier{
		"strict": strict, "direct": {}, "compatible": {TrustedHops: 1, IngressIdentity: ingress, Compatible: true},
		"Client-Cert": {Header: identity.ClientCertHeader}, "Client-Cert behind a gateway": {Header: identity.ClientCertHeader, TrustedHops: 1, IngressIdentity: ingress},
	} {
		t.Run(what, func(t *testing.T) {
			found := 0
			m := identity.NewMemory(v)
			same := func(t interface{ Fatalf(string, ...any) }, xfcc, clientCert []string) {
				header := http.Header{"X-Forwarded-Client-Cert": xfcc, "Client-Cert": clientCert}
				want, wantErr := v.Of(header)
				got, err := m.Of(header)
				if d := cmp.Diff([]any{want, wantErr}, []any{got, err}, byDER); d != "" {
					t.Fatalf("(-verifier +memory)\n%s", d)
				}
				if err == nil {
					found++
				}
			}
			for _, xfcc := range lines { // each pair, so that all that is accepted is among them
				for _, clientCert := range lines {
					same(t, []string{xfcc}, []string{clientCert})
				}
			}
			rapid.Check(t, func(rt *rapid.T) {
				same(rt, several.Draw(rt, "X-Forwarded-Client-Cert"), several.Draw(rt, "Client-Cert"))
			})
			if found == 0 {
				t.Error("no header was accepted: the test proves nothing")
			}
		})
	}
}

func TestAMemoryReadsAHeaderOnceUntilManyOthersCame(t *testing.T) {
	c := issue(t, pkix.RDNSequence{attribute(oidCN, "shop")})
	header := func(more string) http.Header {
		return http.Header{"X-Forwarded-Client-Cert": {`Cert="` + encode(c) + `";URI=spiffe://x/` + more + gateway}}
	}
	m := identity.NewMemory(strict)
	of := func(more string) *x509.Certificate {
		id, err := m.Of(header(more))
		if err != nil {
			t.Fatal(err)
		}
		return id.Certificate
	}
	first := of("0")
	if of("0") != first {
		t.Error("the certificate was read again")
	}
	for i := range 1000 {
		of(fmt.Sprint(i + 1))
	}
	if of("0") == first {
		t.Error("a header is remembered for ever")
	}
}

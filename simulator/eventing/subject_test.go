package eventing

import (
	"strings"
	"testing"
)

func FuzzSubject(f *testing.F) {
	f.Add("shop", "order.created.v1")
	f.Add("/my.shop/eu", "order/shipped* v1")
	f.Add("", "..")
	f.Fuzz(func(t *testing.T, source, typ string) {
		got, err := subject(source, typ)
		if err != nil {
			return
		}
		if strings.ContainsAny(got, " \t\r\n*>") || strings.Contains(got, "..") || strings.HasSuffix(got, ".") || !strings.HasPrefix(got, "kyma.") {
			t.Fatalf("%q, %q: %q is no subject", source, typ, got)
		}
		if segments := strings.Split(got, "."); len(segments) < 3 || strings.Contains(segments[1], ".") {
			t.Fatalf("%q, %q: %q has no source or type", source, typ, got)
		}
	})
}

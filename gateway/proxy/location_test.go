package proxy

import (
	"net/url"
	"strings"
	"testing"
)

func TestALocationBelowTheTargetBecomesAPathOnTheGateway(t *testing.T) {
	for _, c := range []struct{ target, requested, location, want string }{
		{"http://H/api/v1", "/api/v1/start/here", "http://H/api/v1/sub?x=1#f", "/app/svc/sub?x=1#f"},
		{"http://H/api/v1", "/api/v1/start/here", "http://h:80/api/v1/sub", "/app/svc/sub"},
		{"http://H/api/v1", "/api/v1/start/here", "/api/v1/sub", "/app/svc/sub"},
		{"http://H/api/v1", "/api/v1/start/here", "//H/api/v1/x", "/app/svc/x"},
		{"http://H/api/v1", "/api/v1/start/here", "sub", "/app/svc/start/sub"},
		{"http://H/api/v1", "/api/v1/start/here", "?q=1", "/app/svc/start/here?q=1"},
		{"http://H/api/v1", "/api/v1/start/here", "/api/v1", "/app/svc"},
		{"http://H/api/v1", "/api/v1/start/here", "/api/v1/", "/app/svc/"},
		{"http://H/api/v1", "/api/v1/start/here", "/api/v1/x/", "/app/svc/x/"},
		{"http://H/api/v1/", "/api/v1/start/here", "/api/v1/x", "/app/svc/x"},
		{"http://H", "/start", "/x", "/app/svc/x"},
		{"http://H/api/v1", "/api/v1/start/here", "/api/v1/a%2Fb", "/app/svc/a%2Fb"},
		{"http://H/api/v1", "/api/v1/start/here", "/api/v1/a%2525b", "/app/svc/a%2525b"},
		{"http://H/api/v1", "/api/v1/start/here", "/api/v1/a%25b", "/app/svc/a%25b"},
		{"http://H/a('1')", "/a('1')/x", "/a%28%271%27%29/y", "/app/svc/y"},
		{"http://H/api/v1", "/api/v1/start/here", "../other", "/app/svc/other"},
		// Elsewhere: as it is.
		{"http://H/api/v1", "/api/v1/start/here", "/api/v2/x", "/api/v2/x"},
		{"http://H/api/v1", "/api/v1/start/here", "/api/v10/x", "/api/v10/x"},
		{"http://H/api/v1", "/api/v1/start/here", "/api/v1/../v2", "/api/v1/../v2"},
		{"http://H/api/v1", "/api/v1/start/here", "http://other/api/v1/x", "http://other/api/v1/x"},
		{"http://H/api/v1", "/api/v1/start/here", "https://H/api/v1/x", "https://H/api/v1/x"},
		{"http://H/api/v1", "/api/v1/start/here", "http://H:9999/api/v1/x", "http://H:9999/api/v1/x"},
		{"http://H/api/v1", "/api/v1/start/here", "ftp://H/api/v1/x", "ftp://H/api/v1/x"},
		{"http://H/api/v1", "/api/v1/start/here", "mailto:a@b", "mailto:a@b"},
		{"http://H/api/v1", "/api/v1/start/here", "http://[::1", "http://[::1"},
	} {
		target, err := url.Parse(c.target)
		if err != nil {
			t.Fatal(err)
		}
		requested, err := url.Parse("http://H" + c.requested)
		if err != nil {
			t.Fatal(err)
		}
		got, rewritten := rewriteLocation(c.location, requested, target, "/app/svc")
		if got != c.want || rewritten != strings.HasPrefix(c.want, "/app/svc") {
			t.Errorf("%s from %s: %s (%v), want %s", c.location, c.target, got, rewritten, c.want)
		}
	}
}

func TestPairsAreTakenOutOfAQueryHoweverTheyAreEncoded(t *testing.T) {
	const added = "api_key=s%26c&region=u+s&flag"
	for _, c := range []struct{ reference, want string }{
		{"/x?api_key=s%26c", "/x"},
		{"/x?api_key=s%26c#f", "/x#f"},
		{"/x?a=1&api_key=s%26c&b=2", "/x?a=1&b=2"},
		{"/x?api_key=s%26c&a=1&api_key=s%26c&b=2&region=u%20s&flag=&%66lag", "/x?a=1&b=2"},
		{"http://h/x?%61pi_key=%73%26c&a=%31", "http://h/x?a=%31"},
		{"?api_key=s%26c", ""},
		{"/x", "/x"}, {"/x?", "/x?"}, {"/x?#f", "/x?#f"}, {"#api_key=s%26c", "#api_key=s%26c"},
		{"/x?a&&b", "/x?a&&b"}, {"/x?%zz&api_key=%zz", "/x?%zz&api_key=%zz"},
		{"/x?api_key=other&region=eu", "/x?api_key=other&region=eu"},
		{"http://[::1?api_key=s%26c", "http://[::1"},
	} {
		if got := withoutPairs(c.reference, added); got != c.want {
			t.Errorf("%s: %s, want %s", c.reference, got, c.want)
		}
		if got := withoutPairs(c.reference, ""); got != c.reference {
			t.Errorf("%s without anything added: %s", c.reference, got)
		}
	}
}

func FuzzARewrittenLocationLeadsBackToWhereTheTargetSaid(f *testing.F) {
	for _, s := range []string{"http://h/api/v1/sub?x=1#f", "sub", "?q", "//h/api/v1/x", "/api/v1/a%2Fb", "/api/v10", "/api/v1", "/api/v1/%25", "/api/v1//x", "http://h/api/v1;x"} {
		f.Add(s)
	}
	target, err := url.Parse("http://h/api/v1")
	if err != nil {
		f.Fatal(err)
	}
	requested, err := url.Parse("http://h/api/v1/start/here")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, location string) {
		rewritten, ok := rewriteLocation(location, requested, target, "/app/svc")
		if !ok {
			if rewritten != location {
				t.Fatalf("%q became %q though it was not rewritten", location, rewritten)
			}
			return
		}
		back, err := url.Parse(rewritten)
		if err != nil {
			t.Fatalf("%q became %q: %v", location, rewritten, err)
		}
		if back.Host != "" || back.Scheme != "" {
			t.Fatalf("%q became %q, which is not only a path", location, rewritten)
		}
		a, ok := parseAddress(rawPath(back), 2)
		if !ok || a.prefix != "/app/svc" {
			t.Fatalf("%q became %q, which is another address", location, rewritten)
		}
		reference, err := url.Parse(location)
		if err != nil {
			t.Fatalf("%q: %v", location, err)
		}
		resolved := requested.ResolveReference(reference)
		if got, want := "/api/v1"+a.rest, rawPath(resolved); got != want && !sameSegment(got, want) {
			t.Fatalf("%q became %q, which leads to %q, not to %q", location, rewritten, got, want)
		}
	})
}

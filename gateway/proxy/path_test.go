package proxy

import (
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAPathIsSplitIntoSegmentsAndTheRestAsItIsSpelt(t *testing.T) {
	for _, c := range []struct {
		raw  string
		n    int
		want address
		ok   bool
	}{
		{"", 2, address{}, false},
		{"/", 2, address{}, false},
		{"/app", 2, address{}, false},
		{"/app/", 2, address{}, false},
		{"/app//", 2, address{}, false},
		{"/app/svc", 2, address{application: "app", service: "svc", prefix: "/app/svc"}, true},
		{"/app/svc/", 2, address{application: "app", service: "svc", prefix: "/app/svc", rest: "/"}, true},
		{"//app/svc", 2, address{application: "app", service: "svc", prefix: "/app/svc"}, true},
		{"/app/svc/a%2Fb/O('1')/", 2, address{application: "app", service: "svc", prefix: "/app/svc", rest: "/a%2Fb/O('1')/"}, true},
		{"/app/svc//h/x", 2, address{application: "app", service: "svc", prefix: "/app/svc", rest: "//h/x"}, true},
		{"/app//rest", 2, address{application: "app", prefix: "/app/", rest: "/rest"}, true},
		{"/app/code%2D500", 2, address{application: "app", service: "code%2D500", prefix: "/app/code%2D500"}, true},
		{"/app/svc", 3, address{}, false},
		{"/app/svc/", 3, address{}, false},
		{"/app/svc/entry", 3, address{application: "app", service: "svc", entry: "entry", prefix: "/app/svc/entry"}, true},
		{"/app/svc/entry/x:y", 3, address{application: "app", service: "svc", entry: "entry", prefix: "/app/svc/entry", rest: "/x:y"}, true},
		{"/app/svc//rest", 3, address{application: "app", service: "svc", prefix: "/app/svc/", rest: "/rest"}, true},
	} {
		got, ok := parseAddress(c.raw, c.n)
		if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(address{})); diff != "" || ok != c.ok {
			t.Errorf("%q in %d segments: ok %v, %s", c.raw, c.n, ok, diff)
		}
	}
}

func TestPathsGoOutAsEncodeUrlSays(t *testing.T) {
	for _, c := range []struct {
		target, rest string
		encoded, raw string // with encodeUrl true and false
	}{
		{"http://h", "", "", ""},
		{"http://h/api", "", "/api", "/api"},
		{"http://h/api/", "", "/api/", "/api/"},
		{"http://h/api", "/", "/api", "/api"},
		{"http://h", "/orders/123", "/orders/123", "/orders/123"},
		{"http://h/api", "/x/", "/api/x", "/api/x/"},
		{"http://h/api/", "/x", "/api/x", "/api/x"},
		{"http://h/api", "//h/x", "/api/h/x", "/api//h/x"},
		{"http://h/api", "///h/x", "/api/h/x", "/api///h/x"},
		{"http://h/api", "/urn:isbn:123/x", "/api/urn:isbn:123/x", "/api/urn:isbn:123/x"},
		{"http://h/api", "/x:y", "/api/x:y", "/api/x:y"},
		{"http://h/api", "/1:2", "/api/1:2", "/api/1:2"},
		{"http://h/api", "/x%3Ay", "/api/x:y", "/api/x%3Ay"},
		{"http://h", "/hello('%7Cworld%7C')", "/hello%28%27%7Cworld%7C%27%29", "/hello('%7Cworld%7C')"},
		{"http://h/api", "/a%2Fb", "/api/a/b", "/api/a%2Fb"},
		{"http://h/api", "/caf%c3%a9", "/api/caf%C3%A9", "/api/caf%c3%a9"},
		{"http://h/api", "/a%20b", "/api/a%20b", "/api/a%20b"},
		{"http://h/api", "/O('1')/{x}|%2F", "/api/O%28%271%27%29/%7Bx%7D%7C/", "/api/O('1')/%7Bx%7D%7C%2F"},
		{"http://h/somepath/Xyz('123')", "", "/somepath/Xyz('123')", "/somepath/Xyz('123')"},
		{"http://h/somepath/Xyz('123')", "/a", "/somepath/Xyz%28%27123%27%29/a", "/somepath/Xyz('123')/a"},
		{"http://h/a%2Fb", "/c%2Fd", "/a/b/c/d", "/a%2Fb/c%2Fd"},
	} {
		target, err := url.Parse(c.target)
		if err != nil {
			t.Fatal(err)
		}
		for encode, want := range map[bool]string{true: c.encoded, false: c.raw} {
			u := url.URL{Scheme: "http", Host: "h"}
			u.Path, u.RawPath = joinPath(target, c.rest, encode)
			if got := u.EscapedPath(); got != want {
				t.Errorf("%s + %s with encodeUrl %v: %s, want %s", c.target, c.rest, encode, got, want)
			}
		}
	}
}

func TestOnlyPathsThatClimbAboveTheTargetLeaveIt(t *testing.T) {
	for rest, want := range map[string]bool{
		"": false, "/a/../b": false, "/a/..": false, "/a/b/../../c": false, "/.": false, "/..a/...": false, "/a/..%2fb": false,
		"/..": true, "/../admin": true, "/%2e%2e/admin": true, "/a/../../x": true, "/..%2fadmin": true, "/a%2F..%2F..": true,
		"/..;/admin": true, "/..;x=y/..;/admin": true, "/%2e%2e;/admin": true, "/..%3Bx/admin": true, "/a/.;/..;/..;/x": true, "/a/;x/../../y": true,
		"/a;x/..;y/b;z": false, "/a;..": false, "/a;../b": false, "/;a=b,c": false,
		`/..\admin`: true, "/%2E./x": true, "/./../x": true, "/%": true,
	} {
		if got := leaves(rest); got != want {
			t.Errorf("%q: %v", rest, got)
		}
	}
}

func FuzzAPathGoesOutByteForByteWithoutEncodeUrl(f *testing.F) {
	for _, s := range []string{"/a%2Fb", "/x:y", "/x/", "//x", "/O('1')", "/{a}|b", "/..%2f", "/caf%c3%a9", "/%zz", "/;a=b,c"} {
		f.Add(s)
	}
	target, err := url.Parse("http://h/base")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, path string) {
		u, err := url.ParseRequestURI("/app/svc" + path)
		if err != nil || u.RawQuery != "" || u.ForceQuery || !strings.HasPrefix(path, "/") {
			return // the server refuses it, or it is not only a path
		}
		a, ok := parseAddress(rawPath(u), 2)
		if !ok {
			t.Fatalf("%q is not an address", path)
		}
		if a.rest != path {
			t.Fatalf("the rest of %q is %q", path, a.rest)
		}
		out := *target
		out.Path, out.RawPath = joinPath(target, a.rest, false)
		want := "/base"
		if path != "/" {
			want += encodeIllegal(path)
		}
		if got := out.EscapedPath(); got != want {
			t.Fatalf("%q goes out as %q, want %q", path, got, want)
		}
		out.Path, out.RawPath = joinPath(target, a.rest, true)
		if got := out.EscapedPath(); !strings.HasPrefix(got, "/base") {
			t.Fatalf("%q goes out as %q", path, got)
		}
	})
}

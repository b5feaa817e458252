package proxy

import (
	"net/url"
	"testing"
)

func TestTheCookiesPathFollowsTheTargets(t *testing.T) {
	for _, c := range []struct{ target, line, want string }{
		{"http://h/base", "a=b", "a=b"},
		{"http://h/base", "a=b; Path=/base", "a=b; Path=/app/svc"},
		{"http://h/base", "a=b; Path=/base/", "a=b; Path=/app/svc/"},
		{"http://h/base/", "a=b; path=/base/x/y; Secure", "a=b; path=/app/svc/x/y; Secure"},
		{"http://h/base", "a=b;HttpOnly;PATH = /base/%41 ;Max-Age=3", "a=b;HttpOnly;PATH =/app/svc/%41;Max-Age=3"},
		{"http://h/base/v1", "a=b; Path=/", "a=b; Path=/app/svc"},
		{"http://h/base/v1", "a=b; Path=/base", "a=b; Path=/app/svc"},
		{"http://h/base/v1", "a=b; Path=/base/", "a=b; Path=/app/svc"},
		{"http://h/base", "a=b; Path=/basement", "a=b; Path=/basement"},
		{"http://h/base", "a=b; Path=/bas", "a=b; Path=/bas"},
		{"http://h/base", "a=b; Path=/other; Domain=h", "a=b; Path=/other; Domain=h"},
		{"http://h/base", "a=b; Path; Path=", "a=b; Path; Path="},
		{"http://h/base", "a=b; Path=relative", "a=b; Path=relative"},
		{"http://h", "a=b; Path=/", "a=b; Path=/app/svc"},
		{"http://h/", "a=b; Path=/x", "a=b; Path=/app/svc/x"},
		{"http://h/base", "Path=/base; Path=/base/x", "Path=/base; Path=/app/svc/x"}, // a cookie of that name
		{"http://h/base", "", ""},
	} {
		target, err := url.Parse(c.target)
		if err != nil {
			t.Fatal(err)
		}
		if got := rewriteCookiePath(c.line, target, "/app/svc"); got != c.want {
			t.Errorf("%s %q: %q, want %q", c.target, c.line, got, c.want)
		}
	}
}

func FuzzTheCookiesPath(f *testing.F) {
	f.Add("a=b; Path=/base/x; Secure")
	target := &url.URL{Scheme: "http", Host: "h", Path: "/base"}
	f.Fuzz(func(t *testing.T, line string) {
		// What was rewritten once is not below the target any more.
		once := rewriteCookiePath(line, target, "/app/svc")
		if twice := rewriteCookiePath(once, target, "/app/svc"); twice != once {
			t.Errorf("%q becomes %q, and that %q", line, once, twice)
		}
	})
}

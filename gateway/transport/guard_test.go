package transport

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	clocktesting "k8s.io/utils/clock/testing"
)

func guard(t *testing.T, allowed, api string) *Guard {
	t.Helper()
	a, err := ParseAllowed(allowed)
	if err != nil {
		t.Fatal(err)
	}
	var server APIServer
	if api != "" {
		server.Addresses = []string{api}
	}
	g, err := NewGuard(a, server, clocktesting.NewFakePassiveClock(time.Now()))
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestAnAddressIsForbiddenOrNot(t *testing.T) {
	api := []netip.AddrPort{netip.MustParseAddrPort("10.96.0.1:443"), netip.MustParseAddrPort("203.0.113.7:443"), netip.MustParseAddrPort("10.96.0.1:6443")}
	for _, c := range []struct{ allowed, address, want string }{
		{"", "127.0.0.1:80", kindLoopback}, {"", "127.8.8.8:80", kindLoopback}, {"", "[::1]:80", kindLoopback}, {"", "[::ffff:127.0.0.1]:80", kindLoopback},
		{"", "[64:ff9b::7f00:1]:80", kindLoopback},
		{"", "0.0.0.0:80", kindUnspecified}, {"", "0.1.2.3:80", kindUnspecified}, {"", "[::]:80", kindUnspecified},
		{"", "169.254.169.254:80", kindLinkLocal}, {"", "[fe80::1%eth0]:80", kindLinkLocal}, {"", "[64:ff9b::a9fe:a9fe]:80", kindLinkLocal},
		{"", "224.0.0.1:80", kindMulticast}, {"", "[ff02::1]:80", kindMulticast},
		{"", "[fd00:ec2::254]:80", kindMetadata}, {"", "100.100.100.200:80", kindMetadata},
		{"", "[fd00:ec2::23]:80", kindMetadata}, {"", "[fd20:ce::254]:80", kindMetadata}, {"", "168.63.129.16:80", kindMetadata}, {"", "192.0.0.192:80", kindMetadata}, {"", "[64:ff9b::a83f:8110]:80", kindMetadata},
		// Prefixes of 48, 56, 64 and 96 bits.
		{"", "[64:ff9b:1:a9fe:a9:fe00::]:80", kindLinkLocal}, {"", "[64:ff9b:1:a9:fe:a9fe::]:80", kindLinkLocal}, {"", "[64:ff9b:1:0:a9:fea9:fe00:0]:80", kindLinkLocal}, {"", "[64:ff9b:1::a9fe:a9fe]:80", kindLinkLocal},
		{"", "[64:ff9b:1:a83f:81:1000::]:80", kindMetadata}, {"", "[64:ff9b:1::7f00:1]:80", kindLoopback},
		{"", "[64:ff9b:1::808:808]:80", ""}, {"", "[64:ff9b:1:808:8:800::]:80", ""}, {"", "[64:ff9b:1:2:3::808:808]:80", ""}, {"64:ff9b:1::/48", "[64:ff9b:1::a9fe:a9fe]:80", ""},
		{"", "10.96.0.1:443", kindAPIServer}, {"", "203.0.113.7:443", kindAPIServer}, {"", "10.96.0.1:6443", kindAPIServer}, {"", "[::ffff:203.0.113.7]:443", kindAPIServer}, {"", "10.96.0.1:8443", ""},
		{"", "10.96.0.2:443", ""}, {"", "192.168.1.1:80", ""}, {"", "172.16.0.1:80", ""}, {"", "[fd00::1]:80", ""}, {"", "8.8.8.8:443", ""}, {"", "[2001:db8::1]:443", ""},
		{"127.0.0.1/32", "127.0.0.1:80", ""}, {"127.0.0.1/32", "[::ffff:127.0.0.1]:80", ""}, {"127.0.0.1/32", "127.0.0.2:80", kindLoopback}, {"127.0.0.1/32", "[::1]:80", kindLoopback},
		{"10.0.0.1, ::1", "[::1]:80", ""}, {"[::1]", "[::1]:80", ""}, {"169.254.1.2/16", "169.254.169.254:80", ""}, {"10.96.0.1", "10.96.0.1:443", ""},
	} {
		got := ""
		err := guard(t, c.allowed, "").check(c.address, api)
		if f := Forbidden(err); f != nil {
			got = f.Kind
		} else if err != nil {
			t.Errorf("%s: %v", c.address, err)
		}
		if got != c.want {
			t.Errorf("%s, allowed %q: %q, want %q", c.address, c.allowed, got, c.want)
		}
	}
	if err := guard(t, "", "").check("nonsense", nil); err == nil {
		t.Error("what cannot be judged was let through")
	}
}

func TestTheListOfAllowedTargetsIsReadOrRefused(t *testing.T) {
	for _, bad := range []string{"10.0.0.0/33", "10.0.0", "host:80", "*.example.com", "http://x", "10.0.0.1,a/b", "1.2.3.4:80"} {
		if a, err := ParseAllowed(bad); err == nil {
			t.Errorf("%q: %+v", bad, a)
		}
	}
	a, err := ParseAllowed(" Some.Host. ,127.0.0.0/8,,::1")
	if err != nil || !a.hosts["some.host"] || len(a.prefixes) != 2 {
		t.Errorf("%+v %v", a, err)
	}
}

func FuzzParseAllowed(f *testing.F) {
	f.Add("127.0.0.1/32,host,::1")
	f.Fuzz(func(t *testing.T, list string) {
		a, err := ParseAllowed(list)
		if err == nil && a.address(netip.MustParseAddr("203.0.113.1")) && !guardAny(a) {
			t.Errorf("%q allows everything: %+v", list, a)
		}
	})
}

func guardAny(a Allowed) bool {
	for _, p := range a.prefixes {
		if p.Contains(netip.MustParseAddr("203.0.113.1")) {
			return true
		}
	}
	return false
}

func TestConnectionsAreJudgedAfterNamesAreResolved(t *testing.T) {
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "reached") }))
	defer target.Close()
	_, port, _ := net.SplitHostPort(target.Listener.Addr().String())
	for _, c := range []struct {
		allowed, host, api string
		want               string
	}{
		{"", "127.0.0.1", "", kindLoopback}, {"", "localhost", "", kindLoopback}, {"127.0.0.1", "localhost", "", ""}, {"LocalHost", "localhost", "", ""},
		{"other.host", "localhost", "", kindLoopback}, {"127.0.0.1/32", "127.0.0.1", "127.0.0.1:" + port, ""},
	} {
		p := New(Options{Guard: guard(t, c.allowed, c.api)})
		for _, direct := range []bool{false, true} {
			client := http.Client{Transport: p.For(Target{Host: c.host, Direct: direct})}
			response, err := client.Get("http://" + c.host + ":" + port)
			got := ""
			if f := Forbidden(err); f != nil {
				got = f.Kind
			}
			if got != c.want || (c.want == "") != (err == nil) {
				t.Errorf("%+v: %v", c, err)
			}
			if err == nil {
				response.Body.Close()
			}
		}
		p.CloseIdleConnections()
	}
}

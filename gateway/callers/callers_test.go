package callers_test

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/application-connector/application-connector/gateway/callers"
)

var mesh = callers.Mesh{Proxies: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}}

const (
	own     = "By=spiffe://cluster.local/ns/kyma-system/sa/gateway;Hash=0a1b"
	genuine = own + `;Subject="";URI=spiffe://cluster.local/ns/shop/sa/frontend`
)

func header(lines ...string) http.Header {
	return http.Header{"X-Forwarded-Client-Cert": lines}
}

func TestTheCallerIsWhomTheMeshsProxyWroteLast(t *testing.T) {
	frontend := callers.Identity{Namespace: "shop", ServiceAccount: "frontend"}
	for name, c := range map[string]struct {
		remote string
		header http.Header
		want   callers.Identity
		why    string // of the error, empty for none
	}{
		"one element":                  {"127.0.0.6:1", header(genuine), frontend, ""},
		"over IPv6":                    {"[::1]:1", header(genuine), frontend, ""},
		"IPv4 in IPv6":                 {"[::ffff:127.0.0.1]:1", header(genuine), frontend, ""},
		"what the caller said before":  {"127.0.0.6:1", header("By=spiffe://cluster.local/ns/a/sa/b;URI=spiffe://cluster.local/ns/admin/sa/root," + genuine), frontend, ""},
		"no header":                    {"127.0.0.6:1", http.Header{}, callers.Identity{}, "without mutual TLS"},
		"two lines":                    {"127.0.0.6:1", header(genuine, genuine), callers.Identity{}, "more than one"},
		"from elsewhere":               {"10.1.2.3:1", header(genuine), callers.Identity{}, "-meshProxies"},
		"from nowhere":                 {"", header(genuine), callers.Identity{}, "-meshProxies"},
		"not the header's grammar":     {"127.0.0.6:1", header("URI"), callers.Identity{}, "X-Forwarded-Client-Cert, byte"},
		"a quote left open before":     {"127.0.0.6:1", header(`Subject="` + "," + genuine), callers.Identity{}, "X-Forwarded-Client-Cert, byte"},
		"without By":                   {"127.0.0.6:1", header("URI=spiffe://cluster.local/ns/shop/sa/frontend"), callers.Identity{}, "By in"},
		"without URI":                  {"127.0.0.6:1", header(own + `;Subject="CN=x"`), callers.Identity{}, "URI in"},
		"with two URIs":                {"127.0.0.6:1", header(genuine + ";URI=spiffe://cluster.local/ns/admin/sa/root"), callers.Identity{}, "there are 2"},
		"of another trust domain":      {"127.0.0.6:1", header(own + ";URI=spiffe://elsewhere/ns/shop/sa/frontend"), callers.Identity{}, "another trust domain"},
		"not of the mesh":              {"127.0.0.6:1", header(own + ";URI=https://cluster.local/ns/shop/sa/frontend"), callers.Identity{}, "not of the form"},
		"a longer path":                {"127.0.0.6:1", header(own + ";URI=spiffe://cluster.local/ns/shop/sa/frontend/x"), callers.Identity{}, "not of the form"},
		"an empty namespace":           {"127.0.0.6:1", header(own + ";URI=spiffe://cluster.local/ns//sa/frontend"), callers.Identity{}, "not of the form"},
		"a namespace with other signs": {"127.0.0.6:1", header(own + ";URI=spiffe://cluster.local/ns/sh%6fp/sa/frontend"), callers.Identity{}, "not of the form"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := mesh.Of(c.remote, c.header)
			if got != c.want || (err == nil) != (c.why == "") || err != nil && !strings.Contains(err.Error(), c.why) {
				t.Errorf("%v, %v; want %v, %q", got, err, c.want, c.why)
			}
		})
	}
}

func TestOnlyThoseWhoAreNamedAreAllowed(t *testing.T) {
	allowed, err := callers.NewAllowed([]string{"shop"}, []string{"billing/invoices"})
	if err != nil {
		t.Fatal(err)
	}
	for id, want := range map[callers.Identity]bool{
		{Namespace: "shop", ServiceAccount: "any"}: true, {Namespace: "billing", ServiceAccount: "invoices"}: true,
		{Namespace: "billing", ServiceAccount: "other"}: false, {Namespace: "other", ServiceAccount: "invoices"}: false, {}: false,
	} {
		if allowed.Allows(id) != want {
			t.Errorf("%s: not %v", id, want)
		}
	}
	for name, lists := range map[string][2][]string{
		"nobody": {}, "an account without namespace": {nil, {"invoices"}}, "an empty account": {nil, {"billing/"}}, "a wild namespace": {{"*"}, nil}, "an account with a path": {nil, {"a/b/c"}},
	} {
		refused, err := callers.NewAllowed(lists[0], lists[1])
		if err == nil || refused == nil || refused.Allows(callers.Identity{Namespace: "shop", ServiceAccount: "any"}) || refused.Allows(callers.Identity{}) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTheListOfProxiesIsReadOrRefused(t *testing.T) {
	for list, want := range map[string]int{"": 0, "127.0.0.0/8, ::1/128": 2, "10.0.0.1": 1, "10.0.0.1/8": 1} {
		if got, err := callers.ParseProxies(list); err != nil || len(got) != want {
			t.Errorf("%q: %v %v", list, got, err)
		}
	}
	for _, list := range []string{"localhost", "10.0.0.1/99", "127.0.0.1:80"} {
		if _, err := callers.ParseProxies(list); err == nil || !strings.Contains(err.Error(), list) {
			t.Errorf("%q: %v", list, err)
		}
	}
}

// Whatever a caller writes, the proxy appends what it knows. No such beginning may change who the caller is.
func FuzzNoCallerCanSpeakForAnother(f *testing.F) {
	for _, said := range []string{"", "URI=spiffe://cluster.local/ns/admin/sa/root", `Subject="`, `URI="spiffe://cluster.local/ns/admin/sa/root";x="`, `\`, ",", ";", `By="a\"`} {
		f.Add(said)
	}
	f.Fuzz(func(t *testing.T, said string) {
		id, err := mesh.Of("127.0.0.1:1", header(said+","+genuine))
		if err == nil && id != (callers.Identity{Namespace: "shop", ServiceAccount: "frontend"}) {
			t.Errorf("%q makes the caller %s", said, id)
		}
	})
}

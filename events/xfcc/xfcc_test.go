package xfcc_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/application-connector/application-connector/events/xfcc"
)

func TestParse(t *testing.T) {
	for what, tc := range map[string]struct {
		in   string
		want xfcc.Header
	}{
		"the documentation's example of one element": {
			`By=http://frontend.lyft.com;Hash=468ed33be74eee6556d90c0149c1309e9ba61d6425303443c0748a02dd8de688;Subject="/C=US/ST=CA/L=San Francisco/OU=Lyft/CN=Test Client";URI=http://testclient.lyft.com`,
			xfcc.Header{{
				{Key: "by", Raw: "http://frontend.lyft.com"},
				{Key: "hash", Raw: "468ed33be74eee6556d90c0149c1309e9ba61d6425303443c0748a02dd8de688"},
				{Key: "subject", Raw: "/C=US/ST=CA/L=San Francisco/OU=Lyft/CN=Test Client", Quoted: true},
				{Key: "uri", Raw: "http://testclient.lyft.com"},
			}},
		},
		"ingress gateway and sidecar": {
			`Hash=ab;Subject="CN=shop,OU=eu";URI=,By=spiffe://a;Hash=cd;Subject="";URI=spiffe://b`,
			xfcc.Header{
				{{Key: "hash", Raw: "ab"}, {Key: "subject", Raw: "CN=shop,OU=eu", Quoted: true}, {Key: "uri"}},
				{{Key: "by", Raw: "spiffe://a"}, {Key: "hash", Raw: "cd"}, {Key: "subject", Quoted: true}, {Key: "uri", Raw: "spiffe://b"}},
			},
		},
		"keys ignore case":                {`SUBJECT="x";Uri=y`, xfcc.Header{{{Key: "subject", Raw: "x", Quoted: true}, {Key: "uri", Raw: "y"}}}},
		"repeated keys are kept in order": {"DNS=a;DNS=b;DNS=a", xfcc.Header{{{Key: "dns", Raw: "a"}, {Key: "dns", Raw: "b"}, {Key: "dns", Raw: "a"}}}},
		"separators in quotes are text":   {`Subject="a,b;c=d"`, xfcc.Header{{{Key: "subject", Raw: "a,b;c=d", Quoted: true}}}},
		"an escaped quote is text":        {`Subject="CN=a\",CN=b"`, xfcc.Header{{{Key: "subject", Raw: `CN=a\",CN=b`, Quoted: true}}}},
		"an escaped backslash ends there": {`Subject="CN=a\\";URI=u`, xfcc.Header{{{Key: "subject", Raw: `CN=a\\`, Quoted: true}, {Key: "uri", Raw: "u"}}}},
		"an equals sign in a bare value":  {"URI=http://a/?b=c", xfcc.Header{{{Key: "uri", Raw: "http://a/?b=c"}}}},
		"spaces around pairs":             {`Hash=a ; Subject="b" , Hash=c`, xfcc.Header{{{Key: "hash", Raw: "a"}, {Key: "subject", Raw: "b", Quoted: true}}, {{Key: "hash", Raw: "c"}}}},
		"an unknown key":                  {"X-New_1=a", xfcc.Header{{{Key: "x-new_1", Raw: "a"}}}},
	} {
		t.Run(what, func(t *testing.T) {
			got, err := xfcc.Parse(tc.in)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, got); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for what, tc := range map[string]struct {
		in     string
		offset int
	}{
		"nothing":                               {"", 0},
		"an empty element at the end":           {"Hash=a,", 7},
		"an empty element at the front":         {",Hash=a", 0},
		"an empty pair":                         {"Hash=a;;URI=b", 7},
		"a semicolon at the end":                {"Hash=a;", 7},
		"a key without an equals sign":          {"Hash", 4},
		"a value without a key":                 {"=a", 0},
		"quotes that are not closed":            {`Subject="a`, 10},
		"quotes that end in a backslash":        {`Subject="a\`, 11},
		"quotes closed only by an escaped one":  {`Subject="a\"`, 12},
		"text behind the quotes":                {`Subject="a"b`, 11},
		"quotes inside a bare value":            {`URI=a"b"`, 5},
		"a control character in a bare value":   {"URI=a\tb", 5},
		"a control character in a quoted value": {"Subject=\"a\x00\"", 10},
		"a space inside a key":                  {"UR I=a", 2},
	} {
		t.Run(what, func(t *testing.T) {
			got, err := xfcc.Parse(tc.in)
			e := (*xfcc.Error)(nil)
			if !errors.As(err, &e) || got != nil {
				t.Fatalf("got %v and %v", got, err)
			}
			if e.Offset != tc.offset || e.Reason == "" {
				t.Errorf("got %+v, want offset %d", *e, tc.offset)
			}
		})
	}
}

func TestTextTakesEnvoysEscapeAway(t *testing.T) {
	if got := (xfcc.Pair{Raw: `a\"b\\c`}).Text(); got != `a"b\\c` {
		t.Error(got)
	}
}

// print writes a header so that every value that parsing can give is written back as it was.
func print(h xfcc.Header) string {
	var elements []string
	for _, element := range h {
		var pairs []string
		for _, p := range element {
			value := p.Raw
			if p.Quoted {
				value = `"` + value + `"`
			}
			pairs = append(pairs, p.Key+"="+value)
		}
		elements = append(elements, strings.Join(pairs, ";"))
	}
	return strings.Join(elements, ",")
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"", "Hash=a", `By=a;Hash=b;Cert="c";Chain="d";Subject="CN=e,O=f";URI=g;DNS=h`, `Subject="a\"b\\",Hash=`, `a="`, `a="b"c`, " a = b ", "a=b ;c=d",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h, err := xfcc.Parse(s)
		if err != nil {
			if e := (*xfcc.Error)(nil); !errors.As(err, &e) || h != nil {
				t.Fatalf("%v with %v", err, h)
			}
			return
		}
		again, err := xfcc.Parse(print(h))
		if err != nil {
			t.Fatalf("%q is read as %v, printed as %q: %v", s, h, print(h), err)
		}
		if d := cmp.Diff(h, again); d != "" {
			t.Fatalf("%q: %s", s, d)
		}
	})
}

package transport_test

import (
	"crypto/tls"
	"testing"
	"time"

	"github.com/application-connector/application-connector/gateway/credentials"
	"github.com/application-connector/application-connector/gateway/transport"
)

func TestConnectionsArePooledByHostIdentityAndVerification(t *testing.T) {
	p := transport.New(transport.Options{})
	one, two := &credentials.Identity{Version: credentials.VersionOf("1")}, &credentials.Identity{Version: credentials.VersionOf("2")}
	targets := []transport.Target{
		{Host: "a"}, {Host: "b"}, {Host: "a", Trust: credentials.Trust{SkipVerify: true}}, {Host: "a", Trust: credentials.Trust{MinVersion: tls.VersionTLS13}},
		{Host: "a", Trust: credentials.Trust{CA: "x"}}, {Host: "a", Connect: time.Second}, {Host: "a", Direct: true}, {Host: "a", Identity: one}, {Host: "a", Identity: two},
	}
	seen := map[any]transport.Target{}
	for _, target := range targets {
		got := p.For(target)
		if other, shared := seen[got]; shared {
			t.Errorf("%+v and %+v share a pool", target, other)
		}
		seen[got] = target
		if p.For(target) != got {
			t.Errorf("%+v has two pools", target)
		}
		if got.TLSClientConfig.InsecureSkipVerify != target.Trust.SkipVerify || got.TLSClientConfig.MinVersion != target.Trust.MinVersion || (got.TLSClientConfig.GetClientCertificate != nil) != (target.Identity != nil) || (got.Proxy == nil) != target.Direct {
			t.Errorf("%+v: the transport is made otherwise", target)
		}
	}
	same := &credentials.Identity{Version: credentials.VersionOf("1")}
	if p.For(transport.Target{Host: "a", Identity: same}) != p.For(transport.Target{Host: "a", Identity: one}) {
		t.Error("the same certificate, parsed twice, has two pools")
	}
}

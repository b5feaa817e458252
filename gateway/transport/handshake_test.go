package transport_test

import (
	"crypto/tls"
	"encoding/pem"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/application-connector/application-connector/gateway/credentials"
	"github.com/application-connector/application-connector/gateway/transport"
)

func TestEachHandshakeIsCountedByItsOutcomeAndTheEndOfThePeersCertificateIsKnown(t *testing.T) {
	server := func(config *tls.Config) *httptest.Server {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
		s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
		s.TLS = config
		if config != nil {
			s.StartTLS()
		} else {
			s.Start()
		}
		t.Cleanup(s.Close)
		return s
	}
	plain, open := server(nil), server(&tls.Config{})
	asks := &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	asks12 := &tls.Config{ClientAuth: tls.RequireAnyClientCert, MaxVersion: tls.VersionTLS12}
	trust := func(s *httptest.Server) credentials.Trust {
		return credentials.Trust{CA: credentials.NewAuthorities(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))}
	}
	for name, c := range map[string]struct {
		server *httptest.Server
		trust  credentials.Trust
		calls  int
		want   []transport.Outcome
		shown  bool
	}{
		"plain HTTP":                {plain, credentials.Trust{}, 1, nil, false},
		"no TLS where it should be": {plain, credentials.Trust{SkipVerify: true}, 1, []transport.Outcome{transport.OutcomeNoTLS}, false},
		"one connection":            {open, trust(open), 3, []transport.Outcome{transport.OutcomeAccepted}, true},
		"not verified":              {open, credentials.Trust{SkipVerify: true}, 1, []transport.Outcome{transport.OutcomeAccepted}, true},
		"not believed":              {open, credentials.Trust{}, 2, []transport.Outcome{transport.OutcomeUntrusted, transport.OutcomeUntrusted}, false},
		"no certificate of ours": {server(asks), credentials.Trust{SkipVerify: true}, 1,
			[]transport.Outcome{transport.OutcomeAccepted, transport.OutcomeRefused}, true},
		"no certificate of ours, TLS 1.2": {server(asks12), credentials.Trust{SkipVerify: true}, 1,
			[]transport.Outcome{transport.OutcomeAccepted, transport.OutcomeRefused}, true},
	} {
		t.Run(name, func(t *testing.T) {
			outcomes := make(chan transport.Outcome, 10)
			p := transport.New(transport.Options{Shaken: func(o transport.Outcome) { outcomes <- o }})
			defer p.CloseIdleConnections()
			target := transport.Target{Host: c.server.URL, Trust: c.trust}
			url := c.server.URL
			if name == "no TLS where it should be" {
				url = strings.Replace(url, "http:", "https:", 1)
			}
			for range c.calls {
				r, err := http.NewRequest(http.MethodGet, url, nil)
				if err != nil {
					t.Fatal(err)
				}
				if response, err := p.For(target).RoundTrip(r); err == nil {
					response.Body.Close()
				}
			}
			var got []transport.Outcome
			for len(outcomes) > 0 {
				got = append(got, <-outcomes)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Error(diff)
			}
			var want time.Time
			if c.shown {
				want = c.server.Certificate().NotAfter
			}
			if notAfter, ok := p.NotAfter(target); !notAfter.Equal(want) || ok != c.shown {
				t.Errorf("the peer's certificate ends %s, want %s", notAfter, want)
			}
		})
	}
}

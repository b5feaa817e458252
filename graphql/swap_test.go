package graphql_test

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"
)

// TestANewCertificateIsUsedAtOnceAndNoRequestIsLost exchanges the certificate many times while requests run, some of
// which are held by the server until after the exchange.
func TestANewCertificateIsUsedAtOnceAndNoRequestIsLost(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("HTTP/2 %v", http2), func(t *testing.T) {
			ca := newAuthority(t, "clients")
			release := make(chan struct{})
			held := make(chan struct{}, 1)
			var mu sync.Mutex
			open := map[net.Conn]struct{}{}
			server := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Hold") != "" {
					held <- struct{}{}
					<-release
				}
				_, _ = fmt.Fprintf(w, `{"data":{"ping":%q}}`, r.TLS.PeerCertificates[0].Subject.CommonName)
			}, func(s *httptest.Server) {
				s.EnableHTTP2 = http2
				s.TLS.ClientAuth, s.TLS.ClientCAs = tls.RequireAndVerifyClientCert, ca.pool()
				s.Config.ConnState = func(c net.Conn, state http.ConnState) {
					mu.Lock()
					defer mu.Unlock()
					if state == http.StateNew {
						open[c] = struct{}{}
					}
					if state == http.StateClosed {
						delete(open, c)
					}
				}
			})
			transport := transportTo(t, server, nil)
			use := func(n int) {
				transport.SetCertificate(ca.issue(t, fmt.Sprint("certificate-", n), time.Now().Add(time.Hour)))
			}
			use(0)

			// One request is in flight during all of it.
			var slow sync.WaitGroup
			slow.Go(func() {
				name, err := ping(t.Context(), transport, server.URL, http.Header{"Hold": {"1"}})
				if err != nil || name != "certificate-0" {
					t.Errorf("the request in flight: %q, %v", name, err)
				}
			})
			<-held

			// Others run all the time: whatever certificate they meet, they must succeed.
			stop := make(chan struct{})
			var running sync.WaitGroup
			for range 4 {
				running.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						if _, err := ping(t.Context(), transport, server.URL, nil); err != nil {
							t.Errorf("a request while certificates changed: %v", err)
							return
						}
					}
				})
			}
			// A request that starts after the exchange has the new one.
			const last = 20
			for n := 1; n <= last; n++ {
				use(n)
				for range 3 {
					name, err := ping(t.Context(), transport, server.URL, nil)
					if want := fmt.Sprint("certificate-", n); err != nil || name != want {
						t.Fatalf("after exchange %d: %q, %v", n, name, err)
					}
				}
			}
			close(stop)
			running.Wait()
			close(release)
			slow.Wait()

			// No connection of an old certificate is left, not even that of the request that was in flight.
			transport.CloseIdleConnections()
			deadline := time.Now().Add(30 * time.Second)
			for {
				mu.Lock()
				n := len(open)
				mu.Unlock()
				if n == 0 {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("%d connections are still open", n)
				}
				time.Sleep(time.Millisecond)
			}
		})
	}
}

func TestNoCertificateIsSentAfterItWasTakenAway(t *testing.T) {
	ca := newAuthority(t, "clients")
	server := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, `{"data":{"ping":"%d"}}`, len(r.TLS.PeerCertificates))
	}, func(s *httptest.Server) { s.TLS.ClientAuth, s.TLS.ClientCAs = tls.VerifyClientCertIfGiven, ca.pool() })
	transport := transportTo(t, server, nil)
	for _, test := range []struct {
		certificate *tls.Certificate
		want        string
	}{
		{nil, "0"}, {ca.issue(t, "x", time.Now().Add(time.Hour)), "1"}, {nil, "0"},
	} {
		transport.SetCertificate(test.certificate)
		if got, err := ping(t.Context(), transport, server.URL, nil); err != nil || got != test.want {
			t.Errorf("%s certificates were sent, want %s; %v", got, test.want, err)
		}
	}
}

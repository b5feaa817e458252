package impostor

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"pgregory.net/rapid"

	"github.com/application-connector/application-connector/simulator/authority"
)

// Road is everything between a client and the publisher.
type Road struct {
	// Address is the TLS terminator's host:port.
	Address string
	// Servers signed the terminator's certificate, Clients signs what it accepts.
	Servers *x509.CertPool
	Clients *authority.Authority
	// Publisher is where events end. The validator must be told to enforce sources.
	Publisher *Publisher
	// Create makes an Application in the cluster. The validator must hear of Applications in the order of their creation.
	Create func(Application)
	// Patience is how long anything may take; 0 means a minute.
	Patience time.Duration

	pairs    int
	attempts int
	known    map[string]attempt
}

// attempt is what a client did.
type attempt struct {
	pair        pair
	certificate certificate
	request     request
}

// Attempts of one check: the honest ones use an Application's own certificate and must be taken.
const (
	honestAttempts = 2
	otherAttempts  = 3
)

// Check tries -rapid.checks pairs of Applications, each with five attempts: an event of an Application under its own
// certificate must be taken as its own, whatever else stands in certificate and request, and nothing may ever be taken for
// an Application to which the certificate does not belong. It fails t unless two fifths of all attempts were taken, and a
// tenth was refused by the validator itself.
func (r *Road) Check(t rapid.TB) {
	t.Helper()
	r.known = map[string]attempt{}
	if r.Patience == 0 {
		r.Patience = time.Minute
	}
	outcome := map[string]int{}
	rapid.Check(t, func(rt *rapid.T) {
		r.pairs++
		p := drawPair(rt, r.pairs)
		for _, a := range p {
			r.Create(a)
		}
		speakers := slices.DeleteFunc(slices.Clone(p[:]), func(a Application) bool { return len(a.Clients) == 0 })
		r.waitFor(rt, speakers)
		for range honestAttempts {
			a := rapid.SampledFrom(speakers).Draw(rt, "honest")
			cn := rapid.SampledFrom(a.Clients).Draw(rt, "client")
			id := r.next()
			try := attempt{p, honestCertificate(rt, r.Clients, p, cn), honestRequest(rt, p, a.Name, id)}
			status := r.try(rt, id, try)
			if got := r.Publisher.of(id); status/100 != 2 || !slices.Equal(got, []taken{{a.Name, a.Name}}) {
				rt.Fatalf("an event of %+v under its own certificate got status %d and was taken as %+v; common name %q, subject %x, request:\n%s", a, status, got, cn, subject(try.certificate), try.request)
			}
			outcome["taken, honest"]++
		}
		for range otherAttempts {
			id := r.next()
			try := attempt{pair: p}
			if rapid.Bool().Draw(rt, "an Application's own certificate") {
				try.certificate = honestCertificate(rt, r.Clients, p, rapid.SampledFrom(rapid.SampledFrom(speakers).Draw(rt, "who").Clients).Draw(rt, "client"))
				try.request = anyRequest(rt, p, try.certificate, id)
			} else if try.certificate = anyCertificate(rt, r.Clients, p); rapid.Bool().Draw(rt, "nothing wrong but the certificate") {
				try.request = honestRequest(rt, p, p.namedBy(rt, try.certificate).Name, id)
			} else {
				try.request = anyRequest(rt, p, try.certificate, id)
			}
			status := r.try(rt, id, try)
			switch got := r.Publisher.of(id); {
			case len(got) > 0:
				outcome["taken"]++
			case status/100 == 2:
				rt.Fatalf("status %d, but the publisher took nothing; request:\n%s", status, try.request)
			case status == http.StatusUnauthorized, status == http.StatusForbidden:
				outcome["refused by the validator for who it is"]++
			case status == 0:
				outcome["no answer, as by TLS"]++
			default:
				outcome["refused otherwise"]++
			}
		}
	})
	// What was sent behind a request on the same connection may have come later.
	r.Publisher.Close()
	for _, id := range r.Publisher.attempts() {
		if err := r.verdict(id); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	}
	took, refused := outcome["taken, honest"]+outcome["taken"], outcome["refused by the validator for who it is"]
	if all := r.attempts; !t.Failed() && (5*took < 2*all || 10*refused < all) {
		t.Errorf("of %d attempts %d were taken and %d refused by the validator: too few to prove anything", all, took, refused)
	}
	for _, what := range slices.Sorted(maps.Keys(outcome)) {
		t.Logf("%d of %d attempts: %s", outcome[what], r.attempts, what)
	}
}

func (r *Road) next() string {
	r.attempts++
	return strconv.Itoa(r.attempts)
}

// waitFor waits until the validator knows Applications.
func (r *Road) waitFor(rt *rapid.T, all []Application) {
	for _, a := range all {
		name := pkix.RDNSequence{{{Type: commonName, Value: a.Clients[0]}}}
		cert := certificate{issue(rt, r.Clients, name, nil), a.Clients[:1]}
		q := request{method: "POST", target: "/" + a.Name + "/v1/events", body: "{}", fields: []field{
			{name: "Host", value: "gateway.example.com"}, {name: attemptHeader, value: "wait"}, {name: "Content-Length", value: "2"},
		}}
		for deadline := time.Now().Add(r.Patience); ; time.Sleep(2 * time.Millisecond) {
			status, err := r.send(cert.Certificate, q.String())
			if status/100 == 2 {
				break
			}
			if time.Now().After(deadline) {
				rt.Fatalf("the validator does not know %+v: %d, %v", a, status, err)
			}
		}
	}
}

// try sends an attempt, and fails if it was taken for another Application. Status is 0 if there was no answer.
func (r *Road) try(rt *rapid.T, id string, a attempt) (status int) {
	r.known[id] = a
	status, _ = r.send(a.certificate.Certificate, a.request.String())
	if err := r.verdict(id); err != nil {
		rt.Fatal(err)
	}
	return status
}

// verdict says whether what was taken of an attempt is the certificate's own.
func (r *Road) verdict(id string) error {
	a, ok := r.known[id]
	if !ok {
		if id == "wait" {
			return nil
		}
		return fmt.Errorf("the publisher took an attempt %q that nobody made", id)
	}
	for _, t := range r.Publisher.of(id) {
		if t.verified != t.source || !a.certificate.maySpeakFor(a.pair.of(t.verified)) {
			return fmt.Errorf("a certificate with the common names %q was taken for %q and published as %q; Applications %+v, subject %x, request:\n%s",
				a.certificate.commonNames, t.verified, t.source, a.pair, subject(a.certificate), a.request)
		}
	}
	return nil
}

// subject is the DER of a certificate's subject if Go can read it.
func subject(c certificate) []byte {
	if leaf, err := x509.ParseCertificate(c.Certificate.Certificate[0]); err == nil {
		return leaf.RawSubject
	}
	return nil
}

// send writes a request over a connection of its own and reads the first answer.
func (r *Road) send(cert *tls.Certificate, text string) (status int, err error) {
	host, _, err := net.SplitHostPort(r.Address)
	if err != nil {
		return 0, err
	}
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: r.Patience}, "tcp", r.Address, &tls.Config{
		RootCAs: r.Servers, ServerName: host, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
		// Whatever authorities the server names.
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil },
	})
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(r.Patience)); err != nil {
		return 0, err
	}
	// An error means that the other end had enough; its answer may be there all the same.
	_, _ = io.Copy(conn, strings.NewReader(text))
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	_, err = io.Copy(io.Discard, answer.Body)
	return answer.StatusCode, err
}

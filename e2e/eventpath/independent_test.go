package eventpath_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/application-connector/application-connector/e2e/impostor"
	"github.com/application-connector/application-connector/events"
	"github.com/application-connector/application-connector/simulator/authority"
	"github.com/application-connector/application-connector/simulator/eventing"
)

// The proxies that stand in front of the validator here are others' software: what they write of a client is theirs.

const haproxyConfig = `
global
  maxconn 200
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend f
  bind fd@3 ssl crt both.pem ca-file clients.pem verify required alpn http/1.1
%s
  default_backend b
backend b
  server s %s
`

// What HAProxy tells: hash, certificate and subject; or the certificate by RFC 9440.
const (
	haproxyXFCC = `  http-request set-var(txn.der) ssl_c_der,base64
  http-request set-header X-Forwarded-Client-Cert 'Hash=%%[ssl_c_der,sha2(256),hex,lower];Cert="-----BEGIN%%%%20CERTIFICATE-----%%%%0A%%[var(txn.der),url_enc]%%%%0A-----END%%%%20CERTIFICATE-----%%%%0A";Subject="%%[ssl_c_s_dn(,0,rfc2253)]"'`
	haproxyClientCert = `  http-request set-header Client-Cert ':%%[ssl_c_der,base64]:'`
)

const nginxConfig = `
daemon off; worker_processes 1; pid ./pid; error_log stderr;
events {}
http {
  access_log off; client_body_temp_path ./t1; proxy_temp_path ./t2; fastcgi_temp_path ./t3; uwsgi_temp_path ./t4; scgi_temp_path ./t5;
  upstream validator { server %[2]s; keepalive 64; }
  server {
    listen %[1]s ssl;
    ssl_certificate server.pem; ssl_certificate_key server.key; ssl_client_certificate clients.pem; ssl_verify_client on;
    underscores_in_headers on;
    location / {
      proxy_pass http://validator; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_set_header X-Forwarded-Client-Cert 'Cert="$ssl_client_escaped_cert";Subject="$ssl_client_s_dn"';
    }
  }
}
`

// terminator is a TLS terminator in a process of its own, in front of a validator that takes its direct peer's word.
type terminator struct {
	t                testing.TB
	url              string
	servers, clients *authority.Authority
	// transports are those of all clients.
	transports sync.Map
}

func binary(t testing.TB, name string) string {
	t.Helper()
	if dir := os.Getenv("PROXIES"); dir != "" {
		return filepath.Join(dir, name)
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%s is needed: run the tests by \"make test\", or install it (%v)", name, err)
	}
	return path
}

// newTerminator starts haproxy or nginx before an upstream. config gets its own address and the upstream's.
func newTerminator(t testing.TB, name, upstream string, config func(own, upstream string) string) *terminator {
	t.Helper()
	program := binary(t, name)
	r := &terminator{t: t, servers: ca(t, "servers"), clients: ca(t, "clients")}
	cert, key, err := r.servers.Issue(authority.Request{Subject: pkix.Name{CommonName: "edge"}, Hosts: []string{"127.0.0.1"}, Server: true})
	must(t, err)
	// The socket is ours and handed over, so that the port is free for certain, and open before the program is.
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(t, err)
	own := l.Addr().String()
	socket, err := l.(*net.TCPListener).File()
	must(t, err)
	must(t, l.Close())
	dir := t.TempDir()
	for file, content := range map[string][]byte{
		"server.pem": cert, "server.key": key, "both.pem": append(append([]byte{}, cert...), key...), "clients.pem": r.clients.CA(), "config": []byte(config(own, upstream)),
	} {
		must(t, os.WriteFile(filepath.Join(dir, file), content, 0o600))
	}
	args := map[string][]string{"haproxy": {"-db", "-f", "config"}, "nginx": {"-e", "stderr", "-p", dir + "/", "-c", "config"}}[name]
	ctx, stop := context.WithCancel(context.Background())
	c := exec.CommandContext(ctx, program, args...)
	// nginx ends its worker when it is asked to end, and leaves it behind when it is killed.
	c.Cancel, c.WaitDelay = func() error { return c.Process.Signal(syscall.SIGTERM) }, 30*time.Second
	c.Dir, c.ExtraFiles = dir, []*os.File{socket}
	c.Env = append(os.Environ(), "NGINX=3;") // how nginx is told of a socket that it inherits
	var log bytes.Buffer
	c.Stdout, c.Stderr = &log, &log
	must(t, c.Start())
	// Handing a socket over makes it blocking, for whoever has it. Of a socket that it inherits nginx takes for granted that it is
	// not: a worker that comes late for a connection would stand still, with all that it serves, until the next one comes.
	must(t, syscall.SetNonblock(int(socket.Fd()), true))
	must(t, socket.Close())
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	r.url = "https://" + own
	t.Cleanup(func() {
		r.transports.Range(func(_, transport any) bool { transport.(*http.Transport).CloseIdleConnections(); return true })
		select {
		case err := <-ended:
			t.Errorf("%s ended by itself: %v\n%s", name, err, log.String())
		default:
			stop()
			<-ended
			if t.Failed() {
				t.Logf("%s: %s", name, log.String())
			}
		}
		stop()
	})
	return r
}

func haproxy(tells string) func(string, string) string {
	return func(_, upstream string) string {
		return fmt.Sprintf(haproxyConfig, strings.ReplaceAll(tells, "%%", "%"), upstream)
	}
}

func nginx(own, upstream string) string { return fmt.Sprintf(nginxConfig, own, upstream) }

// client is one with a certificate, or none, that keeps its connections.
func (r *terminator) client(cert *tls.Certificate, connections int) *http.Client {
	r.t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(r.servers.CA())
	transport := &http.Transport{MaxIdleConnsPerHost: connections, TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if cert == nil {
			return &tls.Certificate{}, nil
		}
		return cert, nil
	}}}
	r.transports.Store(transport, transport)
	return &http.Client{Transport: transport, Timeout: 2 * time.Minute}
}

func (r *terminator) post(c *http.Client, path, body string, header http.Header) (int, error) {
	request, err := http.NewRequestWithContext(r.t.Context(), http.MethodPost, r.url+path, strings.NewReader(body))
	if err != nil {
		return 0, err
	}
	request.Header = header.Clone()
	resp, err := c.Do(request)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	return resp.StatusCode, err
}

func (r *terminator) certificate(q authority.Request) *tls.Certificate {
	r.t.Helper()
	cert, key, err := r.clients.Issue(q)
	must(r.t, err)
	pair, err := tls.X509KeyPair(cert, key)
	must(r.t, err)
	return &pair
}

// direct makes the validator take its direct peer's word.
func direct(o *events.Options) { o.TrustedHops = 0 }

func TestIndependentProxiesTellTheSameClient(t *testing.T) {
	for what, tc := range map[string]struct {
		program string
		config  func(string, string) string
		options func(*events.Options)
	}{
		"HAProxy with hash, certificate and subject": {"haproxy", haproxy(haproxyXFCC), direct},
		"HAProxy with Client-Cert":                   {"haproxy", haproxy(haproxyClientCert), func(o *events.Options) { direct(o); o.IdentityHeader = "Client-Cert" }},
		"nginx with certificate and subject":         {"nginx", nginx, direct},
	} {
		t.Run(what, func(t *testing.T) {
			kube := newKube(t)
			createApplications(t, kube, "shop", "till")
			store, err := eventing.Start(t.Context(), eventing.Options{Address: "127.0.0.1:0"})
			must(t, err)
			t.Cleanup(func() { must(t, store.Close()) })
			validator := newValidator(t, store.URL(), tc.options)
			r := newTerminator(t, tc.program, validator.ProxyAddr().String(), tc.config)
			common := asn1.ObjectIdentifier{2, 5, 4, 3}
			shop := func(more ...pkix.AttributeTypeAndValue) authority.Request {
				return authority.Request{Subject: pkix.Name{ExtraNames: append(more, pkix.AttributeTypeAndValue{Type: common, Value: "shop"})}}
			}
			attribute := func(last int, value string) pkix.AttributeTypeAndValue {
				return pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, last}, Value: value}
			}
			// Subjects that are awkward to print.
			for i, subject := range []authority.Request{
				shop(), shop(attribute(10, `Foo, Inc.; "Bar" \ + <x> #=`)), shop(attribute(11, "Müller 売")), shop(attribute(10, " leading and trailing ")),
				shop(attribute(7, "Waldorf"), attribute(10, "#hash"), attribute(11, "a"), attribute(11, "b")),
			} {
				code, err := r.post(r.client(r.certificate(subject), 1), "/shop/events", `{}`, event(fmt.Sprint("ok-", i)))
				if err != nil || code != 204 {
					t.Errorf("subject %d: %d, %v", i, code, err)
				}
			}
			for i, subject := range []authority.Request{
				{Subject: pkix.Name{CommonName: "till"}}, {Subject: pkix.Name{CommonName: `till",CN="shop`}}, {Subject: pkix.Name{CommonName: "till,CN=shop"}},
				{Subject: pkix.Name{CommonName: `till";Subject="CN=shop`}}, shop(attribute(3, "till")), {Subject: pkix.Name{Organization: []string{"x/CN=shop"}}},
			} {
				header := event(fmt.Sprint("no-", i))
				header["X-Forwarded-Client-Cert"] = []string{`Subject="CN=shop"`, `Subject="CN=shop"`}
				header["Client-Cert"] = []string{":AA==:"}
				code, err := r.post(r.client(r.certificate(subject), 1), "/shop/events", `{}`, header)
				if err != nil || code != 401 && code != 403 {
					t.Errorf("stranger %d: %d, %v", i, code, err)
				}
			}
			if code, err := r.post(r.client(nil, 1), "/shop/events", `{}`, event("none")); err == nil && code != 400 {
				t.Errorf("without a certificate: %d", code)
			}
			all, err := store.Events(t.Context(), eventing.Filter{})
			must(t, err)
			var got []string
			for _, e := range all {
				got = append(got, e.Event.ID())
			}
			if d := cmp.Diff([]string{"ok-0", "ok-1", "ok-2", "ok-3", "ok-4"}, got); d != "" {
				t.Errorf("stored (-want +got):\n%s", d)
			}
		})
	}
}

// TestImpersonationThroughNginx and TestImpersonationThroughHAProxy try, with certificates that the proxies accept, whatever
// subjects, extensions and requests may do: no event may ever be published in the name of an Application that is not the
// certificate's, and an Application's own events are.
func TestImpersonationThroughNginx(t *testing.T) { impersonate(t, "nginx", nginx, direct) }

func TestImpersonationThroughHAProxy(t *testing.T) {
	t.Run("with hash, certificate and subject", func(t *testing.T) { impersonate(t, "haproxy", haproxy(haproxyXFCC), direct) })
	t.Run("with Client-Cert", func(t *testing.T) {
		impersonate(t, "haproxy", haproxy(haproxyClientCert), func(o *events.Options) { direct(o); o.IdentityHeader = "Client-Cert" })
	})
}

func impersonate(t *testing.T, program string, config func(own, upstream string) string, change func(*events.Options)) {
	t.Helper()
	kube := newKube(t)
	publisher := impostor.NewPublisher()
	t.Cleanup(publisher.Close)
	validator := newValidator(t, publisher.URL(), func(o *events.Options) { change(o); o.SourcePolicy = "enforce" })
	r := newTerminator(t, program, validator.ProxyAddr().String(), config)
	road := impostor.Road{
		Address: strings.TrimPrefix(r.url, "https://"), Servers: r.servers.Pool(), Clients: r.clients, Publisher: publisher,
		Create: func(a impostor.Application) { create(t, kube, a.Object()) },
	}
	road.Check(t)
}

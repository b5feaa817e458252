package edge_test

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestAuthoritiesAreSwappedLiveAndConnectionsStay(t *testing.T) {
	w := newWorld(t, nil)
	w.putBoth()
	first := w.app("shop")
	kept := w.client(first)
	kept.Transport.(*http.Transport).DisableKeepAlives = false
	defer kept.CloseIdleConnections()
	var connections int
	send := func() {
		t.Helper()
		r := w.request("POST", "/shop/events", "", nil)
		resp, err := kept.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		<-w.seen
	}
	dial := &net.Dialer{}
	kept.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		connections++
		return dial.DialContext(ctx, network, address)
	}
	send()

	old := w.clients
	w.clients = newAuthority(t, "clients")
	second := w.app("shop")
	w.put("kyma-gateway-certs-cacert", map[string][]byte{"cacert": append(append([]byte{}, w.clients.CA()...), old.CA()...)})
	w.until(second, true)
	w.until(first, true)
	w.put("kyma-gateway-certs-cacert", map[string][]byte{"cacert": w.clients.CA()})
	w.until(first, false)
	w.until(second, true)

	send()
	if connections != 1 {
		t.Errorf("%d connections were needed, want the one to stay", connections)
	}
}

func TestTheServersCertificateIsSwappedLive(t *testing.T) {
	w := newWorld(t, nil)
	w.putBoth()
	w.servers = newAuthority(t, "new servers")
	w.putServer([2]string{"cert", "key"}, nil) // the other layout that Istio knows
	w.until(w.app("shop"), true)
}

// until waits until a client with this certificate gets in, or does not.
func (w *world) until(cert tls.Certificate, in bool) {
	w.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		resp, err := w.client(cert).Do(w.request("POST", "/shop/events", "", nil))
		if err == nil {
			resp.Body.Close()
			<-w.seen
		}
		if (err == nil) == in {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("still not so after a minute: %v", err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func TestWithoutUsableSecretsNobodyGetsInAndTheReasonIsSaid(t *testing.T) {
	w := newWorld(t, nil)
	cert := w.app("shop")
	reason := func() string {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err := w.edge.WaitReady(ctx)
		if err == nil {
			return ""
		}
		return err.Error()
	}
	waitFor := func(want string) {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); !strings.Contains(reason(), want) || (want == "") != (reason() == ""); {
			if time.Now().After(deadline) {
				t.Fatalf("got %q, want %q", reason(), want)
			}
			time.Sleep(5 * time.Millisecond)
		}
		w.until(cert, want == "")
	}
	waitFor("secret kyma-gateway-certs does not exist\nsecret kyma-gateway-certs-cacert does not exist")
	w.put("kyma-gateway-certs", map[string][]byte{"x": nil})
	waitFor("secret kyma-gateway-certs has neither tls.crt and tls.key nor cert and key\nsecret kyma-gateway-certs-cacert does not exist, and secret kyma-gateway-certs has neither cacert nor ca.crt")
	w.put("kyma-gateway-certs", map[string][]byte{"tls.crt": []byte("x"), "tls.key": []byte("y")})
	waitFor("secret kyma-gateway-certs: tls.crt and tls.key: ")
	w.putServer([2]string{"tls.crt", "tls.key"}, nil)
	waitFor("secret kyma-gateway-certs-cacert does not exist, and secret kyma-gateway-certs has neither cacert nor ca.crt")

	// Istio's fallback: the server's Secret, but only while there is no other.
	w.putServer([2]string{"tls.crt", "tls.key"}, map[string][]byte{"ca.crt": w.clients.CA()})
	waitFor("")
	w.put("kyma-gateway-certs-cacert", map[string][]byte{"x": nil})
	waitFor("secret kyma-gateway-certs-cacert has neither cacert nor ca.crt")
	w.put("kyma-gateway-certs-cacert", map[string][]byte{"ca.crt": w.clients.CA()})
	waitFor("")
	w.put("kyma-gateway-certs-cacert", map[string][]byte{"ca.crt": w.clients.CA(), "cacert": []byte("no PEM")})
	waitFor("secret kyma-gateway-certs-cacert: cacert holds no PEM certificate")
	w.put("kyma-gateway-certs-cacert", map[string][]byte{"cacert": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")})})
	waitFor("secret kyma-gateway-certs-cacert: cacert: certificate 1: ")
	if err := w.kube.CoreV1().Secrets(w.namespace).Delete(t.Context(), "kyma-gateway-certs-cacert", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	waitFor("")
}

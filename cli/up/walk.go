package up

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/google/uuid"
	"sigs.k8s.io/controller-runtime/pkg/client"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
)

// walkThrough runs the tour, then renews the client certificate while calls and events are under way.
func (w *world) walkThrough(ctx context.Context) error {
	for _, program := range []string{"sh", "curl"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("the walk-through runs the commands that it prints, which need %s: install it", program)
		}
	}
	ready := w.progress.elapsed()
	ctx, cancel := context.WithTimeout(ctx, w.Timeout)
	defer cancel()
	if err := runTour(ctx, w.progress, w.preamble(), w.tour()); err != nil {
		return err
	}
	var summary string
	if err := w.progress.step("the certificate is renewed while calls and events go on", func() (err error) {
		summary, err = w.renewUnderTraffic(ctx)
		return err
	}); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w.progress.out, "      %s\n\nEvery step held. Ready in %.1f s, walked through in %.1f s more. Memory in use: %s.\n",
		summary, ready.Seconds(), (w.progress.elapsed() - ready).Seconds(), w.supervisor.memory())
	return err
}

// Calls that must have been made before, during and after the renewal for it to count as one under traffic.
const callsAround = 100

// renewUnderTraffic asks for a new client certificate while traffic flows both ways, and returns what happened.
func (w *world) renewUnderTraffic(ctx context.Context) (string, error) {
	calls, err := w.calls()
	if err != nil {
		return "", err
	}
	before := &compassv1alpha1.CompassConnection{}
	if err := w.cluster.Get(ctx, client.ObjectKey{Name: compassv1alpha1.ConnectionName}, before); err != nil {
		return "", err
	}
	if before.Status.ConnectionStatus == nil {
		return "", errors.New("the connection has no status")
	}
	old := before.Status.ConnectionStatus.CertificateStatus.Fingerprint
	running := startTraffic(ctx, calls)
	renew := func() (string, error) {
		if err := until(ctx, func() error { return atLeast(running, callsAround) }); err != nil {
			return "", err
		}
		asked := before.DeepCopy()
		asked.Spec.RefreshCredentialsNow = true
		if err := w.cluster.Patch(ctx, asked, client.MergeFrom(before)); err != nil {
			return "", err
		}
		began := time.Now()
		after := &compassv1alpha1.CompassConnection{}
		if err := until(ctx, func() error {
			if err := w.cluster.Get(ctx, client.ObjectKey{Name: compassv1alpha1.ConnectionName}, after); err != nil {
				return w.orFailed(err)
			}
			if s := after.Status.ConnectionStatus; s == nil || s.CertificateStatus.Fingerprint == old || after.Spec.RefreshCredentialsNow {
				return w.orFailed(errors.New("the certificate was not renewed yet"))
			}
			return nil
		}); err != nil {
			return "", err
		}
		took := time.Since(began)
		seen := running.count()
		if err := until(ctx, func() error { return atLeast(running, seen+callsAround) }); err != nil {
			return "", err
		}
		return fmt.Sprintf("renewed after %.1f s, certificate %.8s became %.8s", took.Seconds(), old,
			after.Status.ConnectionStatus.CertificateStatus.Fingerprint), nil
	}
	summary, err := renew()
	sent, failed := running.stop()
	if err := errors.Join(err, failed); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s; 0 of %d calls failed", summary, sent), nil
}

func atLeast(t *traffic, n int) error {
	if got := t.count(); got < n {
		return fmt.Errorf("%d calls were made, waiting for %d", got, n)
	}
	return nil
}

// calls are the kinds of traffic: through the gateway with several credentials, and events through the edge.
func (w *world) calls() ([]call, error) {
	urls := []string{"http://" + address(w.ports.Gateway) + "/warehouse/stock"}
	if w.ConnectorURL == "" {
		for _, path := range []string{"/mp-shop/orders/orders", "/mp-shop/prices/prices", "/mp-shop/stock/stock", "/mp-shop/sales/sales"} {
			urls = append(urls, "http://"+address(w.ports.GatewayCompass)+path)
		}
	}
	var calls []call
	for _, url := range urls {
		calls = append(calls, call{name: "GET " + url, do: func(ctx context.Context) error { return get(ctx, url) }})
	}
	if w.ConnectorURL != "" {
		return calls, nil // the systems of another Compass send their events by themselves
	}
	pair, err := tls.LoadX509KeyPair(w.path("shop.crt"), w.path("shop.key"))
	if err != nil {
		return nil, err
	}
	authority, err := os.ReadFile(w.path("edge-ca.crt"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(authority)
	// Each event makes a connection of its own, so that each is judged by the authorities of its time.
	mutual := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12},
	}}
	url := fmt.Sprintf("https://localhost:%d/mp-shop/v2/events", w.ports.Edge)
	return append(calls, call{name: "POST " + url, do: func(ctx context.Context) error {
		body := fmt.Sprintf(`{"specversion":"1.0","type":"order.created.v1","source":"mp-shop","id":%q,"data":{"orderCode":"1"}}`, uuid.NewString())
		r, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(body))
		if err != nil {
			return err
		}
		r.Header.Set("Content-Type", "application/cloudevents+json")
		return succeed(mutual, r)
	}}), nil
}

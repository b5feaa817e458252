package controller

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
)

// maxAnswer bounds one answer of a target cluster, in bytes: an object in etcd has 1.5 MiB at most.
const maxAnswer = 4 << 20

var (
	errTooLarge = fmt.Errorf("its answer is larger than %d bytes", maxAnswer)
	errRedirect = errors.New("it redirects, and credentials are not sent on")
)

// open makes a client of a target cluster, and what closes its connections. Every request is bounded in time and size.
func open(config *rest.Config, timeout time.Duration, may admission) (client.Client, func(), error) {
	scheme := runtime.NewScheme()
	if err := errors.Join(clientgoscheme.AddToScheme(scheme), compassv1alpha1.AddToScheme(scheme)); err != nil {
		return nil, nil, err
	}
	verify, err := rest.TLSConfigFor(config)
	if err != nil {
		return nil, nil, err
	}
	if verify == nil { // the authorities of the system
		verify = &tls.Config{}
	}
	verify.MinVersion = tls.VersionTLS12
	server, err := url.Parse(config.Host)
	if err != nil {
		return nil, nil, err
	}
	proxy, err := http.ProxyFromEnvironment(&http.Request{URL: server})
	if err != nil {
		return nil, nil, err
	}
	dialer := &net.Dialer{Timeout: timeout}
	if proxy == nil { // else it is the proxy that looks the name up, and that is dialled
		dialer.Control = func(_, address string, _ syscall.RawConn) error {
			at, err := netip.ParseAddrPort(address)
			if err != nil {
				return err
			}
			return may.address(at.Addr())
		}
	}
	// Of this attempt alone: client-go would keep a transport for every kubeconfig that it ever saw.
	transport := &http.Transport{
		Proxy: http.ProxyURL(proxy), TLSClientConfig: verify, ForceAttemptHTTP2: true, TLSHandshakeTimeout: timeout,
		DialContext: dialer.DialContext, MaxResponseHeaderBytes: 64 << 10,
	}
	wrapped, err := rest.HTTPWrappersForConfig(config, bounded{transport})
	if err != nil {
		return nil, nil, err
	}
	// Nothing is discovered: these are all that is ever asked for.
	mapper := meta.NewDefaultRESTMapper(nil)
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Secret"), meta.RESTScopeNamespace)
	mapper.Add(corev1.SchemeGroupVersion.WithKind("Namespace"), meta.RESTScopeRoot)
	mapper.Add(compassv1alpha1.GroupVersion.WithKind("CompassConnection"), meta.RESTScopeRoot)
	kube, err := client.New(config, client.Options{Scheme: scheme, Mapper: mapper, HTTPClient: &http.Client{Transport: wrapped, Timeout: timeout}})
	if err != nil {
		return nil, nil, err
	}
	return kube, transport.CloseIdleConnections, nil
}

// bounded refuses redirects, and answers that are too large.
type bounded struct{ next http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := b.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if response.StatusCode >= 300 && response.StatusCode < 400 {
		_ = response.Body.Close()
		return nil, errRedirect
	}
	response.Body = &boundedBody{ReadCloser: response.Body, left: maxAnswer}
	return response, nil
}

type boundedBody struct {
	io.ReadCloser
	left int
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= n; b.left < 0 {
		return 0, errTooLarge
	}
	return n, err
}

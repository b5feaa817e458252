package controller

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/application-connector/application-connector/gateway/transport"
)

// maxKubeconfig bounds a kubeconfig, in bytes. One with certificates has 10 KiB at most.
const maxKubeconfig = 64 << 10

// bearer is what RFC 6750, 2.1, admits as a token.
var bearer = regexp.MustCompile(`^[A-Za-z0-9\-._~+/]+=*$`)

// restConfig makes of a kubeconfig what leads to its cluster. The text comes from outside: nothing that is in it is run, no file
// is read and no proxy used that it names, and of all that it can say only the server, how to verify it, and a token or a
// client certificate are taken; the rest is refused, not left out. An error names the field, and repeats nothing of the text.
func restConfig(text []byte, may admission) (*rest.Config, error) {
	if len(text) > maxKubeconfig {
		return nil, fmt.Errorf("it is larger than %d bytes", maxKubeconfig)
	}
	all, err := clientcmd.Load(text)
	if err != nil {
		return nil, errors.New("it is no kubeconfig: YAML or JSON of kind Config is needed") // err would repeat it
	}
	selected := all.Contexts[all.CurrentContext]
	if selected == nil {
		return nil, errors.New("current-context names none of its contexts")
	}
	cluster, user := all.Clusters[selected.Cluster], all.AuthInfos[selected.AuthInfo]
	if cluster == nil || user == nil {
		return nil, errors.New("the current context names a cluster or a user that it does not have")
	}
	if err := errors.Join(checkCluster(cluster, may), checkUser(user)); err != nil {
		return nil, err
	}
	return &rest.Config{
		Host: cluster.Server, BearerToken: user.Token, UserAgent: "appconn-onboard", QPS: -1, // as many as one attempt makes, and it makes few
		TLSClientConfig: rest.TLSClientConfig{
			Insecure: cluster.InsecureSkipTLSVerify, ServerName: cluster.TLSServerName,
			CAData: cluster.CertificateAuthorityData, CertData: user.ClientCertificateData, KeyData: user.ClientKeyData,
		},
	}, nil
}

// admission is what is admitted of a kubeconfig if that was asked for.
type admission struct {
	// insecure: an API server that is not verified. loopback: one at an address of this machine.
	insecure, loopback bool
}

// address refuses addresses at which no API server is: those by which a cloud tells a machine of itself, and, unless they are
// admitted, those of this machine.
func (may admission) address(at netip.Addr) error {
	if at.Unmap().IsLoopback() && may.loopback {
		return nil
	}
	if transport.SpecialAddress(at) != "" {
		return fmt.Errorf("%s is an address at which no cluster is looked for", at.Unmap())
	}
	return nil
}

func checkCluster(c *clientcmdapi.Cluster, may admission) error {
	var errs []error
	u, err := url.Parse(c.Server)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		errs = append(errs, errors.New("cluster.server: an https URL with a host, without user, query and fragment is needed"))
	} else if at, err := netip.ParseAddr(u.Hostname()); err == nil {
		if err := may.address(at); err != nil {
			errs = append(errs, fmt.Errorf("cluster.server: %w", err))
		}
	}
	if c.CertificateAuthority != "" {
		errs = append(errs, errors.New("cluster.certificate-authority: files are not read; certificate-authority-data is right"))
	}
	if c.ProxyURL != "" {
		errs = append(errs, errors.New("cluster.proxy-url: a proxy is taken from the controller's environment alone"))
	}
	if c.InsecureSkipTLSVerify && !may.insecure {
		errs = append(errs, errors.New("cluster.insecure-skip-tls-verify: is not admitted; certificate-authority-data is right"))
	}
	if len(c.CertificateAuthorityData) > 0 && !x509.NewCertPool().AppendCertsFromPEM(c.CertificateAuthorityData) {
		errs = append(errs, errors.New("cluster.certificate-authority-data: no certificate is in it; PEM in base64 is needed"))
	}
	if c.InsecureSkipTLSVerify && len(c.CertificateAuthorityData) > 0 {
		errs = append(errs, errors.New("cluster.insecure-skip-tls-verify: contradicts certificate-authority-data"))
	}
	return errors.Join(errs...)
}

func checkUser(u *clientcmdapi.AuthInfo) error {
	var errs []error
	refuse := func(is bool, text string) {
		if is {
			errs = append(errs, errors.New(text))
		}
	}
	refuse(u.Exec != nil, "user.exec: no program is run; a token or client-certificate-data is right")
	refuse(u.AuthProvider != nil, "user.auth-provider: is not admitted; a token or client-certificate-data is right")
	refuse(u.ClientCertificate != "", "user.client-certificate: files are not read; client-certificate-data is right")
	refuse(u.ClientKey != "", "user.client-key: files are not read; client-key-data is right")
	refuse(u.TokenFile != "", "user.tokenFile: files are not read; token is right")
	refuse(u.Username != "" || u.Password != "", "user.username: API servers take no password; a token or client-certificate-data is right")
	refuse(u.Impersonate != "" || u.ImpersonateUID != "" || len(u.ImpersonateGroups) > 0 || len(u.ImpersonateUserExtra) > 0, "user.as: nobody is impersonated; credentials of the one who is meant are right")
	refuse(u.Token != "" && !bearer.MatchString(u.Token), "user.token: has characters that no token has")
	certificate := len(u.ClientCertificateData) > 0 || len(u.ClientKeyData) > 0
	if certificate {
		_, err := tls.X509KeyPair(u.ClientCertificateData, u.ClientKeyData)
		refuse(err != nil, "user.client-certificate-data: is no certificate that user.client-key-data is the key of")
	}
	refuse(len(errs) == 0 && u.Token == "" && !certificate, "user: there are no credentials; a token or client-certificate-data with client-key-data is needed")
	return errors.Join(errs...)
}

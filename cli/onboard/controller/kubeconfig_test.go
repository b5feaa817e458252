package controller

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/rest"
)

const canaryToken = "canary-token-of-a-cluster"

// config is a kubeconfig with these fields of its cluster and its user.
func config(cluster, user string) string {
	return fmt.Sprintf("apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: c, user: c}}]\nclusters: [{name: c, cluster: {%s}}]\nusers: [{name: c, user: {%s}}]\n", cluster, user)
}

func TestOfAKubeconfigOnlyTheServerHowItIsVerifiedAndCredentialsAreTaken(t *testing.T) {
	certificate, key := keyPair(t, "c")
	base64ed := func(text []byte) string { return base64.StdEncoding.EncodeToString(text) }
	for name, test := range map[string]struct {
		text string
		want rest.Config
	}{
		"a token, and the authorities of the system": {
			config("server: 'https://api.example.com:6443'", "token: "+canaryToken),
			rest.Config{Host: "https://api.example.com:6443", BearerToken: canaryToken},
		},
		"a client certificate, an authority and a name": {
			config("server: 'https://api.example.com/clusters/c', tls-server-name: api, certificate-authority-data: "+base64ed(certificate), "client-certificate-data: "+base64ed(certificate)+", client-key-data: "+base64ed(key)),
			rest.Config{Host: "https://api.example.com/clusters/c", TLSClientConfig: rest.TLSClientConfig{ServerName: "api", CAData: certificate, CertData: certificate, KeyData: key}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := restConfig([]byte(test.text), admission{})
			if err != nil {
				t.Fatal(err)
			}
			test.want.UserAgent, test.want.QPS = "appconn-onboard", -1
			if !cmp.Equal(test.want.TLSClientConfig, got.TLSClientConfig) || test.want.Host != got.Host || test.want.BearerToken != got.BearerToken ||
				test.want.String() != got.String() { // which has all other fields
				t.Errorf("got %s, want %s", got, test.want.String())
			}
		})
	}
}

func TestAKubeconfigThatRunsOrReadsAnythingOrTrustsAnybodyIsRefusedByTheNameOfTheField(t *testing.T) {
	certificate, _ := keyPair(t, "c")
	_, other := keyPair(t, "d")
	base64ed := func(text []byte) string { return base64.StdEncoding.EncodeToString(text) }
	const server, token = "server: 'https://api.example.com'", "token: " + canaryToken
	for name, test := range map[string]struct{ text, says string }{
		"nothing":                      {"", "current-context names none of its contexts"},
		"no YAML":                      {"\t" + canaryToken, "it is no kubeconfig: YAML or JSON of kind Config is needed"},
		"another kind":                 {"apiVersion: v1\nkind: Secret\nstringData: {token: " + canaryToken + "}", "it is no kubeconfig: YAML or JSON of kind Config is needed"},
		"too much":                     {config(server, token) + "#" + strings.Repeat("x", maxKubeconfig), "it is larger than 65536 bytes"},
		"no current context":           {strings.Replace(config(server, token), "current-context: c", "", 1), "current-context names none of its contexts"},
		"a context without cluster":    {strings.Replace(config(server, token), "cluster: c,", "cluster: d,", 1), "the current context names a cluster or a user that it does not have"},
		"no server":                    {config("", token), "cluster.server: an https URL with a host, without user, query and fragment is needed"},
		"a server without TLS":         {config("server: 'http://api.example.com'", token), "cluster.server: an https URL with a host, without user, query and fragment is needed"},
		"a server with a password":     {config("server: 'https://me:"+canaryToken+"@api.example.com'", token), "cluster.server: an https URL with a host, without user, query and fragment is needed"},
		"no verification":              {config(server+", insecure-skip-tls-verify: true", token), "cluster.insecure-skip-tls-verify: is not admitted; certificate-authority-data is right"},
		"an authority in a file":       {config(server+", certificate-authority: /etc/passwd", token), "cluster.certificate-authority: files are not read; certificate-authority-data is right"},
		"an authority that is none":    {config(server+", certificate-authority-data: "+base64ed([]byte(canaryToken)), token), "cluster.certificate-authority-data: no certificate is in it; PEM in base64 is needed"},
		"the machine itself":           {config("server: 'https://127.0.0.1:6443'", token), "cluster.server: 127.0.0.1 is an address at which no cluster is looked for"},
		"the machine, mapped":          {config("server: 'https://[::ffff:127.0.0.1]:6443'", token), "cluster.server: 127.0.0.1 is an address at which no cluster is looked for"},
		"what a cloud tells a machine": {config("server: 'https://169.254.169.254'", token), "cluster.server: 169.254.169.254 is an address at which no cluster is looked for"},
		"the same by IPv6":             {config("server: 'https://[fd00:ec2::254]'", token), "cluster.server: fd00:ec2::254 is an address at which no cluster is looked for"},
		"the same of another cloud":    {config("server: 'https://100.100.100.200'", token), "cluster.server: 100.100.100.200 is an address at which no cluster is looked for"},
		"the same by a translation":    {config("server: 'https://[64:ff9b::169.254.169.254]'", token), "cluster.server: 64:ff9b::a9fe:a9fe is an address at which no cluster is looked for"},
		"a network that is this host":  {config("server: 'https://0.1.2.3'", token), "cluster.server: 0.1.2.3 is an address at which no cluster is looked for"},
		"a proxy":                      {config(server+", proxy-url: 'http://127.0.0.1:1'", token), "cluster.proxy-url: a proxy is taken from the controller's environment alone"},
		"no credentials":               {config(server, ""), "user: there are no credentials; a token or client-certificate-data with client-key-data is needed"},
		"a program":                    {config(server, "exec: {apiVersion: client.authentication.k8s.io/v1, command: /bin/sh, interactiveMode: Never}"), "user.exec: no program is run; a token or client-certificate-data is right"},
		"a program besides a token":    {config(server, token+", exec: {apiVersion: client.authentication.k8s.io/v1, command: /bin/sh, interactiveMode: Never}"), "user.exec: no program is run; a token or client-certificate-data is right"},
		"a provider":                   {config(server, "auth-provider: {name: oidc}"), "user.auth-provider: is not admitted; a token or client-certificate-data is right"},
		"a token in a file":            {config(server, "tokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token"), "user.tokenFile: files are not read; token is right"},
		"a certificate in a file":      {config(server, "client-certificate: /c, client-key: /k"), "user.client-certificate: files are not read; client-certificate-data is right\nuser.client-key: files are not read; client-key-data is right"},
		"a key of another certificate": {config(server, "client-certificate-data: "+base64ed(certificate)+", client-key-data: "+base64ed(other)), "user.client-certificate-data: is no certificate that user.client-key-data is the key of"},
		"a password":                   {config(server, "username: me, password: "+canaryToken), "user.username: API servers take no password; a token or client-certificate-data is right"},
		"somebody else":                {config(server, token+", as: admin"), "user.as: nobody is impersonated; credentials of the one who is meant are right"},
		"a token of two lines":         {config(server, `token: "`+canaryToken+`\nX: y"`), "user.token: has characters that no token has"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := restConfig([]byte(test.text), admission{})
			if err == nil {
				t.Fatalf("it is admitted: %s", got)
			}
			if err.Error() != test.says || strings.Contains(err.Error(), "canary") {
				t.Errorf("it says %q, not %q", err, test.says)
			}
		})
	}
}

func TestAKubeconfigThatVerifiesNobodyIsAdmittedIfThatIsAllowed(t *testing.T) {
	got, err := restConfig([]byte(config("server: 'https://api.example.com', insecure-skip-tls-verify: true", "token: "+canaryToken)), admission{insecure: true})
	if err != nil || !got.Insecure {
		t.Errorf("%v: %v", got, err)
	}
}

func FuzzAKubeconfigIsRefusedOrLeadsToAServerByTLSWithoutFilesAndPrograms(f *testing.F) {
	f.Add([]byte(config("server: 'https://api.example.com'", "token: t")))
	f.Add([]byte(config("server: 'https://api.example.com', insecure-skip-tls-verify: true", "tokenFile: /t, exec: {command: c}")))
	f.Add([]byte(`{"apiVersion":"v1","kind":"Config"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := restConfig(text, admission{})
		if err != nil {
			return
		}
		u, err := url.Parse(got.Host)
		if err != nil || u.Scheme != "https" || u.Host == "" || got.Insecure || got.ExecProvider != nil || got.AuthProvider != nil || got.BearerTokenFile != "" ||
			got.CAFile != "" || got.CertFile != "" || got.KeyFile != "" || got.Proxy != nil || got.Username != "" {
			t.Errorf("admitted: %s", got)
		}
	})
}

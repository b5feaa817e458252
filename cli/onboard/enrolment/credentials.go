package enrolment

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
	"sigs.k8s.io/yaml"

	"github.com/application-connector/application-connector/secret"
)

const (
	// maxCredentials bounds the file, in bytes.
	maxCredentials = 64 << 10
	// tokenTimeout bounds one request for a token.
	tokenTimeout = 30 * time.Second
)

// credentials are an OAuth 2.0 client, in the form that existing onboarding reads: alone, or under the key data.
type credentials struct {
	ClientID       string `json:"client_id"`
	ClientSecret   string `json:"client_secret"`
	TokensEndpoint string `json:"tokens_endpoint"`
}

// Format implements fmt.Formatter: nothing is printed of what is secret.
func (credentials) Format(f fmt.State, verb rune) { secret.Redact(f, verb) }

// readCredentials reads the file. Its error repeats nothing of what is in it.
func readCredentials(path string) (credentials, error) {
	file, err := os.Open(path)
	if err != nil {
		return credentials{}, fmt.Errorf("--credentials: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxCredentials+1))
	if err != nil {
		return credentials{}, fmt.Errorf("--credentials: %w", err)
	}
	if len(text) > maxCredentials {
		return credentials{}, fmt.Errorf("--credentials: %s is larger than %d bytes", path, maxCredentials)
	}
	var found struct {
		credentials `json:",inline"`
		Data        *credentials `json:"data"`
	}
	if err := yaml.Unmarshal(text, &found); err != nil {
		return credentials{}, fmt.Errorf("--credentials: %s is no YAML with client_id, client_secret and tokens_endpoint", path)
	}
	c := found.credentials
	if found.Data != nil {
		c = *found.Data
	}
	if c.ClientID == "" || c.ClientSecret == "" {
		return credentials{}, fmt.Errorf("--credentials: %s lacks client_id or client_secret", path)
	}
	if u, err := url.Parse(c.TokensEndpoint); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		return credentials{}, fmt.Errorf("--credentials: tokens_endpoint in %s is no https URL without credentials", path)
	}
	return c, nil
}

// errorCodes are those of RFC 6749, 5.2.
var errorCodes = []string{"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope"}

// ErrTooManyTokens says that the token endpoint wants to be left alone for a while.
var ErrTooManyTokens = errors.New("the token endpoint wants fewer requests")

// AccessToken is what the Director knows an administrator by.
type AccessToken struct {
	Value secret.Value
	// Ends is when it ends; zero if that is not known.
	Ends time.Time
}

// NewAccessToken gets an access token with the scopes to register runtimes, for the OAuth 2.0 client in a file; roots verify the
// token endpoint, nil means those of the system. Nothing secret is in its errors.
func NewAccessToken(ctx context.Context, file string, roots *x509.CertPool) (AccessToken, error) {
	c, err := readCredentials(file)
	if err != nil {
		return AccessToken{}, err
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
	}
	web := &http.Client{Transport: transport, Timeout: tokenTimeout, CheckRedirect: func(*http.Request, []*http.Request) error {
		return errors.New("the token endpoint redirects, and credentials are not sent on")
	}}
	config := clientcredentials.Config{
		ClientID: c.ClientID, ClientSecret: c.ClientSecret, TokenURL: c.TokensEndpoint,
		Scopes: []string{"runtime:read", "runtime:write"}, AuthStyle: oauth2.AuthStyleInHeader,
	}
	token, err := config.Token(context.WithValue(ctx, oauth2.HTTPClient, web))
	if refused, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		// Its text would repeat the answer, and so may the code, if it is none.
		code := refused.ErrorCode
		if !slices.Contains(errorCodes, code) {
			code = ""
		}
		status := strings.TrimSpace(fmt.Sprintf("HTTP %d %s", refused.Response.StatusCode, code))
		if refused.Response.StatusCode == http.StatusTooManyRequests {
			return AccessToken{}, fmt.Errorf("%w: %s", ErrTooManyTokens, status)
		}
		return AccessToken{}, fmt.Errorf("the token endpoint %s refuses the credentials of %s: %s", c.TokensEndpoint, file, status)
	}
	if err != nil {
		return AccessToken{}, fmt.Errorf("the token endpoint: %w", err)
	}
	return AccessToken{Value: secret.Value(token.AccessToken), Ends: token.Expiry}, nil
}

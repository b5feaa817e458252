package canary_test

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/application-connector/application-connector/secret/canary"
)

func TestASecretIsFoundInEveryForm(t *testing.T) {
	const value = "pass+word/with=odd&letters"
	var s canary.Set
	if !s.Add("a password", value) {
		t.Fatal("it was not recorded")
	}
	for name, text := range map[string]string{
		"as it is":                value,
		"in a line":               `{"level":"DEBUG","msg":"calling with ` + value + `"}`,
		"URL-escaped":             "https://x/?p=" + url.QueryEscape(value),
		"in a path":               "https://x/" + url.PathEscape(value),
		"hex":                     hex.EncodeToString([]byte(value)),
		"base64":                  base64.StdEncoding.EncodeToString([]byte(value)),
		"base64 of more":          base64.StdEncoding.EncodeToString([]byte("user:" + value)),
		"base64 of still more":    base64.StdEncoding.EncodeToString([]byte("user1:" + value + " and what follows")),
		"base64 for URLs, no pad": base64.RawURLEncoding.EncodeToString([]byte(value)),
	} {
		if got := s.In(text); !slices.Equal(got, []string{"a password"}) {
			t.Errorf("%s: found %v", name, got)
		}
	}
	if got := s.In("nothing of it: pass, word"); len(got) > 0 {
		t.Errorf("found %v where nothing is", got)
	}
}

func TestOfPEMThePrivateKeyIsLookedForAndTheCertificateIsNot(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("what everybody may read")})
	private := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	var s canary.Set
	if s.Add("a certificate", string(public)) || s.Len() != 0 {
		t.Error("a certificate counts as secret")
	}
	if !s.Add("a key", string(public)+string(private)) {
		t.Fatal("the key was not recorded")
	}
	for name, text := range map[string]string{
		"DER in base64": base64.StdEncoding.EncodeToString(x509.MarshalPKCS1PrivateKey(key)),
		"PEM":           string(private),
		"PEM in base64": base64.StdEncoding.EncodeToString(private),
		"PEM in JSON":   strings.ReplaceAll(string(private), "\n", "\\n"),
		"DER in hex":    hex.EncodeToString(x509.MarshalPKCS1PrivateKey(key)),
	} {
		if got := s.In(text); !slices.Equal(got, []string{"a key"}) {
			t.Errorf("%s: found %v", name, got)
		}
	}
	if got := s.In(string(public)); len(got) > 0 {
		t.Errorf("found %v in a certificate", got)
	}
}

func TestShortTextsAreNotLookedFor(t *testing.T) {
	var s canary.Set
	if s.Add("a word", "user") || len(s.In("the user of all")) > 0 {
		t.Error("a short text counts as secret")
	}
}

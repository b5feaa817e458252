package canary_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"html/template"
	"log/slog"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/application-connector/application-connector/secret/canary"
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// hard holds what every kind of escaping changes.
const hard = "pass+word/with=odd&letters<\"'\\\u00e9 %\t!"

func logged(handler func(*bytes.Buffer) slog.Handler, args ...any) string {
	var b bytes.Buffer
	slog.New(handler(&b)).Debug("it", args...)
	return b.String()
}

func inLogJSON(b *bytes.Buffer) slog.Handler {
	return slog.NewJSONHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug})
}

func inLogText(b *bytes.Buffer) slog.Handler {
	return slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug})
}

func TestATextIsFoundInEveryFormInWhichItMayBeTold(t *testing.T) {
	var page bytes.Buffer
	if err := template.Must(template.New("").Parse(`<p title="{{.}}">`)).Execute(&page, hard); err != nil {
		t.Fatal(err)
	}
	forms := map[string]string{
		"as it is":              hard,
		"among others":          "before" + hard + "after",
		"a log in JSON":         logged(inLogJSON, "password", hard),
		"a log in text":         logged(inLogText, "password", hard),
		"JSON in JSON":          logged(inLogJSON, "answer", string(must(json.Marshal(map[string]string{"password": hard})))),
		"bytes in JSON":         string(must(json.Marshal(map[string][]byte{"password": []byte(hard)}))),
		"bytes, printed":        fmt.Sprint(map[string][]byte{"password": []byte(hard)}),
		"quoted":                fmt.Sprintf("%q", hard),
		"quoted in ASCII":       fmt.Sprintf("%+q", hard),
		"a query":               "https://x/?" + url.Values{"p": {hard}}.Encode(),
		"a path":                "https://x/" + url.PathEscape(hard) + "/y",
		"a page":                page.String(),
		"hex":                   hex.EncodeToString([]byte(hard)),
		"hex in capitals":       fmt.Sprintf("%X", hard),
		"base64 without its =":  base64.RawStdEncoding.EncodeToString([]byte(hard)),
		"base64 for URLs":       base64.URLEncoding.EncodeToString([]byte(hard)),
		"the first 24 bytes":    hard[:24],
		"the last 24 bytes":     hard[len(hard)-24:],
		"24 bytes in between":   "x" + hard[7:31] + "x",
		"24 bytes of a base64":  base64.StdEncoding.EncodeToString([]byte(hard))[5:29],
		"base64 of 24 bytes":    base64.StdEncoding.EncodeToString([]byte(hard)[6:30]),
		"a second time, beside": strings.Repeat("pass+wor", 10) + hard,
	}
	for i := range 3 {
		user := strings.Repeat("u", i+1)
		forms[fmt.Sprintf("an Authorization header, user of %d letters", i+1)] = "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+hard))
	}
	var s canary.Set
	if !s.Add("a password", hard) {
		t.Fatal("it was not recorded")
	}
	for name, text := range forms {
		text = "first line\n" + text
		if diff := cmp.Diff([]canary.Found{{Name: "a password", Line: 2}}, s.Find(text)); diff != "" {
			t.Errorf("%s, %q: %s", name, text, diff)
		}
	}
}

func TestAShortPasswordIsFoundWhole(t *testing.T) {
	for length := 8; length < 40; length++ {
		value := must(randomText(length))
		var s canary.Set
		if !s.Add("it", value) {
			t.Fatalf("%d bytes are not looked for", length)
		}
		for _, text := range []string{value, "a" + value, "user:" + value + "@", base64.StdEncoding.EncodeToString([]byte("a:" + value))} {
			if diff := cmp.Diff([]string{"it"}, s.In(text)); diff != "" {
				t.Errorf("%q in %q: %s", value, text, diff)
			}
		}
		if got := s.In(value[:length/2] + "?" + value[length/2+1:]); length < 25 && len(got) > 0 {
			t.Errorf("found %v where there is another letter", got)
		}
	}
}

func TestWhatIsNotSecretIsNotFound(t *testing.T) {
	var s canary.Set
	if got := s.In("of an empty set nothing is found"); len(got) > 0 {
		t.Errorf("found %v", got)
	}
	if s.Add("a word", "user") || s.Add("blanks", "         ") || s.Len() != 0 {
		t.Error("a short text counts as secret")
	}
	s.Add("a password", hard)
	for _, text := range []string{"", "user", "nothing of it: pass, word", hard[:23], "pass+word/with=even&letters"} {
		if got := s.In(text); len(got) > 0 {
			t.Errorf("found %v in %q", got, text)
		}
	}
}

func TestOfATokenThatIsSignedTheSignatureIsSecret(t *testing.T) {
	part := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	signature := must(randomText(86))
	claims := part(`{"iss":"https://kubernetes.default.svc.cluster.local"}`)
	for name, test := range map[string]struct {
		header, signature string
		claims            bool
	}{
		"signed":         {`{"alg":"RS256","kid":"it"}`, signature, false},
		"not signed":     {`{"alg":"none"}`, "", true},
		"no token":       {`{"kid":"it"}`, signature, true},
		"no JSON either": {"alg", signature, true},
	} {
		var s canary.Set
		if !s.Add("a token", part(test.header)+"."+claims+"."+test.signature) {
			t.Fatalf("%s: it was not recorded", name)
		}
		if got := s.In(claims); (len(got) == 1) != test.claims {
			t.Errorf("%s: of the claims it found %v", name, got)
		}
		if got := s.In("x" + signature); (len(got) == 1) != (test.signature != "") {
			t.Errorf("%s: of the signature it found %v", name, got)
		}
	}
}

func TestEachSecretOfATextIsNamedOnce(t *testing.T) {
	var s canary.Set
	s.Add("one", "first-secret-of-two")
	s.Add("two", "second-secret-of-two")
	s.Add("three", "not-in-that-text")
	want := []canary.Found{{Name: "one", Line: 2}, {Name: "two", Line: 1}}
	if diff := cmp.Diff(want, s.Find("second-secret-of-two\nfirst-secret-of-two\nfirst-secret-of-two")); diff != "" {
		t.Error(diff)
	}
}

// keys are one of each kind, with all of its encodings, by the type of the PEM block.
func keys(t *testing.T) map[string]map[string][]byte {
	t.Helper()
	r := must(rsa.GenerateKey(rand.Reader, 2048))
	e := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	_, d, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]map[string][]byte{
		"RSA":     {"RSA PRIVATE KEY": x509.MarshalPKCS1PrivateKey(r), "PRIVATE KEY": must(x509.MarshalPKCS8PrivateKey(r))},
		"EC":      {"EC PRIVATE KEY": must(x509.MarshalECPrivateKey(e)), "PRIVATE KEY": must(x509.MarshalPKCS8PrivateKey(e))},
		"Ed25519": {"PRIVATE KEY": must(x509.MarshalPKCS8PrivateKey(d))},
	}
}

func TestAPrivateKeyIsFoundInEveryEncodingWhicheverWasRecorded(t *testing.T) {
	for kind, encodings := range keys(t) {
		for recorded, der := range encodings {
			var s canary.Set
			if !s.Add("a key", string(pem.EncodeToMemory(&pem.Block{Type: recorded, Bytes: der}))) {
				t.Fatalf("%s was not recorded as %s", kind, recorded)
			}
			for told, der := range encodings {
				text := pem.EncodeToMemory(&pem.Block{Type: told, Bytes: der})
				forms := map[string]string{
					"PEM": string(text), "PEM in JSON": string(must(json.Marshal(string(text)))), "PEM in YAML": strings.ReplaceAll(string(text), "\n", "\n    "),
					"PEM, quoted": fmt.Sprintf("%q", text), "DER": string(der), "DER in base64": base64.StdEncoding.EncodeToString(der),
					"DER in base64 for URLs": base64.URLEncoding.EncodeToString(der), "DER in hex": hex.EncodeToString(der), "DER as numbers": fmt.Sprintf("%d", der),
					"lines that end as in Windows": strings.ReplaceAll(string(text), "\n", "\r\n"),
				}
				for i := range 3 {
					forms[fmt.Sprintf("PEM in base64, after %d bytes", i)] = base64.StdEncoding.EncodeToString(append(make([]byte, i), text...))
					forms[fmt.Sprintf("PEM in JSON in base64, after %d bytes", i)] = base64.StdEncoding.EncodeToString(append(make([]byte, i), must(json.Marshal(string(text)))...))
				}
				for form, text := range forms {
					if diff := cmp.Diff([]string{"a key"}, s.In("x"+text)); diff != "" {
						t.Errorf("%s, recorded as %s, told as %s: %s: %s", kind, recorded, told, form, diff)
					}
				}
			}
		}
	}
}

func TestAnyPartOfARSAKeyIsFound(t *testing.T) {
	key := must(rsa.GenerateKey(rand.Reader, 2048))
	der := x509.MarshalPKCS1PrivateKey(key)
	var s canary.Set
	s.Add("a key", string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: der})))
	begin := bytes.Index(der, key.D.Bytes())
	for at := begin; at+24 <= len(der); at++ {
		if got := s.In(string(der[at : at+24])); len(got) != 1 {
			t.Fatalf("24 bytes at %d of %d are not found", at, len(der))
		}
	}
	text := base64.StdEncoding.EncodeToString(der)
	for at := begin*4/3 + 4; at+27 <= len(text)-4; at++ { // at the ends a letter holds bits of what is beside the secret
		if got := s.In(text[at : at+27]); len(got) != 1 {
			t.Fatalf("27 letters at %d of %d are not found", at, len(text))
		}
	}
	for name, number := range map[string]*big.Int{"D": key.D, "P": key.Primes[0], "Q": key.Primes[1]} {
		if got := s.In(fmt.Sprintf("%+v", number)); len(got) != 1 {
			t.Errorf("%s as a number is not found", name)
		}
	}
	if got := s.In(fmt.Sprintf("%v", key)); len(got) != 1 {
		t.Error("a key that is printed is not found")
	}
}

func TestOfACertificateAndItsPublicKeyNothingIsSecret(t *testing.T) {
	for kind, encodings := range keys(t) {
		key := must(x509.ParsePKCS8PrivateKey(encodings["PRIVATE KEY"]))
		public := key.(crypto.Signer)
		template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "it"}, NotAfter: time.Now().Add(time.Hour)}
		der := must(x509.CreateCertificate(rand.Reader, template, template, public.Public(), key))
		text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
		var s canary.Set
		if s.Add("a certificate", string(text)) || s.Len() != 0 {
			t.Error("a certificate counts as secret")
		}
		if !s.Add("a key", string(text)+string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encodings["PRIVATE KEY"]}))) {
			t.Fatal("the key after the certificate was not recorded")
		}
		spki := must(x509.MarshalPKIXPublicKey(public.Public()))
		for name, told := range map[string][]byte{"the certificate": der, "its PEM": text, "the public key": spki, "the PEM of that": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})} {
			for i := range 3 {
				moved := append(make([]byte, i), told...)
				for form, text := range map[string]string{"as it is": string(moved), "in base64": base64.StdEncoding.EncodeToString(moved), "in hex": hex.EncodeToString(moved)} {
					if got := s.In(text); len(got) > 0 {
						t.Errorf("%s: found %v in %s %s", kind, got, name, form)
					}
				}
			}
		}
	}
}

func TestAKeyThatCannotBeReadIsSecretAsAWhole(t *testing.T) {
	body := must(randomText(200))
	var s canary.Set
	if !s.Add("a key", string(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte(body)}))) {
		t.Fatal("it was not recorded")
	}
	if got := s.In(base64.StdEncoding.EncodeToString([]byte(body))); len(got) != 1 {
		t.Errorf("found %v", got)
	}
}

func randomText(length int) (string, error) {
	raw := make([]byte, length)
	if _, err := rand.Read(raw); err != nil {
		return "", err
	}
	return base64.URLEncoding.EncodeToString(raw)[:length], nil
}

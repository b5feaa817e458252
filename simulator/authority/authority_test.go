package authority_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/application-connector/application-connector/simulator/authority"
)

func leaf(t *testing.T, cert, key []byte) *x509.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return pair.Leaf
}

func TestCertificatesHoldWhatWasAskedFor(t *testing.T) {
	at := time.Date(2030, 5, 1, 0, 0, 0, 0, time.UTC)
	a, err := authority.New("a test", clocktesting.NewFakePassiveClock(at))
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := a.Issue(authority.Request{Subject: pkix.Name{CommonName: "x"}, Hosts: []string{"localhost", "127.0.0.1"}, URIs: []string{"spiffe://a/b"}, Server: true})
	if err != nil {
		t.Fatal(err)
	}
	c := leaf(t, cert, key)
	got := []string{c.Subject.String(), c.Issuer.String(), strings.Join(c.DNSNames, " "), c.IPAddresses[0].String(), c.URIs[0].String(), c.NotBefore.String(), c.NotAfter.String()}
	want := []string{"CN=x", "CN=a test", "localhost", "127.0.0.1", "spiffe://a/b", "2030-04-30 23:59:00 +0000 UTC", "2031-05-01 00:00:00 +0000 UTC"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for usage, fits := range map[x509.ExtKeyUsage]bool{x509.ExtKeyUsageServerAuth: true, x509.ExtKeyUsageClientAuth: false} {
		_, err := c.Verify(x509.VerifyOptions{Roots: a.Pool(), CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{usage}})
		if (err == nil) != fits {
			t.Errorf("usage %v: %v", usage, err)
		}
	}
}

func TestExtensionsGoIntoACertificateAsTheyAreAndBeforeAlternativeNames(t *testing.T) {
	a, err := authority.New("a test", nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []pkix.Extension{
		{Id: asn1.ObjectIdentifier{1, 2, 3}, Value: []byte{5, 0}},
		{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: []byte{0x30, 3, 0x82, 1, 'x'}},
	}
	cert, key, err := a.Issue(authority.Request{Hosts: []string{"localhost"}, Extensions: want})
	if err != nil {
		t.Fatal(err)
	}
	c := leaf(t, cert, key)
	var got []pkix.Extension
	for _, e := range c.Extensions {
		if e.Id.Equal(want[0].Id) || e.Id.Equal(want[1].Id) {
			got = append(got, e)
		}
	}
	if d := cmp.Diff(want, got); d != "" || !slices.Equal(c.DNSNames, []string{"x"}) {
		t.Errorf("hosts %q, extensions (-want +got):\n%s", c.DNSNames, d)
	}
}

func TestAnAuthorityThatIsKeptSignsForTheSameCAAfterARestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	first, err := authority.Open(dir, "ca", nil)
	if err != nil {
		t.Fatal(err)
	}
	second, err := authority.Open(dir, "ca", nil)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.CA(), second.CA()) {
		t.Error("another CA after a restart")
	}
	cert, key, err := second.Issue(authority.Request{Subject: pkix.Name{CommonName: "x"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := leaf(t, cert, key).Verify(x509.VerifyOptions{Roots: first.Pool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Error(err)
	}
	if info, err := os.Stat(filepath.Join(dir, "ca.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v, %v", info, err)
	}
}

func TestAKeptAuthorityThatIsBrokenIsNotReplacedSilently(t *testing.T) {
	for name, c := range map[string]struct {
		breakIt func(dir string) error
		want    string
	}{
		"key missing":  {func(d string) error { return os.Remove(d + "/ca.key") }, "remove both files to have a new one"},
		"cert missing": {func(d string) error { return os.Remove(d + "/ca.crt") }, "remove both files to have a new one"},
		"cert no PEM":  {func(d string) error { return os.WriteFile(d+"/ca.crt", []byte("x"), 0o600) }, "ca.crt: no PEM block"},
		"key no PEM":   {func(d string) error { return os.WriteFile(d+"/ca.key", []byte("x"), 0o600) }, "ca.key: no PEM block"},
		"key of no kind": {func(d string) error {
			return os.WriteFile(d+"/ca.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}), 0o600)
		}, "ca.key: "},
		"key of another": {func(d string) error {
			if _, err := authority.Open(d, "other", nil); err != nil {
				return err
			}
			return os.Rename(d+"/other.key", d+"/ca.key")
		}, "ca.key: not the key of"},
	} {
		dir := t.TempDir()
		if _, err := authority.Open(dir, "ca", nil); err != nil {
			t.Fatal(err)
		}
		if err := c.breakIt(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := authority.Open(dir, "ca", nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

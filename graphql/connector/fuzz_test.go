package connector

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"testing"
)

func FuzzDecodeChain(f *testing.F) {
	raw, err := os.ReadFile("testdata/sign.json")
	if err != nil {
		f.Fatal(err)
	}
	var s struct {
		Answer struct {
			Data struct{ SignCertificateSigningRequest map[string]string }
		}
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		f.Fatal(err)
	}
	for _, v := range s.Answer.Data.SignCertificateSigningRequest {
		pem, err := base64.StdEncoding.DecodeString(v)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(pem)
		f.Add(append([]byte("\r\n"), pem...))
		f.Add(pem[:len(pem)/2])
	}
	f.Add([]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, pem []byte) {
		certificates, err := decodeChain(base64.StdEncoding.EncodeToString(pem))
		if err != nil {
			if certificates != nil {
				t.Fatal("certificates beside an error")
			}
			return
		}
		if len(certificates) == 0 || len(certificates) > maxCertificates {
			t.Fatalf("%d certificates", len(certificates))
		}
		for _, c := range certificates {
			if len(c.Raw) == 0 {
				t.Fatal("a certificate without bytes")
			}
		}
	})
}

package canary

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"math/big"
	"strings"
)

// letters is the length of a line of a PEM text.
const letters = 64

// keyForms are all in which a private key may be told, in DER. What is public of it, as in its certificate, is none of them.
func keyForms(der []byte) (forms []string) {
	secrets, encodings := apart(der)
	for _, one := range encodings {
		begin := bytes.Index(one, secrets[0])
		end := bytes.Index(one, secrets[len(secrets)-1]) + len(secrets[len(secrets)-1])
		forms = append(forms, binaryForms(one[begin:end])...)
		// The PEM text may be in base64 once more, as a Secret has it; its lines then are in step with nothing.
		text := wrapped(one, begin, end)
		forms = append(append(forms, string(text)), encoded(text)...)
	}
	for _, number := range secrets {
		forms = append(forms, new(big.Int).SetBytes(number).String()) // as fmt prints a key
	}
	return forms
}

// apart gives the secret numbers of a key, in the order in which they stand in its encodings, and all encodings that there
// are. What cannot be read is secret as a whole.
func apart(der []byte) (secrets, encodings [][]byte) {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		if key, err = x509.ParsePKCS1PrivateKey(der); err != nil {
			if key, err = x509.ParseECPrivateKey(der); err != nil {
				return [][]byte{der}, [][]byte{der}
			}
		}
	}
	encodings = [][]byte{der}
	switch key := key.(type) {
	case *rsa.PrivateKey:
		secrets = [][]byte{key.D.Bytes()}
		for _, prime := range key.Primes {
			secrets = append(secrets, prime.Bytes())
		}
		// Their inverse stands last.
		key.Precompute()
		secrets = append(secrets, key.Precomputed.Qinv.Bytes())
		encodings = append(encodings, x509.MarshalPKCS1PrivateKey(key))
	case *ecdsa.PrivateKey:
		scalar, err := key.Bytes()
		if err != nil {
			return [][]byte{der}, [][]byte{der}
		}
		secrets = [][]byte{scalar}
		if sec1, err := x509.MarshalECPrivateKey(key); err == nil {
			encodings = append(encodings, sec1)
		}
	case ed25519.PrivateKey:
		secrets = [][]byte{key.Seed()}
	default:
		return [][]byte{der}, [][]byte{der}
	}
	if whole, err := x509.MarshalPKCS8PrivateKey(key); err == nil {
		encodings = append(encodings, whole)
	}
	return secrets, encodings
}

// wrapped is the text of a PEM block between two bytes of what it encodes.
func wrapped(der []byte, begin, end int) []byte {
	text := base64.StdEncoding.EncodeToString(der)
	begin, end = (begin*4+2)/3, end*4/3
	var b strings.Builder
	for at := begin; at < end; {
		line := min(end, at-at%letters+letters)
		b.WriteString(text[at:line])
		if at = line; at%letters == 0 {
			b.WriteByte('\n')
		}
	}
	return []byte(b.String())
}

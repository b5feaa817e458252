// Package systems has systems as Director describes them, for the tests of the packages around.
package systems

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"testing"
	"time"

	v1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/graphql/director"
	"github.com/application-connector/application-connector/secret"
)

// Gateway is the prefix of the gateway's URLs; Bundle1 and Bundle2 are ids of bundles.
const (
	Gateway = "http://central-application-gateway.kyma-system.svc.cluster.local:8082"
	Bundle1 = "11111111-1111-1111-1111-111111111111"
	Bundle2 = "22222222-2222-2222-2222-222222222222"
)

// Shop is the system of the examples. Its Application is mp-shop.
func Shop() director.Application {
	return director.Application{
		ID: "5b0d0000-0000-0000-0000-000000000000", Name: "mp-shop", AuthIDs: []string{"2f6c0000-0000-0000-0000-000000000000"},
		Bundles: []director.Bundle{{
			ID: Bundle1, Name: "Bundle One",
			Auth: &director.Auth{
				Credential: director.OAuth{ClientID: "c", ClientSecret: "s", URL: "https://idp/token"},
				Headers:    map[string][]string{"h1": {"v1"}},
				CSRF:       &director.CSRF{TokenEndpointURL: "https://shop/csrf"},
			},
			APIs:   []director.API{{ID: "a1", Name: "Orders API", TargetURL: "https://shop/orders"}},
			Events: []director.Event{{ID: "e1", Name: "order.created"}},
		}},
	}
}

// WithAuth is the shop with another credential and nothing else to call it by.
func WithAuth(credential director.Credential) director.Application {
	app := Shop()
	app.Bundles[0].Auth = &director.Auth{Credential: credential}
	return app
}

// Basic is a credential of the user u.
func Basic(password string) director.Basic {
	return director.Basic{Username: "u", Password: secret.Value(password)}
}

// Described is the shop with all the metadata that Director can send.
func Described() director.Application {
	app := Shop()
	app.ProviderName = "ACME"
	app.Labels = map[string]any{
		"name": "mp-shop", "managed": "false", "scenarios": []any{"default"}, // those that every system has
		"applicationType": "shop", "empty": "", "nothing": nil, "test": true, "size": json.Number("12345678901234567890"), "shape": map[string]any{"b": "<&>", "a": []any{}},
	}
	app.Bundles[0].APIs[0].Description, app.Bundles[0].APIs[0].Group = "takes orders", "sales"
	app.Bundles[0].APIs[0].Version = director.Version{Value: "1.2.0", Deprecated: true, DeprecatedSince: "1.1.0", ForRemoval: true}
	app.Bundles[0].Events[0].Description, app.Bundles[0].Events[0].Group = "an order came", "sales events"
	app.Bundles[0].Events[0].Version = director.Version{Value: "v1"}
	return app
}

// DescribedMetadata is what the Application of Described says of its system.
func DescribedMetadata() *v1alpha1.CompassMetadata {
	return &v1alpha1.CompassMetadata{
		ApplicationID:  "5b0d0000-0000-0000-0000-000000000000",
		Authentication: v1alpha1.Authentication{ClientIDs: []string{"2f6c0000-0000-0000-0000-000000000000"}},
		ProviderName:   "ACME",
		Labels:         map[string]string{"applicationType": "shop", "empty": "", "test": "true", "size": "12345678901234567890", "shape": `{"a":[],"b":"<&>"}`},
	}
}

// DescribedEntries makes the entries of Shop those of Described.
func DescribedEntries(plain []v1alpha1.Entry) []v1alpha1.Entry {
	entries := append([]v1alpha1.Entry{}, plain...)
	entries[0].Description, entries[0].Group = "takes orders", "sales"
	entries[0].Version = &v1alpha1.Version{Value: "1.2.0", Deprecated: true, DeprecatedSince: "1.1.0", ForRemoval: true}
	entries[1].Description, entries[1].Group, entries[1].Version = "an order came", "sales events", &v1alpha1.Version{Value: "v1"}
	return entries
}

// Some are so many systems without anything: their Applications are mp-app-00 and so on.
func Some(n int) []director.Application {
	var all []director.Application
	for i := range n {
		all = append(all, director.Application{ID: fmt.Sprintf("id-%02d", i), Name: fmt.Sprintf("mp-app-%02d", i)})
	}
	return all
}

// Whole is a complete answer of Director that has these systems.
func Whole(all ...director.Application) director.Snapshot {
	return director.Snapshot{Applications: all, Complete: true}
}

// KeyPair makes a certificate and its key, as PEM.
func KeyPair(t testing.TB) (certificate, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
}

package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/application-connector/application-connector/e2e/leaktest"
	"github.com/application-connector/application-connector/simulator/compass"
)

// startedCompass is a Compass elsewhere: not the one that appconn up starts by itself.
type startedCompass struct {
	*compass.Server
	// ca is a file with the authority of its server certificates.
	ca string
}

// The Compass elsewhere knows one tenant, with one runtime.
const (
	tenantID  = "7b0d3a52-6d0b-4f5e-9a53-0f9c1c6a1a11"
	runtimeID = "c2b4b0a7-5a3e-4f0d-8a6f-2f6f1f0f9b22"
)

func startCompass(t *testing.T) startedCompass {
	t.Helper()
	seed := compass.Seed{Tenants: []compass.Tenant{{ID: tenantID, Runtimes: []compass.Runtime{{ID: runtimeID, Name: "elsewhere"}}}}}
	server, err := compass.Start(t.Context(), compass.Options{Seed: seed, OnSecret: leaktest.Of(t).Add})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, server.ServerCA(), 0o600); err != nil {
		t.Fatal(err)
	}
	return startedCompass{server, ca}
}

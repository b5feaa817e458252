package e2e

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/application-connector/application-connector/simulator/compass"
)

// startedCompass is a Compass elsewhere: not the one that appconn up starts by itself.
type startedCompass struct {
	*compass.Server
	// ca is a file with the authority of its server certificates.
	ca string
}

func startCompass(t *testing.T) startedCompass {
	t.Helper()
	server, err := compass.Start(t.Context(), compass.Options{})
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

package secret_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/application-connector/application-connector/secret"
)

func TestASecretIsNeverPrintedByAnyFormatterOrEncoder(t *testing.T) {
	const text = "canary-7f3a"
	type holder struct {
		Password secret.Value
		Nested   map[string]secret.Value
	}
	h := holder{Password: text, Nested: map[string]secret.Value{"k": text}}
	printed := map[string]string{}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		printed[verb] = fmt.Sprintf(verb, h)
		printed["bare "+verb] = fmt.Sprintf(verb, h.Password)
	}
	asJSON, err := json.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	printed["json"] = string(asJSON)
	asYAML, err := yaml.Marshal(h)
	if err != nil {
		t.Fatal(err)
	}
	printed["yaml"] = string(asYAML)
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "password", h.Password, "holder", h)
	printed["slog json"] = log.String()
	log.Reset()
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "password", h.Password, "holder", h)
	printed["slog text"] = log.String()
	for how, s := range printed {
		if strings.Contains(s, text) {
			t.Errorf("%s prints the secret: %s", how, s)
		}
	}
	if h.Password.Reveal() != text {
		t.Errorf("Reveal gives %q", h.Password.Reveal())
	}
}

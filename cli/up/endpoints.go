package up

import (
	"encoding/json"
	"fmt"
	"strings"
)

// endpoints is what STATE/endpoints.json holds.
type endpoints struct {
	Kubeconfig string            `json:"kubeconfig"`
	URLs       map[string]string `json:"urls"`
	Files      map[string]string `json:"files"`
}

func (w *world) writeEndpoints() error {
	e := endpoints{Kubeconfig: w.kubeconfig, URLs: map[string]string{
		"gateway":        "http://" + address(w.ports.Gateway),
		"gatewayCompass": "http://" + address(w.ports.GatewayCompass),
		"gatewayAdmin":   "http://" + address(w.ports.GatewayAdmin),
		"validator":      "http://" + address(w.ports.Validator),
		"validatorAdmin": "http://" + address(w.ports.ValidatorAdmin),
		"agentHealth":    "http://" + address(w.ports.AgentHealth),
		"agentMetrics":   "http://" + address(w.ports.AgentMetrics),
		"statusPage":     "http://" + address(w.ports.StatusPage),
		"compassToken":   fmt.Sprintf("https://localhost:%d", w.ports.CompassToken),
		"compassMTLS":    fmt.Sprintf("https://localhost:%d", w.ports.CompassMTLS),
		"compassAdmin":   "http://" + address(w.ports.CompassAdm),
		"edge":           fmt.Sprintf("https://localhost:%d", w.ports.Edge),
		"eventing":       "http://" + address(w.ports.Eventing),
		"systems":        "http://" + address(w.ports.SystemsHTTP),
		"systemsTLS":     fmt.Sprintf("https://localhost:%d", w.ports.SystemsHTTPS),
		"systemsMTLS":    fmt.Sprintf("https://localhost:%d", w.ports.SystemsMTLS),
	}, Files: map[string]string{"edgeCA": w.path("edge-ca.crt"), "systemsCA": w.path("systems-ca.crt")}}
	if w.ConnectorURL == "" {
		for _, name := range []string{"shop", "crm", "stranger"} {
			e.Files[name+"Certificate"], e.Files[name+"Key"] = w.path(name+".crt"), w.path(name+".key")
		}
		e.Files["compassCA"] = w.path("compass-ca.crt")
	} else {
		for _, name := range []string{"compassToken", "compassMTLS", "compassAdmin"} {
			delete(e.URLs, name)
		}
	}
	text, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(w.path("endpoints.json"), append(text, '\n'))
}

// preamble sets a shell up for the commands of the tour.
func (w *world) preamble() []string {
	return []string{
		"cd " + quote(w.state),
		"export KUBECONFIG=" + quote(w.kubeconfig) + " PATH=" + quote(w.binaries) + ":$PATH NO_PROXY=127.0.0.1,localhost",
	}
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

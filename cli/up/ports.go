package up

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"syscall"
)

// host is where everything listens: this machine alone.
const host = "127.0.0.1"

// ports of everything that listens.
type ports struct {
	Gateway, GatewayAdmin, GatewayCompass int
	Validator, ValidatorAdmin             int
	AgentHealth, AgentMetrics             int
	StatusPage                            int
	CompassToken, CompassMTLS, CompassAdm int
	Edge                                  int
	Eventing                              int
	SystemsHTTP, SystemsHTTPS             int
	SystemsMTLS, SystemsExpired           int
}

// documentedPorts are those that the documentation and the printed tour name.
var documentedPorts = ports{
	Gateway: 8080, GatewayAdmin: 8081, GatewayCompass: 8082,
	Validator: 18080, ValidatorAdmin: 18081,
	AgentHealth: 8090, AgentMetrics: 8089, StatusPage: 8091,
	CompassToken: 13443, CompassMTLS: 13444, CompassAdm: 13445,
	Edge: 8443, Eventing: 8085,
	SystemsHTTP: 19080, SystemsHTTPS: 19443, SystemsMTLS: 19444, SystemsExpired: 19445,
}

// named lists the ports with who wants each, in the order in which they are opened.
func (p *ports) named() []struct {
	name string
	port *int
} {
	return []struct {
		name string
		port *int
	}{
		{"the gateway", &p.Gateway}, {"the gateway's health", &p.GatewayAdmin}, {"the gateway for Compass bundles", &p.GatewayCompass},
		{"the validator", &p.Validator}, {"the validator's health", &p.ValidatorAdmin},
		{"the agent's health", &p.AgentHealth}, {"the agent's metrics", &p.AgentMetrics}, {"the status page", &p.StatusPage},
		{"Compass's token endpoint", &p.CompassToken}, {"Compass's mTLS endpoint", &p.CompassMTLS}, {"Compass's administration", &p.CompassAdm},
		{"the edge", &p.Edge}, {"Eventing", &p.Eventing},
		{"the external systems, HTTP", &p.SystemsHTTP}, {"the external systems, HTTPS", &p.SystemsHTTPS},
		{"the external systems, client certificates", &p.SystemsMTLS}, {"the external systems, expired certificate", &p.SystemsExpired},
	}
}

// Free ports are taken from blocks below the range from which systems choose the ports of outgoing connections and of
// listeners that ask for any port: what is free now is still free when the programs open it. Each process begins at a
// block of its own.
const (
	firstFree, lastFree = 20000, 32000
	block               = 20
)

// keptPorts gives the ports of an earlier run with the same state, whose Applications and certificates name them, and
// else chooses.
func keptPorts(file string, free bool) (ports, error) {
	text, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return ports{}, err
	default:
		kept := documentedPorts // of those that an older version did not know
		if err := json.Unmarshal(text, &kept); err != nil {
			return ports{}, fmt.Errorf("%s: %w; name another folder by --state", file, err)
		}
		if err := probe(&kept); err != nil {
			return ports{}, fmt.Errorf("%w; what --state keeps needs the same ports again", err)
		}
		return kept, nil
	}
	chosen, err := choosePorts(free)
	if err != nil {
		return ports{}, err
	}
	if text, err = json.Marshal(chosen); err != nil {
		return ports{}, err
	}
	return chosen, writeFile(file, text)
}

// choosePorts gives the documented ports, after seeing that each is free, or free ones.
func choosePorts(free bool) (ports, error) {
	if !free {
		chosen := documentedPorts
		return chosen, probe(&chosen)
	}
	const blocks = (lastFree - firstFree) / block
	for i := range blocks {
		base := firstFree + (os.Getpid()+i)%blocks*block
		var chosen ports
		for j, p := range chosen.named() {
			*p.port = base + j
		}
		if probe(&chosen) == nil {
			return chosen, nil
		}
	}
	return ports{}, fmt.Errorf("no %d ports in a row are free between %d and %d", len((&ports{}).named()), firstFree, lastFree)
}

// probe opens every port, and closes it again.
func probe(all *ports) error {
	for _, p := range all.named() {
		l, err := net.Listen("tcp", address(*p.port))
		if errors.Is(err, syscall.EADDRINUSE) {
			return fmt.Errorf("port %d, for %s, is taken: stop what listens there, or use --free-ports", *p.port, p.name)
		}
		if err != nil {
			return fmt.Errorf("port %d, for %s: %w", *p.port, p.name, err)
		}
		if err := l.Close(); err != nil {
			return err
		}
	}
	return nil
}

func address(port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }

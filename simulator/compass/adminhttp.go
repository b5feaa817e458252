package compass

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"sigs.k8s.io/yaml"
)

// maxWait bounds waiting over HTTP.
const maxWait = 10 * time.Minute

// adminRoute is one operation of the administrator's HTTP API.
type adminRoute struct {
	Method, Path, Effect string
	handle               func(a *Admin, r *http.Request) (any, error)
}

// adminRoutes is all of the HTTP API beside /director/graphql.
var adminRoutes = []adminRoute{
	{"GET", "/v1/endpoints", "The URLs, and the CA of the servers' certificates.", func(a *Admin, _ *http.Request) (any, error) {
		return map[string]string{"tokenURL": a.s.TokenURL(), "connectorURL": a.s.MTLSConnectorURL(), "directorURL": a.s.DirectorURL(), "serverCA": string(a.s.ServerCA())}, nil
	}},
	{"GET", "/v1/inventory", "The inventory, in the form of a seed.", func(a *Admin, _ *http.Request) (any, error) { return a.Inventory(), nil }},
	{"POST", "/v1/runtimes/{id}/token", "A one-time token for a Runtime.", func(a *Admin, r *http.Request) (any, error) { return a.RuntimeToken(r.PathValue("id")) }},
	{"POST", "/v1/applications/{id}/token", "A one-time token for an Application.", func(a *Admin, r *http.Request) (any, error) {
		return a.ApplicationToken(r.PathValue("id"))
	}},
	{"GET", "/v1/runtimes/{id}", "Condition, labels and system auths of a Runtime.", func(a *Admin, r *http.Request) (any, error) { return a.RuntimeStatus(r.PathValue("id")) }},
	{"PUT", "/v1/tenants/{tenant}/runtimes", "Adds or replaces the Runtime in the body.", func(a *Admin, r *http.Request) (any, error) {
		var in Runtime
		if err := readBody(r, &in); err != nil {
			return nil, err
		}
		return withID(a.PutRuntime(r.PathValue("tenant"), in))
	}},
	{"DELETE", "/v1/runtimes/{id}", "Removes a Runtime and its system auths.", func(a *Admin, r *http.Request) (any, error) { return nil, a.DeleteRuntime(r.PathValue("id")) }},
	{"PUT", "/v1/tenants/{tenant}/applications", "Adds or replaces the Application in the body.", func(a *Admin, r *http.Request) (any, error) {
		var in Application
		if err := readBody(r, &in); err != nil {
			return nil, err
		}
		return withID(a.PutApplication(r.PathValue("tenant"), in))
	}},
	{"DELETE", "/v1/applications/{id}", "Removes an Application and its system auths.", func(a *Admin, r *http.Request) (any, error) {
		return nil, a.DeleteApplication(r.PathValue("id"))
	}},
	{"PUT", "/v1/bundles/{id}/instance-auths", "Sets a Runtime's own credentials: runtimeID, condition, auth.", func(a *Admin, r *http.Request) (any, error) {
		var in struct {
			RuntimeID string `json:"runtimeID"`
			Condition string `json:"condition"`
			Auth      *Auth  `json:"auth"`
		}
		if err := readBody(r, &in); err != nil {
			return nil, err
		}
		return withID(a.SetInstanceAuth(r.PathValue("id"), in.RuntimeID, in.Condition, in.Auth))
	}},
	{"GET", "/v1/system-auths/{owner}", "System auths of a Runtime or Application.", func(a *Admin, r *http.Request) (any, error) {
		return a.SystemAuths(r.PathValue("owner")), nil
	}},
	{"DELETE", "/v1/system-auths/{id}", "Takes an identity away.", func(a *Admin, r *http.Request) (any, error) { return nil, a.DeleteSystemAuth(r.PathValue("id")) }},
	{"POST", "/v1/system-auths/{id}/revoke", "Revokes all certificates of a system auth.", func(a *Admin, r *http.Request) (any, error) { return nil, a.Revoke(r.PathValue("id")) }},
	{"GET", "/v1/faults", "The faults that stand.", func(a *Admin, _ *http.Request) (any, error) { return a.Faults(), nil }},
	{"POST", "/v1/faults", "Sets the fault in the body.", func(a *Admin, r *http.Request) (any, error) {
		var in Fault
		if err := readBody(r, &in); err != nil {
			return nil, err
		}
		return withID(a.SetFault(in))
	}},
	{"DELETE", "/v1/faults", "Clears all faults.", func(a *Admin, _ *http.Request) (any, error) { a.ClearFaults(); return nil, nil }},
	{"DELETE", "/v1/faults/{id}", "Clears one fault.", func(a *Admin, r *http.Request) (any, error) { a.ClearFaults(r.PathValue("id")); return nil, nil }},
	{"GET", "/v1/counters", "Requests per operation.", func(a *Admin, _ *http.Request) (any, error) { return a.Counters(), nil }},
	{"DELETE", "/v1/counters", "Counts from zero again.", func(a *Admin, _ *http.Request) (any, error) { a.ResetCounters(); return nil, nil }},
	{"GET", "/v1/counters/wait", "Waits for ?answered=N of ?operation=NAME (any if left out).", waitOverHTTP},
	{"GET", "/v1/requests", "The last 1000 requests.", func(a *Admin, _ *http.Request) (any, error) { return a.Requests(), nil }},
	{"PUT", "/v1/settings", "Sets what is in the body: clockSkew, certificateValidity, tokenValidity.", func(a *Admin, r *http.Request) (any, error) {
		var in struct {
			ClockSkew           *Duration `json:"clockSkew"`
			CertificateValidity *Duration `json:"certificateValidity"`
			TokenValidity       *Duration `json:"tokenValidity"`
		}
		if err := readBody(r, &in); err != nil {
			return nil, err
		}
		for value, set := range map[*Duration]func(time.Duration){in.ClockSkew: a.SetClockSkew, in.CertificateValidity: a.SetCertificateValidity, in.TokenValidity: a.SetTokenValidity} {
			if value != nil {
				set(time.Duration(*value))
			}
		}
		return nil, nil
	}},
	{"POST", "/v1/client-ca/rotate", "Signs with a new CA; ?keepOld=true keeps certificates of the old one valid.", func(a *Admin, r *http.Request) (any, error) {
		return nil, a.RotateClientCA(r.URL.Query().Get("keepOld") == "true")
	}},
	{"POST", "/v1/server-ca/rotate", "Serves with a certificate of a new CA.", func(a *Admin, _ *http.Request) (any, error) { return nil, a.RotateServerCA() }},
}

func (a *Admin) routes(mux *http.ServeMux) {
	for _, route := range adminRoutes {
		mux.HandleFunc(route.Method+" "+route.Path, func(w http.ResponseWriter, r *http.Request) {
			out, err := route.handle(a, r)
			switch {
			case errors.Is(err, ErrNotFound):
				adminJSON(w, http.StatusNotFound, map[string]string{"error": err.Error()})
			case err != nil:
				adminJSON(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
			case out == nil:
				w.WriteHeader(http.StatusNoContent)
			default:
				adminJSON(w, http.StatusOK, out)
			}
		})
	}
}

func withID(id string, err error) (any, error) { return map[string]string{"id": id}, err }

// readBody takes JSON or YAML; unknown fields are errors.
func readBody(r *http.Request, into any) error {
	raw, err := io.ReadAll(io.LimitReader(r.Body, MaxSeedBytes+1))
	if err != nil {
		return err
	}
	if len(raw) > MaxSeedBytes {
		return fmt.Errorf("body is larger than %d bytes", MaxSeedBytes)
	}
	asJSON, err := yaml.YAMLToJSONStrict(raw)
	if err != nil {
		return fmt.Errorf("body: %w", err)
	}
	if err := yaml.UnmarshalStrict(asJSON, into); err != nil {
		return fmt.Errorf("body: %w", err)
	}
	return nil
}

func waitOverHTTP(a *Admin, r *http.Request) (any, error) {
	n, err := strconv.Atoi(r.URL.Query().Get("answered"))
	if err != nil || n < 0 {
		return nil, fmt.Errorf("answered: %q is not a number of requests", r.URL.Query().Get("answered"))
	}
	ctx, cancel := context.WithTimeout(r.Context(), maxWait)
	defer cancel()
	if err := a.WaitForAnswers(ctx, r.URL.Query().Get("operation"), n); err != nil {
		return nil, err
	}
	return a.Counters(), nil
}

func adminJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", contentTypeJSON)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client may be gone
}

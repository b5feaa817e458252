package systems

import (
	"encoding/json"
	"net/http"
	"time"
)

func (s *Server) adminCounts(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, s.Counts())
}

func (s *Server) adminCA(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/x-pem-file")
	_, _ = w.Write(s.CA())
}

func (s *Server) adminDo(do func()) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		do()
		w.WriteHeader(http.StatusNoContent)
	}
}

// adminRead decodes a small JSON body and answers 400 when it is none.
func adminRead(w http.ResponseWriter, r *http.Request, into any) bool {
	decoder := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxForm))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		http.Error(w, "the body is not as expected: "+err.Error(), http.StatusBadRequest)
		return false
	}
	return true
}

func (s *Server) adminCredentials(w http.ResponseWriter, r *http.Request) {
	var c Credentials
	if adminRead(w, r, &c) {
		s.SetCredentials(c)
		w.WriteHeader(http.StatusNoContent)
	}
}

func (s *Server) adminTokenLifetime(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Lifetime string `json:"lifetime"`
	}
	if !adminRead(w, r, &in) {
		return
	}
	d, err := time.ParseDuration(in.Lifetime)
	if err == nil {
		err = s.SetTokenLifetime(d)
	}
	if err != nil {
		http.Error(w, "lifetime: "+err.Error(), http.StatusBadRequest)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) adminIssue(w http.ResponseWriter, r *http.Request) {
	cert, key, err := s.ClientCertificate(r.PathValue("cn"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	writeJSON(w, http.StatusOK, map[string]string{"certificate": string(cert), "key": string(key)})
}

func (s *Server) adminRevoke(w http.ResponseWriter, r *http.Request) {
	s.RevokeClientCertificates(r.PathValue("cn"))
	w.WriteHeader(http.StatusNoContent)
}

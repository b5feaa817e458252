package systems

// API is one of the APIs below /api, as a system would describe it to whoever calls it.
type API struct {
	// Name is the last part of its path and what Seen.API says.
	Name string
	// URL is its base URL. All are HTTPS with a certificate of CA.
	URL string
	// TokenURL is the OAuth token endpoint, of those that want a token.
	TokenURL string
	// CSRFTokenURL is where a CSRF token is fetched, of those that want one.
	CSRFTokenURL string
}

// APIs lists the APIs below /api, one per kind of credential.
func (s *Server) APIs() []API {
	https, mtls := s.HTTPSURL(), s.MTLSURL()
	return []API{
		{Name: "none", URL: https + "/api/none"},
		{Name: "basic", URL: https + "/api/basic"},
		{Name: "oauth", URL: https + "/api/oauth", TokenURL: https + "/oauth/token"},
		{Name: "oauth-mtls", URL: https + "/api/oauth-mtls", TokenURL: mtls + "/oauth-mtls/token"},
		{Name: "certificate", URL: mtls + "/api/certificate"},
		{Name: "csrf", URL: https + "/api/csrf", CSRFTokenURL: https + "/api/csrf/"},
		{Name: "parameters", URL: https + "/api/parameters"},
	}
}

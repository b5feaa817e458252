package v1alpha1

// Duration is a length of time, such as 500ms, 10s or 1m30s.
//
// +kubebuilder:validation:MaxLength=32
// +kubebuilder:validation:Pattern=`^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$`
// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1ms') && duration(self) <= duration('24h')",message="use a time from 1ms to 24h, for example 10s"
type Duration string

// HeaderName is the name of a header field.
//
// +kubebuilder:validation:MaxLength=128
// +kubebuilder:validation:Pattern=`^[A-Za-z0-9._-]+$`
type HeaderName string

// AllTargets is the target of TargetSettings that hold for every API of the Application.
const AllTargets = "*"

// Ways in which an OAuth client proves itself to the token endpoint (RFC 6749, section 2.3.1). Without either the gateway
// uses both at once, as it always did.
const (
	ClientAuthenticationBody   = "Body"
	ClientAuthenticationHeader = "Header"
)

// TargetSettings say how the gateway calls an API. Each block of settings that an API does not have of its own is taken
// from the item for *, as a whole.
type TargetSettings struct {
	// target is the API that this is for: service/entry as in URLs of the gateway's port 8082, for example
	// orders-api/items; or * for every API of the Application.
	// +kubebuilder:validation:MaxLength=115
	// +kubebuilder:validation:Pattern=`^(\*|[a-z0-9-]*/[a-z0-9-]*)$`
	Target string `json:"target"`
	// tls says which certificates are believed.
	// +optional
	TLS *TLSSettings `json:"tls,omitempty"`
	// timeouts of calls to the API.
	// +optional
	Timeouts *TimeoutSettings `json:"timeouts,omitempty"`
	// maxConcurrent is how many calls may be under way at once in each replica of the gateway; more get 503.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100000
	// +optional
	MaxConcurrent int32 `json:"maxConcurrent,omitempty"`
	// rateLimit bounds calls in time, in each replica of the gateway; more get 429.
	// +optional
	RateLimit *RateLimit `json:"rateLimit,omitempty"`
	// circuitBreaker keeps calls from an API that fails; they get 503.
	// +optional
	CircuitBreaker *CircuitBreaker `json:"circuitBreaker,omitempty"`
	// oauth says how tokens are asked for, for credentials of type OAuth and OAuthWithCert.
	// +optional
	OAuth *OAuthSettings `json:"oauth,omitempty"`
	// csrf says how CSRF tokens are asked for, where credentials have csrfInfo.
	// +optional
	CSRF *CSRFSettings `json:"csrf,omitempty"`
	// headers says what becomes of header fields on their way.
	// +optional
	Headers *HeaderSettings `json:"headers,omitempty"`
	// allowedCallers says who may call the API. Absent means everybody who reaches the gateway.
	// +optional
	AllowedCallers *AllowedCallers `json:"allowedCallers,omitempty"`
}

// TLSSettings say which certificates are believed, of the API, its token endpoint and its CSRF token endpoint.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.caBundle) && has(self.caSecretName))",message="caBundle and caSecretName: give one of them"
type TLSSettings struct {
	// caBundle holds certificates in PEM form that are trusted besides the system's.
	// +kubebuilder:validation:MaxLength=131072
	// +kubebuilder:validation:Pattern=`-----BEGIN CERTIFICATE-----`
	// +optional
	CABundle string `json:"caBundle,omitempty"`
	// caSecretName names a Secret with such certificates under the key ca.crt.
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	// +optional
	CASecretName string `json:"caSecretName,omitempty"`
	// minVersion is the oldest version of TLS that is spoken, 1.2 if absent.
	// +kubebuilder:validation:Enum="1.2";"1.3"
	// +optional
	MinVersion string `json:"minVersion,omitempty"`
}

// TimeoutSettings bound calls to the API. Those that are absent are as the gateway's flags say.
type TimeoutSettings struct {
	// connect bounds the connection, and once more its TLS handshake.
	// +optional
	Connect Duration `json:"connect,omitempty"`
	// header bounds the time until the answer begins, counted from the last piece of the request's body.
	// +optional
	Header Duration `json:"header,omitempty"`
	// idle bounds each pause in an answer, in event streams and gRPC too.
	// +optional
	Idle Duration `json:"idle,omitempty"`
	// total bounds the whole call, from its header to the end of the answer, WebSockets included.
	// +optional
	Total Duration `json:"total,omitempty"`
	// token bounds what it takes to get a token, or a CSRF token, for the API.
	// +optional
	Token Duration `json:"token,omitempty"`
}

// RateLimit bounds calls in time.
type RateLimit struct {
	// requests is how many calls are let through in the time of per.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000
	Requests int32 `json:"requests"`
	// per is the time for requests, 1s if absent.
	// +optional
	Per Duration `json:"per,omitempty"`
	// burst is how many calls may come at once, as many as requests if absent.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000
	// +optional
	Burst int32 `json:"burst,omitempty"`
}

// CircuitBreaker keeps calls from an API that fails: after a number of failures in a row no call is made for a while, then
// one, which decides.
type CircuitBreaker struct {
	// failures is how many calls in a row have to fail: by no answer, or by a status from 500 to 599.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	Failures int32 `json:"failures"`
	// pause is how long no call is made then.
	Pause Duration `json:"pause"`
}

// OAuthSettings say how tokens are asked for.
type OAuthSettings struct {
	// clientAuthentication is where the client's id and secret stand: Body or Header; absent means both. For OAuth only.
	// +kubebuilder:validation:Enum=Body;Header
	// +optional
	ClientAuthentication string `json:"clientAuthentication,omitempty"`
	// scopes that the token is to have.
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=256
	// +kubebuilder:validation:items:Pattern=`^[!#-\[\]-~]+$`
	// +listType=set
	// +optional
	Scopes []string `json:"scopes,omitempty"`
	// audience that the token is to be for.
	// +kubebuilder:validation:MaxLength=1024
	// +optional
	Audience string `json:"audience,omitempty"`
	// parameters are more fields of the token request's form. They are no place for secrets: use queryParameters or
	// headers of the Secret.
	// +kubebuilder:validation:MaxProperties=32
	// +kubebuilder:validation:XValidation:rule="self.all(name, size(name) > 0 && !(name in ['grant_type', 'client_id', 'client_secret', 'scope', 'audience']))",message="parameters: grant_type, client_id and client_secret are set by the gateway, scope by scopes, audience by audience"
	// +optional
	Parameters map[string]OAuthParameter `json:"parameters,omitempty"`
	// certificateBound presents the client certificate to the API too, for tokens that are bound to it (RFC 8705,
	// section 3). For OAuthWithCert only.
	// +optional
	CertificateBound bool `json:"certificateBound,omitempty"`
}

// OAuthParameter is the value of a field of a token request.
//
// +kubebuilder:validation:MaxLength=4096
type OAuthParameter string

// CSRFSettings say how CSRF tokens are asked for.
type CSRFSettings struct {
	// method of the request for a token: GET or HEAD; absent means GET, and HEAD where that is refused by 405 or 501.
	// +kubebuilder:validation:Enum=GET;HEAD
	// +optional
	Method string `json:"method,omitempty"`
	// requestHeader asks for a token with the value "fetch", and carries it in calls; X-Csrf-Token if absent.
	// +optional
	RequestHeader HeaderName `json:"requestHeader,omitempty"`
	// responseHeader is where the answer holds the token; as requestHeader if absent.
	// +optional
	ResponseHeader HeaderName `json:"responseHeader,omitempty"`
	// lifetime is how long a token is used, 10m if absent; less if its cookies end earlier.
	// +optional
	Lifetime Duration `json:"lifetime,omitempty"`
}

// HeaderSettings say what becomes of header fields on their way.
type HeaderSettings struct {
	// request is for what the caller sends, before credentials are added.
	// +optional
	Request *HeaderPolicy `json:"request,omitempty"`
	// response is for what the API answers.
	// +optional
	Response *HeaderPolicy `json:"response,omitempty"`
}

// HeaderPolicy changes header fields: first it removes, then it sets.
type HeaderPolicy struct {
	// remove names fields that do not pass. A * at the end stands for any further characters.
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=128
	// +kubebuilder:validation:items:Pattern=`^[A-Za-z0-9._-]+\*?$`
	// +listType=set
	// +optional
	Remove []string `json:"remove,omitempty"`
	// set gives fields a value, in place of any that they have. It is no place for secrets: use
	// requestParametersSecretName.
	// +kubebuilder:validation:MaxItems=64
	// +listType=map
	// +listMapKey=name
	// +optional
	Set []HeaderField `json:"set,omitempty"`
}

// HeaderField is a header field.
type HeaderField struct {
	// name of the field.
	Name HeaderName `json:"name"`
	// value of the field.
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:Pattern=`^[\t -~]*$`
	Value string `json:"value"`
}

// AllowedCallers are workloads of the mesh: who is in either list may call.
//
// +kubebuilder:validation:XValidation:rule="(has(self.namespaces) && size(self.namespaces) > 0) || (has(self.serviceAccounts) && size(self.serviceAccounts) > 0)",message="allowedCallers: name a namespace or a service account, or leave allowedCallers out to allow everybody"
type AllowedCallers struct {
	// namespaces whose workloads may call.
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=63
	// +kubebuilder:validation:items:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	// +listType=set
	// +optional
	Namespaces []string `json:"namespaces,omitempty"`
	// serviceAccounts that may call, each as namespace/name.
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=317
	// +kubebuilder:validation:items:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?/[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	// +listType=set
	// +optional
	ServiceAccounts []string `json:"serviceAccounts,omitempty"`
}

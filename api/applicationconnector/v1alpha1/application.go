package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

const (
	// ManagedByLabel marks an Application that the agent wrote; its value is ManagedByAgent.
	ManagedByLabel = "applicationconnector.kyma-project.io/managed-by"
	// ManagedByAgent is the value of ManagedByLabel on Applications that come from Compass.
	ManagedByAgent = "compass-runtime-agent"
	// ConfirmDeletionAnnotation with the value DeletionConfirmed is a person's word that this Application may be deleted
	// if Compass does not name its system: the agent then waits for nothing else. The agent removes it from an
	// Application whose system Compass names.
	ConfirmDeletionAnnotation = "applicationconnector.kyma-project.io/confirm-deletion"
	// DeletionConfirmed is the only value of ConfirmDeletionAnnotation with a meaning.
	DeletionConfirmed = "true"
	// MeantAnnotation is on the Secrets of an Application, and holds as JSON what the agent means the entries to say that name
	// them: type, authenticationUrl, csrfInfo, and whether there are parameters. Nothing of it is secret.
	MeantAnnotation = "applicationconnector.kyma-project.io/credentials"
	// ConnectedAppLabel is the key in spec.labels under which the agent writes the Application's own name.
	ConnectedAppLabel = "connected-app"
)

// Types of an entry.
const (
	EntryTypeAPI    = "API"
	EntryTypeEvents = "Events"
)

// Types of credentials. Anything else is reported on the Application and refused by the gateway.
const (
	// CredentialsTypeNone says that an API is open; the empty string with an empty secretName says the same.
	CredentialsTypeNone = "None"
	// CredentialsTypeNoAuth is another spelling of CredentialsTypeNone.
	CredentialsTypeNoAuth = "NoAuth"
	// CredentialsTypeBasic takes username and password from the Secret.
	CredentialsTypeBasic = "Basic"
	// CredentialsTypeOAuth takes clientId and clientSecret from the Secret (RFC 6749, section 4.4).
	CredentialsTypeOAuth = "OAuth"
	// CredentialsTypeOAuthWithCert takes clientId, crt and key from the Secret (RFC 8705, section 2).
	CredentialsTypeOAuthWithCert = "OAuthWithCert"
	// CredentialsTypeCertificateGen takes crt and key from the Secret and presents them to the target.
	CredentialsTypeCertificateGen = "CertificateGen"
)

// Condition types of an Application. Each has one writer, which owns it by server-side apply.
const (
	// ConditionSynchronized, written by the agent: what Compass says of this system is what the object holds.
	ConditionSynchronized = "Synchronized"
	// ConditionCredentialsReady, written by the agent: every credential that Compass sent could be stored.
	ConditionCredentialsReady = "CredentialsReady"
	// ConditionRoutesReady, written by the gateway: every API of the Application can be called.
	ConditionRoutesReady = "RoutesReady"
)

// Application is one external system that is connected to the cluster: its APIs, its events, and where the
// credentials for them lie.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,path=applications,singular=application,shortName=app
// +kubebuilder:subresource:status
// +kubebuilder:storageversion
// +kubebuilder:metadata:annotations="helm.sh/resource-policy=keep"
// +kubebuilder:metadata:labels="kyma-project.io/module=application-connector"
// +kubebuilder:printcolumn:name="Synced",type=string,JSONPath=`.status.conditions[?(@.type=="Synchronized")].status`,description="whether the object holds what Compass says"
// +kubebuilder:printcolumn:name="Credentials",type=string,JSONPath=`.status.conditions[?(@.type=="CredentialsReady")].status`,description="whether every credential could be stored"
// +kubebuilder:printcolumn:name="Routes",type=string,JSONPath=`.status.conditions[?(@.type=="RoutesReady")].status`,description="whether every API can be called through the gateway"
// +kubebuilder:printcolumn:name="Compass ID",type=string,priority=1,JSONPath=`.spec.compassMetadata.applicationId`
// +kubebuilder:printcolumn:name="Description",type=string,priority=1,JSONPath=`.spec.description`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type Application struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what is known of the external system.
	// +optional
	Spec ApplicationSpec `json:"spec,omitempty"`
	// status is what the agent and the gateway found out about it.
	// +optional
	Status ApplicationStatus `json:"status,omitempty"`
}

// ApplicationList is a list of Applications.
//
// +kubebuilder:object:root=true
type ApplicationList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Application `json:"items"`
}

// ApplicationSpec describes an external system.
type ApplicationSpec struct {
	// description of the system, for people.
	// +optional
	Description string `json:"description"`
	// skipInstallation is kept for objects of older systems; nothing reads it.
	// +optional
	SkipInstallation bool `json:"skipInstallation,omitempty"`
	// skipVerify switches off TLS verification of all targets and token endpoints of this Application. Credentials can
	// then be read by whoever stands between; a CA bundle is the better answer.
	// +optional
	SkipVerify bool `json:"skipVerify"`
	// encodeUrl decides how the gateway treats a path: true decodes and encodes it anew, false keeps the caller's own
	// encoding (OData keys such as O('1') need false).
	// +kubebuilder:default=true
	// +optional
	EncodeURL bool `json:"encodeUrl"`
	// accessLabel is kept for objects of older systems; nothing reads it.
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$`
	// +optional
	AccessLabel string `json:"accessLabel,omitempty"`
	// labels of the system, as its source gave them.
	// +nullable
	// +optional
	Labels map[string]string `json:"labels,omitempty"`
	// tenant to which the system belongs.
	// +optional
	Tenant string `json:"tenant,omitempty"`
	// group to which the system belongs.
	// +optional
	Group string `json:"group,omitempty"`
	// tags for people.
	// +nullable
	// +optional
	Tags []string `json:"tags,omitempty"`
	// displayName for people.
	// +optional
	DisplayName string `json:"displayName"`
	// providerDisplayName names who runs the system.
	// +optional
	ProviderDisplayName string `json:"providerDisplayName"`
	// longDescription for people.
	// +optional
	LongDescription string `json:"longDescription"`
	// compassMetadata is present on an Application that comes from Compass, and only there.
	// +structType=atomic
	// +optional
	CompassMetadata *CompassMetadata `json:"compassMetadata,omitempty"`
	// services are the groups of APIs and events that the system offers; Compass calls them bundles.
	// +optional
	Services []Service `json:"services,omitempty"`
	// targetSettings say how the gateway calls the APIs. They belong to the cluster: what comes from Compass never
	// changes them.
	// +kubebuilder:validation:MaxItems=1000
	// +listType=map
	// +listMapKey=target
	// +optional
	TargetSettings []TargetSettings `json:"targetSettings,omitempty"`
}

// CompassMetadata ties an Application to the system's record in Compass.
type CompassMetadata struct {
	// applicationId is the system's id in Director.
	// +optional
	ApplicationID string `json:"applicationId,omitempty"`
	// authentication says which client certificates belong to the system.
	Authentication Authentication `json:"authentication"`
	// providerName names who runs the system, as Director says; absent if it does not.
	// +optional
	ProviderName string `json:"providerName,omitempty"`
	// labels of the system in Director, but for name, managed and scenarios, which every system there has. A value that is
	// no text stands as its JSON.
	// +optional
	Labels map[string]string `json:"labels,omitempty"`
}

// Authentication lists the identities under which a system sends events.
type Authentication struct {
	// clientIds are the common names of the client certificates that Compass issued to the system. An empty list means
	// that it has none: then no certificate is accepted.
	ClientIDs []string `json:"clientIds"`
}

// Service is a group of APIs and events with credentials in common; Compass calls it a bundle.
type Service struct {
	// id of the service, unique in the Application.
	ID string `json:"id"`
	// identifier that the source gave it.
	// +optional
	Identifier string `json:"identifier"`
	// name of the service, unique in the Application.
	Name string `json:"name"`
	// displayName is the key by which the gateway finds the service: in a URL stands its normalised form (runs of
	// characters other than letters and digits become one "-", lower case, 57 bytes at most).
	DisplayName string `json:"displayName"`
	// description for people.
	Description string `json:"description"`
	// labels are kept for objects of older systems; nothing reads them.
	// +nullable
	// +optional
	Labels map[string]string `json:"labels,omitempty"`
	// longDescription for people.
	// +optional
	LongDescription string `json:"longDescription,omitempty"`
	// providerDisplayName names who runs the service.
	ProviderDisplayName string `json:"providerDisplayName"`
	// authCreateParameterSchema is a JSON schema, as a string, of what a request for credentials may hold.
	// +optional
	AuthCreateParameterSchema *string `json:"authCreateParameterSchema,omitempty"`
	// tags for people.
	// +optional
	Tags []string `json:"tags,omitempty"`
	// entries are the APIs and events of the service.
	Entries []Entry `json:"entries"`
}

// Entry is one API, or one kind of events.
//
// +kubebuilder:validation:XValidation:rule="self.type != 'API' || (has(self.targetUrl) && size(self.targetUrl) > 0)",message="targetUrl: an entry of type API needs the URL of the API, for example https://api.example.com/v1"
type Entry struct {
	// type is API for an API that the cluster may call, Events for events that the system sends.
	// +kubebuilder:validation:Enum=API;Events
	Type string `json:"type"`
	// targetUrl is the URL of the API.
	// +optional
	TargetURL string `json:"targetUrl"`
	// specificationUrl is where a description of the API can be read.
	// +optional
	SpecificationURL string `json:"specificationUrl,omitempty"`
	// apiType names the kind of the API, for example ODATA.
	// +optional
	APIType string `json:"apiType,omitempty"`
	// credentials for the API; absent means that it is open.
	// +optional
	Credentials Credentials `json:"credentials,omitempty"`
	// requestParametersSecretName names a Secret with headers and queryParameters that every call gets.
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$`
	// +optional
	RequestParametersSecretName string `json:"requestParametersSecretName,omitempty"`
	// id of the API or of the events.
	// +optional
	ID string `json:"id"`
	// name is the key by which the gateway finds the API on its port 8082; see displayName of the service.
	// +optional
	Name string `json:"name"`
	// accessLabel is kept for objects of older systems; nothing reads it.
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]$`
	// +optional
	AccessLabel string `json:"accessLabel,omitempty"`
	// gatewayUrl is kept for objects of older systems; nothing reads it.
	// +optional
	GatewayURL string `json:"gatewayUrl"`
	// centralGatewayUrl is the URL under which workloads call the API.
	// +optional
	CentralGatewayURL string `json:"centralGatewayUrl"`
	// description of the API or of the events, for people.
	// +optional
	Description string `json:"description,omitempty"`
	// group to which its source counts the API or the events.
	// +optional
	Group string `json:"group,omitempty"`
	// version of the API or of the events.
	// +optional
	Version *Version `json:"version,omitempty"`
}

// Version of an API or of events, as its source gives it.
type Version struct {
	// value is the version, for example 1.2.0.
	// +optional
	Value string `json:"value,omitempty"`
	// deprecated says that another version is to be used.
	// +optional
	Deprecated bool `json:"deprecated,omitempty"`
	// deprecatedSince is since which version it is deprecated.
	// +optional
	DeprecatedSince string `json:"deprecatedSince,omitempty"`
	// forRemoval says that it will be removed.
	// +optional
	ForRemoval bool `json:"forRemoval,omitempty"`
}

// Credentials say how the gateway proves itself to an API. All fields empty means that the API is open.
type Credentials struct {
	// type of the credentials: None, NoAuth, Basic, OAuth, OAuthWithCert or CertificateGen.
	Type string `json:"type"`
	// secretName names the Secret that holds them.
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$`
	SecretName string `json:"secretName"`
	// authenticationUrl is the token endpoint, for OAuth and OAuthWithCert.
	// +optional
	AuthenticationURL string `json:"authenticationUrl,omitempty"`
	// csrfInfo says where a CSRF token is to be had, if the API wants one.
	// +optional
	CSRFInfo *CSRFInfo `json:"csrfInfo,omitempty"`
}

// CSRFInfo says where a CSRF token is to be had.
type CSRFInfo struct {
	// tokenEndpointURL answers a request with "X-Csrf-Token: fetch" by a token and cookies.
	TokenEndpointURL string `json:"tokenEndpointURL"`
}

// ApplicationStatus is what the agent and the gateway found out about an Application.
type ApplicationStatus struct {
	// installationStatus is kept for objects of older systems; nothing reads it.
	// +optional
	InstallationStatus *InstallationStatus `json:"installationStatus,omitempty"`
	// observedGeneration is the generation of the spec that the agent last wrote or checked.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// conditions: Synchronized and CredentialsReady by the agent, RoutesReady by the gateway.
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// InstallationStatus is kept for objects of older systems.
type InstallationStatus struct {
	// status in one word; nothing reads it.
	Status string `json:"status"`
	// description for people; nothing reads it.
	// +optional
	Description string `json:"description"`
}

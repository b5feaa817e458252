package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// ConnectionName is the name of the one CompassConnection that the agent acts upon.
const ConnectionName = "compass-connection"

// RenewAnnotation asks for a new client certificate at once, by any value that it did not have before, such as the time;
// values count up to MaxRequest bytes. status.renewalRequest answers it.
const RenewAnnotation = "compass.kyma-project.io/renew-requested"

// ResyncAnnotation asks for a sync at once, like RenewAnnotation. status.resyncRequest answers it.
const ResyncAnnotation = "compass.kyma-project.io/resync-requested"

// MaxRequest bounds values of RenewAnnotation and ResyncAnnotation, in bytes.
const MaxRequest = 256

// FarewellFinalizer holds a CompassConnection back that is deleted, until the agent has done what spec.farewell says.
const FarewellFinalizer = "compass.kyma-project.io/farewell"

// Farewell is what becomes of the connection when the CompassConnection is deleted.
type Farewell string

// Farewells.
const (
	// FarewellKeep keeps everything: the agent makes the CompassConnection again from what the cluster has. The default.
	FarewellKeep Farewell = "Keep"
	// FarewellRevoke has the client certificate revoked, and deletes the Applications and all credentials from Compass.
	FarewellRevoke Farewell = "Revoke"
)

// ConnectionState sums the connection up in one word.
type ConnectionState string

// States of a connection.
const (
	// Connected: paired, not synchronised yet.
	Connected ConnectionState = "Connected"
	// ConnectionFailed: pairing failed; a new token is needed unless the message says otherwise.
	ConnectionFailed ConnectionState = "ConnectionFailed"
	// ConnectionMaintenanceFailed: the Connector could not be reached with the client certificate, or renewal failed.
	ConnectionMaintenanceFailed ConnectionState = "ConnectionMaintenanceFailed"
	// SynchronizationFailed: Director did not answer, or not completely.
	SynchronizationFailed ConnectionState = "SynchronizationFailed"
	// ResourceApplicationFailed: the cluster did not take what Director said.
	ResourceApplicationFailed ConnectionState = "ResourceApplicationFailed"
	// MetadataUpdateFailed: the Applications are in place, the labels of the runtime could not be set in Director.
	MetadataUpdateFailed ConnectionState = "MetadataUpdateFailed"
	// Synchronized: everything is in place.
	Synchronized ConnectionState = "Synchronized"
)

// Condition types of a CompassConnection.
const (
	// ConditionReady sums up: connected, certificate valid, last sync successful.
	ConditionReady = "Ready"
	// ConditionReconciling is present, and True, while an attempt is being made or is due again soon.
	ConditionReconciling = "Reconciling"
	// ConditionStalled is present, and True, when nothing will change without somebody's help.
	ConditionStalled = "Stalled"
	// ConditionConnected: the last call to Compass with the client certificate succeeded.
	ConditionConnected = "Connected"
	// ConditionCertificateReady: there is a valid client certificate, and it is not overdue for renewal.
	ConditionCertificateReady = "CertificateReady"
	// ConditionApplicationsSynced: the last sync brought every Application into place.
	ConditionApplicationsSynced = "ApplicationsSynced"
	// ConditionPruneBlocked is present, and True, while Applications, or credentials, that Director no longer names are kept.
	ConditionPruneBlocked = "PruneBlocked"
	// ConditionStale is present, and True, while no sync has brought the Applications into place for ten periods, half an hour
	// at least.
	ConditionStale = "Stale"
)

// CompassConnection is the cluster's connection to Compass. The agent creates it, under the name compass-connection.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,path=compassconnections,singular=compassconnection,shortName=cconn
// +kubebuilder:subresource:status
// +kubebuilder:storageversion
// +kubebuilder:metadata:annotations="helm.sh/resource-policy=keep"
// +kubebuilder:metadata:labels="kyma-project.io/module=application-connector"
// +kubebuilder:printcolumn:name="State",type=string,JSONPath=`.status.connectionState`
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Apps",type=integer,JSONPath=`.status.applications.total`
// +kubebuilder:printcolumn:name="Failed",type=integer,JSONPath=`.status.applications.failed`
// +kubebuilder:printcolumn:name="Last sync",type=date,JSONPath=`.status.synchronizationStatus.lastSuccessfulApplication`
// +kubebuilder:printcolumn:name="Cert expires",type=string,JSONPath=`.status.connectionStatus.certificateStatus.notAfter`
// +kubebuilder:printcolumn:name="Renews",type=string,priority=1,JSONPath=`.status.connectionStatus.certificateStatus.renewAt`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type CompassConnection struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec says where Compass is, and what is asked of the agent.
	Spec CompassConnectionSpec `json:"spec"`
	// status is what the agent found.
	// +optional
	Status CompassConnectionStatus `json:"status,omitzero"`
}

// CompassConnectionList is a list of CompassConnections.
//
// +kubebuilder:object:root=true
type CompassConnectionList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []CompassConnection `json:"items"`
}

// CompassConnectionSpec says where Compass is, and what is asked of the agent.
type CompassConnectionSpec struct {
	// managementInfo is where Compass is. The agent writes it, from what the Connector answers.
	ManagementInfo ManagementInfo `json:"managementInfo"`
	// resyncNow asks for a sync at once; the agent resets it.
	// +optional
	ResyncNow bool `json:"resyncNow,omitempty"`
	// refreshCredentialsNow asks for a new client certificate at once; the agent resets it.
	// +optional
	RefreshCredentialsNow bool `json:"refreshCredentialsNow,omitempty"`
	// farewell is what becomes of the connection when this object is deleted: Keep, the default, keeps everything, and the
	// agent makes the object again; Revoke has the client certificate revoked, and deletes the Applications and all
	// credentials that came from Compass.
	// +kubebuilder:validation:Enum=Keep;Revoke
	// +optional
	Farewell Farewell `json:"farewell,omitempty"`
}

// ManagementInfo holds the URLs of Compass that are secured by the client certificate.
type ManagementInfo struct {
	// directorUrl is the URL of the Director's GraphQL API.
	DirectorURL string `json:"directorUrl"`
	// connectorUrl is the URL of the Connector's GraphQL API.
	ConnectorURL string `json:"connectorUrl"`
}

// CompassConnectionStatus is what the agent found.
type CompassConnectionStatus struct {
	// connectionState sums the connection up in one word.
	State ConnectionState `json:"connectionState"`
	// connectionStatus tells of the Connector and the client certificate.
	ConnectionStatus *ConnectionStatus `json:"connectionStatus"`
	// synchronizationStatus tells of the Director and the Applications.
	// +nullable
	// +optional
	SynchronizationStatus *SynchronizationStatus `json:"synchronizationStatus,omitempty"`
	// observedGeneration is the generation of the spec that this status answers.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// conditions: Ready, Connected, CertificateReady, ApplicationsSynced; Reconciling, Stalled, PruneBlocked and Stale
	// only while they are True.
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// applications counts what the last sync found.
	// +optional
	Applications *ApplicationCounts `json:"applications,omitempty"`
	// failedApplications names systems that could not be brought into place, fifty at most.
	// +listType=map
	// +listMapKey=id
	// +kubebuilder:validation:MaxItems=50
	// +optional
	FailedApplications []FailedApplication `json:"failedApplications,omitempty"`
	// unreadyApplications names systems that are in place without every credential that they are meant to have, fifty at
	// most, with the reason of CredentialsReady.
	// +listType=map
	// +listMapKey=id
	// +kubebuilder:validation:MaxItems=50
	// +optional
	UnreadyApplications []FailedApplication `json:"unreadyApplications,omitempty"`
	// missingApplications are Applications that are kept until further answers of Director, or a person, confirm that their
	// systems are gone; those that the same answers did not name stand together, the longest missing ones first.
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10
	// +optional
	MissingApplications []MissingApplications `json:"missingApplications,omitempty"`
	// settling is there while the cluster is paired as another runtime than the one by whose answers Applications were last
	// deleted, and answers for the new one are not believed yet.
	// +optional
	Settling *Settling `json:"settling,omitempty"`
	// tokenFingerprint is the SHA-256, in hex, of the one-time token last tried.
	// +optional
	TokenFingerprint string `json:"tokenFingerprint,omitempty"`
	// nextAttempt is when Compass will be called next.
	// +optional
	NextAttempt *metav1.Time `json:"nextAttempt,omitempty"`
	// consecutiveFailures counts attempts at Compass that failed since the last that succeeded.
	// +optional
	ConsecutiveFailures int32 `json:"consecutiveFailures,omitempty"`
	// renewalRequest answers the annotation compass.kyma-project.io/renew-requested.
	// +optional
	RenewalRequest *RenewalRequest `json:"renewalRequest,omitempty"`
	// resyncRequest answers the annotation compass.kyma-project.io/resync-requested.
	// +optional
	ResyncRequest *ResyncRequest `json:"resyncRequest,omitempty"`
	// certificateRefused is there while Compass refuses the client certificate.
	// +optional
	CertificateRefused *CertificateRefused `json:"certificateRefused,omitempty"`
}

// CertificateRefused tells of refusals of the client certificate in a row.
type CertificateRefused struct {
	// since is when the first of them came.
	Since metav1.Time `json:"since"`
	// count is how many came.
	Count int32 `json:"count"`
	// alert says that TLS refused the certificate, which no outage does.
	// +optional
	Alert bool `json:"alert,omitempty"`
}

// RenewalRequest answers the annotation compass.kyma-project.io/renew-requested.
type RenewalRequest struct {
	// requested is the value of the annotation that was last acted upon.
	Requested string `json:"requested"`
	// handledAt is when a certificate became current that was issued after that; absent as long as none is.
	// +optional
	HandledAt *metav1.Time `json:"handledAt,omitempty"`
}

// ResyncRequest answers the annotation compass.kyma-project.io/resync-requested.
type ResyncRequest struct {
	// requested is the value of the annotation that was last acted upon.
	Requested string `json:"requested"`
	// handledAt is when a sync ended well that began after that; absent as long as none did.
	// +optional
	HandledAt *metav1.Time `json:"handledAt,omitempty"`
}

// ConnectionStatus tells of the Connector and the client certificate.
type ConnectionStatus struct {
	// established is when the cluster was paired.
	// +nullable
	// +optional
	Established metav1.Time `json:"established,omitempty"`
	// renewed is when the client certificate was last renewed.
	// +nullable
	// +optional
	Renewed metav1.Time `json:"renewed,omitempty"`
	// lastSync is when Compass was last called with the client certificate, or for one.
	// +nullable
	// +optional
	LastSync metav1.Time `json:"lastSync,omitempty"`
	// lastSuccess is when such a call last succeeded.
	// +nullable
	// +optional
	LastSuccess metav1.Time `json:"lastSuccess,omitempty"`
	// certificateStatus tells of the client certificate.
	CertificateStatus CertificateStatus `json:"certificateStatus"`
	// error of the last call, empty when it succeeded.
	// +optional
	Error string `json:"error,omitempty"`
}

// CertificateStatus tells of the client certificate.
type CertificateStatus struct {
	// acquired is when it was issued to this cluster.
	// +nullable
	// +optional
	Acquired metav1.Time `json:"acquired,omitempty"`
	// notBefore is the start of its validity.
	// +nullable
	// +optional
	NotBefore metav1.Time `json:"notBefore,omitempty"`
	// notAfter is the end of its validity.
	// +nullable
	// +optional
	NotAfter metav1.Time `json:"notAfter,omitempty"`
	// renewAt is when it will be renewed.
	// +optional
	RenewAt *metav1.Time `json:"renewAt,omitempty"`
	// subject of the certificate, as RFC 4514 writes it.
	// +optional
	Subject string `json:"subject,omitempty"`
	// issuer of the certificate, as RFC 4514 writes it.
	// +optional
	Issuer string `json:"issuer,omitempty"`
	// fingerprint is the SHA-256, in hex, of the certificate. Serial numbers do not tell Connector's certificates apart.
	// +optional
	Fingerprint string `json:"fingerprint,omitempty"`
}

// SynchronizationStatus tells of the Director and the Applications.
type SynchronizationStatus struct {
	// lastAttempt is when Director was last asked.
	// +nullable
	// +optional
	LastAttempt metav1.Time `json:"lastAttempt,omitempty"`
	// lastSuccessfulFetch is when it last answered completely.
	// +nullable
	// +optional
	LastSuccessfulFetch metav1.Time `json:"lastSuccessfulFetch,omitempty"`
	// lastSuccessfulApplication is when its answer was last brought into place.
	// +nullable
	// +optional
	LastSuccessfulApplication metav1.Time `json:"lastSuccessfulApplication,omitempty"`
	// error of the last sync, empty when it succeeded.
	// +optional
	Error string `json:"error,omitempty"`
}

// ApplicationCounts counts what the last sync found.
type ApplicationCounts struct {
	// total number of systems in Director's answer.
	Total int32 `json:"total"`
	// synced is how many of them are in place.
	Synced int32 `json:"synced"`
	// ready is how many of the synced have every credential that they are meant to have.
	// +optional
	Ready int32 `json:"ready"`
	// failed is how many could not be brought into place.
	Failed int32 `json:"failed"`
	// pendingDeletion is how many Applications are kept although Director no longer names them.
	// +optional
	PendingDeletion int32 `json:"pendingDeletion,omitempty"`
}

// MissingApplications are Applications that the same answers of Director did not name.
type MissingApplications struct {
	// since is when the first of these answers came.
	Since metav1.Time `json:"since"`
	// answers is how many they are: complete ones, one after the other.
	Answers int32 `json:"answers"`
	// count of the Applications.
	Count int32 `json:"count"`
	// names of the Applications, of the first fifty.
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=50
	// +optional
	Names []string `json:"names,omitempty"`
}

// Settling counts the answers of Director for a runtime that the cluster was not before.
type Settling struct {
	// runtime by its tenant and id, or by its id alone.
	Runtime string `json:"runtime"`
	// answers is how many complete ones came, one after the other.
	Answers int32 `json:"answers"`
	// since is when the first of these answers came.
	Since metav1.Time `json:"since"`
}

// FailedApplication names a system that could not be brought into place, or not with every credential.
type FailedApplication struct {
	// id of the system in Director.
	ID string `json:"id"`
	// name of the system in Director.
	Name string `json:"name"`
	// reason in one word.
	Reason string `json:"reason"`
	// message says what is wrong and what would be right.
	Message string `json:"message"`
}

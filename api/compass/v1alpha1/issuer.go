package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// CompassIssuer lets cert-manager have certificates of its namespace signed by Compass's Connector.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Namespaced,path=compassissuers,singular=compassissuer,categories=cert-manager
// +kubebuilder:subresource:status
// +kubebuilder:storageversion
// +kubebuilder:metadata:annotations="helm.sh/resource-policy=keep"
// +kubebuilder:metadata:labels="kyma-project.io/module=application-connector"
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type CompassIssuer struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec names the Secrets by which the Connector knows the cluster. They are in the issuer's own namespace.
	Spec CompassIssuerSpec `json:"spec"`
	// status says whether the issuer can be used.
	// +optional
	Status CompassIssuerStatus `json:"status,omitzero"`
}

// CompassIssuerList is a list of CompassIssuers.
//
// +kubebuilder:object:root=true
type CompassIssuerList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []CompassIssuer `json:"items"`
}

// CompassClusterIssuer lets cert-manager have certificates of every namespace signed by Compass's Connector.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,path=compassclusterissuers,singular=compassclusterissuer,categories=cert-manager
// +kubebuilder:subresource:status
// +kubebuilder:storageversion
// +kubebuilder:metadata:annotations="helm.sh/resource-policy=keep"
// +kubebuilder:metadata:labels="kyma-project.io/module=application-connector"
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type CompassClusterIssuer struct {
	metav1.TypeMeta `json:",inline"`
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec names the Secrets by which the Connector knows the cluster. They are in the namespace of the agent's client Secret.
	Spec CompassIssuerSpec `json:"spec"`
	// status says whether the issuer can be used.
	// +optional
	Status CompassIssuerStatus `json:"status,omitzero"`
}

// CompassClusterIssuerList is a list of CompassClusterIssuers.
//
// +kubebuilder:object:root=true
type CompassClusterIssuerList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []CompassClusterIssuer `json:"items"`
}

// CompassIssuerSpec says by what the Connector knows who asks for a certificate.
type CompassIssuerSpec struct {
	// clientSecretName is the Secret with the client certificate that requests are signed by, tls.crt with tls.key or crt
	// with key. It may be the one that the requested certificate goes to: then each signs the next.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	ClientSecretName string `json:"clientSecretName"`
	// pairingSecretName is the Secret with a second one-time token of the Connector, by which the first request is signed:
	// keys token, tokenConnectorURL and subject. The issuer takes the token out when it is spent.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +optional
	PairingSecretName string `json:"pairingSecretName,omitempty"`
	// connectorURL is where the Connector is called with the client certificate, an https URL. Without it the annotation
	// compass.kyma-project.io/connector-url of the client Secret says so.
	// +kubebuilder:validation:Pattern=`^https://[^/]+`
	// +kubebuilder:validation:MaxLength=2048
	// +optional
	ConnectorURL string `json:"connectorURL,omitempty"`
}

// CompassIssuerStatus says whether an issuer can be used.
type CompassIssuerStatus struct {
	// conditions: Ready.
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// GetConditions gives the conditions of the status.
func (i *CompassIssuer) GetConditions() []metav1.Condition { return i.Status.Conditions }

// GetIssuerTypeIdentifier names the kind as issuer-lib wants it.
func (i *CompassIssuer) GetIssuerTypeIdentifier() string {
	return "compassissuers." + GroupVersion.Group
}

// GetConditions gives the conditions of the status.
func (i *CompassClusterIssuer) GetConditions() []metav1.Condition { return i.Status.Conditions }

// GetIssuerTypeIdentifier names the kind as issuer-lib wants it.
func (i *CompassClusterIssuer) GetIssuerTypeIdentifier() string {
	return "compassclusterissuers." + GroupVersion.Group
}

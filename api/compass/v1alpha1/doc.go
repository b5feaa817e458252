// Package v1alpha1 holds the CompassConnection resource, the cluster's connection to Compass and its state, and the two
// kinds of issuers by which cert-manager has certificates signed by Compass's Connector. It knows nothing of how the agent
// brings that state about.
//
// +kubebuilder:object:generate=true
// +groupName=compass.kyma-project.io
package v1alpha1

//go:generate go tool controller-gen object paths=.
//go:generate go tool controller-gen crd paths=. output:crd:dir=../../../manifests/crds

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion is the API group and version of everything in this package.
var GroupVersion = schema.GroupVersion{Group: "compass.kyma-project.io", Version: "v1alpha1"}

var schemeBuilder = runtime.NewSchemeBuilder(func(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion, &CompassConnection{}, &CompassConnectionList{},
		&CompassIssuer{}, &CompassIssuerList{}, &CompassClusterIssuer{}, &CompassClusterIssuerList{})
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
})

// AddToScheme registers the types of this package with a scheme.
var AddToScheme = schemeBuilder.AddToScheme

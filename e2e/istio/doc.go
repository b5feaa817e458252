// Package istio tests the manifests with Istio's own code: its admission webhook, its analyzers and the generator of Envoy's
// configuration, which show what becomes of them in a mesh. It is a module of its own for what Istio needs.
package istio

// Package certs owns everything about the client certificate that can be said without a network and without Kubernetes:
// keys, the subject that the Connector dictates, requests, the verification of what was issued, the time of renewal, and
// the layout of the two Secrets in which all that is kept. It knows neither how a request reaches Compass nor how a
// Secret reaches the cluster.
package certs

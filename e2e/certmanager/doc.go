// Package certmanager holds the tests of the issuer, and of the agent that leaves its certificate to cert-manager, with the
// real controllers of cert-manager, which program controllers runs.
package certmanager

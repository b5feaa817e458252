// Package compass plays the control plane Compass for laptops and tests: the
// Connector, which signs client certificates against one-time tokens, and the
// Director, which holds the inventory of tenants, Runtimes, Applications,
// bundles, APIs and events. It answers as the real one does, in status codes,
// shapes, texts and error codes; recordings of a real Compass are replayed
// against it in the tests.
//
// It owns the behaviour of Compass as a client sees it, including what fails
// and how. It refuses to know Kubernetes and the agent, and keeps no secrets
// safe: everything in it is invented for a test or a tour.
//
// Three listeners stand for what a real landscape has:
//
//   - the token endpoint, HTTPS with a server certificate only, where a
//     one-time token is the identity;
//   - the mTLS endpoint, HTTPS with a client certificate of the Connector's
//     CA, where Connector and Director are;
//   - the administrator's listener, plain HTTP on loopback without any
//     authentication: Director as an administrator calls it, and an API to
//     change the inventory, to set faults and to read counters.
package compass

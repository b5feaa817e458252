// Package statuspage is the agent's page for people: how the connection to Compass is, the client certificate, the last sync,
// the Applications and the latest events, in a browser without a script, and the same for programs as JSON. It only reads, and
// knows no Secret. It asks nobody who they are: who may see it is decided by where it is served, which is the loopback
// address unless somebody chose another.
package statuspage

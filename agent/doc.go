// Package agent is the Runtime Agent as a process: its options, its log, its servers, and the controller that packages
// connection, sync and status make up. It decides nothing itself.
//
// What it may do in the cluster is listed in docs/reference/agent.md.
package agent

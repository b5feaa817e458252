// Package resources measures what the programs take under the loads that their Pods are meant for, and holds what the manifests ask
// for against that.
package resources

// Package chart tests the Helm chart with Helm's own library: that it installs what kustomize does, and how it is used. It is
// a module of its own for what Helm needs.
package chart

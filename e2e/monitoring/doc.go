// Package monitoring tests what manifests/monitoring gives to Prometheus, Grafana and the Kyma dashboard by the programs that
// read it, and over the metrics of a whole road that runs.
package monitoring

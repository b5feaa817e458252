// Command localkube is a real Kubernetes API server in one process, for laptops and tests: etcd, the whole
// kube-apiserver, and those loops of the kube-controller-manager that matter without nodes (garbage collection,
// namespace deletion, default ServiceAccounts, root CA ConfigMaps, aggregated ClusterRoles). No Pod ever runs here.
//
// Started through a symbolic link named etcd or kube-apiserver it is just that program, so that a folder of two links
// serves envtest as KUBEBUILDER_ASSETS.
//
// It knows nothing of Application Connector. Kubernetes keeps feature gates, metrics and its log in package variables,
// so there is one API server to a process: callers run the binary, they do not import it.
package main

package main

import (
	"context"
	"sync"
	"time"

	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/controller-manager/pkg/informerfactory"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/certificates/rootcacertpublisher"
	"k8s.io/kubernetes/pkg/controller/clusterroleaggregation"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
	"k8s.io/kubernetes/pkg/controller/namespace"
	"k8s.io/kubernetes/pkg/controller/serviceaccount"
)

const (
	// controllerWorkers is how many objects each controller works on at a time.
	controllerWorkers = 4
	// collectorDiscovery is how often the garbage collector looks for new kinds of resources. Upstream it is 30 s, for
	// the sake of large clusters; here tests create resource definitions and want their owner references to work.
	collectorDiscovery = 2 * time.Second
	// collectorFirstSync is how long the garbage collector waits for its caches before it begins to work.
	collectorFirstSync = 30 * time.Second
	// namespaceResync is how often all namespaces are looked at again, as upstream.
	namespaceResync = 5 * time.Minute
)

// startControllers starts those loops of the kube-controller-manager that an API server without nodes needs to behave
// like a cluster. They run until ctx ends; the WaitGroup tells when they have.
func startControllers(ctx context.Context, cfg *rest.Config, client kubernetes.Interface) (*sync.WaitGroup, error) {
	meta, err := metadata.NewForConfig(cfg)
	if err != nil {
		return nil, err
	}
	typed, metas := informers.NewSharedInformerFactory(client, 0), metadatainformer.NewSharedInformerFactory(meta, 0)
	core, informersStarted := typed.Core().V1(), make(chan struct{})

	collector, err := garbagecollector.NewGarbageCollector(ctx, client, meta,
		restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery())),
		garbagecollector.DefaultIgnoredResources(), informerfactory.NewInformerFactory(typed, metas), informersStarted)
	if err != nil {
		return nil, err
	}
	accounts, err := serviceaccount.NewServiceAccountsController(klog.Background(), core.ServiceAccounts(), core.Namespaces(),
		client, serviceaccount.DefaultServiceAccountsControllerOptions())
	if err != nil {
		return nil, err
	}
	rootCA, err := rootcacertpublisher.NewPublisher(core.ConfigMaps(), core.Namespaces(), client, cfg.CAData)
	if err != nil {
		return nil, err
	}
	namespaces := namespace.NewNamespaceController(ctx, client, meta, client.Discovery().ServerPreferredNamespacedResources,
		core.Namespaces(), namespaceResync, "kubernetes")
	roles := clusterroleaggregation.NewClusterRoleAggregation(typed.Rbac().V1().ClusterRoles(), client.RbacV1())

	running := &sync.WaitGroup{}
	running.Go(func() { collector.Sync(ctx, client.Discovery(), collectorDiscovery) })
	running.Go(func() { collector.Run(ctx, controllerWorkers, collectorFirstSync) })
	for _, run := range []func(context.Context, int){namespaces.Run, accounts.Run, rootCA.Run, roles.Run} {
		running.Go(func() { run(ctx, controllerWorkers) })
	}
	typed.Start(ctx.Done())
	metas.Start(ctx.Done())
	close(informersStarted)
	return running, nil
}

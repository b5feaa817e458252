package events

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
)

// applications reads Applications from the informer's own store. There is no second cache above it, so what the watch
// brings is what the next request sees.
type applications struct {
	cache    cache.Cache
	informer cache.Informer
}

// newApplications makes no call to the API server: it may be away while we start.
func newApplications(ctx context.Context, config *rest.Config, resync time.Duration) (*applications, error) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	mapper := meta.NewDefaultRESTMapper([]schema.GroupVersion{v1alpha1.GroupVersion})
	mapper.Add(v1alpha1.GroupVersion.WithKind("Application"), meta.RESTScopeRoot)
	shared := true
	store, err := cache.New(config, cache.Options{
		Scheme: scheme, Mapper: mapper, SyncPeriod: &resync,
		DefaultTransform: slim, DefaultUnsafeDisableDeepCopy: &shared,
	})
	if err != nil {
		return nil, fmt.Errorf("client for the Kubernetes API server: %w", err)
	}
	informer, err := store.GetInformer(ctx, &v1alpha1.Application{}, cache.BlockUntilSynced(false))
	if err != nil {
		return nil, fmt.Errorf("watching Applications: %w", err)
	}
	return &applications{store, informer}, nil
}

// slim drops what no decision needs: the services are most of an Application.
func slim(object any) (any, error) {
	if app, ok := object.(*v1alpha1.Application); ok {
		app.ManagedFields = nil
		app.Spec.Services = nil
		app.Status = v1alpha1.ApplicationStatus{}
	}
	return object, nil
}

func (a *applications) Synced() bool { return a.informer.HasSynced() }

func (a *applications) Application(name string) *v1alpha1.Application {
	app := &v1alpha1.Application{}
	// Reads memory only. An error other than "not found" can't occur once synced, and would mean the same: refuse.
	if err := a.cache.Get(context.Background(), client.ObjectKey{Name: name}, app); err != nil {
		return nil
	}
	return app
}

// count is the number of Applications, 0 until synced.
func (a *applications) count() float64 {
	if !a.Synced() {
		return 0
	}
	list := &v1alpha1.ApplicationList{}
	if err := a.cache.List(context.Background(), list); err != nil {
		return 0
	}
	return float64(len(list.Items))
}

package events

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
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
	denied   *denied // nil if none are asked for
}

// newApplications makes no call to the API server: it may be away while we start. deniedBy names the ConfigMap of denied
// certificates; nil means none.
func newApplications(ctx context.Context, config *rest.Config, resync time.Duration, deniedBy *types.NamespacedName, log *slog.Logger) (*applications, error) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return nil, err
	}
	mapper := meta.NewDefaultRESTMapper([]schema.GroupVersion{v1alpha1.GroupVersion})
	mapper.Add(v1alpha1.GroupVersion.WithKind("Application"), meta.RESTScopeRoot)
	shared := true
	options := cache.Options{
		Scheme: scheme, Mapper: mapper, SyncPeriod: &resync,
		DefaultTransform: slim, DefaultUnsafeDisableDeepCopy: &shared,
	}
	if deniedBy != nil {
		if err := corev1.AddToScheme(scheme); err != nil {
			return nil, err
		}
		mapper.Add(corev1.SchemeGroupVersion.WithKind("ConfigMap"), meta.RESTScopeNamespace)
		// By both fields it lists and watches in that namespace and for that name, which a Role for one object allows.
		options.ByObject = map[client.Object]cache.ByObject{&corev1.ConfigMap{}: {Field: fields.SelectorFromSet(fields.Set{
			"metadata.namespace": deniedBy.Namespace, "metadata.name": deniedBy.Name,
		})}}
	}
	store, err := cache.New(config, options)
	if err != nil {
		return nil, fmt.Errorf("client for the Kubernetes API server: %w", err)
	}
	informer, err := store.GetInformer(ctx, &v1alpha1.Application{}, cache.BlockUntilSynced(false))
	if err != nil {
		return nil, fmt.Errorf("watching Applications: %w", err)
	}
	a := &applications{cache: store, informer: informer}
	if deniedBy != nil {
		if a.denied, err = newDenied(ctx, store, *deniedBy, log); err != nil {
			return nil, fmt.Errorf("watching denied certificates: %w", err)
		}
	}
	return a, nil
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

func (a *applications) Synced() bool { return a.informer.HasSynced() && a.denied.synced() }

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

package routes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	toolscache "k8s.io/client-go/tools/cache"
	ctrlcache "sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
)

const (
	readTimeout = 10 * time.Second // of one Secret
	readers     = 16               // Secrets read at once
	firstRetry  = 200 * time.Millisecond
	lastRetry   = 30 * time.Second
)

// Options of a Watcher.
type Options struct {
	// Namespace is the only one from which Secrets are read.
	Namespace string
	Log       *slog.Logger
	// Changed, if set, is told which Applications a new snapshot means anew, or no longer has. It must return soon.
	Changed func(names []string)
}

// Watcher keeps the Snapshot up to date. Snapshot may be called by anybody at any time.
type Watcher struct {
	options Options
	cache   ctrlcache.Cache
	reader  client.Reader
	current atomic.Pointer[Snapshot]
	wake    chan struct{}

	mu           sync.Mutex
	applications map[string]string // to be looked at, with their resourceVersion
	secrets      map[string]string // that changed, likewise; empty for one that is gone

	// Only Run's goroutine touches these.
	loaded  map[string]loadedSecret
	retries time.Duration
}

type loadedSecret struct {
	secretState
	version string // resourceVersion
}

// Scheme knows what the gateway reads and writes.
func Scheme() (*runtime.Scheme, error) {
	s := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{v1alpha1.AddToScheme, corev1.AddToScheme, metav1.AddMetaToScheme} {
		if err := add(s); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// Mapper knows the resources that the gateway uses, so that it need not ask the API server, which may be away.
func Mapper() meta.RESTMapper {
	m := meta.NewDefaultRESTMapper(nil)
	m.Add(v1alpha1.GroupVersion.WithKind("Application"), meta.RESTScopeRoot)
	m.Add(corev1.SchemeGroupVersion.WithKind("Secret"), meta.RESTScopeNamespace)
	return m
}

// NewWatcher prepares a Watcher. It does not call the API server.
func NewWatcher(config *rest.Config, o Options) (*Watcher, error) {
	scheme, err := Scheme()
	if err != nil {
		return nil, err
	}
	reader, err := client.New(config, client.Options{Scheme: scheme, Mapper: Mapper()})
	if err != nil {
		return nil, err
	}
	cache, err := ctrlcache.New(config, ctrlcache.Options{
		Scheme: scheme, Mapper: Mapper(),
		// Not DefaultNamespaces: with those, lists of what has no namespace ask the Mapper for the kind of the list, and fail.
		ByObject:         map[client.Object]ctrlcache.ByObject{secretMetadata(): {Namespaces: map[string]ctrlcache.Config{o.Namespace: {}}}},
		DefaultTransform: lean,
		NewInformer: func(lw toolscache.ListerWatcher, example runtime.Object, resync time.Duration, indexers toolscache.Indexers) toolscache.SharedIndexInformer {
			return toolscache.NewSharedIndexInformer(newPatient(lw, o.Log), example, resync, indexers)
		},
		DefaultWatchErrorHandler: func(_ context.Context, _ *toolscache.Reflector, err error) {
			o.Log.Warn("watching the API server failed, what was read before stays in force", "error", err)
		},
	})
	if err != nil {
		return nil, err
	}
	return &Watcher{
		options: o, cache: cache, reader: reader, wake: make(chan struct{}, 1),
		applications: map[string]string{}, secrets: map[string]string{}, loaded: map[string]loadedSecret{},
	}, nil
}

// secretMetadata stands for Secrets of which only the metadata is asked for.
func secretMetadata() *metav1.PartialObjectMetadata {
	s := &metav1.PartialObjectMetadata{}
	s.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Secret"))
	return s
}

// lean takes away what is not needed of an object before it is kept. "kubectl apply" writes all values of a Secret into an
// annotation, so that they come with the metadata of Secrets that are never read.
func lean(object any) (any, error) {
	if s, ok := object.(*metav1.PartialObjectMetadata); ok {
		s.ObjectMeta = metav1.ObjectMeta{Namespace: s.Namespace, Name: s.Name, UID: s.UID, ResourceVersion: s.ResourceVersion}
		return s, nil
	}
	return ctrlcache.TransformStripManagedFields()(object)
}

// Snapshot is the current one; nil until every Application, and every Secret that they name, was looked at once. A Secret that
// the API server does not give, for whatever reason of its own, was looked at; one for which it could not be asked was not.
func (w *Watcher) Snapshot() *Snapshot { return w.current.Load() }

// Application returns an Application as the watch last saw it; false if it is not there.
func (w *Watcher) Application(ctx context.Context, name string) (*v1alpha1.Application, bool) {
	app := &v1alpha1.Application{}
	if err := w.cache.Get(ctx, types.NamespacedName{Name: name}, app); err != nil {
		return nil, false
	}
	return app, true
}

// Run watches until ctx ends. It fails only for faults of the program.
func (w *Watcher) Run(ctx context.Context) error {
	for object, dirty := range map[client.Object]map[string]string{&v1alpha1.Application{}: w.applications, secretMetadata(): w.secrets} {
		informer, err := w.cache.GetInformer(ctx, object, ctrlcache.BlockUntilSynced(false))
		if err != nil {
			return fmt.Errorf("watching: %w", err)
		}
		if _, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { w.mark(dirty, o, false) },
			UpdateFunc: func(_, o any) { w.mark(dirty, o, false) },
			DeleteFunc: func(o any) { w.mark(dirty, o, true) },
		}); err != nil {
			return fmt.Errorf("watching: %w", err)
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return w.cache.Start(ctx) })
	group.Go(func() error {
		if !w.cache.WaitForCacheSync(ctx) {
			return nil
		}
		return w.loop(ctx)
	})
	return group.Wait()
}

func (w *Watcher) mark(dirty map[string]string, object any, isGone bool) {
	if gone, ok := object.(toolscache.DeletedFinalStateUnknown); ok {
		object = gone.Obj
	}
	o, ok := object.(client.Object)
	if !ok {
		return
	}
	version := o.GetResourceVersion()
	if isGone {
		version = ""
	}
	w.mu.Lock()
	dirty[o.GetName()] = version
	w.mu.Unlock()
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// all are the names of all Applications.
func (w *Watcher) all(ctx context.Context) ([]string, error) {
	var list v1alpha1.ApplicationList
	if err := w.cache.List(ctx, &list); err != nil {
		return nil, fmt.Errorf("reading the Applications that the watch has told of: %w", err)
	}
	names := make([]string, 0, len(list.Items))
	for i := range list.Items {
		names = append(names, list.Items[i].Name)
	}
	return names, nil
}

// loop keeps the Snapshot up to date until ctx ends.
func (w *Watcher) loop(ctx context.Context) error {
	retry := time.NewTimer(lastRetry)
	defer retry.Stop()
	for {
		if err := w.rebuild(ctx); err != nil {
			return err
		}
		w.schedule(retry)
		select {
		case <-ctx.Done():
			return nil
		case <-w.wake:
		case <-retry.C:
		}
	}
}

// schedule sets the timer for Secrets that could not be read.
func (w *Watcher) schedule(retry *time.Timer) {
	failed := false
	for _, s := range w.loaded {
		failed = failed || s.err != nil
	}
	switch {
	case !failed:
		w.retries = 0
		retry.Reset(lastRetry)
	case w.retries == 0:
		w.retries = firstRetry
		retry.Reset(w.retries)
	default:
		last := lastRetry
		if w.Snapshot() == nil { // nobody is served meanwhile
			last = awayPause
		}
		w.retries = min(2*w.retries, last)
		retry.Reset(w.retries)
	}
}

func (w *Watcher) knows(secrets []string) bool {
	for _, s := range secrets {
		if _, ok := w.loaded[s]; !ok {
			return false
		}
	}
	return true
}

// secret implements secretSource.
func (w *Watcher) secret(name string) secretState { return w.loaded[name].secretState }

// rebuild looks at what changed, before the first Snapshot at everything, and puts a new Snapshot in force.
func (w *Watcher) rebuild(ctx context.Context) error {
	before := w.Snapshot()
	applications, secrets := map[string]bool{}, map[string]string{}
	w.mu.Lock()
	for name := range w.applications {
		applications[name] = true
	}
	maps.Copy(secrets, w.secrets)
	clear(w.applications)
	clear(w.secrets)
	w.mu.Unlock()
	if before == nil {
		names, err := w.all(ctx)
		if err != nil && ctx.Err() == nil {
			return err
		}
		for _, name := range names {
			applications[name] = true
		}
	}

	objects := map[string]*v1alpha1.Application{}
	wanted := map[string]bool{} // Secrets to be read
	for name := range applications {
		app, ok := w.Application(ctx, name)
		if !ok {
			continue
		}
		objects[name] = app
		for _, s := range SecretNames(app) {
			if _, known := w.loaded[s]; !known {
				wanted[s] = true
			}
		}
	}
	for s, state := range w.loaded {
		// When informers begin, and when they list anew, they tell of what was read already.
		if version, told := secrets[s]; told && version != state.version || state.err != nil {
			wanted[s] = true
		}
	}
	changed := w.read(ctx, wanted)
	select {
	case <-ctx.Done(): // what was read may be less than there is
		return nil
	default:
	}
	switch {
	case len(applications)+len(changed) == 0 && before != nil:
		return nil
	case before == nil && w.unasked():
		return nil // calls go to other replicas until this one can serve them all
	}
	next := &Snapshot{applications: map[string]*application{}}
	if before != nil {
		maps.Copy(next.applications, before.applications)
	}
	for name, a := range next.applications {
		if applications[name] || !slices.ContainsFunc(a.secrets, func(s string) bool { return changed[s] }) {
			continue
		}
		// An Application that changed in the meantime may name Secrets that were not read: its own event follows.
		if app, ok := w.Application(ctx, name); ok && w.knows(SecretNames(app)) {
			applications[name], objects[name] = true, app
		}
	}
	for name := range applications {
		app := objects[name]
		if app == nil {
			delete(next.applications, name)
			continue
		}
		next.applications[name] = compile(app, w, next.applications[name])
	}
	w.forget(next)
	w.current.Store(next)
	if w.options.Changed != nil {
		w.options.Changed(slices.Sorted(maps.Keys(applications)))
	}
	return nil
}

// read reads Secrets and returns the names of those whose state is another than before.
func (w *Watcher) read(ctx context.Context, names map[string]bool) map[string]bool {
	changed := map[string]bool{}
	var mu sync.Mutex
	var group errgroup.Group
	group.SetLimit(readers)
	results := map[string]loadedSecret{}
	for name := range names {
		group.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, readTimeout)
			defer cancel()
			var s corev1.Secret
			err := w.reader.Get(ctx, types.NamespacedName{Namespace: w.options.Namespace, Name: name}, &s)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case apierrors.IsNotFound(err):
				results[name] = loadedSecret{}
			case err != nil:
				w.options.Log.Warn("reading a Secret failed, what was read before stays in force", "secret", name, "error", err)
				old := w.loaded[name]
				old.err = err
				results[name] = old
			default:
				results[name] = loadedSecret{secretState{found: true, data: s.Data}, s.ResourceVersion}
			}
			return nil
		})
	}
	_ = group.Wait() // no function above fails
	for name, now := range results {
		old, known := w.loaded[name]
		if !known || old.version != now.version || old.found != now.found || (old.err == nil) != (now.err == nil) {
			changed[name] = true
		}
		w.loaded[name] = now
	}
	return changed
}

// unasked says whether there are Secrets for which the API server could not be asked, or had no time.
func (w *Watcher) unasked() bool {
	for _, s := range w.loaded {
		var answer apierrors.APIStatus
		if s.err != nil && (!errors.As(s.err, &answer) || apierrors.IsTooManyRequests(s.err) || apierrors.IsServiceUnavailable(s.err) ||
			apierrors.IsServerTimeout(s.err) || apierrors.IsTimeout(s.err)) {
			return true
		}
	}
	return false
}

// forget drops the values of Secrets that nothing names any more.
func (w *Watcher) forget(s *Snapshot) {
	named := map[string]bool{}
	for _, a := range s.applications {
		for _, name := range a.secrets {
			named[name] = true
		}
	}
	maps.DeleteFunc(w.loaded, func(name string, _ loadedSecret) bool { return !named[name] })
}

package edge

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// firstList bounds how long Start waits for the API server.
const firstList = 30 * time.Second

// watch follows the two Secrets by name and calls changed with what they hold (nil: does not exist) once at the start and
// after every change. changed is never called concurrently. stop waits until nothing runs any more.
func watch(ctx context.Context, client kubernetes.Interface, namespace, name string, changed func(server, ca *corev1.Secret)) (stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	var started []func()
	stop = func() {
		cancel()
		for _, f := range started {
			f()
		}
	}
	var mu sync.Mutex
	ready := false
	var stores [2]cache.Store
	key := namespace + "/"
	get := func(i int, name string) *corev1.Secret {
		if o, ok, _ := stores[i].GetByKey(key + name); ok {
			return o.(*corev1.Secret)
		}
		return nil
	}
	notify := func() {
		mu.Lock()
		defer mu.Unlock()
		if ready {
			changed(get(0, name), get(1, name+caSuffix))
		}
	}
	var synced []cache.InformerSynced
	for i, secret := range []string{name, name + caSuffix} {
		factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(namespace),
			informers.WithTweakListOptions(func(o *metav1.ListOptions) {
				o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, secret).String()
			}))
		informer := factory.Core().V1().Secrets().Informer()
		stores[i] = informer.GetStore()
		registration, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { notify() },
			UpdateFunc: func(any, any) { notify() },
			DeleteFunc: func(any) { notify() },
		})
		if err != nil {
			stop()
			return nil, fmt.Errorf("watching secret %s/%s: %w", namespace, secret, err)
		}
		synced = append(synced, registration.HasSynced)
		factory.Start(ctx.Done())
		started = append(started, factory.Shutdown)
	}
	wait, done := context.WithTimeout(ctx, firstList)
	defer done()
	if !cache.WaitForCacheSync(wait.Done(), synced...) {
		stop()
		return nil, fmt.Errorf("secrets %s and %s in namespace %s could not be listed within %s: is the API server reachable, and may they be listed and watched?",
			name, name+caSuffix, namespace, firstList)
	}
	mu.Lock()
	ready = true
	mu.Unlock()
	notify()
	return stop, nil
}

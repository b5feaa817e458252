package events

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"github.com/application-connector/application-connector/events/denial"
	"github.com/application-connector/application-connector/events/identity"
)

// denied follows the ConfigMap of denied certificates. No ConfigMap, or one that was deleted, denies none.
type denied struct {
	name         types.NamespacedName
	log          *slog.Logger
	list         atomic.Pointer[denial.List]
	broken       atomic.Int64
	registration toolscache.ResourceEventHandlerRegistration
}

func newDenied(ctx context.Context, store cache.Cache, name types.NamespacedName, log *slog.Logger) (*denied, error) {
	d := &denied{name: name, log: log}
	informer, err := store.GetInformer(ctx, &corev1.ConfigMap{}, cache.BlockUntilSynced(false))
	if err != nil {
		return nil, err
	}
	d.registration, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    d.update,
		UpdateFunc: func(_, object any) { d.update(object) },
		DeleteFunc: func(any) { d.set(nil, nil) },
	})
	return d, err
}

func (d *denied) update(object any) {
	if m, ok := object.(*corev1.ConfigMap); ok && m.Namespace == d.name.Namespace && m.Name == d.name.Name {
		d.set(m.Data, m.BinaryData)
	}
}

// set takes the list over. What Kubernetes keeps as binary, since it is no UTF-8, counts as a line that can't be read.
func (d *denied) set(data map[string]string, binary map[string][]byte) {
	list, errs := denial.Parse(data)
	for _, key := range slices.Sorted(maps.Keys(binary)) {
		errs = append(errs, &denial.LineError{Key: key, Line: 1, Reason: "must be text in UTF-8: the key stands in binaryData"})
	}
	if before := d.list.Swap(list); before.Len() != list.Len() || int(d.broken.Load()) != len(errs) {
		d.log.Info("denied certificates loaded", "configMap", d.name.String(), "certificates", list.Len(), "unreadableLines", len(errs))
	}
	d.broken.Store(int64(len(errs)))
	for _, err := range errs[:min(len(errs), 10)] {
		d.log.Error("a line of denied certificates can't be read and denies nothing", "configMap", d.name.String(), "key", err.Key, "line", err.Line, "reason", err.Reason)
	}
}

// synced says that the list is the one in the cluster.
func (d *denied) synced() bool { return d == nil || d.registration.HasSynced() }

// Check implements proxy.Denied.
func (d *denied) Check(client identity.Identity) error { return d.list.Load().Check(client) }

// count is the number of certificates on the list, and of lines that can't be read.
func (d *denied) count() (certificates, unreadable float64) {
	if d == nil {
		return 0, 0
	}
	return float64(d.list.Load().Len()), float64(d.broken.Load())
}

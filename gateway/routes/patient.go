package routes

import (
	"context"
	"errors"
	"log/slog"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	toolscache "k8s.io/client-go/tools/cache"
)

const (
	// awayPause is the least time between two attempts to reach an API server that is away; up to twice that, so that replicas
	// do not come together.
	awayPause = time.Second
	// awayReminder is how often that is said.
	awayReminder = time.Minute
)

// patient reads and watches. While the API server cannot be reached it tries again and again: informers would wait for up to a
// minute between two attempts after a long time, and what was changed would be in force that much later. An API server that
// answers, with whatever error, is left to them.
type patient struct {
	lister  toolscache.ListerWithContext
	watcher toolscache.WatcherWithContext
	log     *slog.Logger
}

func newPatient(lw toolscache.ListerWatcher, log *slog.Logger) *patient {
	both := toolscache.ToListerWatcherWithContext(lw)
	return &patient{both, both, log}
}

// ListWithContext implements cache.ListerWithContext.
func (p *patient) ListWithContext(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	return reach(ctx, p.log, func() (runtime.Object, error) { return p.lister.ListWithContext(ctx, o) })
}

// WatchWithContext implements cache.WatcherWithContext.
func (p *patient) WatchWithContext(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	return reach(ctx, p.log, func() (watch.Interface, error) { return p.watcher.WatchWithContext(ctx, o) })
}

// List implements cache.Lister for informers, which do not call it.
func (p *patient) List(o metav1.ListOptions) (runtime.Object, error) {
	return p.ListWithContext(context.Background(), o)
}

// Watch implements cache.Watcher, likewise.
func (p *patient) Watch(o metav1.ListOptions) (watch.Interface, error) {
	return p.WatchWithContext(context.Background(), o)
}

// reach asks until the API server answers, or ctx ends.
func reach[T any](ctx context.Context, log *slog.Logger, ask func() (T, error)) (T, error) {
	var said time.Time
	for {
		answer, err := ask()
		var status apierrors.APIStatus
		if err == nil || errors.As(err, &status) || ctx.Err() != nil {
			return answer, err
		}
		if now := time.Now(); said.IsZero() || now.Sub(said) >= awayReminder {
			said = now
			log.Warn("the API server cannot be reached, what was read before stays in force", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait.Jitter(awayPause, 1)):
		}
	}
}

package status

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/fields"
	toolscache "k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/application-connector/application-connector/agent/report"
	appv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/cli/terminal"
)

const (
	// settle is how long changes are gathered before a report is printed: a sync changes many objects at once.
	settle = 100 * time.Millisecond
	// complain is how often, at most, it is said that the cluster cannot be watched.
	complain = 10 * time.Second
)

// watch prints the report first, then again whenever the cluster says that something in it has changed, until ctx ends.
// It returns what the last report says.
func (o *Options) watch(ctx context.Context, first report.Report) error {
	// Both libraries would write on the terminal when a connection is lost; one line of ours does.
	klog.SetLogger(logr.Discard())
	ctrllog.SetLogger(logr.Discard())

	complaints := rate.Sometimes{Interval: complain}
	objects, err := cache.New(o.cluster, cache.Options{
		Scheme: o.scheme,
		ByObject: map[client.Object]cache.ByObject{
			&compassv1alpha1.CompassConnection{}: {Field: fields.OneTermEqualSelector("metadata.name", compassv1alpha1.ConnectionName)},
		},
		DefaultWatchErrorHandler: func(_ context.Context, _ *toolscache.Reflector, err error) {
			if err == io.EOF || apierrors.IsResourceExpired(err) || apierrors.IsGone(err) { //nolint:errorlint // the reflector passes it bare
				return // how a watch ends that has lasted long enough
			}
			complaints.Do(func() {
				fmt.Fprintln(o.ErrOut, "appconn: the watch broke off, trying again:", terminal.Line(err.Error()))
			})
		},
	})
	if err != nil {
		return unreadable(err)
	}
	changed := make(chan struct{}, 1)
	notify := func() {
		select {
		case changed <- struct{}{}:
		default: // one more is as good as one
		}
	}
	for _, kind := range []client.Object{&compassv1alpha1.CompassConnection{}, &appv1alpha1.Application{}} {
		informer, err := objects.GetInformer(ctx, kind, cache.BlockUntilSynced(false))
		if err != nil {
			return unreadable(err)
		}
		_, err = informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
			AddFunc:    func(any) { notify() },
			UpdateFunc: func(any, any) { notify() },
			DeleteFunc: func(any) { notify() },
		})
		if err != nil {
			return err
		}
	}

	watchCtx, stop := context.WithCancel(ctx)
	var failed error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		failed = objects.Start(watchCtx)
	}()
	defer func() {
		stop()
		<-ended
	}()
	notify() // what changed since the first report, and before the watch, brings no event
	last := first
	if err := o.print(last); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return judged(&last)
		case <-ended:
			if ctx.Err() != nil {
				return judged(&last)
			}
			return unreadable(failed)
		case <-changed:
		}
		select {
		case <-ctx.Done():
			return judged(&last)
		case <-time.After(settle):
		}
		if !objects.WaitForCacheSync(ctx) {
			return judged(&last)
		}
		found, err := report.Read(ctx, objects, o.Clock.Now(), 0)
		switch {
		case ctx.Err() != nil:
			return judged(&last)
		case err != nil:
			return unreadable(err)
		case equality.Semantic.DeepEqual(found, last):
			continue
		}
		last = found
		if err := o.separate(); err != nil {
			return err
		}
		if err := o.print(last); err != nil {
			return err
		}
	}
}

// separate stands between two reports. JSON needs nothing: its readers take one document after another.
func (o *Options) separate() error {
	var err error
	switch o.Output {
	case formatJSON:
	case formatYAML:
		_, err = fmt.Fprintln(o.Out, "---")
	default:
		_, err = fmt.Fprintf(o.Out, "\n--- %s\n", o.Clock.Now().UTC().Format(time.RFC3339))
	}
	return err
}

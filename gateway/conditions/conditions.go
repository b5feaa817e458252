// Package conditions says on each Application whether its APIs can be called: the condition RoutesReady, written by the
// one replica that holds a Lease. It knows nothing of calls.
package conditions

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/gateway/routes"
	"github.com/application-connector/application-connector/gateway/settings"
)

const (
	// FieldOwner is the field manager under which the condition is written.
	FieldOwner = "central-application-gateway"
	// LeaseName is the Lease, in the namespace of the Secrets, whose holder writes.
	LeaseName = "central-application-gateway"

	leaseDuration = 15 * time.Second
	renewDeadline = 10 * time.Second
	retryPeriod   = 2 * time.Second
	writeTimeout  = 10 * time.Second
	messageLimit  = 4096 // bytes
)

// Reasons of a condition that is True; those of one that is False are the reasons of package routes and of package
// credentials.
const (
	ReasonReady           = "Ready"
	ReasonNoAPIs          = "NoAPIs"
	ReasonVerificationOff = "VerificationOff"
	ReasonNameShared      = "ServiceNameShared"
	ReasonSettingsUnused  = "SettingsUnused"
)

// Source tells what is to be written.
type Source interface {
	Snapshot() *routes.Snapshot
	Application(ctx context.Context, name string) (*v1alpha1.Application, bool)
}

// Options of a Writer.
type Options struct {
	Source Source
	// Namespace of the Lease.
	Namespace string
	// Identity tells replicas apart: the name of the pod.
	Identity string
	Clock    clock.PassiveClock
	Log      *slog.Logger
}

// Writer writes conditions while it holds the Lease.
type Writer struct {
	options Options
	client  client.Client
	leases  kubernetes.Interface
	queue   workqueue.TypedRateLimitingInterface[string]
	leading atomic.Bool
}

// NewWriter prepares a Writer. It does not call the API server.
func NewWriter(config *rest.Config, o Options) (*Writer, error) {
	scheme, err := routes.Scheme()
	if err != nil {
		return nil, err
	}
	c, err := client.New(config, client.Options{Scheme: scheme, Mapper: routes.Mapper()})
	if err != nil {
		return nil, err
	}
	leases, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &Writer{options: o, client: c, leases: leases, queue: workqueue.NewTypedRateLimitingQueue(
		workqueue.NewTypedItemExponentialFailureRateLimiter[string](100*time.Millisecond, time.Minute))}, nil
}

// Close gives up what a Writer that never ran holds; after Run it does nothing.
func (w *Writer) Close() { w.queue.ShutDown() }

// Changed asks for a look at Applications. Without the Lease it does nothing: who gets it looks at all of them.
func (w *Writer) Changed(names []string) {
	if !w.leading.Load() {
		return
	}
	for _, name := range names {
		w.queue.Add(name)
	}
}

// Run seeks the Lease, and writes while it has it, until ctx ends. Losing the Lease is no failure: it is sought again.
func (w *Writer) Run(ctx context.Context) error {
	var worker sync.WaitGroup
	worker.Go(func() { w.work(ctx) })
	defer worker.Wait()
	defer w.queue.ShutDown()
	for ctx.Err() == nil {
		elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Lock: &resourcelock.LeaseLock{
				LeaseMeta: metav1.ObjectMeta{Namespace: w.options.Namespace, Name: LeaseName}, Client: w.leases.CoordinationV1(),
				LockConfig: resourcelock.ResourceLockConfig{Identity: w.options.Identity},
			},
			LeaseDuration: leaseDuration, RenewDeadline: renewDeadline, RetryPeriod: retryPeriod, ReleaseOnCancel: true, Name: LeaseName,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(context.Context) {
					w.leading.Store(true)
					w.all()
				},
				OnStoppedLeading: func() { w.leading.Store(false) },
			},
		})
		if err != nil {
			return fmt.Errorf("preparing for the Lease: %w", err)
		}
		elector.Run(ctx)
	}
	return nil
}

func (w *Writer) all() {
	if s := w.options.Source.Snapshot(); s != nil {
		w.Changed(s.Applications())
	}
}

// work writes what is queued. Without the Lease it drops it: somebody else writes, and whoever comes looks at everything.
func (w *Writer) work(ctx context.Context) {
	for {
		name, quit := w.queue.Get()
		if quit {
			return
		}
		switch err := w.write(ctx, name); {
		case err == nil:
			w.queue.Forget(name)
		case ctx.Err() == nil:
			w.options.Log.Warn("writing the condition RoutesReady failed, it will be tried again", "application", name, "error", err)
			w.queue.AddRateLimited(name)
		}
		w.queue.Done(name)
	}
}

// write brings one Application's condition up to date, if it is not.
func (w *Writer) write(ctx context.Context, name string) error {
	snapshot := w.options.Source.Snapshot()
	if snapshot == nil || !w.leading.Load() {
		return nil
	}
	report, ok := snapshot.Report(name)
	if !ok {
		return nil
	}
	app, ok := w.options.Source.Application(ctx, name)
	if !ok {
		return nil
	}
	want := Condition(report)
	want.LastTransitionTime = metav1.NewTime(w.options.Clock.Now().Truncate(time.Second))
	if have := meta.FindStatusCondition(app.Status.Conditions, want.Type); have != nil {
		if have.Status == want.Status {
			want.LastTransitionTime = have.LastTransitionTime
		}
		if *have == want {
			return nil
		}
	}
	apply := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": v1alpha1.GroupVersion.String(), "kind": "Application",
		// The uid keeps the write from creating an Application that was deleted meanwhile.
		"metadata": map[string]any{"name": name, "uid": string(app.UID)},
		"status": map[string]any{"conditions": []any{map[string]any{
			"type": want.Type, "status": string(want.Status), "reason": want.Reason, "message": want.Message,
			"observedGeneration": want.ObservedGeneration, "lastTransitionTime": want.LastTransitionTime.UTC().Format(time.RFC3339),
		}}},
	}}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	err := w.client.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(apply), client.FieldOwner(FieldOwner), client.ForceOwnership)
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // it is gone, or another one of that name came: the watch will tell
	}
	return err
}

// Condition is what a report amounts to, without its time.
func Condition(r routes.Report) metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.ConditionRoutesReady, ObservedGeneration: r.Generation, Status: metav1.ConditionTrue}
	message := fmt.Sprintf("%d APIs can be called", r.APIs)
	var also strings.Builder // what is said whatever the reason is, and not cut off
	switch {
	case len(r.Problems) > 0:
		c.Status, c.Reason = metav1.ConditionFalse, string(r.Problems[0].Reason)
		var lines []string
		for _, p := range r.Problems {
			line := p.Message
			if p.Service+p.Entry != "" {
				line = fmt.Sprintf("service %q, entry %q: %s", p.Service, p.Entry, p.Message)
			}
			lines = append(lines, line)
		}
		message = strings.Join(lines, "; ")
		if r.SkipVerify {
			also.WriteString("; TLS certificates are not verified (spec.skipVerify): whoever stands between can read credentials")
		}
	case r.APIs == 0:
		c.Reason, message = ReasonNoAPIs, "the Application has no entry of type API"
	case r.SkipVerify:
		c.Reason = ReasonVerificationOff
		message += ", without verification of TLS certificates (spec.skipVerify): whoever stands between can read credentials"
	case len(r.Shared) > 0:
		c.Reason = ReasonNameShared
	case len(r.Unused) > 0:
		c.Reason = ReasonSettingsUnused
	default:
		c.Reason = ReasonReady
	}
	for _, s := range r.Shared {
		fmt.Fprintf(&also, "; the services %q are all called %s in URLs: by port 8080 none of them can be called, by port 8082 those can whose entries have other names; give them other displayNames", s.Services, s.Segment)
	}
	for _, target := range r.Unused {
		fmt.Fprintf(&also, "; no API is called as %s says: use service/entry as in URLs of port 8082, or *", settings.Path(target))
	}
	c.Message = cut(message, messageLimit-min(also.Len(), messageLimit/2)) + cut(also.String(), messageLimit/2)
	return c
}

// cut is text, or the beginning of it if it is longer than limit bytes.
func cut(text string, limit int) string {
	if len(text) <= limit {
		return text
	}
	return strings.ToValidUTF8(text[:limit], "") + " …"
}

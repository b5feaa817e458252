package sync

import (
	"context"
	"fmt"
	"os"
	stdsync "sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/application-connector/application-connector/agent/sync/apply"
	"github.com/application-connector/application-connector/agent/sync/internal/systems"
	v1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/e2e/kubetest"
	"github.com/application-connector/application-connector/graphql/director"
)

// server starts the API server when the first test needs it: those of pure functions, and fuzzing, do without.
var server = stdsync.OnceValues(func() (*rest.Config, error) {
	config, end, err := kubetest.Start(context.Background())
	stop = end
	return config, err
})

var stop func()

func TestMain(m *testing.M) { os.Exit(runTests(m)) }

// runTests looks for goroutines that are left over, after the connections to the API server are closed.
func runTests(m *testing.M) int {
	ctrllog.SetLogger(logr.Discard()) // controller-runtime complains if nobody says where to log
	code := m.Run()
	if stop != nil {
		if config, err := server(); err == nil {
			if transport, err := rest.TransportFor(config); err == nil {
				utilnet.CloseIdleConnectionsFor(transport)
			}
		}
		stop()
	}
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// cluster is an API server with no Applications, and a Syncer that writes to it.
type cluster struct {
	client.Client
	t         *testing.T
	namespace string
	syncer    *Syncer
	mu        stdsync.Mutex
	// writes are what the Syncer sent, for example "create secret mp-shop-1".
	writes []string
	// before is called ahead of each write; its error is the write's.
	before func(write string) error
	events []string
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	cfg, err := server()
	if err != nil {
		t.Fatal(err)
	}
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, v1alpha1.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	base, err := client.NewWithWatch(cfg, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{Client: base, t: t, namespace: kubetest.Namespace(t, cfg)}
	t.Cleanup(c.removeApplications)
	c.syncer = &Syncer{Client: c.intercept(base), Reader: base, Namespace: c.namespace, GatewayURL: systems.Gateway, Recorder: c}
	return c
}

func (c *cluster) removeApplications() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := c.DeleteAllOf(ctx, &v1alpha1.Application{}); err != nil {
		c.t.Error(err)
	}
	for {
		var left v1alpha1.ApplicationList
		if err := c.List(ctx, &left); err != nil {
			c.t.Error(err)
			return
		}
		if len(left.Items) == 0 {
			return
		}
	}
}

// Eventf implements Recorder.
func (c *cluster) Eventf(regarding, _ runtime.Object, kind, reason, action, note string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events = append(c.events, fmt.Sprintf("%s %s %s: %s", kind, reason, regarding.(client.Object).GetName(), fmt.Sprintf(note, args...)))
}

func (c *cluster) note(verb, kind, name string) error {
	write := verb + " " + kind + " " + name
	c.mu.Lock()
	c.writes = append(c.writes, write)
	before := c.before
	c.mu.Unlock()
	if before != nil {
		return before(write)
	}
	return nil
}

func kindOf(object any) string {
	switch o := object.(type) {
	case *corev1.Secret:
		return "secret"
	case *v1alpha1.Application:
		return "application"
	case interface{ GetKind() string }:
		return map[string]string{"Secret": "secret", "Application": "application"}[o.GetKind()]
	}
	return fmt.Sprintf("%T", object)
}

func nameOf(object any) string { return object.(interface{ GetName() string }).GetName() }

func (c *cluster) intercept(base client.WithWatch) client.Client {
	return interceptor.NewClient(base, interceptor.Funcs{
		Create: func(ctx context.Context, inner client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			if err := c.note("create", kindOf(o), o.GetName()); err != nil {
				return err
			}
			return inner.Create(ctx, o, opts...)
		},
		Delete: func(ctx context.Context, inner client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			if err := c.note("delete", kindOf(o), o.GetName()); err != nil {
				return err
			}
			return inner.Delete(ctx, o, opts...)
		},
		Update: func(context.Context, client.WithWatch, client.Object, ...client.UpdateOption) error {
			return fmt.Errorf("the Syncer is not meant to update")
		},
		Patch: func(ctx context.Context, inner client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			if err := c.note("patch", kindOf(o), o.GetName()); err != nil {
				return err
			}
			return inner.Patch(ctx, o, p, opts...)
		},
		Apply: func(ctx context.Context, inner client.WithWatch, o runtime.ApplyConfiguration, opts ...client.ApplyOption) error {
			if err := c.note("apply", kindOf(o), nameOf(o)); err != nil {
				return err
			}
			return inner.Apply(ctx, o, opts...)
		},
		SubResourceApply: func(ctx context.Context, inner client.Client, sub string, o runtime.ApplyConfiguration, opts ...client.SubResourceApplyOption) error {
			if err := c.note("apply "+sub, kindOf(o), nameOf(o)); err != nil {
				return err
			}
			return inner.SubResource(sub).Apply(ctx, o, opts...)
		},
	})
}

// sync runs one sync and returns its result and what it wrote.
func (c *cluster) sync(snap director.Snapshot) (apply.Result, []string) {
	c.t.Helper()
	c.mu.Lock()
	c.writes = nil
	c.mu.Unlock()
	result, err := c.syncer.Sync(c.t.Context(), snap)
	if err != nil {
		c.t.Fatal(err)
	}
	if result.Writes != len(c.writes) {
		c.t.Errorf("the result counts %d writes, the API server %d: %v", result.Writes, len(c.writes), c.writes)
	}
	return result, c.writes
}

func (c *cluster) application(name string) *v1alpha1.Application {
	c.t.Helper()
	app := &v1alpha1.Application{}
	if err := c.Get(c.t.Context(), client.ObjectKey{Name: name}, app); err != nil {
		c.t.Fatal(err)
	}
	return app
}

func (c *cluster) secret(name string) *corev1.Secret {
	c.t.Helper()
	s := &corev1.Secret{}
	if err := c.Get(c.t.Context(), client.ObjectKey{Namespace: c.namespace, Name: name}, s); err != nil {
		c.t.Fatal(err)
	}
	return s
}

// data is what a Secret holds, as text.
func (c *cluster) data(name string) map[string]string {
	c.t.Helper()
	out := map[string]string{}
	for k, v := range c.secret(name).Data {
		out[k] = string(v)
	}
	return out
}

func (c *cluster) names(list client.ObjectList, opts ...client.ListOption) []string {
	c.t.Helper()
	if err := c.List(c.t.Context(), list, opts...); err != nil {
		c.t.Fatal(err)
	}
	names := []string{}
	switch list := list.(type) {
	case *corev1.SecretList:
		for _, s := range list.Items {
			names = append(names, s.Name)
		}
	case *v1alpha1.ApplicationList:
		for _, a := range list.Items {
			names = append(names, a.Name)
		}
	}
	return names
}

func (c *cluster) secretNames() []string {
	c.t.Helper()
	return c.names(&corev1.SecretList{}, client.InNamespace(c.namespace))
}

func (c *cluster) applicationNames() []string {
	c.t.Helper()
	return c.names(&v1alpha1.ApplicationList{})
}

func (c *cluster) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// conditions are the conditions of an Application as "Type=Status/Reason".
func conditions(app *v1alpha1.Application) map[string]string {
	out := map[string]string{}
	for _, condition := range app.Status.Conditions {
		out[condition.Type] = fmt.Sprintf("%s/%s at %d", condition.Status, condition.Reason, condition.ObservedGeneration)
	}
	return out
}

func owner(app *v1alpha1.Application) []metav1.OwnerReference {
	return []metav1.OwnerReference{{APIVersion: "applicationconnector.kyma-project.io/v1alpha1", Kind: "Application", Name: app.Name, UID: app.UID}}
}

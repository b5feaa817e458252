package connection_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/agent/connection"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/certs"
)

func names() connection.Names {
	name := func(s string) types.NamespacedName { return types.NamespacedName{Namespace: "ns", Name: s} }
	return connection.Names{Configuration: name("configuration"), Client: name("client"), CA: name("ca")}
}

// change edits a Secret.
func (w *world) change(name string, edit func(*corev1.Secret)) {
	w.t.Helper()
	s := w.secret(name)
	edit(s)
	if err := w.client.Update(w.t.Context(), s); err != nil {
		w.t.Fatal(err)
	}
}

// settling makes the runtime one for which so many answers came, the first of them so long before now.
func (w *world) settling(runtime string, answers int32, since time.Duration) {
	w.t.Helper()
	w.change("client", func(s *corev1.Secret) { delete(s.Annotations, annotation+"applied-runtime") })
	c := w.connection()
	c.Status.Settling = &compassv1alpha1.Settling{Runtime: runtime, Answers: answers, Since: metav1.NewTime(w.clock.Now().Add(since))}
	if err := w.client.Status().Update(w.t.Context(), c); err != nil {
		w.t.Fatal(err)
	}
}

// remove deletes an object.
func (w *world) remove(object client.Object) {
	w.t.Helper()
	if err := w.client.Delete(w.t.Context(), object); err != nil {
		w.t.Fatal(err)
	}
}

func TestWhoMayAskAsThisClusterIsReadFromTheCluster(t *testing.T) {
	missing := []compassv1alpha1.MissingApplications{{Since: metav1.NewTime(time.Date(2026, 3, 1, 11, 0, 0, 0, time.UTC)), Answers: 2, Count: 1, Names: []string{"mp-shop"}}}
	for name, test := range map[string]struct {
		edit      func(*world)
		later     time.Duration
		want      connection.Access
		unsettled string // a part of it
		wrong     string // a part of the error
	}{
		"all is there": {want: connection.Access{DirectorURL: "https://director", Tenant: "tenant", RuntimeID: "runtime"}},
		"without a tenant": {
			edit: func(w *world) { w.register("runtime", "", "t1") },
			want: connection.Access{DirectorURL: "https://director", RuntimeID: "runtime"}, unsettled: "as runtime runtime only now",
		},
		"the CompassConnection is gone: the Secret says where Director is": {
			edit: func(w *world) { w.remove(w.connection()) },
			want: connection.Access{DirectorURL: "https://director", Tenant: "tenant", RuntimeID: "runtime"},
		},
		"the CompassConnection says another URL": {
			edit: func(w *world) {
				c := w.connection()
				c.Spec.ManagementInfo.DirectorURL = "https://moved"
				if err := w.client.Update(w.t.Context(), c); err != nil {
					w.t.Fatal(err)
				}
			},
			want: connection.Access{DirectorURL: "https://moved", Tenant: "tenant", RuntimeID: "runtime"},
		},
		"Applications are missing": {
			edit: func(w *world) {
				c := w.connection()
				c.Status.MissingApplications = missing
				if err := w.client.Status().Update(w.t.Context(), c); err != nil {
					w.t.Fatal(err)
				}
			},
			want: connection.Access{DirectorURL: "https://director", Tenant: "tenant", RuntimeID: "runtime", Missing: missing},
		},
		"no answer of this runtime was settled yet": {
			edit: func(w *world) {
				w.change("client", func(s *corev1.Secret) { delete(s.Annotations, annotation+"applied-runtime") })
			},
			want:      connection.Access{DirectorURL: "https://director", Tenant: "tenant", RuntimeID: "runtime"},
			unsettled: "as runtime tenant/runtime only now",
		},
		"two answers came for this runtime, and the third is due before an hour is over": {
			edit: func(w *world) { w.settling("tenant/runtime", 2, -50*time.Minute) },
			want: connection.Access{DirectorURL: "https://director", Tenant: "tenant", RuntimeID: "runtime"}, unsettled: "only now",
		},
		"two answers came for this runtime, and the third is due after an hour": {
			edit: func(w *world) { w.settling("tenant/runtime", 2, -time.Hour) },
			want: connection.Access{DirectorURL: "https://director", Tenant: "tenant", RuntimeID: "runtime"},
		},
		"one answer came for this runtime, long ago": {
			edit: func(w *world) { w.settling("tenant/runtime", 1, -10*time.Hour) },
			want: connection.Access{DirectorURL: "https://director", Tenant: "tenant", RuntimeID: "runtime"}, unsettled: "only now",
		},
		"answers came for another runtime": {
			edit: func(w *world) { w.settling("tenant/other", 9, -10*time.Hour) },
			want: connection.Access{DirectorURL: "https://director", Tenant: "tenant", RuntimeID: "runtime"}, unsettled: "only now",
		},
		"no configuration Secret":         {edit: func(w *world) { w.remove(w.secret("configuration")) }, wrong: "Secret ns/configuration is missing"},
		"no runtime in the configuration": {edit: func(w *world) { w.register("", "tenant", "t1") }, wrong: "RUNTIME_ID"},
		"no client Secret":                {edit: func(w *world) { w.remove(w.secret("client")) }, wrong: "Secret ns/client is missing: the cluster is not paired with Compass"},
		"a client Secret that is damaged": {
			edit: func(w *world) {
				w.change("client", func(s *corev1.Secret) { s.Data[certs.ClientKey], s.Data[certs.TLSKey] = []byte(leaked), []byte(leaked) })
			}, wrong: "Secret ns/client cannot be used: ",
		},
		"a certificate that has ended":     {later: 91 * day, wrong: "the client certificate in Secret ns/client is not valid now: it is from 2026-03-01T12:00:00Z to 2026-05-30T12:00:00Z"},
		"a certificate that begins later":  {later: -time.Hour, wrong: "is not valid now"},
		"a certificate of another runtime": {edit: func(w *world) { w.register("other", "tenant", "t1") }, wrong: "the client certificate in Secret ns/client belongs to another runtime or tenant than Secret ns/configuration names"},
		"a certificate of another tenant":  {edit: func(w *world) { w.register("runtime", "others", "t1") }, wrong: "belongs to another runtime or tenant"},
		"nothing says where Director is": {
			edit: func(w *world) {
				w.remove(w.connection())
				w.change("client", func(s *corev1.Secret) { delete(s.Annotations, annotation+"director-url") })
			}, wrong: "neither CompassConnection compass-connection nor Secret ns/client says where Director is",
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.step()
			next := w.connection().Status.NextAttempt
			if test.edit != nil {
				test.edit(w)
			}
			got, err := connection.ReadAccess(t.Context(), w.client, names(), w.clock.Now().Add(test.later))
			if test.wrong != "" {
				if err == nil || !strings.Contains(err.Error(), test.wrong) || strings.Contains(err.Error(), leaked) {
					t.Errorf("error %v, want %q", err, test.wrong)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got.Certificate == nil || certs.Fingerprint(got.Certificate.Leaf) != certs.Fingerprint(w.compass.inUse.Leaf) {
				t.Error("the certificate is not the one in use")
			}
			if !strings.Contains(got.Unsettled, test.unsettled) || (test.unsettled == "") != (got.Unsettled == "") {
				t.Errorf("unsettled: %q", got.Unsettled)
			}
			if strings.Contains(name, "is gone") {
				next = &metav1.Time{}
			}
			test.want.NextAttempt = next.Time
			if diff := cmp.Diff(test.want, got, cmpopts.IgnoreFields(connection.Access{}, "Certificate", "Unsettled")); diff != "" {
				t.Error(diff)
			}
			if text := fmt.Sprintf("%v %+v %#v", got, got, &got); strings.Contains(text, "Certificate") || strings.Contains(text, "PrivateKey") {
				t.Errorf("printed: %s", text)
			}
		})
	}
}

// failing is a cluster of which one object cannot be read.
type failing struct {
	client.Reader
	refuse func(name string) bool
}

func (f failing) Get(ctx context.Context, key client.ObjectKey, object client.Object, options ...client.GetOption) error {
	if f.refuse(key.Name) {
		return errors.New("the API server is away")
	}
	return f.Reader.Get(ctx, key, object, options...)
}

func TestWhatCannotBeReadIsSaidAndIsNotTakenForMissing(t *testing.T) {
	w := newWorld(t)
	w.step()
	for _, name := range []string{"configuration", "client", compassv1alpha1.ConnectionName} {
		reader := failing{w.client, func(asked string) bool { return asked == name }}
		_, err := connection.ReadAccess(t.Context(), reader, names(), w.clock.Now())
		if err == nil || !strings.Contains(err.Error(), "reading ") || strings.Contains(err.Error(), "missing") {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

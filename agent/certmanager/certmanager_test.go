package certmanager_test

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	apiutil "github.com/cert-manager/cert-manager/pkg/api/util"
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	testingclock "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/application-connector/application-connector/agent/certmanager"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
)

// The subject as the Connector writes it, and as a Certificate has it.
const (
	subject = "O=Org,OU=OrgUnit,L=locality,ST=province,C=DE,CN=me"
	literal = "CN=me,C=DE,ST=province,L=locality,OU=OrgUnit,O=Org"
)

var name = types.NamespacedName{Namespace: "ns", Name: "client"}

// stage is an Owner on a fake cluster.
type stage struct {
	t      *testing.T
	client client.Client
	clock  *testingclock.FakeClock
	owner  *certmanager.Owner
	// refuse gives the answer to a request; nil lets it pass. deleted is how the Certificate was.
	refuse  func(verb string, o client.Object) error
	deleted metav1.DeletionPropagation
}

func newStage(t *testing.T) *stage {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, compassv1alpha1.AddToScheme, cmapi.AddToScheme} {
		if err := add(scheme); err != nil {
			t.Fatal(err)
		}
	}
	s := &stage{t: t, clock: testingclock.NewFakeClock(time.Now().Truncate(time.Second)), refuse: func(string, client.Object) error { return nil }}
	s.client = fake.NewClientBuilder().WithScheme(scheme).WithStatusSubresource(&cmapi.Certificate{}, &cmapi.CertificateRequest{}).WithInterceptorFuncs(interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption) error {
			if err := s.refuse("get", o); err != nil {
				return err
			}
			return c.Get(ctx, key, o, opts...)
		},
		List: func(ctx context.Context, c client.WithWatch, list client.ObjectList, opts ...client.ListOption) error {
			if err := s.refuse("list", nil); err != nil {
				return err
			}
			return c.List(ctx, list, opts...)
		},
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			if err := s.refuse("create", o); err != nil {
				return err
			}
			return c.Create(ctx, o, opts...)
		},
		Apply: func(ctx context.Context, c client.WithWatch, o runtime.ApplyConfiguration, opts ...client.ApplyOption) error {
			if err := s.refuse("apply", nil); err != nil {
				return err
			}
			return c.Apply(ctx, o, opts...)
		},
		Delete: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.DeleteOption) error {
			options := client.DeleteOptions{}
			options.ApplyOptions(opts)
			s.deleted = *options.PropagationPolicy
			if err := s.refuse("delete", o); err != nil {
				return err
			}
			return c.Delete(ctx, o, opts...)
		},
		SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, o client.Object, opts ...client.SubResourceUpdateOption) error {
			if err := s.refuse(sub, o); err != nil {
				return err
			}
			return c.SubResource(sub).Update(ctx, o, opts...)
		},
	}).Build()
	s.owner = &certmanager.Owner{
		Client: s.client, Reader: s.client, Secret: name, Pairing: types.NamespacedName{Namespace: "ns", Name: "pairing"}, KeySize: 3072, Threshold: 0.3, Clock: s.clock,
	}
	return s
}

func needed(context.Context) (bool, error)   { return true, nil }
func unneeded(context.Context) (bool, error) { return false, nil }

func (s *stage) request(of string) (string, error) {
	return s.owner.Request(s.t.Context(), of, needed)
}

func (s *stage) certificate() *cmapi.Certificate {
	s.t.Helper()
	found := &cmapi.Certificate{}
	if err := s.client.Get(s.t.Context(), name, found); err != nil {
		s.t.Fatal(err)
	}
	return found
}

// asked: cert-manager is asked for a certificate.
func (s *stage) asked() bool {
	s.t.Helper()
	return apiutil.CertificateHasCondition(s.certificate(), cmapi.CertificateCondition{Type: cmapi.CertificateConditionIssuing, Status: cmmeta.ConditionTrue})
}

// issued is what cert-manager notes when it is done.
func (s *stage) issued() {
	s.t.Helper()
	c := s.certificate()
	apiutil.RemoveCertificateCondition(c, cmapi.CertificateConditionIssuing)
	if err := s.client.Status().Update(s.t.Context(), c); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) create(o client.Object) {
	s.t.Helper()
	if err := s.client.Create(s.t.Context(), o); err != nil {
		s.t.Fatal(err)
	}
}

func TestTheCertificateIsAskedForExactlyAsTheConnectorSignsIt(t *testing.T) {
	s := newStage(t)
	if trouble, err := s.request(subject); trouble != "" || err != nil {
		t.Fatal(trouble, err)
	}
	if s.asked() {
		t.Error("a new Certificate is issued by itself")
	}
	want := cmapi.CertificateSpec{
		SecretName: "client", LiteralSubject: literal, IssuerRef: cmmeta.IssuerReference{Group: "compass.kyma-project.io", Kind: "CompassIssuer", Name: "compass-runtime-agent"},
		PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.RSAKeyAlgorithm, Encoding: cmapi.PKCS1, Size: 3072, RotationPolicy: cmapi.RotationPolicyAlways},
		Usages:     []cmapi.KeyUsage{cmapi.UsageDigitalSignature, cmapi.UsageClientAuth}, EncodeUsagesInRequest: ptr.To(false), RenewBeforePercentage: ptr.To[int32](30),
	}
	if diff := cmp.Diff(want, s.certificate().Spec); diff != "" {
		t.Error(diff)
	}
	issuer := &compassv1alpha1.CompassIssuer{}
	if err := s.client.Get(t.Context(), types.NamespacedName{Namespace: "ns", Name: certmanager.IssuerName}, issuer); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(compassv1alpha1.CompassIssuerSpec{ClientSecretName: "client", PairingSecretName: "pairing"}, issuer.Spec); diff != "" {
		t.Error(diff)
	}
	secret := &corev1.Secret{}
	if err := s.client.Get(t.Context(), name, secret); err != nil {
		t.Fatal(err)
	}
	if secret.Type != corev1.SecretTypeOpaque || len(secret.Data) > 0 {
		t.Errorf("Secret of type %s with %d keys", secret.Type, len(secret.Data))
	}

	// Again, and for another subject, while nothing is being issued.
	for _, of := range []string{subject, strings.Replace(subject, "=me", "=you", 1)} {
		if trouble, err := s.request(of); trouble != "" || err != nil {
			t.Fatal(trouble, err)
		}
		if !s.asked() {
			t.Error("nothing was asked for")
		}
		s.issued()
	}
	if got := s.certificate().Spec.LiteralSubject; got != strings.Replace(literal, "=me", "=you", 1) {
		t.Errorf("subject %q", got)
	}
}

func TestASecretThatIsThereIsLeftAsItIs(t *testing.T) {
	s := newStage(t)
	s.create(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "client"}, Data: map[string][]byte{"crt": []byte("kept")}})
	if _, err := s.request(subject); err != nil {
		t.Fatal(err)
	}
	found := &corev1.Secret{}
	if err := s.client.Get(t.Context(), name, found); err != nil || string(found.Data["crt"]) != "kept" {
		t.Errorf("%v, %d keys", err, len(found.Data))
	}
}

func TestNothingIsAskedForThatIsNotNeeded(t *testing.T) {
	conflict := func(s *stage, then func()) { // cert-manager writes meanwhile
		s.refuse = func(verb string, o client.Object) error {
			if verb != "status" {
				return nil
			}
			s.refuse = func(string, client.Object) error { return nil }
			then()
			return apierrors.NewConflict(cmapi.Resource("certificates"), o.GetName(), errors.New("it was changed"))
		}
	}
	begin := func(s *stage) {
		c := s.certificate()
		apiutil.SetCertificateCondition(c, 1, cmapi.CertificateConditionIssuing, cmmeta.ConditionTrue, "Renewing", "cert-manager's own")
		if err := s.client.Status().Update(s.t.Context(), c); err != nil {
			s.t.Fatal(err)
		}
	}
	for what, test := range map[string]struct {
		before  func(s *stage)
		needed  func(context.Context) (bool, error)
		message string // of the condition Issuing; empty if there is none
	}{
		"it is needed":                        {func(*stage) {}, needed, "the agent asks for a new certificate"},
		"it arrived":                          {func(*stage) {}, unneeded, ""},
		"it is being issued":                  {begin, needed, "cert-manager's own"},
		"cert-manager begins meanwhile":       {func(s *stage) { conflict(s, func() { begin(s) }) }, needed, "cert-manager's own"},
		"cert-manager writes something else":  {func(s *stage) { conflict(s, func() {}) }, needed, "the agent asks for a new certificate"},
		"another one is not needed meanwhile": {func(s *stage) { conflict(s, func() {}) }, once(), ""},
	} {
		t.Run(what, func(t *testing.T) {
			s := newStage(t)
			if _, err := s.request(subject); err != nil {
				t.Fatal(err)
			}
			test.before(s)
			if trouble, err := s.owner.Renew(t.Context(), test.needed); trouble != "" || err != nil {
				t.Fatal(trouble, err)
			}
			got := ""
			if c := apiutil.GetCertificateCondition(s.certificate(), cmapi.CertificateConditionIssuing); c != nil {
				got = c.Message
			}
			if got != test.message {
				t.Errorf("condition %q, want %q", got, test.message)
			}
		})
	}
	t.Run("there is no Certificate", func(t *testing.T) {
		if trouble, err := newStage(t).owner.Renew(t.Context(), needed); trouble != "" || err != nil {
			t.Fatal(trouble, err)
		}
	})
}

// once is needed the first time that it is asked.
func once() func(context.Context) (bool, error) {
	asked := 0
	return func(context.Context) (bool, error) {
		asked++
		return asked == 1, nil
	}
}

// current is a certificate for the subject, its attributes in another order than the Connector writes them.
func current(t *testing.T, cn string) *x509.Certificate {
	t.Helper()
	var sequence pkix.RDNSequence
	for _, a := range []struct {
		id    int
		value string
	}{{6, "DE"}, {8, "province"}, {7, "locality"}, {10, "Org"}, {11, "OrgUnit"}, {3, cn}} {
		sequence = append(sequence, pkix.RelativeDistinguishedNameSET{{Type: asn1.ObjectIdentifier{2, 5, 4, a.id}, Value: a.value}})
	}
	raw, err := asn1.Marshal(sequence)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{RawSubject: raw}
	c.Subject.FillFromRDNSequence(&sequence)
	return c
}

func TestTheCertificateStaysForTheSubjectOfTheCurrentOne(t *testing.T) {
	s := newStage(t)
	ensure := func(cn, want string) {
		t.Helper()
		if trouble, err := s.owner.Ensure(t.Context(), current(t, cn)); trouble != "" || err != nil {
			t.Fatal(trouble, err)
		}
		if got := s.certificate().Spec.LiteralSubject; got != want {
			t.Errorf("subject %q, want %q", got, want)
		}
	}
	ensure("me", "CN=me,OU=OrgUnit,O=Org,L=locality,ST=province,C=DE")
	ensure("you", "CN=you,OU=OrgUnit,O=Org,L=locality,ST=province,C=DE")
	if _, err := s.request(subject); err != nil {
		t.Fatal(err)
	}
	s.issued()
	ensure("me", literal) // another order would cost an issuance
	changed := s.certificate()
	changed.Spec.PrivateKey.RotationPolicy, changed.Spec.LiteralSubject = cmapi.RotationPolicyNever, "CN=somebody"
	if err := s.client.Update(t.Context(), changed); err != nil {
		t.Fatal(err)
	}
	ensure("me", "CN=me,OU=OrgUnit,O=Org,L=locality,ST=province,C=DE")
	if got := s.certificate().Spec.PrivateKey.RotationPolicy; got != cmapi.RotationPolicyAlways {
		t.Errorf("rotation policy %s", got)
	}
	if s.asked() {
		t.Error("a certificate was asked for")
	}
}

func TestATroubleIsWhatTheNewestRequestIsIn(t *testing.T) {
	ready := func(status cmmeta.ConditionStatus, reason, message string) cmapi.CertificateRequestCondition {
		return cmapi.CertificateRequestCondition{Type: cmapi.CertificateRequestConditionReady, Status: status, Reason: reason, Message: message}
	}
	approved := cmapi.CertificateRequestCondition{Type: cmapi.CertificateRequestConditionApproved, Status: cmmeta.ConditionTrue}
	type request struct {
		of         string
		age        time.Duration
		conditions []cmapi.CertificateRequestCondition
	}
	failed := request{"client", time.Second, []cmapi.CertificateRequestCondition{approved, ready(cmmeta.ConditionFalse, cmapi.CertificateRequestReasonFailed, "no")}}
	pending := func(age time.Duration) request {
		return request{"client", age, []cmapi.CertificateRequestCondition{approved, ready(cmmeta.ConditionFalse, cmapi.CertificateRequestReasonPending, "soon")}}
	}
	good := request{"client", 0, []cmapi.CertificateRequestCondition{approved, ready(cmmeta.ConditionTrue, cmapi.CertificateRequestReasonIssued, "")}}
	for what, test := range map[string]struct {
		requests []request
		issuing  time.Duration // for how long; negative means not
		// renewing is told when a certificate is asked for, ensuring before a sync.
		renewing, ensuring string
	}{
		"there is no request":                    {nil, -1, "", ""},
		"it failed":                              {[]request{failed}, -1, "CertificateRequest ns/r0: no", "CertificateRequest ns/r0: no"},
		"it waits, not for long":                 {[]request{pending(30 * time.Second)}, 30 * time.Second, "CertificateRequest ns/r0: soon", ""},
		"it waits for long":                      {[]request{pending(time.Minute)}, time.Minute, "CertificateRequest ns/r0: soon", "CertificateRequest ns/r0: soon"},
		"a newer one is good":                    {[]request{failed, good}, -1, "", ""},
		"a newer one waits":                      {[]request{pending(0), failed}, 0, "CertificateRequest ns/r0: soon", ""},
		"that of another Certificate failed":     {[]request{{"other", 0, failed.conditions}}, -1, "", ""},
		"nobody approves":                        {[]request{{"client", time.Minute, nil}}, time.Minute, "CertificateRequest ns/r0: nobody has approved it", "CertificateRequest ns/r0: nobody has approved it"},
		"nobody has approved yet":                {[]request{{"client", 30 * time.Second, nil}}, 30 * time.Second, "", ""},
		"it was approved, and nobody signs":      {[]request{{"client", time.Minute, []cmapi.CertificateRequestCondition{approved}}}, time.Minute, "", ""},
		"cert-manager does not begin":            {nil, time.Minute, "is cert-manager running?", "is cert-manager running?"},
		"cert-manager does not begin anew":       {[]request{{"client", time.Hour, failed.conditions}}, time.Minute, "is cert-manager running?", "is cert-manager running?"},
		"cert-manager has not begun anew so far": {[]request{{"client", time.Hour, failed.conditions}}, 30 * time.Second, "CertificateRequest ns/r0: no", "CertificateRequest ns/r0: no"},
	} {
		t.Run(what, func(t *testing.T) {
			s := newStage(t)
			if _, err := s.request(subject); err != nil {
				t.Fatal(err)
			}
			now := s.clock.Now()
			for i, r := range test.requests {
				s.create(&cmapi.CertificateRequest{
					ObjectMeta: metav1.ObjectMeta{
						Namespace: "ns", Name: fmt.Sprintf("r%d", i), CreationTimestamp: metav1.NewTime(now.Add(-r.age)), Annotations: map[string]string{cmapi.CertificateNameKey: r.of},
					},
				})
				found := &cmapi.CertificateRequest{}
				if err := s.client.Get(t.Context(), types.NamespacedName{Namespace: "ns", Name: fmt.Sprintf("r%d", i)}, found); err != nil {
					t.Fatal(err)
				}
				found.Status.Conditions = r.conditions
				if err := s.client.Status().Update(t.Context(), found); err != nil {
					t.Fatal(err)
				}
			}
			if test.issuing >= 0 {
				c := s.certificate()
				c.Status.Conditions = []cmapi.CertificateCondition{{Type: cmapi.CertificateConditionIssuing, Status: cmmeta.ConditionTrue, LastTransitionTime: &metav1.Time{Time: now.Add(-test.issuing)}}}
				if err := s.client.Status().Update(t.Context(), c); err != nil {
					t.Fatal(err)
				}
			}
			ensuring, err := s.owner.Ensure(t.Context(), current(t, "me"))
			if err != nil {
				t.Fatal(err)
			}
			renewing, err := s.owner.Renew(t.Context(), unneeded)
			if err != nil {
				t.Fatal(err)
			}
			for got, want := range map[string]string{"renewing: " + renewing: "renewing: " + test.renewing, "ensuring: " + ensuring: "ensuring: " + test.ensuring} {
				if got != want && (!strings.HasSuffix(want, "running?") || !strings.HasSuffix(got, " since "+now.Add(-time.Minute).UTC().Format(time.RFC3339)+", and there is no CertificateRequest for that: is cert-manager running?")) {
					t.Errorf("%q, want %q", got, want)
				}
			}
		})
	}
}

func TestTheCertificateIsDeletedWithoutTheSecret(t *testing.T) {
	for what, test := range map[string]struct {
		owned bool
		want  metav1.DeletionPropagation
	}{
		"what belongs to it goes too":                          {false, metav1.DeletePropagationBackground},
		"the Secret belongs to it by an option of its owner's": {true, metav1.DeletePropagationOrphan},
	} {
		t.Run(what, func(t *testing.T) {
			s := newStage(t)
			if _, err := s.request(subject); err != nil {
				t.Fatal(err)
			}
			c := s.certificate()
			c.UID = "u"
			if err := s.client.Update(t.Context(), c); err != nil {
				t.Fatal(err)
			}
			if test.owned {
				secret := &corev1.Secret{}
				if err := s.client.Get(t.Context(), name, secret); err != nil {
					t.Fatal(err)
				}
				secret.OwnerReferences = []metav1.OwnerReference{{APIVersion: "cert-manager.io/v1", Kind: "Certificate", Name: "client", UID: "u"}}
				if err := s.client.Update(t.Context(), secret); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 { // it may be gone already
				if err := s.owner.Release(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if s.deleted != test.want {
				t.Errorf("deleted by %q, want %q", s.deleted, test.want)
			}
			if err := s.client.Get(t.Context(), name, &cmapi.Certificate{}); !apierrors.IsNotFound(err) {
				t.Errorf("reading the Certificate: %v", err)
			}
		})
	}
}

func TestWhatTheAPIServerRefusesIsSaidWithItsName(t *testing.T) {
	no := errors.New("forbidden")
	kind := func(o client.Object) string { return strings.TrimPrefix(fmt.Sprintf("%T", o), "*v1.") }
	for what, test := range map[string]struct {
		verb, kind string
		call       func(s *stage) error
		want       string
	}{
		"reading the Certificate":       {"get", "Certificate", func(s *stage) error { _, err := s.request(subject); return err }, "reading Certificate ns/client: forbidden"},
		"the same before a sync":        {"get", "Certificate", func(s *stage) error { _, err := s.owner.Ensure(t.Context(), current(t, "me")); return err }, "reading Certificate ns/client: forbidden"},
		"the same before a farewell":    {"get", "Certificate", func(s *stage) error { return s.owner.Release(t.Context()) }, "reading Certificate ns/client: forbidden"},
		"creating the Secret":           {"create", "Secret", func(s *stage) error { _, err := s.request(subject); return err }, "creating Secret ns/client: forbidden"},
		"writing the issuer":            {"apply", "", func(s *stage) error { _, err := s.request(subject); return err }, "writing CompassIssuer ns/compass-runtime-agent: forbidden"},
		"the same before a sync, again": {"apply", "", func(s *stage) error { _, err := s.owner.Ensure(t.Context(), current(t, "me")); return err }, "writing CompassIssuer ns/compass-runtime-agent: forbidden"},
		"reading requests": {"list", "", func(s *stage) error { _, err := s.request(subject); return err },
			"asking cert-manager for a renewal by Certificate ns/client: reading CertificateRequests of namespace ns: forbidden"},
		"asking":                 {"status", "Certificate", func(s *stage) error { _, err := s.request(subject); return err }, "asking cert-manager for a renewal by Certificate ns/client: forbidden"},
		"reading the Secret":     {"get", "Secret", func(s *stage) error { return s.owner.Release(t.Context()) }, "reading Secret ns/client: forbidden"},
		"deleting":               {"delete", "Certificate", func(s *stage) error { return s.owner.Release(t.Context()) }, "deleting Certificate ns/client: forbidden"},
		"a subject that is none": {"", "", func(s *stage) error { _, err := s.request("no subject"); return err }, "subject"},
		"what is needed": {"", "", func(s *stage) error {
			_, err := s.owner.Renew(t.Context(), func(context.Context) (bool, error) { return false, no })
			return err
		}, "asking cert-manager for a renewal by Certificate ns/client: forbidden"},
	} {
		t.Run(what, func(t *testing.T) {
			s := newStage(t)
			if _, err := s.request(subject); err != nil {
				t.Fatal(err)
			}
			s.refuse = func(verb string, o client.Object) error {
				if verb == test.verb && (o == nil || kind(o) == test.kind) {
					return no
				}
				return nil
			}
			if err := test.call(s); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v, want %s", err, test.want)
			}
		})
	}
	s := newStage(t)
	if _, err := s.owner.Ensure(t.Context(), &x509.Certificate{RawSubject: []byte("no DER")}); err == nil || !strings.HasPrefix(err.Error(), "subject of the client certificate: ") {
		t.Error(err)
	}
	if all := (&cmapi.CertificateList{}); s.client.List(t.Context(), all) != nil || slices.ContainsFunc(all.Items, func(cmapi.Certificate) bool { return true }) {
		t.Error("something was written for it")
	}
}

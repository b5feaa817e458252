package connection_test

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"strconv"
	"testing"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	corev1ac "k8s.io/client-go/applyconfigurations/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/agent/connection"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
)

// memory is a cluster of Secrets and one CompassConnection, for all tests but those about finalizers and about what others
// write into the same Secret: it takes a hundredth of the time of the fake client. It knows one writer besides the test, so patches are differences to what is stored, and what was
// applied before and is not any more is deleted.
type memory struct {
	client.Client // nil: what is not implemented here is not called
	secrets       map[types.NamespacedName]*corev1.Secret
	applied       map[types.NamespacedName][]string // keys of data, and "annotation " and the key of an annotation
	connection    *compassv1alpha1.CompassConnection
	certificate   *cmapi.Certificate
	requests      []cmapi.CertificateRequest
	issuer        *compassv1alpha1.CompassIssuer
	refuse        func(verb, name string) error
}

// touched gives an object another version.
func touched(o client.Object) {
	n, _ := strconv.Atoi(o.GetResourceVersion()) // 0 to begin with
	o.SetResourceVersion(strconv.Itoa(n + 1))
}

func missing(kind, name string) error {
	return apierrors.NewNotFound(schema.GroupResource{Resource: kind}, name)
}

// newMemoryWorld is newWorld with a memory.
func newMemoryWorld(t *testing.T) *world {
	t.Helper()
	w := bareWorld(t)
	m := &memory{secrets: map[types.NamespacedName]*corev1.Secret{}, applied: map[types.NamespacedName][]string{}}
	m.refuse = func(verb, name string) error { return w.refuse(verb, name) }
	w.client = m
	w.configure("t1")
	w.restart()
	return w
}

func (m *memory) Get(_ context.Context, key client.ObjectKey, object client.Object, _ ...client.GetOption) error {
	switch o := object.(type) {
	case *corev1.Secret:
		found := m.secrets[key]
		if found == nil {
			return missing("secrets", key.Name)
		}
		found.DeepCopyInto(o)
		o.ManagedFields = m.managed(key)
	case *cmapi.Certificate:
		if m.certificate == nil || client.ObjectKeyFromObject(m.certificate) != key {
			return missing("certificates", key.Name)
		}
		m.certificate.DeepCopyInto(o)
	case *compassv1alpha1.CompassConnection:
		if m.connection == nil {
			return missing("compassconnections", key.Name)
		}
		m.connection.DeepCopyInto(o)
	}
	return nil
}

// managed is what the API server notes about the agent having applied a Secret.
func (m *memory) managed(key types.NamespacedName) []metav1.ManagedFieldsEntry {
	fields := map[string]any{}
	for _, k := range m.applied[key] {
		fields["f:"+k] = map[string]any{}
	}
	raw, err := json.Marshal(map[string]any{"f:data": fields})
	if err != nil {
		panic(err)
	}
	return []metav1.ManagedFieldsEntry{{Manager: connection.FieldOwner, Operation: metav1.ManagedFieldsOperationApply, FieldsV1: metav1.NewFieldsV1(string(raw))}}
}

// List gives CertificateRequests.
func (m *memory) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	(&cmapi.CertificateRequestList{Items: m.requests}).DeepCopyInto(list.(*cmapi.CertificateRequestList))
	return nil
}

func (m *memory) Create(_ context.Context, object client.Object, _ ...client.CreateOption) error {
	if err := m.refuse("create", object.GetName()); err != nil {
		return err
	}
	switch o := object.(type) {
	case *corev1.Secret:
		if m.secrets[client.ObjectKeyFromObject(o)] != nil {
			return apierrors.NewAlreadyExists(schema.GroupResource{Resource: "secrets"}, o.Name)
		}
		m.secrets[client.ObjectKeyFromObject(o)] = o.DeepCopy()
	case *compassv1alpha1.CompassConnection:
		o.Generation = 1
		m.connection = o.DeepCopy()
	}
	return nil
}

func (m *memory) Update(_ context.Context, object client.Object, _ ...client.UpdateOption) error {
	switch o := object.(type) {
	case *corev1.Secret:
		m.secrets[client.ObjectKeyFromObject(o)] = o.DeepCopy()
	case *compassv1alpha1.CompassConnection:
		m.connection = o.DeepCopy()
	}
	return nil
}

func (m *memory) Delete(_ context.Context, object client.Object, _ ...client.DeleteOption) error {
	if err := m.refuse("delete", object.GetName()); err != nil {
		return err
	}
	switch o := object.(type) {
	case *corev1.Secret:
		if m.secrets[client.ObjectKeyFromObject(o)] == nil {
			return missing("secrets", o.Name)
		}
		delete(m.secrets, client.ObjectKeyFromObject(o))
		delete(m.applied, client.ObjectKeyFromObject(o))
	case *cmapi.Certificate:
		if m.certificate == nil {
			return missing("certificates", o.Name)
		}
		m.certificate, m.requests = nil, nil // which belong to it
	case *compassv1alpha1.CompassConnection:
		m.connection = nil
	}
	return nil
}

// Patch of a CompassConnection changes all but the status, of a Secret the data.
func (m *memory) Patch(_ context.Context, object client.Object, _ client.Patch, _ ...client.PatchOption) error {
	if err := m.refuse("patch", object.GetName()); err != nil {
		return err
	}
	if s, ok := object.(*corev1.Secret); ok {
		stored := m.secrets[client.ObjectKeyFromObject(s)]
		if stored == nil {
			return missing("secrets", s.Name)
		}
		stored.Data = s.DeepCopy().Data
		return nil
	}
	o := object.(*compassv1alpha1.CompassConnection)
	if m.connection == nil {
		return missing("compassconnections", o.Name)
	}
	stored := o.DeepCopy()
	stored.Status, stored.Generation = m.connection.Status, m.connection.Generation
	if !equality.Semantic.DeepEqual(stored.Spec, m.connection.Spec) {
		stored.Generation++
	}
	m.connection = stored
	stored.DeepCopyInto(o)
	return nil
}

func (m *memory) Apply(ctx context.Context, object runtime.ApplyConfiguration, _ ...client.ApplyOption) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	o, ok := object.(*corev1ac.SecretApplyConfiguration)
	if !ok {
		return m.applyOther(object)
	}
	if err := m.refuse("apply", *o.Name); err != nil {
		return err
	}
	key := types.NamespacedName{Namespace: *o.Namespace, Name: *o.Name}
	s := m.secrets[key]
	if s == nil {
		s = &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
		m.secrets[key] = s
	}
	for _, former := range m.applied[key] {
		delete(s.Data, former)
		delete(s.Annotations, former[min(len(former), len("annotation ")):])
	}
	if s.Data == nil {
		s.Data = map[string][]byte{}
	}
	if s.Annotations == nil {
		s.Annotations = map[string]string{}
	}
	var now []string
	for k := range o.Data {
		now = append(now, k)
	}
	for k := range o.Annotations {
		now = append(now, "annotation "+k)
	}
	maps.Copy(s.Data, o.Data)
	maps.Copy(s.Annotations, o.Annotations)
	m.applied[key] = now
	return nil
}

// applyOther is Apply of what is there once: the Certificate and its issuer.
func (m *memory) applyOther(object runtime.ApplyConfiguration) error {
	text, err := json.Marshal(object)
	if err != nil {
		return err
	}
	var kind metav1.PartialObjectMetadata
	if err := json.Unmarshal(text, &kind); err != nil {
		return err
	}
	if err := m.refuse("apply", kind.Kind); err != nil {
		return err
	}
	if kind.Kind == "CompassIssuer" {
		m.issuer = &compassv1alpha1.CompassIssuer{}
		return json.Unmarshal(text, m.issuer)
	}
	var wanted cmapi.Certificate
	if err := json.Unmarshal(text, &wanted); err != nil {
		return err
	}
	if m.certificate == nil {
		m.certificate = &cmapi.Certificate{ObjectMeta: wanted.ObjectMeta}
	}
	if !equality.Semantic.DeepEqual(m.certificate.Spec, wanted.Spec) {
		m.certificate.Spec = wanted.Spec
		touched(m.certificate)
	}
	return nil
}

func (m *memory) Status() client.SubResourceWriter { return memoryStatus{m: m} }

type memoryStatus struct {
	client.SubResourceWriter
	m *memory
}

// Update of the status of the Certificate.
func (s memoryStatus) Update(_ context.Context, object client.Object, _ ...client.SubResourceUpdateOption) error {
	if err := s.m.refuse("status", "Certificate"); err != nil {
		return err
	}
	o, stored := object.(*cmapi.Certificate), s.m.certificate
	switch {
	case stored == nil:
		return missing("certificates", o.Name)
	case stored.ResourceVersion != o.ResourceVersion:
		return apierrors.NewConflict(schema.GroupResource{Resource: "certificates"}, o.Name, errors.New("it was changed"))
	}
	stored.Status = *o.Status.DeepCopy()
	touched(stored)
	return nil
}

// Patch stores the status as it comes back from JSON: times in whole seconds.
func (s memoryStatus) Patch(_ context.Context, object client.Object, _ client.Patch, _ ...client.SubResourcePatchOption) error {
	if err := s.m.refuse("status", object.GetName()); err != nil {
		return err
	}
	if s.m.connection == nil {
		return missing("compassconnections", object.GetName())
	}
	text, err := json.Marshal(object.(*compassv1alpha1.CompassConnection).Status)
	if err != nil {
		return err
	}
	var status compassv1alpha1.CompassConnectionStatus
	if err := json.Unmarshal(text, &status); err != nil {
		return err
	}
	s.m.connection.Status = status
	return nil
}

package routes

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
)

func TestOfASecretsMetadataOnlyItsNameAndVersionAreKept(t *testing.T) {
	kind := metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}
	told := &metav1.PartialObjectMetadata{TypeMeta: kind, ObjectMeta: metav1.ObjectMeta{
		Namespace: "ns", Name: "s", UID: "u", ResourceVersion: "7", CreationTimestamp: metav1.NewTime(time.Unix(1, 0)),
		Labels:      map[string]string{"a": "b"},
		Annotations: map[string]string{corev1.LastAppliedConfigAnnotation: `{"data":{"password":"Y2FuYXJ5"}}`}, ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubectl"}},
	}}
	kept, err := lean(told)
	want := &metav1.PartialObjectMetadata{TypeMeta: kind, ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "s", UID: "u", ResourceVersion: "7"}}
	if diff := cmp.Diff(any(want), kept); diff != "" || err != nil {
		t.Error(diff, err)
	}
	app := &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Name: "app", Generation: 2, ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}}}
	kept, err = lean(app)
	if diff := cmp.Diff(any(&v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Name: "app", Generation: 2}}), kept); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

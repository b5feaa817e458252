package upgrade

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// kept is what must outlive an upgrade, of each object what must not change.
type kept struct {
	UID        string
	Keys       []string
	Finalizers []string
	Mine       string // all that somebody wrote by hand; empty for other objects
}

var keptKinds = []schema.GroupVersionKind{
	{Version: "v1", Kind: "Secret"}, applicationKind, connectionKind,
	{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"},
	{Group: "operator.kyma-project.io", Version: "v1alpha1", Kind: "ApplicationConnector"},
	{Group: "networking.istio.io", Version: "v1", Kind: "Gateway"}, {Group: "networking.istio.io", Version: "v1", Kind: "VirtualService"},
	{Group: "apps", Version: "v1", Kind: "Deployment"}, {Version: "v1", Kind: "Service"}, {Version: "v1", Kind: "ServiceAccount"},
}

func (w *world) kept() map[string]kept {
	w.t.Helper()
	all := map[string]kept{}
	for _, kind := range keptKinds {
		list := &unstructured.UnstructuredList{}
		list.SetGroupVersionKind(kind.GroupVersion().WithKind(kind.Kind + "List"))
		w.must(w.kube.List(w.t.Context(), list))
		for _, o := range list.Items {
			if ns := o.GetNamespace(); ns != "" && ns != system && ns != ingress || o.GetName() == "default" {
				continue
			}
			one := kept{UID: string(o.GetUID()), Finalizers: o.GetFinalizers()}
			data, _, _ := unstructured.NestedMap(o.Object, "data")
			for key := range data {
				one.Keys = append(one.Keys, key)
			}
			slices.Sort(one.Keys)
			if strings.HasPrefix(o.GetName(), "by-hand") {
				text, err := json.Marshal([]any{o.GetLabels(), o.GetAnnotations(), o.GetFinalizers(), o.Object["spec"], o.Object["data"]})
				w.must(err)
				one.Mine = string(text)
			}
			all[kind.Kind+" "+o.GetNamespace()+"/"+o.GetName()] = one
		}
	}
	return all
}

// same: everything that was there is there, the same objects with the same keys, and nothing is there besides, but what the new
// manifests have more.
func (w *world) same(when string, planted map[string]kept) {
	w.t.Helper()
	now := w.kept()
	for name, o := range planted {
		have, found := now[name]
		switch {
		case !found:
			w.t.Errorf("after %s %s is gone", when, name)
		case have.UID != o.UID:
			w.t.Errorf("after %s %s is another object", when, name)
		case have.Mine != o.Mine:
			w.t.Errorf("after %s %s is not as it was written by hand (-), but (+):\n%s", when, name, cmp.Diff(o.Mine, have.Mine))
		}
		for _, key := range o.Keys {
			if !slices.Contains(have.Keys, key) {
				w.t.Errorf("after %s %s has no key %s", when, name, key)
			}
		}
	}
	for name := range now {
		if _, was := planted[name]; !was && (strings.HasPrefix(name, "Secret ") || strings.HasPrefix(name, "Application ") || strings.HasPrefix(name, "CompassConnection ")) {
			w.t.Errorf("after %s there is %s, which was not there before", when, name)
		}
	}
}

// installed is what the operator's manifests made, as it is in the cluster.
func (w *world) installed() map[string]any {
	w.t.Helper()
	all := map[string]any{}
	for _, file := range []string{"definitions.yaml", "installed.yaml"} {
		text, err := os.ReadFile(testdata(w.t, file))
		w.must(err)
		for _, o := range w.documents(string(text)) {
			w.must(w.kube.Get(w.t.Context(), client.ObjectKeyFromObject(o), o))
			for _, field := range []string{"uid", "resourceVersion", "generation", "creationTimestamp", "managedFields"} {
				unstructured.RemoveNestedField(o.Object, "metadata", field)
			}
			delete(o.Object, "status")
			all[o.GetKind()+" "+o.GetNamespace()+"/"+o.GetName()] = o.Object
		}
	}
	return all
}

// nothingLeft: of the objects that only the new manifests have, none is there but definitions of resources.
func (w *world) nothingLeft() {
	w.t.Helper()
	was := w.installed()
	for _, o := range w.documents(w.run("kubectl kustomize manifests/overlays/compass")) {
		name := o.GetKind() + " " + o.GetNamespace() + "/" + o.GetName()
		if _, known := was[name]; known || o.GetKind() == "CustomResourceDefinition" {
			continue
		}
		if err := w.kube.Get(w.t.Context(), client.ObjectKeyFromObject(o), o); !apierrors.IsNotFound(err) {
			w.t.Errorf("after the way back %s is still there: %v", name, err)
		}
	}
}

func (w *world) documents(text string) (all []*unstructured.Unstructured) {
	w.t.Helper()
	for d := yaml.NewYAMLOrJSONDecoder(strings.NewReader(text), 4096); ; {
		o := &unstructured.Unstructured{}
		err := d.Decode(&o.Object)
		if errors.Is(err, io.EOF) {
			return all
		}
		w.must(err)
		all = append(all, o)
	}
}

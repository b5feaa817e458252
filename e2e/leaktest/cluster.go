package leaktest

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

var (
	secrets = schema.GroupVersionResource{Version: "v1", Resource: "secrets"}
	// written are the kinds of objects that programs write and that others may read than those who read Secrets.
	written = []schema.GroupVersionResource{
		{Version: "v1", Resource: "configmaps"},
		{Group: "events.k8s.io", Version: "v1", Resource: "events"},
		{Group: "applicationconnector.kyma-project.io", Version: "v1alpha1", Resource: "applications"},
		{Group: "compass.kyma-project.io", Version: "v1alpha1", Resource: "compassconnections"},
		{Group: "compass.kyma-project.io", Version: "v1alpha1", Resource: "compassissuers"},
		{Group: "compass.kyma-project.io", Version: "v1alpha1", Resource: "compassclusterissuers"},
		{Group: "cert-manager.io", Version: "v1", Resource: "certificates"},
		{Group: "cert-manager.io", Version: "v1", Resource: "certificaterequests"},
	}
	// publicKeys are those of Secrets whose values anybody may see, besides certificates. Values of all others are secret.
	publicKeys = map[string]bool{
		"username": true, "clientId": true, "CONNECTOR_URL": true, "RUNTIME_ID": true, "TENANT": true, "namespace": true,
		// In pending Secrets of the agent and of the issuer.
		"tokenConnectorURL": true, "connectorURL": true, "directorURL": true, "tokenFingerprint": true, "subject": true, "since": true, "pairing": true,
		"runtimeID": true, "tenant": true,
	}
	// settling bounds how long it takes until what was written has been seen.
	settling = time.Minute
)

// Cluster takes from a cluster, until the test ends, whatever is secret in any version of any Secret and the token of its
// administrator; and every version of the objects that programs write, Events among them, as what these tell.
func (w *Watch) Cluster(tb testing.TB, config *rest.Config) {
	tb.Helper()
	w.mu.Lock()
	known := w.clusters[config.Host]
	w.clusters[config.Host] = true
	w.mu.Unlock()
	if known || w.measured() {
		return
	}
	w.Add("the bearer token of the kubeconfig", config.BearerToken)
	w.Add("the client key of the kubeconfig", string(config.KeyData))
	config = rest.CopyConfig(config)
	config.QPS = -1
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	seen := make(chan string, 1) // the name of a Secret that end waits for
	end := "leaktest-" + fmt.Sprint(time.Now().UnixNano())
	var watching sync.WaitGroup
	first := make(chan error, 1+len(written))
	follow := func(kind schema.GroupVersionResource, take func(*unstructured.Unstructured)) {
		watching.Go(func() { follow(ctx, client, kind, first, take) })
	}
	follow(secrets, func(o *unstructured.Unstructured) {
		w.addSecret(o)
		if o.GetName() == end {
			select {
			case seen <- end:
			default:
			}
		}
	})
	for _, kind := range written {
		follow(kind, w.toldObject)
	}
	tb.Cleanup(func() {
		if err := w.finish(client, end, seen); err != nil {
			tb.Errorf("leaktest: %v", err)
		}
		cancel()
		watching.Wait()
		if transport, err := rest.TransportFor(config); err == nil {
			utilnet.CloseIdleConnectionsFor(transport) // tests look whether anything is left over
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.clusters, config.Host)
	})
	for range 1 + len(written) {
		if err := <-first; err != nil {
			tb.Fatalf("leaktest: %v", err)
		}
	}
}

// follow sees each version of each object of a kind, until ctx ends. What there is at the beginning is seen too; a kind that
// is not served yet is waited for. How the first attempt went is sent to first.
func follow(ctx context.Context, client dynamic.Interface, kind schema.GroupVersionResource, first chan<- error, take func(*unstructured.Unstructured)) {
	for attempt := 0; ; attempt++ {
		events, err := client.Resource(kind).Watch(ctx, metav1.ListOptions{})
		if attempt == 0 {
			first <- unlessAway(err)
		}
		if err == nil {
			for event := range events.ResultChan() {
				if o, ok := event.Object.(*unstructured.Unstructured); ok && event.Type != watch.Error {
					take(o)
				}
			}
			events.Stop()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
}

// unlessAway is no error if a kind is not served.
func unlessAway(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// finish waits until the Secrets of now have been seen, and reads what there is of everything else.
func (w *Watch) finish(client dynamic.Interface, end string, seen <-chan string) error {
	ctx, cancel := context.WithTimeout(context.Background(), settling)
	defer cancel()
	last := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": end}}}
	namespaced := client.Resource(secrets).Namespace(metav1.NamespaceDefault)
	if _, err := namespaced.Create(ctx, last, metav1.CreateOptions{}); err != nil {
		return err
	}
	select {
	case <-seen:
	case <-ctx.Done():
		return errors.New("the Secrets of the cluster were not seen in time")
	}
	err := namespaced.Delete(ctx, end, metav1.DeleteOptions{})
	for _, kind := range written {
		list, found := client.Resource(kind).List(ctx, metav1.ListOptions{})
		if found != nil {
			err = errors.Join(err, unlessAway(found))
			continue
		}
		for i := range list.Items {
			w.toldObject(&list.Items[i])
		}
	}
	return err
}

func (w *Watch) addSecret(o *unstructured.Unstructured) {
	data, _, _ := unstructured.NestedStringMap(o.Object, "data")
	decoded := map[string][]byte{}
	for key, text := range data {
		if value, err := base64.StdEncoding.DecodeString(text); err == nil { // the API server sends no other
			decoded[key] = value
		}
	}
	w.AddSecret(o.GetName(), decoded)
}

// AddSecret records what is secret in the data of a Secret. Of JSON, such as further header fields, it is the values;
// of a kubeconfig what identifies its users.
func (w *Watch) AddSecret(secret string, data map[string][]byte) {
	for key, value := range data {
		if publicKeys[key] {
			continue
		}
		name := "key " + key + " of Secret " + secret
		if config, err := clientcmd.Load(value); err == nil && len(config.AuthInfos) > 0 { // addresses and authorities are public
			for _, user := range config.AuthInfos {
				for _, text := range []string{user.Token, user.Password, string(user.ClientKeyData)} {
					w.Add(name, text)
				}
			}
			continue
		}
		var fields map[string]any
		if json.Unmarshal(value, &fields) == nil {
			w.addLeaves(name, fields)
			continue
		}
		w.Add(name, string(value))
	}
}

func (w *Watch) addLeaves(name string, value any) {
	switch value := value.(type) {
	case string:
		w.Add(name, value)
	case []any:
		for _, v := range value {
			w.addLeaves(name, v)
		}
	case map[string]any:
		for _, v := range value {
			w.addLeaves(name, v)
		}
	}
}

// toldObject records an object as it is read, but for who wrote which field: the fields are all there.
func (w *Watch) toldObject(o *unstructured.Unstructured) {
	o.SetManagedFields(nil)
	text, err := json.Marshal(o)
	if err != nil {
		text = []byte(fmt.Sprint(o.Object))
	}
	where := o.GetKind() + " " + o.GetName()
	if reason, _, _ := unstructured.NestedString(o.Object, "reason"); o.GetKind() == "Event" {
		where = "Event " + reason
	}
	w.Told(where, string(text))
}

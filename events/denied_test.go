package events_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/e2e/kubetest"
	"github.com/application-connector/application-connector/e2e/leaktest"
)

func TestACertificateIsDeniedAsTheConfigMapSays(t *testing.T) {
	noLeaks(t)
	c := kube(t)
	set, err := kubernetes.NewForConfig(&cluster)
	if err != nil {
		t.Fatal(err)
	}
	namespace := kubetest.Namespace(t, &cluster)
	maps := set.CoreV1().ConfigMaps(namespace)
	o := options(t, publisher(t).URL)
	o.DeniedCertificates = namespace + "/denied-certificates"
	if err := o.Validate(); err != nil {
		t.Fatal(err)
	}
	log := &leaktest.Log{}
	s := running(t, o, log)
	create(t, c, application("denied-shop", nil))
	create(t, c, application("spared-shop", nil))
	eventually(t, "both are known, without a ConfigMap", func() bool {
		return sendHash(t, s, "denied-shop", strings.Repeat("a", 64)) == 204 && sendHash(t, s, "spared-shop", strings.Repeat("b", 64)) == 204
	})
	other := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "another"}, Data: map[string]string{"list": "sha256 " + strings.Repeat("b", 64)}}
	list := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "denied-certificates"}, Data: map[string]string{"list": "nonsense\nsha256 " + strings.Repeat("a", 64)}}
	for _, m := range []*corev1.ConfigMap{other, list} {
		if _, err := maps.Create(t.Context(), m, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "denied", func() bool { return sendHash(t, s, "denied-shop", strings.Repeat("a", 64)) == 403 })
	if got := sendHash(t, s, "denied-shop", strings.Repeat("c", 64)); got != 204 {
		t.Errorf("the Application's new certificate: %d", got)
	}
	if got := sendHash(t, s, "spared-shop", strings.Repeat("b", 64)); got != 204 {
		t.Errorf("a certificate on another list: %d", got)
	}
	eventually(t, "the broken line is named", func() bool {
		return strings.Contains(log.String(), `"key":"list","line":1,"reason":"must begin with`)
	})
	list.Data["list"] = "# none"
	if _, err := maps.Update(t.Context(), list, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "believed again", func() bool { return sendHash(t, s, "denied-shop", strings.Repeat("a", 64)) == 204 })
	list.Data["list"] = "sha256 " + strings.Repeat("a", 64)
	if _, err := maps.Update(t.Context(), list, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "denied again", func() bool { return sendHash(t, s, "denied-shop", strings.Repeat("a", 64)) == 403 })
	if err := maps.Delete(t.Context(), "denied-certificates", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "believed without a ConfigMap", func() bool { return sendHash(t, s, "denied-shop", strings.Repeat("a", 64)) == 204 })
}

func TestNobodyIsBelievedBeforeTheListIsRead(t *testing.T) {
	noLeaks(t)
	// An account that may see Applications, but not the ConfigMap.
	o := options(t, publisher(t).URL)
	o.Kubeconfig = limitedKubeconfig(t)
	namespace := kubetest.Namespace(t, &cluster)
	o.DeniedCertificates = namespace + "/denied-certificates"
	s := running(t, o, io.Discard)
	create(t, kube(t), application("early-shop", nil))
	eventually(t, "Applications are loaded, and the ConfigMap is not", func() bool {
		return body(t, s.AdminAddr(), "/readyz") == "denied certificates are not loaded yet\n"
	})
	if got := send(t, s, "early-shop", "early-shop"); got != 503 {
		t.Errorf("got %d", got)
	}
	allow(t, namespace)
	eventually(t, "a Role for the one ConfigMap is enough", func() bool { return send(t, s, "early-shop", "early-shop") == 204 })
}

// allow lets the limited user watch the ConfigMap of denied certificates in a namespace, and nothing else there.
func allow(t *testing.T, namespace string) {
	t.Helper()
	set, err := kubernetes.NewForConfig(&cluster)
	if err != nil {
		t.Fatal(err)
	}
	name := metav1.ObjectMeta{Name: "denied-certificates"}
	role := &rbacv1.Role{ObjectMeta: name, Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{name.Name}, Verbs: []string{"get", "list", "watch"}}}}
	if _, err := set.RbacV1().Roles(namespace).Create(t.Context(), role, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	binding := &rbacv1.RoleBinding{
		ObjectMeta: name, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name.Name},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "limited"}},
	}
	if _, err := set.RbacV1().RoleBindings(namespace).Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// limitedKubeconfig is that of a user who may watch Applications and nothing else.
func limitedKubeconfig(t *testing.T) string {
	t.Helper()
	set, err := kubernetes.NewForConfig(&cluster)
	if err != nil {
		t.Fatal(err)
	}
	rbac := set.RbacV1()
	name := metav1.ObjectMeta{Name: "test-applications-only"}
	role := &rbacv1.ClusterRole{ObjectMeta: name, Rules: []rbacv1.PolicyRule{{APIGroups: []string{v1alpha1.GroupVersion.Group}, Resources: []string{"applications"}, Verbs: []string{"get", "list", "watch"}}}}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: name, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name.Name},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "limited"}},
	}
	if _, err := rbac.ClusterRoles().Create(t.Context(), role, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := rbac.ClusterRoleBindings().Create(t.Context(), binding, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(rbac.ClusterRoleBindings().Delete(context.Background(), name.Name, metav1.DeleteOptions{}), rbac.ClusterRoles().Delete(context.Background(), name.Name, metav1.DeleteOptions{})); err != nil {
			t.Error(err)
		}
	})
	file, err := kubetest.Kubeconfig(&cluster, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.LoadFromFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, user := range config.AuthInfos {
		user.Impersonate = "limited"
	}
	if err := clientcmd.WriteToFile(*config, file); err != nil {
		t.Fatal(err)
	}
	return file
}

func body(t *testing.T, addr net.Addr, path string) string {
	t.Helper()
	r, err := http.Get(fmt.Sprintf("http://%s%s", addr, path))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

package gateway_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/gateway"
)

func TestEachExampleInTheDocumentationCanBeCalled(t *testing.T) {
	files, err := filepath.Glob("../docs/examples/application-*.yaml")
	if err != nil || len(files) < 8 {
		t.Fatalf("%d examples, %v", len(files), err)
	}
	s := startSystems(t)
	h := start(t)
	pem := certificatePair(t, s, "example")
	pem["ca.crt"] = string(s.CA())
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			documents := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
			var app v1alpha1.Application
			for {
				var raw map[string]any
				if err := documents.Decode(&raw); errors.Is(err, io.EOF) {
					break
				} else if err != nil {
					t.Fatal(err)
				}
				switch raw["kind"] {
				case "Secret":
					name, _ := raw["metadata"].(map[string]any)["name"].(string)
					data := map[string]string{}
					for k, v := range raw["stringData"].(map[string]any) {
						data[k] = v.(string)
						if example, placeholder := pem[k]; placeholder {
							data[k] = example
						}
					}
					h.secret(name, data)
				case "Application":
					part, err := os.ReadFile(file)
					if err != nil {
						t.Fatal(err)
					}
					if err := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(part), 4096).Decode(&app); err != nil {
						t.Fatal(err)
					}
				default:
					t.Fatalf("kind %v", raw["kind"])
				}
			}
			if app.Name == "" {
				t.Fatal("the example does not begin with an Application")
			}
			// The Secret of an example that another one describes.
			if strings.Contains(string(text), "shop-orders") {
				h.secret("shop-orders", map[string]string{"username": "tech-user", "password": "s3cret"})
			}
			h.condition(h.application(app.Name, app.Spec), "Ready")
		})
	}
}

func TestTheRightsOnTheReferencePageSuffice(t *testing.T) {
	page, err := os.ReadFile("../docs/reference/gateway.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(page), "\n## Rights\n")
	groups := map[string]string{"applications": v1alpha1.GroupVersion.Group, "applications/status": v1alpha1.GroupVersion.Group, "secrets": "", "leases": "coordination.k8s.io"}
	var wide, namespaced []rbacv1.PolicyRule
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z/]+)` \\| ([^|]+) \\| ([^|]+) \\|").FindAllStringSubmatch(text, -1) {
		rule := rbacv1.PolicyRule{APIGroups: []string{groups[row[1]]}, Resources: []string{row[1]}}
		for _, verb := range regexp.MustCompile("`([a-z]+)`").FindAllStringSubmatch(row[3], -1) {
			rule.Verbs = append(rule.Verbs, verb[1])
		}
		if row[2] == "cluster" {
			wide = append(wide, rule)
		} else {
			namespaced = append(namespaced, rule)
		}
	}
	if len(wide) != 2 || len(namespaced) != 2 {
		t.Fatalf("%v %v", wide, namespaced)
	}
	h := restricted(t, wide, namespaced)
	h.run()
	h.eventually("the gateway is ready", h.gateway.Ready)
	s := startSystems(t)
	h.secret("s", map[string]string{"username": "user", "password": s.Credentials().Password.Reveal()})
	app := h.application("least-rights", v1alpha1.ApplicationSpec{Services: []v1alpha1.Service{api("svc", s.HTTPURL()+"/v1/api/basic/ok", with("Basic", "s", ""))}})
	h.condition(app, "Ready")
	if a := h.get("/least-rights/svc"); a.Status != http.StatusOK {
		t.Errorf("%+v", a)
	}
	if log := h.log.String(); strings.Contains(log, "forbidden") {
		t.Error(log)
	}
}

// restricted makes a gateway, which does not run yet, whose user may do this and no more.
func restricted(t *testing.T, wide, namespaced []rbacv1.PolicyRule) *harness {
	t.Helper()
	h := prepare(t, func(o *gateway.Options) {
		config := rest.CopyConfig(o.Config)
		config.Impersonate = rest.ImpersonationConfig{UserName: "gateway-" + o.SecretsNamespace}
		o.Config = config
	})
	clientset, err := kubernetes.NewForConfig(&cluster)
	if err != nil {
		t.Fatal(err)
	}
	ctx, meta := context.Background(), metav1.ObjectMeta{Name: "gateway-" + h.namespace}
	subject := []rbacv1.Subject{{Kind: "User", APIGroup: rbacv1.GroupName, Name: meta.Name}}
	create := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err = clientset.RbacV1().ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: meta, Rules: wide}, metav1.CreateOptions{})
	create(err)
	_, err = clientset.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{ObjectMeta: meta, Subjects: subject, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: meta.Name}}, metav1.CreateOptions{})
	create(err)
	_, err = clientset.RbacV1().Roles(h.namespace).Create(ctx, &rbacv1.Role{ObjectMeta: meta, Rules: namespaced}, metav1.CreateOptions{})
	create(err)
	_, err = clientset.RbacV1().RoleBindings(h.namespace).Create(ctx, &rbacv1.RoleBinding{ObjectMeta: meta, Subjects: subject, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: meta.Name}}, metav1.CreateOptions{})
	create(err)
	t.Cleanup(func() {
		for _, err := range []error{
			clientset.RbacV1().ClusterRoleBindings().Delete(ctx, meta.Name, metav1.DeleteOptions{}),
			clientset.RbacV1().ClusterRoles().Delete(ctx, meta.Name, metav1.DeleteOptions{}),
		} {
			if err != nil {
				t.Error(err)
			}
		}
	})
	return h
}

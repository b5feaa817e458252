package rights

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func TestRightsAreThoseOfAllRolesThatAreBoundToTheAccount(t *testing.T) {
	meta := func(namespace, name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: namespace, Name: name}
	}
	mine := []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "home", Name: "me"}}
	others := []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "away", Name: "me"}}
	cluster := fake.NewClientset(
		&rbacv1.ClusterRole{ObjectMeta: meta("", "reader"), Rules: []rbacv1.PolicyRule{{APIGroups: []string{"g"}, Resources: []string{"things", "things/status"}, Verbs: []string{"get", "list"}}}},
		&rbacv1.Role{ObjectMeta: meta("n", "writer"), Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"secrets"}, ResourceNames: []string{"a", "b"}, Verbs: []string{"patch"}}}},
		&rbacv1.ClusterRole{ObjectMeta: meta("", "all"), Rules: []rbacv1.PolicyRule{{APIGroups: []string{"*"}, Resources: []string{"*"}, Verbs: []string{"*"}}}},
		&rbacv1.ClusterRoleBinding{ObjectMeta: meta("", "reader"), RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "reader"}, Subjects: mine},
		&rbacv1.RoleBinding{ObjectMeta: meta("n", "writer"), RoleRef: rbacv1.RoleRef{Kind: "Role", Name: "writer"}, Subjects: mine},
		&rbacv1.ClusterRoleBinding{ObjectMeta: meta("", "all"), RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: "all"}, Subjects: others},
	)
	for _, c := range []struct {
		roles []string
		want  string
	}{
		{nil, "get things.g everywhere, get things/status.g everywhere, list things.g everywhere, list things/status.g everywhere, patch secrets a in n, patch secrets b in n"},
		{[]string{"writer"}, "patch secrets a in n, patch secrets b in n"},
	} {
		found, err := Granted(t.Context(), cluster, Account{"home", "me"}, c.roles...)
		if err != nil {
			t.Fatal(err)
		}
		if got := join(found); got != c.want {
			t.Errorf("%v: %s\nwant %s", c.roles, got, c.want)
		}
	}
}

func TestAWitnessTellsWhichRightsRequestsNeededAndWhatWasRefused(t *testing.T) {
	log := filepath.Join(t.TempDir(), "audit")
	write := func(text string) {
		file, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		if _, err := file.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	event := func(user, verb, object, code, decision string) string {
		return `{"verb":"` + verb + `","user":{"username":"system:serviceaccount:home:` + user + `"},"objectRef":{"apiGroup":"g",` + object + `},"responseStatus":{"code":` + code +
			`,"message":"m"},"annotations":{"authorization.k8s.io/decision":"` + decision + `"}}` + "\n"
	}
	write(event("me", "delete", `"resource":"things","name":"early"`, "200", "allow"))
	w, err := NewWitness(log)
	if err != nil {
		t.Fatal(err)
	}
	write(event("me", "get", `"resource":"things","name":"a"`, "404", "allow") +
		event("me", "patch", `"resource":"things","namespace":"n","name":"a","subresource":"status"`, "200", "allow") +
		event("me", "patch", `"resource":"things","namespace":"n","name":"new"`, "201", "allow") +
		event("me", "list", `"resource":"things"`, "403", "forbid") +
		event("me", "update", `"resource":"things","namespace":"n","name":"a"`, "403", "allow") +
		event("you", "watch", `"resource":"things"`, "200", "allow") + `{"verb":"half of an ev`)
	me := Account{"home", "me"}
	_, refused, err := w.Requests(me)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"list things.g everywhere: m", "update things.g a in n: m"}, refused); diff != "" {
		t.Errorf("refused (-want +got):\n%s", diff)
	}
	all := []Right{
		{"get", "g", "things", "", ""}, {"get", "g", "things", "", "a"}, {"patch", "g", "things/status", "n", ""}, {"patch", "g", "things", "n", "new"},
		{"create", "g", "things", "n", "new"}, // needed until here
		{"get", "g", "things", "", "b"}, {"get", "", "things", "", ""}, {"patch", "g", "things/status", "other", ""}, {"create", "g", "things", "n", "a"},
		{"list", "g", "things", "", ""}, {"watch", "g", "things", "", ""}, {"delete", "g", "things", "", ""}, {"update", "g", "things", "", ""},
	}
	unused, err := w.Unused(me, all)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(all[5:], unused); diff != "" {
		t.Errorf("unused (-want +got):\n%s", diff)
	}
}

func join(rights []Right) string {
	text := ""
	for i, r := range rights {
		if i > 0 {
			text += ", "
		}
		text += r.String()
	}
	return text
}

// Package rights compares what service accounts may do in a cluster with what they ask for, by the API server's audit log. It
// knows neither who they are nor what their work is.
package rights

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Right is a verb for a resource, everywhere or in a namespace, for all objects or for one. A subresource follows its resource
// and a slash.
type Right struct {
	Verb, Group, Resource, Namespace, Name string
}

// String is such as "patch applications/status.example.com shop everywhere".
func (r Right) String() string {
	words := []string{r.Verb, strings.TrimSuffix(r.Resource+"."+r.Group, ".")}
	if r.Name != "" {
		words = append(words, r.Name)
	}
	if r.Namespace == "" {
		return strings.Join(append(words, "everywhere"), " ")
	}
	return strings.Join(append(words, "in", r.Namespace), " ")
}

func (r Right) covers(request Right) bool {
	return r.Verb == request.Verb && r.Group == request.Group && r.Resource == request.Resource &&
		(r.Namespace == "" || r.Namespace == request.Namespace) && (r.Name == "" || r.Name == request.Name)
}

// Account is a service account.
type Account struct {
	Namespace, Name string
}

// Granted gives the rights of an account by the roles that are bound to it, those named alone if any are.
func Granted(ctx context.Context, cluster kubernetes.Interface, account Account, roles ...string) ([]Right, error) {
	all := map[Right]bool{}
	bound := func(ref rbacv1.RoleRef, subjects []rbacv1.Subject, namespace string) error {
		is := rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: account.Namespace, Name: account.Name}
		if !slices.Contains(subjects, is) || len(roles) > 0 && !slices.Contains(roles, ref.Name) {
			return nil
		}
		rules, err := rulesOf(ctx, cluster, ref, namespace)
		for _, rule := range rules {
			add(all, rule, namespace)
		}
		return err
	}
	everywhere, err := cluster.RbacV1().ClusterRoleBindings().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	for _, b := range everywhere.Items {
		if err := bound(b.RoleRef, b.Subjects, ""); err != nil {
			return nil, err
		}
	}
	somewhere, err := cluster.RbacV1().RoleBindings("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	for _, b := range somewhere.Items {
		if err := bound(b.RoleRef, b.Subjects, b.Namespace); err != nil {
			return nil, err
		}
	}
	return slices.SortedFunc(maps.Keys(all), func(a, b Right) int { return strings.Compare(a.String(), b.String()) }), nil
}

func rulesOf(ctx context.Context, cluster kubernetes.Interface, ref rbacv1.RoleRef, namespace string) ([]rbacv1.PolicyRule, error) {
	if ref.Kind == "ClusterRole" {
		role, err := cluster.RbacV1().ClusterRoles().Get(ctx, ref.Name, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		return role.Rules, nil
	}
	role, err := cluster.RbacV1().Roles(namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	return role.Rules, nil
}

func add(to map[Right]bool, rule rbacv1.PolicyRule, namespace string) {
	names := rule.ResourceNames
	if len(names) == 0 {
		names = []string{""}
	}
	for _, verb := range rule.Verbs {
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				for _, name := range names {
					to[Right{verb, group, resource, namespace, name}] = true
				}
			}
		}
	}
}

// Witness reads in an audit log what was asked for since it began.
type Witness struct {
	log  string
	from int64
}

// NewWitness begins at the present end of the audit log, a file as localkube writes it.
func NewWitness(log string) (*Witness, error) {
	info, err := os.Stat(log)
	if err != nil {
		return nil, err
	}
	return &Witness{log: log, from: info.Size()}, nil
}

// event is what matters of audit.k8s.io/v1 Event.
type event struct {
	Verb      string
	User      struct{ Username string }
	ObjectRef *struct {
		Resource, Namespace, Name, APIGroup, Subresource string
	}
	ResponseStatus *struct {
		Code    int
		Message string
	}
	Annotations map[string]string
}

// Requests are those of an account: the rights that it used, and, as text, what it was refused by authorization or admission.
func (w *Witness) Requests(account Account) (used map[Right]bool, refused []string, err error) {
	file, err := os.Open(w.log)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	if _, err := file.Seek(w.from, io.SeekStart); err != nil {
		return nil, nil, err
	}
	text, err := io.ReadAll(file)
	if err != nil {
		return nil, nil, err
	}
	used = map[Right]bool{}
	whole := text[:bytes.LastIndexByte(text, '\n')+1] // what follows is being written
	for line := range bytes.Lines(whole) {
		var e event
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", w.log, err)
		}
		if e.User.Username != "system:serviceaccount:"+account.Namespace+":"+account.Name || e.ObjectRef == nil {
			continue
		}
		right := Right{e.Verb, e.ObjectRef.APIGroup, e.ObjectRef.Resource, e.ObjectRef.Namespace, e.ObjectRef.Name}
		if e.ObjectRef.Subresource != "" {
			right.Resource += "/" + e.ObjectRef.Subresource
		}
		if e.ResponseStatus == nil {
			return nil, nil, fmt.Errorf("%s: an event of %s without an answer: %s", w.log, account.Name, line)
		}
		if e.Annotations["authorization.k8s.io/decision"] != "allow" || e.ResponseStatus.Code == http.StatusForbidden {
			refused = append(refused, right.String()+": "+e.ResponseStatus.Message)
			continue
		}
		used[right] = true
		if right.Verb == "patch" && e.ResponseStatus.Code == http.StatusCreated {
			right.Verb = "create" // server-side apply of what is not there asks for both
			used[right] = true
		}
	}
	return used, refused, nil
}

// Unused are those of the rights that no request of the account needed.
func (w *Witness) Unused(account Account, rights []Right) ([]Right, error) {
	used, _, err := w.Requests(account)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(rights), func(r Right) bool {
		for request := range used {
			if r.covers(request) {
				return true
			}
		}
		return false
	}), nil
}

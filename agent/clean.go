package agent

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	applicationv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
)

// cleaner deletes what package sync wrote: the Applications that it manages, and the Secrets that belong to them.
type cleaner struct {
	writer    client.Client
	reader    client.Reader
	namespace string
	// forget keeps what is deleted from being repaired.
	forget func()
}

// Clean deletes the Secrets before the Applications: those that are left after a failure are found again by their owners.
func (c cleaner) Clean(ctx context.Context) error {
	c.forget()
	var applications applicationv1alpha1.ApplicationList
	managed := client.MatchingLabels{applicationv1alpha1.ManagedByLabel: applicationv1alpha1.ManagedByAgent}
	if err := c.reader.List(ctx, &applications, managed); err != nil {
		return fmt.Errorf("listing Applications: %w", err)
	}
	ours := map[types.UID]bool{}
	for _, app := range applications.Items {
		ours[app.UID] = true
	}
	var secrets corev1.SecretList
	if err := c.reader.List(ctx, &secrets, client.InNamespace(c.namespace), client.HasLabels{"app", "bundleId"}); err != nil {
		return fmt.Errorf("listing Secrets in namespace %s: %w", c.namespace, err)
	}
	for i := range secrets.Items {
		s := &secrets.Items[i]
		if len(s.OwnerReferences) != 1 || !ours[s.OwnerReferences[0].UID] {
			continue
		}
		if err := c.writer.Delete(ctx, s, client.Preconditions{UID: &s.UID}); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("deleting Secret %s/%s: %w", s.Namespace, s.Name, err)
		}
	}
	for i := range applications.Items {
		app := &applications.Items[i]
		if err := c.writer.Delete(ctx, app, client.Preconditions{UID: &app.UID}); client.IgnoreNotFound(err) != nil {
			return fmt.Errorf("deleting Application %s: %w", app.Name, err)
		}
	}
	return nil
}

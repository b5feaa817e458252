package up

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	appv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
)

// writeToken writes the Secret that tells the agent where Compass is. A cluster that is connected already, from an
// earlier run with the same state, needs no token.
func (w *world) writeToken(ctx context.Context) error {
	c := &compassv1alpha1.CompassConnection{}
	err := w.cluster.Get(ctx, client.ObjectKey{Name: compassv1alpha1.ConnectionName}, c)
	if err == nil && meta.IsStatusConditionTrue(c.Status.Conditions, compassv1alpha1.ConditionConnected) {
		return nil
	}
	connector, token, runtime, tenant := w.ConnectorURL, w.Token, w.RuntimeID, w.Tenant
	if connector == "" {
		runtime, tenant = simulatedRuntime, simulatedTenant
		if connector, token, err = w.runtimeToken(runtime); err != nil {
			return err
		}
	}
	return writeSecret(ctx, w.cluster, systemNamespace, configurationSecret, corev1.SecretTypeOpaque, map[string][]byte{
		"CONNECTOR_URL": []byte(connector), "TOKEN": []byte(token.Reveal()), "RUNTIME_ID": []byte(runtime), "TENANT": []byte(tenant),
	})
}

// waitSynchronized waits until the agent says that everything is in place. It gives up as soon as the agent says that
// Compass refused the token, or cannot be reached.
func (w *world) waitSynchronized(ctx context.Context) error {
	return until(ctx, func() error {
		c := &compassv1alpha1.CompassConnection{}
		if err := w.cluster.Get(ctx, client.ObjectKey{Name: compassv1alpha1.ConnectionName}, c); err != nil {
			return w.orFailed(err)
		}
		if meta.IsStatusConditionTrue(c.Status.Conditions, compassv1alpha1.ConditionReady) && c.Status.State == compassv1alpha1.Synchronized {
			return nil
		}
		message := string(c.Status.State)
		if c.Status.ConnectionStatus != nil && c.Status.ConnectionStatus.Error != "" {
			message += ": " + c.Status.ConnectionStatus.Error
		}
		if c.Status.State == compassv1alpha1.ConnectionFailed {
			return finalError{errors.New(message)}
		}
		return w.orFailed(fmt.Errorf("the agent reports %s", message))
	})
}

// orFailed ends waiting when a program has ended by itself.
func (w *world) orFailed(err error) error {
	select {
	case failed := <-w.supervisor.failed:
		return finalError{failed}
	default:
		return err
	}
}

// waitAnswering waits until each listener that the tour uses is ready.
func (w *world) waitAnswering(ctx context.Context) error {
	for _, url := range []string{
		"http://" + address(w.ports.GatewayAdmin) + "/readyz",
		"http://" + address(w.ports.ValidatorAdmin) + "/readyz",
		"http://" + address(w.ports.AgentHealth) + "/readyz",
	} {
		if err := until(ctx, func() error {
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
			if err != nil {
				return err
			}
			return w.orFailed(succeed(http.DefaultClient, r))
		}); err != nil {
			return fmt.Errorf("%s: %w", url, err)
		}
	}
	names := []string{"warehouse"}
	if w.ConnectorURL == "" {
		names = append(names, "mp-shop", "mp-crm")
	}
	for _, name := range names {
		if err := until(ctx, func() error {
			a := &appv1alpha1.Application{}
			if err := w.cluster.Get(ctx, client.ObjectKey{Name: name}, a); err != nil {
				return w.orFailed(err)
			}
			if c := meta.FindStatusCondition(a.Status.Conditions, appv1alpha1.ConditionRoutesReady); c == nil || c.Status != "True" {
				return w.orFailed(fmt.Errorf("the gateway does not say yet that the APIs of %s can be called: %+v", name, c))
			}
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

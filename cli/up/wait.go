package up

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
)

// writeToken writes the Secret that tells the agent where Compass is. A cluster that is connected already, from an
// earlier run with the same state, needs no token.
func (w *world) writeToken(ctx context.Context) error {
	w.began = time.Now().Truncate(time.Second)
	c := &compassv1alpha1.CompassConnection{}
	err := w.cluster.Get(ctx, client.ObjectKey{Name: compassv1alpha1.ConnectionName}, c)
	if err == nil && meta.IsStatusConditionTrue(c.Status.Conditions, compassv1alpha1.ConditionConnected) {
		return w.askForSync(ctx, c)
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
		sync := c.Status.SynchronizationStatus
		fresh := sync != nil && !sync.LastSuccessfulApplication.Time.Before(w.began) && !c.Spec.ResyncNow
		if fresh && c.Status.State == compassv1alpha1.Synchronized && meta.IsStatusConditionTrue(c.Status.Conditions, compassv1alpha1.ConditionReady) {
			return nil
		}
		message := string(c.Status.State)
		if c.Status.ConnectionStatus != nil && c.Status.ConnectionStatus.Error != "" {
			message += ": " + c.Status.ConnectionStatus.Error
		}
		if s := c.Status.ConnectionStatus; c.Status.State == compassv1alpha1.ConnectionFailed && s != nil && !s.LastSync.Time.Before(w.began) {
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

// askForSync asks the agent for a sync at once: nobody wants to wait for the next one that is due.
func (w *world) askForSync(ctx context.Context, c *compassv1alpha1.CompassConnection) error {
	asked := c.DeepCopy()
	asked.Spec.ResyncNow = true
	return w.cluster.Patch(ctx, asked, client.MergeFrom(c))
}

// waitAnswering waits until each listener that the tour uses is ready, and a call gets through.
func (w *world) waitAnswering(ctx context.Context) error {
	for _, url := range []string{
		"http://" + address(w.ports.GatewayAdmin) + "/readyz",
		"http://" + address(w.ports.ValidatorAdmin) + "/readyz",
		"http://" + address(w.ports.AgentHealth) + "/readyz",
	} {
		if err := until(ctx, func() error { return w.orFailed(get(ctx, url)) }); err != nil {
			return fmt.Errorf("%s: %w", url, err)
		}
	}
	if err := w.edge.WaitReady(ctx); err != nil {
		return err
	}
	calls := []string{"http://" + address(w.ports.Gateway) + "/warehouse/stock"}
	if w.ConnectorURL == "" {
		calls = append(calls, "http://"+address(w.ports.GatewayCompass)+"/mp-shop/orders/orders", "http://"+address(w.ports.GatewayCompass)+"/mp-crm/contacts/contacts")
	}
	for _, url := range calls {
		if err := until(ctx, func() error { return w.orFailed(get(ctx, url)) }); err != nil {
			return fmt.Errorf("%s: %w", url, err)
		}
	}
	return nil
}

func get(ctx context.Context, url string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	return succeed(direct, r)
}

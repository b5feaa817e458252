package onboard

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/cli/onboard/enrolment"
	"github.com/application-connector/application-connector/graphql/director"
)

// Onboard registers the cluster, gives it a token, and waits until the agent has connected it.
func (o *Options) Onboard(ctx context.Context) error {
	s, end, err := o.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	found, err := s.Find(ctx, s.uid)
	if err != nil {
		return err
	}
	connection, err := s.Connection(ctx)
	if err != nil {
		return err
	}
	secret, err := s.ConfigurationSecret(ctx)
	if err != nil {
		return err
	}
	standing, err := s.Standing(ctx, connection, secret)
	if err != nil {
		return err
	}
	other, err := s.other(ctx, found, secret)
	switch {
	case err != nil:
		return err
	case other != "" && standing.Paired && found == nil:
		s.say("the cluster is paired as runtime %s, which was registered otherwise: it is left as it is", other)
		return nil
	case other != "":
		return fmt.Errorf("Secret %s names runtime %s, which was registered otherwise: set its label %s to %s in Compass, which takes it over, or delete the Secret, which gives the cluster up for that runtime",
			s.configuration, other, Label, s.uid)
	}
	id, err := s.register(ctx, found)
	if err != nil {
		return err
	}
	same := secret != nil && id != "" && enrolment.RuntimeID(secret) == id
	switch {
	case same && standing.Connected:
		s.say("the cluster is connected: nothing to do")
		return nil
	case same && standing.Paired:
		s.say("the cluster is paired, and its last call to Compass failed: it needs no token")
	case same && enrolment.Expires(secret).Sub(s.Clock.Now()) >= spare && !enrolment.Tried(connection, secret):
		s.say("Secret %s has a token that was not used yet, good until %s", s.configuration, secret.Annotations[AnnotationExpires])
	default:
		if err := s.giveToken(ctx, id); err != nil {
			return err
		}
	}
	if s.DryRun || s.Timeout == 0 {
		return nil
	}
	return s.wait(ctx)
}

// other gives the runtime that the configuration Secret names, if it is another one than that which was found, and there is one.
// That of another tenant cannot be looked at, so that it is an error.
func (s *session) other(ctx context.Context, found *director.RegisteredRuntime, configuration *corev1.Secret) (string, error) {
	id := enrolment.RuntimeID(configuration)
	if id == "" || found != nil && found.ID == id {
		return "", nil
	}
	if tenant := enrolment.Tenant(configuration); tenant != "" && tenant != s.Options.Tenant {
		return "", fmt.Errorf("--tenant=%s: Secret %s is of tenant %q, in which the cluster may be registered: name that one, or delete the Secret", s.Options.Tenant, s.configuration, tenant)
	}
	exists, err := s.Exists(ctx, id)
	if err != nil || !exists {
		return "", err
	}
	return id, nil
}

func (s *session) giveToken(ctx context.Context, id string) error {
	if s.would("request a one-time token and write it into Secret %s", s.configuration) {
		return nil
	}
	identities, err := s.Identities(ctx, id)
	if err != nil {
		return err
	}
	expires, err := s.GiveToken(ctx, id, identities)
	if err != nil {
		return err
	}
	s.say("Secret %s written, with a token that is good until %s", s.configuration, expires.UTC().Format(time.RFC3339))
	return nil
}

// Offboard removes the runtime and the configuration Secret.
func (o *Options) Offboard(ctx context.Context) error {
	s, end, err := o.begin(ctx)
	if err != nil {
		return err
	}
	defer end()
	found, err := s.Find(ctx, s.uid)
	if err != nil {
		return err
	}
	secret, err := s.ConfigurationSecret(ctx)
	if err != nil {
		return err
	}
	other, err := s.other(ctx, found, secret)
	if err != nil {
		return err
	}
	if other != "" {
		return fmt.Errorf("Secret %s names runtime %s, which was registered otherwise: nothing is removed; unregister it in Compass, and run this again", s.configuration, other)
	}
	switch {
	case found == nil:
		s.say("this cluster is not registered")
	case s.would("unregister runtime %s (%s)", found.Name, found.ID):
	default:
		if err := s.Unregister(ctx, found.ID); err != nil {
			return err
		}
		s.say("runtime %s (%s) unregistered", found.Name, found.ID)
	}
	if s.would("delete Secret %s", s.configuration) {
		return nil
	}
	if err := s.DeleteConfiguration(ctx); err != nil {
		return err
	}
	s.say("Secret %s is deleted", s.configuration)
	return nil
}

// wait waits until the agent has connected the cluster, and says meanwhile what keeps it.
func (s *session) wait(ctx context.Context) error {
	whole := ctx
	ctx, cancel := context.WithTimeout(whole, s.Timeout)
	defer cancel()
	last := ""
	for {
		c, err := s.Connection(ctx)
		var configuration *corev1.Secret
		if err == nil {
			configuration, err = s.ConfigurationSecret(ctx)
		}
		var standing enrolment.Standing
		if err == nil {
			standing, err = s.Standing(ctx, c, configuration)
		}
		if err == nil && standing.Connected {
			s.say("the cluster is connected")
			return nil
		}
		state := "the agent has not begun; it may not be installed"
		switch {
		case err != nil: // the cluster may answer again
			state = err.Error()
		case c != nil:
			state = string(c.Status.State)
			for _, kind := range []string{compassv1alpha1.ConditionStalled, compassv1alpha1.ConditionConnected, compassv1alpha1.ConditionReady} {
				if found := meta.FindStatusCondition(c.Status.Conditions, kind); found != nil && found.Message != "" {
					state = found.Message
					break
				}
			}
		}
		if ctx.Err() == nil && state != last {
			s.say("waiting: %s", state)
			last = state
		}
		select {
		case <-ctx.Done():
			if whole.Err() != nil { // somebody has ended it
				return fmt.Errorf("not connected yet: %s; run this again to go on", state)
			}
			return fmt.Errorf("not connected after %s: %s; run this again to go on", s.Timeout, state)
		case <-s.Clock.After(time.Second):
		}
	}
}

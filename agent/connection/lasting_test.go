package connection_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/application-connector/application-connector/agent/connection"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/graphql"
	"github.com/application-connector/application-connector/graphql/director"
	"github.com/application-connector/application-connector/secret"
)

func TestACertificateOfMinutesIsRenewedAlthoughSyncsFailAndRenewalsFailForAWhile(t *testing.T) {
	w := newMemoryWorld(t)
	w.compass.life = 4 * time.Minute
	w.r.Schedule.Random = func() float64 { return 0.999 } // the longest waiting time
	w.compass.fail("snapshot", &graphql.Error{Kind: graphql.Unreachable})
	w.step()
	renewed := 0
	for began := w.clock.Now(); w.clock.Now().Sub(began) < time.Hour; {
		before := w.clock.Now()
		c := w.next()
		if waited := w.clock.Now().Sub(before); waited < 15*time.Second {
			t.Fatalf("waited %s, less than the floor", waited)
		}
		certificate := c.Status.ConnectionStatus.CertificateStatus
		if !w.clock.Now().Before(certificate.NotAfter.Time) {
			t.Fatalf("the certificate ended at %s, and it is %s", certificate.NotAfter, w.clock.Now())
		}
		signed := strings.Count(strings.Join(w.compass.called(), " "), "sign")
		if renewed += signed; signed > 0 { // the first try of the next renewal fails
			w.compass.fail("sign", &graphql.Error{Kind: graphql.Server})
		} else {
			w.compass.fail("sign", nil)
		}
	}
	if renewed < 15 {
		t.Errorf("%d renewals in an hour", renewed)
	}
}

func TestARenewalIsNotPutOffByThrottlingLessThanWasAskedFor(t *testing.T) {
	w := newMemoryWorld(t)
	w.compass.life = 4 * time.Minute
	w.step()
	w.compass.fail("snapshot", &graphql.Error{Kind: graphql.Throttled, RetryAfter: 10 * time.Minute})
	asked := w.next().Status.NextAttempt.Sub(w.clock.Now())
	if asked < 10*time.Minute {
		t.Errorf("the next attempt is in %s, and Compass asked for ten minutes", asked)
	}
}

func TestAnAuthorityThatEndsSoonPullsTheRenewalForward(t *testing.T) {
	w := newMemoryWorld(t)
	old := w.compass.rotate(5, 20*24*time.Hour)
	c := w.step()
	at := c.Status.ConnectionStatus.CertificateStatus.RenewAt.Time
	if at.After(old.NotAfter.Add(-5*24*time.Hour+time.Hour)) || at.Before(old.NotAfter.Add(-6*24*time.Hour-time.Hour)) {
		t.Fatalf("the renewal is at %s, and the authority ends at %s", at, old.NotAfter)
	}
	w.compass.rotate(6, 3650*24*time.Hour)
	w.clock.SetTime(at.Add(time.Minute))
	w.compass.called()
	c = w.step()
	w.calls("configuration", "sign", "trial", "snapshot", "label")
	if left := c.Status.ConnectionStatus.CertificateStatus.RenewAt.Sub(w.clock.Now()); left < 60*24*time.Hour {
		t.Errorf("the next renewal is in %s", left)
	}
}

func TestWhiteSpaceAroundAValueOfTheConfigurationIsNoPartOfIt(t *testing.T) {
	w := newMemoryWorld(t)
	w.compass.runtime = func() string { return "runtime" }
	w.register("runtime\n", " tenant\r\n", "t1\n")
	w.state(w.step(), compassv1alpha1.Synchronized, "")
	if got := w.compass.sent[0]; got != secret.Value("t1") {
		t.Error("the token was sent with its newline")
	}
	w.says(map[string]string{"runtime-id": "runtime", "tenant": "tenant", "token-connector-url": "https://token", "applied-runtime": "tenant/runtime"})
}

// hanging is a cluster that takes nothing for as long as it is waited for.
type hanging struct{}

func (hanging) Sync(ctx context.Context, _ director.Snapshot) (connection.Result, error) {
	<-ctx.Done()
	return connection.Result{}, ctx.Err()
}

func TestWhatBecameOfAnAttemptIsToldAlsoIfItTookAllOfItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.r.Syncer = hanging{}
		began := time.Now()
		w.state(w.step(), compassv1alpha1.ResourceApplicationFailed, "context deadline exceeded")
		if took := time.Since(began); took != 10*time.Minute {
			t.Errorf("it took %s", took)
		}
	})
}

func TestWhoLeftCompassShowsNoConditionsAnyMore(t *testing.T) {
	w := newWorld(t)
	w.step()
	shown := func() (names []string) {
		families, err := w.registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "compass_runtime_agent_condition" || strings.Contains(f.GetName(), "_certificate_") && f.GetMetric()[0].GetGauge().GetValue() != 0 {
				names = append(names, f.GetName())
			}
		}
		return names
	}
	if len(shown()) != 4 {
		t.Fatalf("%v", shown())
	}
	w.farewell(compassv1alpha1.FarewellRevoke)
	w.delete()
	w.gone()
	if got := shown(); len(got) != 0 {
		t.Errorf("still shown: %v", got)
	}
}

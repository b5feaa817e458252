package controller

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/application-connector/application-connector/agent/status"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/cli/onboard/enrolment"
)

// onboard brings a cluster a step on, and says when to look again.
func (a *attempt) onboard(ctx context.Context) (time.Duration, error) {
	if !a.Offboard { // any more
		if err := a.free(ctx, a.secret.DeepCopy()); err != nil {
			return 0, err
		}
		delete(a.secret.Annotations, AnnotationCluster)
		delete(a.secret.Annotations, AnnotationTenant)
	}
	cluster, end, err := a.reach()
	if err != nil {
		return 0, err
	}
	defer end()
	uid, err := cluster.UID(ctx)
	if err != nil {
		return 0, err
	}
	if owner := a.memory.claim(uid, a.name); owner != a.name {
		return 0, &failure{reason: ReasonClusterTwice, text: fmt.Sprintf("Secret %s leads to the same cluster, %s: delete one of them", owner, uid)}
	}
	if was := a.secret.Annotations[AnnotationCluster]; was != "" && was != uid {
		return 0, forGood(ReasonClusterChanged, "the kubeconfig led to cluster %s before, and leads to %s now: delete the Secret, which removes the former from Compass, and create another one", was, uid)
	}
	if was := a.secret.Annotations[AnnotationTenant]; was != "" && was != cluster.Tenant {
		return 0, forGood(ReasonClusterChanged, "the cluster was taken into tenant %s, and the Secret names %s now: delete the Secret, which removes the cluster from the former, and create another one", was, cluster.Tenant)
	}
	if a.told.cluster != uid {
		a.told.cluster, a.told.runtime = uid, ""
	}
	connection, err := cluster.Connection(ctx)
	if err != nil {
		return 0, err
	}
	configuration, err := cluster.ConfigurationSecret(ctx)
	if err != nil {
		return 0, err
	}
	// Whose the runtime is matters for what is done about it, and nothing is done about a cluster that is connected.
	as := enrolment.RuntimeID(configuration)
	standing, err := cluster.Standing(ctx, connection, configuration)
	if err != nil {
		return 0, err
	}
	paired := runtimeID.MatchString(as) && standing.Paired
	connected := paired && standing.Connected
	if connected && (!a.Offboard || a.bound()) {
		return a.connected(as), nil
	}
	director := a.Director(cluster.Tenant)
	found, err := cluster.Find(ctx, uid)
	if err != nil {
		return 0, err
	}
	id := ""
	if found != nil {
		id = found.ID
	} else if named := a.secret.Annotations[AnnotationAdopt]; named != "" && (!paired || as == named) {
		if err := a.identify(ctx, director, named, uid); err != nil {
			return 0, err
		}
		id = named
	}
	if id != "" {
		ours, err := a.ours(ctx, director, id)
		if err != nil {
			return 0, err
		}
		if !ours && connected {
			return a.connected(as), nil
		}
		if !ours {
			return 0, &failure{reason: ReasonRuntimeNotOurs, text: fmt.Sprintf(
				"runtime %s of this cluster was not registered for this Secret: annotate the Secret with %s=%s if it may be taken over, or unregister it", id, AnnotationAdopt, id)}
		}
	} else if connected {
		return a.connected(as), nil // as a runtime that was registered otherwise
	}
	if paired && as != id { // a call that failed is no reason to pair the cluster as another runtime, which sees nothing yet
		exists, err := cluster.Exists(ctx, as)
		if err != nil {
			return 0, err
		}
		if exists || enrolment.Tenant(configuration) != cluster.Tenant {
			a.told.runtime = as
			return a.waiting(ReasonPairing, "the cluster is paired as a runtime that was registered otherwise, and its agent does not ask for a token; its CompassConnection says how it goes on", time.Time{}, time.Time{}), nil
		}
	}
	if err := a.bind(ctx, uid); err != nil {
		return 0, err
	}
	if id == "" {
		name := cmp.Or(a.secret.Labels[LabelName], a.secret.Name)
		if id, err = cluster.Register(ctx, uid, name, "registered by appconn onboard controller", a.labels()); err != nil {
			return 0, err
		}
		a.Metrics.did(actionRegister)
		a.log.InfoContext(ctx, "a runtime is registered", "runtime", id, "name", name, "cluster", uid)
	}
	a.told.runtime, a.proven = id, uid
	if connected && as == id {
		return a.connected(id), nil
	}
	return a.pair(ctx, cluster, id, connection, configuration, standing)
}

// runtimeID is what a cluster may name as the id of its runtime to be shown.
var runtimeID = regexp.MustCompile(`^[0-9A-Za-z-]{1,64}$`)

// reach makes a client of the cluster, and what ends it.
func (a *attempt) reach() (*enrolment.Cluster, func(), error) {
	config, err := restConfig(a.secret.Data[a.Key], admission{insecure: a.Insecure, loopback: a.Loopback})
	if err != nil {
		return nil, nil, forGood(ReasonKubeconfigInvalid, "the kubeconfig in key %s cannot be used: %v", a.Key, err)
	}
	tenant, err := a.tenant()
	if err != nil {
		return nil, nil, err
	}
	a.told.unverified = config.Insecure
	if config.Insecure {
		a.log.Warn("the API server of this cluster is NOT verified: whoever is on the way gets the credentials of the kubeconfig, and the token for Compass", "server", config.Host)
	}
	kube, end, err := open(config, a.Timeout, admission{insecure: a.Insecure, loopback: a.Loopback})
	if err != nil {
		return nil, nil, forGood(ReasonKubeconfigInvalid, "no client can be made of the kubeconfig in key %s", a.Key)
	}
	return &enrolment.Cluster{Kube: kube, Director: a.Director(tenant), Configuration: a.Configuration, Certificate: a.Certificate, Tenant: tenant}, end, nil
}

func (a *attempt) tenant() (string, error) {
	tenant := cmp.Or(a.secret.Labels[LabelTenant], a.Tenant)
	if tenant == "" {
		return "", forGood(ReasonTenantMissing, "neither label %s of the Secret nor --tenant says the tenant", LabelTenant)
	}
	a.told.tenant = tenant
	return tenant, nil
}

// source is the value of LabelSource.
func (a *attempt) source() string { return a.name.String() }

func (a *attempt) labels() map[string]string {
	all := map[string]string{}
	for from, to := range RuntimeLabels {
		if value := a.secret.Labels[from]; value != "" {
			all[to] = value
		}
	}
	for key, value := range a.Labels {
		all[key] = value
	}
	all[LabelSource] = a.source()
	return all
}

// ours reports whether a runtime was registered for this Secret, or taken over for it. If the Secret says so it is taken over.
func (a *attempt) ours(ctx context.Context, director Director, id string) (bool, error) {
	labels, err := director.RuntimeLabels(ctx, id)
	if err != nil {
		return false, &enrolment.StepError{Step: "reading the labels of runtime " + id, Err: err}
	}
	if labels[LabelSource] == a.source() {
		return true, nil
	}
	if a.secret.Annotations[AnnotationAdopt] != id {
		return false, nil
	}
	if err := director.SetRuntimeLabel(ctx, id, LabelSource, a.source()); err != nil {
		return false, &enrolment.StepError{Step: "taking over runtime " + id, Err: err}
	}
	a.Metrics.did(actionAdopt)
	a.log.InfoContext(ctx, "a runtime is taken over", "runtime", id)
	return true, nil
}

// identify labels a runtime, which the Secret names, as that of the cluster: it was registered by what knows no such label.
func (a *attempt) identify(ctx context.Context, director Director, id, uid string) error {
	labels, err := director.RuntimeLabels(ctx, id)
	if err != nil {
		return &enrolment.StepError{Step: fmt.Sprintf("reading the labels of runtime %s, which annotation %s names", id, AnnotationAdopt), Err: err}
	}
	for key, right := range map[string]string{enrolment.Label: uid, LabelSource: a.source()} {
		if is, labelled := labels[key]; labelled && is != right {
			return &failure{reason: ReasonRuntimeNotOurs, text: fmt.Sprintf("runtime %s, which annotation %s names, is another's by its label %s: name the one of this cluster", id, AnnotationAdopt, key)}
		}
	}
	if err := director.SetRuntimeLabel(ctx, id, enrolment.Label, uid); err != nil {
		return &enrolment.StepError{Step: "labelling runtime " + id, Err: err}
	}
	return nil
}

// connected notes that nothing is to be done.
func (a *attempt) connected(id string) time.Duration {
	a.told.state, a.told.reason, a.told.message, a.told.runtime, a.told.expires = Connected, ReasonConnected, "", id, time.Time{}
	a.tokens, a.given, a.nextToken = 0, time.Time{}, time.Time{}
	return backoff(1, a.Resync, a.Resync) // not all at the same time
}

// waiting notes what the agent is waited for, and gives when to look again: at a time at the latest, if it is not zero.
func (a *attempt) waiting(reason Reason, text string, expires, at time.Time) time.Duration {
	a.told.state, a.told.reason, a.told.message, a.told.expires = Waiting, reason, text, expires
	again := backoff(1, a.Poll, a.Poll)
	if !at.IsZero() {
		again = min(again, at.Sub(a.Clock.Now()))
	}
	return max(again, time.Second)
}

// pair sees to it that the agent has a token as long as it needs one.
func (a *attempt) pair(ctx context.Context, cluster *enrolment.Cluster, id string, connection *compassv1alpha1.CompassConnection, configuration *corev1.Secret, standing enrolment.Standing) (time.Duration, error) {
	now, expires := a.Clock.Now(), enrolment.Expires(configuration)
	same := enrolment.RuntimeID(configuration) == id
	switch {
	case same && standing.Paired:
		return a.waiting(ReasonPairing, "the cluster is paired, and the last call of its agent to Compass failed; its CompassConnection says how it goes on", expires, time.Time{}), nil
	case same && enrolment.Tried(connection, configuration):
		if !needsToken(connection, now, expires) {
			return a.waiting(ReasonPairing, "the agent has tried the token and does not ask for another; its CompassConnection says how it goes on", expires, time.Time{}), nil
		}
		if now.Before(a.nextToken) {
			return a.waiting(ReasonTokenSpent, fmt.Sprintf("the agent has spent %d tokens in vain, and gets the next one at %s; its CompassConnection says why",
				a.tokens, a.nextToken.UTC().Format(time.RFC3339)), expires, a.nextToken), nil
		}
	case same:
		if renew := expires.Add(-a.spare(expires)); now.Before(renew) {
			return a.waiting(ReasonTokenUnused, "the agent has not tried the token; it may not be installed", expires, renew), nil
		}
	}
	identities, err := cluster.Identities(ctx, id)
	if err != nil {
		return 0, err
	}
	if same && identities.Current != "" && connection != nil && meta.IsStatusConditionTrue(connection.Status.Conditions, compassv1alpha1.ConditionConnected) {
		return a.connected(id), nil // somebody wrote a token that the agent has no use for
	}
	if expires, err = cluster.GiveToken(ctx, id, identities); err != nil {
		return 0, err
	}
	a.tokens++
	a.given, a.nextToken = now, now.Add(backoff(a.tokens, firstTokenPause, longestTokenPause))
	a.Metrics.did(actionToken)
	a.log.InfoContext(ctx, "a cluster has a new token", "runtime", id, "expires", expires.UTC().Format(time.RFC3339))
	return a.waiting(ReasonTokenUnused, "the agent has not tried the token; it may not be installed", expires, expires.Add(-a.spare(expires))), nil
}

// spare is how long before its end an unused token is replaced: RenewBefore, but never more than half of its life, so that a
// token that lives shortly is not replaced at once.
func (a *attempt) spare(expires time.Time) time.Duration {
	if a.given.IsZero() {
		return a.RenewBefore
	}
	return min(a.RenewBefore, expires.Sub(a.given)/2)
}

// needsToken reports whether an agent that has tried its token needs another. One that is being paired would lose the identity
// that it is paired as, and an outage of Compass is over some time.
func needsToken(c *compassv1alpha1.CompassConnection, now, expires time.Time) bool {
	if stalled := meta.FindStatusCondition(c.Status.Conditions, compassv1alpha1.ConditionStalled); stalled != nil && stalled.Status == metav1.ConditionTrue {
		return stalled.Reason == status.ReasonTokenNeeded
	}
	connected := meta.FindStatusCondition(c.Status.Conditions, compassv1alpha1.ConditionConnected)
	notPaired := connected == nil || connected.Reason == status.ReasonNotPaired
	return notPaired && !now.Before(expires)
}

// bound: the Secret is held back until its cluster is removed.
func (a *attempt) bound() bool {
	return slices.Contains(a.secret.Finalizers, Finalizer) && a.secret.Annotations[AnnotationCluster] != "" && a.secret.Annotations[AnnotationTenant] != ""
}

// bind holds the Secret back, if that was asked for. It comes before there is anything to remove.
func (a *attempt) bind(ctx context.Context, uid string) error {
	if !a.Offboard || a.bound() {
		return nil
	}
	changed := a.secret.DeepCopy()
	if !slices.Contains(changed.Finalizers, Finalizer) {
		changed.Finalizers = append(changed.Finalizers, Finalizer)
	}
	metav1.SetMetaDataAnnotation(&changed.ObjectMeta, AnnotationCluster, uid)
	metav1.SetMetaDataAnnotation(&changed.ObjectMeta, AnnotationTenant, a.told.tenant)
	if err := a.Kube.Patch(ctx, changed, client.MergeFromWithOptions(a.secret, client.MergeFromWithOptimisticLock{})); err != nil {
		return &failure{reason: ReasonSecretNotWritable, text: fmt.Sprintf("setting the finalizer of the Secret, which --on-delete=%s needs: %v", OnDeleteOffboard, err)}
	}
	// What else the answer says was not looked at.
	metav1.SetMetaDataAnnotation(&a.secret.ObjectMeta, AnnotationCluster, uid)
	metav1.SetMetaDataAnnotation(&a.secret.ObjectMeta, AnnotationTenant, a.told.tenant)
	return nil
}

// offboard removes the cluster from Compass, and lets the Secret go.
func (a *attempt) offboard(ctx context.Context) (time.Duration, error) {
	uid, tenant := a.secret.Annotations[AnnotationCluster], a.secret.Annotations[AnnotationTenant]
	if a.Offboard && uid != "" && tenant != "" {
		director := a.Director(tenant)
		cluster := &enrolment.Cluster{Director: director, Tenant: tenant}
		found, err := cluster.Find(ctx, uid)
		if err != nil {
			return 0, err
		}
		a.told.tenant = tenant
		ours := true // if it is gone, by an attempt that did not get to its end
		if found != nil {
			if ours, err = a.ours(ctx, director, found.ID); err != nil {
				return 0, err
			}
		}
		if found != nil && ours {
			if err := cluster.Unregister(ctx, found.ID); err != nil {
				return 0, err
			}
			a.Metrics.did(actionOffboard)
			a.log.InfoContext(ctx, "a runtime is unregistered", "runtime", found.ID, "cluster", uid)
		}
		if ours {
			id := "" // not known any more
			if found != nil {
				id = found.ID
			}
			a.clean(ctx, uid, id)
		}
	}
	a.gone = true
	if err := a.free(ctx, a.secret.DeepCopy()); err != nil {
		a.gone = false
		return 0, err
	}
	return 0, nil
}

// clean deletes the configuration Secret in the cluster, if it can be reached and names no other runtime than id: what it holds has
// no use any more, and a cluster may well be gone before its Secret is.
func (a *attempt) clean(ctx context.Context, uid, id string) {
	err := func() error {
		cluster, end, err := a.reach()
		if err != nil {
			return err
		}
		defer end()
		if is, err := cluster.UID(ctx); err != nil || is != uid {
			return cmp.Or(err, error(&failure{reason: ReasonClusterChanged, text: "the kubeconfig leads to another cluster now"}))
		}
		configuration, err := cluster.ConfigurationSecret(ctx)
		if err != nil {
			return err
		}
		if as := enrolment.RuntimeID(configuration); as != "" && as != id {
			if exists, err := cluster.Exists(ctx, as); err != nil || exists || enrolment.Tenant(configuration) != cluster.Tenant {
				return cmp.Or(err, error(&failure{reason: ReasonRuntimeNotOurs, text: "it names another runtime by now"}))
			}
		}
		return cluster.DeleteConfiguration(ctx)
	}()
	if err != nil {
		a.log.InfoContext(ctx, "the configuration Secret in a cluster that is removed could not be deleted", "cluster", uid, "error", message(judge(ctx, err).text))
	}
}

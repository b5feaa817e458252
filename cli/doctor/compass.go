package doctor

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net/url"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/application-connector/application-connector/agent/connection"
	"github.com/application-connector/application-connector/agent/report"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/certs"
	"github.com/application-connector/application-connector/cli/onboard"
	"github.com/application-connector/application-connector/gateway/credentials"
	"github.com/application-connector/application-connector/graphql"
	"github.com/application-connector/application-connector/graphql/director"
)

// compass is the way from the cluster to its inventory.
type compass struct {
	*walk
	chain

	names connection.Names
	// What the cluster holds; the errors say why that is not known.
	config        connection.Configuration
	configErr     error
	client        connection.Client
	clientErr     error
	connection    *compassv1alpha1.CompassConnection // nil if there is none
	connectionErr error
}

// compass looks at everything up to the sync, and gives the client certificate too, if it is valid.
func (w *walk) compass(ctx context.Context) ([]Step, *certs.Credential) {
	c := &compass{walk: w, names: connection.Names{Configuration: w.agent.ConfigurationSecret, Client: w.agent.ClientSecret, CA: w.agent.CASecret}}
	c.read(ctx)
	c.do(ctx, StepConfiguration, nil, c.configured)
	c.do(ctx, StepClientSecret, nil, c.paired)
	c.do(ctx, StepClientCertificate, []string{StepClientSecret}, c.valid)
	c.reach(ctx)
	c.do(ctx, StepDirector, []string{StepConfiguration, StepClientCertificate, StepCompassTLS}, c.known)
	if c.usable() {
		c.do(ctx, StepConnector, []string{StepClientCertificate, StepCompassTLS}, c.renewable)
	}
	c.do(ctx, StepSync, nil, c.synced)
	if c.usable() && c.client.Credential.ValidAt(c.now()) {
		return c.steps, &c.client.Credential
	}
	return c.steps, nil
}

func (c *compass) read(ctx context.Context) {
	c.config, c.configErr = connection.ReadConfiguration(ctx, c.cluster, c.names)
	c.client, c.clientErr = connection.ReadClient(ctx, c.cluster, c.names)
	found := &compassv1alpha1.CompassConnection{}
	switch err := c.cluster.Get(ctx, types.NamespacedName{Name: compassv1alpha1.ConnectionName}, found); {
	case err == nil:
		c.connection = found
	case !apierrors.IsNotFound(err):
		c.connectionErr = err
	}
}

// newToken is what to do when only a new one-time token helps.
func (c *compass) newToken() string {
	return fmt.Sprintf("write a new one-time token into key TOKEN of Secret %s, by appconn onboard or by hand", c.names.Configuration)
}

// configured judges the configuration Secret: what a sync needs, and what a pairing needs while the cluster is not paired.
func (c *compass) configured(context.Context) outcome {
	secret := c.names.Configuration
	switch {
	case c.configErr != nil:
		return unreadable(c.configErr)
	case !c.config.Found:
		return wrong("register the cluster by appconn onboard, or write the Secret by hand; if this cluster is to have no Compass, run this command with --standalone", "%s", c.config.Missing)
	case c.config.Missing != "":
		return wrong("write it there: it is the id of this cluster's runtime in Compass", "%s", c.config.Missing)
	}
	who := fmt.Sprintf("Secret %s is for runtime %s", secret, c.config.RuntimeID)
	if c.config.Tenant != "" {
		who += ", tenant " + c.config.Tenant
	}
	if c.clientErr != nil || c.client.Found || c.client.Left {
		return fine("%s", who) // a token is no matter now, or was used
	}
	ends, _ := time.Parse(time.RFC3339, c.config.Annotations[onboard.AnnotationExpires]) // the zero time if it is not known
	switch {
	case c.config.TokenFingerprint == "":
		return wrong(c.newToken(), "Secret %s has no TOKEN, and the cluster has no client certificate yet", secret)
	case c.config.ConnectorURL == "":
		return wrong("write it there: it comes with the token", "Secret %s has no CONNECTOR_URL", secret)
	case !ends.IsZero() && !c.now().Before(ends):
		return wrong(c.newToken(), "the one-time token in Secret %s ended at %s", secret, stamp(ends))
	case c.connection != nil && c.connection.Status.TokenFingerprint == c.config.TokenFingerprint:
		return wrong(c.newToken(), "the one-time token in Secret %s was tried, and gave no client certificate: %s", secret, cmp.Or(c.connectionError(), "the agent does not say why"))
	}
	return fine("%s, with a one-time token that was not tried yet", who)
}

// connectionError is what the agent says of its last attempt.
func (c *compass) connectionError() string {
	if c.connection == nil || c.connection.Status.ConnectionStatus == nil {
		return ""
	}
	return c.connection.Status.ConnectionStatus.Error
}

// paired judges the client Secret.
func (c *compass) paired(context.Context) outcome {
	secret := c.names.Client
	switch {
	case c.clientErr != nil:
		return unreadable(c.clientErr)
	case c.client.Left:
		return wrong(c.newToken(), "the cluster left Compass: Secret %s holds no certificate any more", secret)
	case !c.client.Found:
		return wrong("if the one-time token is good, look at the agent, which uses it within seconds; else "+c.newToken(), "Secret %s is missing: the cluster is not paired with Compass", secret)
	case c.client.Damaged != "":
		return wrong("start the agent if it does not run: one that ran before the damage mends it; else "+c.newToken(), "Secret %s cannot be used: %s", secret, c.client.Damaged)
	}
	return fine("Secret %s holds a certificate and its key", secret)
}

// valid judges the client certificate by what is written in it.
func (c *compass) valid(context.Context) outcome {
	leaf := c.client.Credential.Leaf()
	switch {
	case !c.now().Before(leaf.NotAfter):
		return wrong(c.newToken(), "the client certificate %s ended at %s", leaf.Subject, stamp(leaf.NotAfter))
	case !c.client.Credential.ValidAt(c.now()):
		return wrong("compare the clocks", "the client certificate %s is valid from %s only", leaf.Subject, stamp(leaf.NotBefore))
	case c.client.Foreign(c.config):
		return wrong(fmt.Sprintf("write them back, or %s", c.newToken()), "the client certificate was issued for runtime %s and tenant %s, Secret %s names runtime %s and tenant %s",
			orNone(c.client.RuntimeID), orNone(c.client.Tenant), c.names.Configuration, orNone(c.config.RuntimeID), orNone(c.config.Tenant))
	}
	return fine("%s, issued by %s, valid until %s, SHA-256 %s", leaf.Subject, leaf.Issuer, stamp(leaf.NotAfter), certs.Fingerprint(leaf))
}

// usable: there is a client certificate with its key, whatever its dates.
func (c *compass) usable() bool {
	return c.clientErr == nil && c.client.Found && c.client.Damaged == ""
}

// peer is whom connections lead to.
func (c *compass) peer(what, source string) peer {
	return peer{
		what: what, source: source, now: c.now(),
		trust:       "name the file with its authority by APP_COMPASS_CA_FILE, for the agent and for this command",
		certificate: "if it was renewed or revoked a moment ago, run this again; else " + c.newToken(),
	}
}

// reach connects to Compass: to Director by the client certificate or, while there is none, to the Connector that takes the
// one-time token, without sending it.
func (c *compass) reach(ctx context.Context) {
	p := c.peer("Director", "spec.managementInfo.directorUrl of CompassConnection "+compassv1alpha1.ConnectionName)
	text, certificate := c.directorURL(), (*tls.Certificate)(nil)
	if c.usable() {
		certificate = c.client.Credential.TLS()
	} else {
		p.what, p.source, text = "the Connector", "CONNECTOR_URL in Secret "+c.names.Configuration.String(), c.config.ConnectorURL
	}
	c.transport.SetCertificate(certificate)
	var l *link
	var needs []string
	if certificate == nil {
		needs = []string{StepConfiguration}
	}
	c.do(ctx, StepCompassDNS, needs, func(ctx context.Context) outcome {
		u, err := url.Parse(text)
		switch {
		case text == "" && (c.configErr != nil || c.clientErr != nil || c.connectionErr != nil):
			return unknown("mend what is unknown above", "it is not known where Compass is")
		case text == "":
			return wrong("pair the cluster: "+c.newToken(), "nothing says where Compass is: neither CompassConnection %s nor Secret %s does", compassv1alpha1.ConnectionName, c.names.Client)
		case err != nil || u.Scheme != "https" || u.Host == "":
			return wrong("correct "+p.source, "%s is no https URL", p.source)
		}
		l = connect(ctx, c.transport.HTTP(), u)
		return c.fromHere(p.dns(l), l)
	})
	c.do(ctx, StepCompassTCP, []string{StepCompassDNS}, func(context.Context) outcome { return c.fromHere(p.tcp(l), l) })
	needs = []string{StepCompassTCP}
	if certificate != nil { // without a usable one the server's refusal is what is to be expected
		needs = append(needs, StepClientCertificate)
	}
	c.do(ctx, StepCompassTLS, needs, func(ctx context.Context) outcome { return c.reached(p.tls(ctx, l)) })
}

func (c *compass) directorURL() string {
	if c.connection != nil && c.connection.Spec.ManagementInfo.DirectorURL != "" {
		return c.connection.Spec.ManagementInfo.DirectorURL
	}
	return c.client.DirectorURL
}

// fromHere takes into account that the agent may reach what this machine does not.
func (c *compass) fromHere(o outcome, l *link) outcome { return c.walk.fromHere(c.reached(o), l) }

// reached: what fails here while the agent succeeds is not known to be wrong.
func (c *compass) reached(o outcome) outcome {
	if o.state != Wrong || c.connection == nil || c.late() != nil || !meta.IsStatusConditionTrue(c.connection.Status.Conditions, compassv1alpha1.ConditionConnected) {
		return o
	}
	return unknown(o.remedy, "could not be checked from here, while the agent is connected: %s", o.finding)
}

// late is when the agent meant to call Compass, if that is so long ago that it cannot be running.
func (c *compass) late() *metav1.Time {
	if next := c.connection.Status.NextAttempt; next != nil && c.now().After(next.Add(report.Overdue)) {
		return next
	}
	return nil
}

// known asks Director for whom it takes the cluster, and for the runtime's labels: the first names the runtime, the second tells
// a refusal from a failure.
func (c *compass) known(ctx context.Context) outcome {
	client := director.New(c.transport, c.directorURL(), c.config.Tenant)
	id, err := client.Viewer(ctx)
	if err == nil && id != c.config.RuntimeID {
		return wrong(fmt.Sprintf("write %s into RUNTIME_ID, or %s", id, c.newToken()), "the client certificate is that of runtime %s, and RUNTIME_ID in Secret %s is %s", id, c.names.Configuration, c.config.RuntimeID)
	}
	if _, again := client.RuntimeLabels(ctx, c.config.RuntimeID); again != nil {
		return c.refused(again)
	}
	if err != nil {
		return c.refused(err)
	}
	return fine("%s knows the cluster as runtime %s", credentials.PrintableURL(c.directorURL()), id)
}

// renewable connects to where the certificate will be renewed, if that is another place than Director. The Connector is asked
// nothing.
func (c *compass) renewable(ctx context.Context) outcome {
	p := c.peer("the Connector", "spec.managementInfo.connectorUrl of CompassConnection "+compassv1alpha1.ConnectionName)
	text := c.client.ConnectorURL
	if c.connection != nil && c.connection.Spec.ManagementInfo.ConnectorURL != "" {
		text = c.connection.Spec.ManagementInfo.ConnectorURL
	}
	u, err := url.Parse(text)
	switch {
	case text == "":
		return left("it is not known yet where the Connector is; the agent asks for it")
	case err != nil || u.Scheme != "https" || u.Host == "":
		return wrong("correct "+p.source, "%s is no https URL", p.source)
	}
	if d, err := url.Parse(c.directorURL()); err == nil && hostPort(d) == hostPort(u) {
		return fine("%s is where Director is", hostPort(u))
	}
	l := connect(ctx, c.transport.HTTP(), u)
	if l.proxy != "" {
		return p.tcp(l)
	}
	// That the agent is connected says nothing of the Connector, which it seldom asks.
	if o := p.judge(ctx, l, c.walk.fromHere); o != nil {
		return *o
	}
	return fine("%s accepts connections, and finishes the handshake", hostPort(u))
}

// refused says what an answer of Director means.
func (c *compass) refused(err error) outcome {
	switch graphql.KindOf(err) {
	case graphql.Ambiguous, graphql.Refused:
		return wrong("if it lasts, "+c.newToken()+"; if the runtime is gone, register the cluster by appconn onboard",
			"Director does not know who calls: the certificate was revoked, or runtime %s is not registered any more or is another tenant's, or parts of Compass are down: %s", c.config.RuntimeID, err)
	case graphql.CertificateExpired, graphql.CertificateRefused:
		return wrong("if it lasts, "+c.newToken(), "Director does not accept the client certificate: %s", alert(err))
	case graphql.Rejected:
		return wrong("correct RUNTIME_ID or TENANT, or register the cluster by appconn onboard", "Director knows the certificate, and not runtime %s: %s", c.config.RuntimeID, err)
	case graphql.ScopeMissing:
		return wrong("ask who runs Compass", "Director knows the cluster and does not let it read: %s", err)
	case graphql.Throttled:
		return unknown("run it again later", "Director asks to be left alone: %s", err)
	case graphql.Server:
		return wrong("ask who runs Compass, by the request's id; nothing is to be done in the cluster", "Director fails: %s", err)
	case graphql.Invalid, graphql.Malformed, graphql.TooLarge:
		return wrong("look whether spec.managementInfo.directorUrl of CompassConnection "+compassv1alpha1.ConnectionName+" is Director's, and at what may be on the way", "what answers there is not a Director as this program knows it: %s", err)
	case graphql.Unreachable, graphql.Timeout, graphql.ServerUntrusted, graphql.TLS:
		return c.reached(wrong("look at what may be on the way: firewalls, proxies, NetworkPolicies", "Director gave no answer: %s", err))
	}
	return unknown("run it again", "Director could not be asked: %s", err)
}

// synced judges what the agent says, and whether it still says something.
func (c *compass) synced(context.Context) outcome {
	const agent = "look at the agent's Pod and its log"
	if c.connectionErr != nil {
		return unreadable(c.connectionErr)
	}
	if c.connection == nil {
		return wrong(agent, "there is no CompassConnection %s: the agent does not run, or has nothing to begin with", compassv1alpha1.ConnectionName)
	}
	st := c.connection.Status
	if next := c.late(); next != nil {
		return wrong(agent, "the agent meant to call Compass at %s and has not: it does not run", stamp(next.Time))
	}
	if stalled := meta.FindStatusCondition(st.Conditions, compassv1alpha1.ConditionStalled); stalled != nil && stalled.Status == metav1.ConditionTrue {
		return wrong("do what the message says; after that the agent goes on by itself", "the agent waits for somebody: %s", cmp.Or(stalled.Message, stalled.Reason))
	}
	told := report.New(c.connection, nil, c.now())
	switch told.Health {
	case report.Unhealthy:
		return wrong("see what is wrong above; the agent tries again by itself", "the agent says: %s", told.Reason)
	case report.Unknown:
		return unknown("run it again in a minute; if nothing changes, "+agent, "%s", told.Reason)
	}
	if blocked := meta.FindStatusCondition(st.Conditions, compassv1alpha1.ConditionPruneBlocked); blocked != nil && blocked.Status == metav1.ConditionTrue {
		return wrong("look at the formations of the runtime in Compass; if the systems are really gone, confirm it as the message says", "Applications are kept that Compass does not name: %s", cmp.Or(blocked.Message, blocked.Reason))
	}
	when := "never"
	if told.Sync.Last != nil {
		when = stamp(told.Sync.Last.Time)
	}
	return fine("last at %s: %d of %d systems are in place, %d failed", when, told.Sync.Ready, told.Sync.Total, told.Sync.Failed)
}

func orNone(s string) string { return cmp.Or(s, "(unknown)") }

package agenttest

import (
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	applicationv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/certs"
	"github.com/application-connector/application-connector/simulator/compass"
)

// Crashes kills agents of a stage where the test wants it, and looks that the next one ends connected.
type Crashes struct {
	*Stage
	Witness *Witness
	// Done is when Connected found everything done, before it asked for a sync.
	Done time.Time
}

// Forget makes cluster and Compass what they are before the first pairing.
func (c *Crashes) Forget() {
	c.T.Helper()
	for _, list := range []client.Object{&compassv1alpha1.CompassConnection{}, &applicationv1alpha1.Application{}} {
		if err := c.Client.DeleteAllOf(c.T.Context(), list); err != nil {
			c.T.Fatal(err)
		}
	}
	for _, namespace := range []string{c.Configuration.Namespace, c.Authorities.Namespace} {
		if err := c.Client.DeleteAllOf(c.T.Context(), &corev1.Secret{}, client.InNamespace(namespace)); err != nil {
			c.T.Fatal(err)
		}
	}
	if _, err := c.Compass.Admin().PutRuntime(Tenant, Seed.Tenants[0].Runtimes[0]); err != nil { // without the labels that were set
		c.T.Fatal(err)
	}
	for _, auth := range c.Compass.Admin().SystemAuths(RuntimeID) {
		if err := c.Compass.Admin().DeleteSystemAuth(auth.ID); err != nil {
			c.T.Fatal(err)
		}
	}
}

// KillAt lets an agent run into a point, and kills it there.
func (c *Crashes) KillAt(point Effect) {
	c.T.Helper()
	c.Compass.Admin().ResetCounters()
	nth := 0
	reached := c.Witness.IsHolding
	if point.Compass {
		c.Witness.WatchFor(Effect{})
		defer c.Fault(compass.Fault{Kind: compass.FaultHang, Operation: point.What, Skip: point.Nth - 1, Count: 1})()
		reached = func() bool {
			nth = 0
			for _, r := range c.Compass.Admin().Requests() {
				if r.Executed && slices.Contains(r.Operations, point.What) {
					nth++
				}
			}
			return nth >= point.Nth
		}
	} else {
		c.Witness.WatchFor(point)
	}
	p := c.Spawn(c.Witness)
	c.Eventually("the Effect "+point.String(), func() bool { return p.Runs() && reached() }, func() any { return c.Witness.Effects() })
	c.Witness.Freeze()
	p.Kill()
	c.Witness.WatchFor(Effect{})
}

// Certificate is the fingerprint of the certificate in the client Secret; empty if there is none.
func (c *Crashes) Certificate() string {
	secret := c.Secret(c.Credential)
	if secret == nil {
		return ""
	}
	credential, err := certs.DecodeClient(secret.Data)
	if err != nil {
		return ""
	}
	return credential.Fingerprint()
}

// Connected waits until the agent has exactly one certificate, which is the one that the status tells and that Compass is
// called with, and nothing is left to do. Then it asks for a sync, and waits for that too.
func (c *Crashes) Connected(p *Process) {
	c.T.Helper()
	var why string
	settled := func() bool {
		p.Runs()
		why = c.unsettled()
		return why == ""
	}
	told := func() any { return why }
	c.Eventually("the connection", settled, told)
	c.Done = time.Now()
	asked := c.Calls("applicationsForRuntime")
	c.Edit(func(spec *compassv1alpha1.CompassConnectionSpec) { spec.ResyncNow = true })
	c.Eventually("a sync with the one certificate", func() bool {
		return settled() && c.Calls("applicationsForRuntime") > asked
	}, told)
	requests := c.Compass.Admin().Requests()
	if last := requests[len(requests)-1]; last.CertificateHash != c.Certificate() {
		c.T.Errorf("the last request, %v, came with certificate %s; current is %s", last.Operations, last.CertificateHash, c.Certificate())
	}
	if valid := c.Accepted(); !slices.Contains(valid, c.Certificate()) {
		c.T.Errorf("Compass did not issue the current certificate %s, but %v", c.Certificate(), valid)
	}
	var apps applicationv1alpha1.ApplicationList
	if err := c.Client.List(c.T.Context(), &apps); err != nil || len(apps.Items) != 1 {
		c.T.Errorf("%d Applications, %v", len(apps.Items), err)
	}
}

// unsettled says what is not yet as it is to be; empty if all is.
func (c *Crashes) unsettled() string {
	connection := c.Connection(c.T.Context())
	switch {
	case connection == nil:
		return "there is no CompassConnection"
	case connection.Status.State != compassv1alpha1.Synchronized:
		return fmt.Sprintf("state %s: %s", connection.Status.State, Printed(c.T, connection.Status))
	case connection.Status.ObservedGeneration != connection.Generation:
		return "the generation was not observed"
	case connection.Spec.RefreshCredentialsNow || connection.Spec.ResyncNow:
		return "what was asked for is not done"
	case c.Secret(c.Pending()) != nil:
		return "there is a pending Secret"
	case c.Certificate() == "" || Fingerprint(connection) != c.Certificate():
		return fmt.Sprintf("the status tells certificate %q, the client Secret holds %q", Fingerprint(connection), c.Certificate())
	case connection.Status.ConnectionStatus.Established.IsZero() || connection.Status.TokenFingerprint == "":
		return "the status does not tell of the pairing"
	case c.Secret(c.Credential).Annotations["compass.kyma-project.io/renewed"] != formatted(connection.Status.ConnectionStatus.Renewed):
		return fmt.Sprintf("the status tells of a renewal at %q, the client Secret at %q", formatted(connection.Status.ConnectionStatus.Renewed), c.Secret(c.Credential).Annotations["compass.kyma-project.io/renewed"])
	case c.Secret(c.Authorities) == nil:
		return "there is no CA Secret"
	case !meta.IsStatusConditionTrue(connection.Status.Conditions, "Ready"):
		return fmt.Sprintf("not Ready: %+v", connection.Status.Conditions)
	}
	return ""
}

func formatted(t metav1.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339)
}

// Accepted are the fingerprints of all that Compass issued to the runtime.
func (c *Crashes) Accepted() (hashes []string) {
	for _, auth := range c.Compass.Admin().SystemAuths(RuntimeID) {
		for _, issued := range auth.Certificates {
			hashes = append(hashes, issued.Hash)
		}
	}
	return hashes
}

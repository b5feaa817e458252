package agent_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
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

// An agent that is killed leaves behind what it has done outside of itself, and nothing else. So there are as many points
// at which a kill can make a difference as there are effects: after each of them, which is before the next one. One run
// without a kill finds them: every write to the API server and every request to Compass. Then a real agent process gets
// SIGKILL at each of them, at a moment when the effect has happened and the agent was not told.
func TestCrashPoints(t *testing.T) {
	s := newStage(t)
	w := newWitness(t)
	crash := &crashes{stage: s, witness: w}

	t.Run("pairing", func(t *testing.T) {
		s.t = t
		points := crash.enumerate(func() { s.configure() })
		t.Logf("%d effects: %v", len(points), points)
		for _, needed := range []string{"configuration", "signCertificateSigningRequest", "applicationsForRuntime", "PATCH secrets " + s.credential.Name, "PATCH secrets " + s.authorities.Name} {
			if !slices.ContainsFunc(points, func(e effect) bool { return e.What == needed }) {
				t.Fatalf("the run that finds the effects did not find %s", needed)
			}
		}
		burnt := 0
		for _, point := range points {
			t.Run(strings.ReplaceAll("after "+point.String(), "/", " "), func(t *testing.T) {
				s.t = t
				crash.forget()
				if crash.pairing(point) {
					burnt++
				}
			})
		}
		s.t = t
		t.Logf("%d of %d points need a new token", burnt, len(points))
	})
	t.Run("renewal", func(t *testing.T) {
		s.t = t
		crash.forget()
		s.configure()
		p := s.spawn(w)
		crash.connected(p)
		refresh := func() {
			s.edit(func(spec *compassv1alpha1.CompassConnectionSpec) { spec.RefreshCredentialsNow = true })
		}
		p.kill()
		points := crash.enumerate(refresh)
		t.Logf("%d effects: %v", len(points), points)
		for _, needed := range []string{"configuration", "signCertificateSigningRequest", "viewer", "PATCH secrets " + s.credential.Name} {
			if !slices.ContainsFunc(points, func(e effect) bool { return e.What == needed }) {
				t.Fatalf("the run that finds the effects did not find %s", needed)
			}
		}
		for _, point := range points {
			t.Run(strings.ReplaceAll("after "+point.String(), "/", " "), func(t *testing.T) {
				s.t = t
				crash.renewal(point, refresh)
			})
		}
		s.t = t
	})
}

type crashes struct {
	*stage
	witness *witness
	done    time.Time // when connected found everything done, before it asked for a sync
}

// enumerate runs an agent until it has done what begin asks for, and gives all it did, in order.
func (c *crashes) enumerate(begin func()) []effect {
	c.t.Helper()
	c.compass.Admin().ResetCounters()
	c.witness.watchFor(effect{})
	before := c.certificate()
	begin()
	p := c.spawn(c.witness)
	defer p.kill()
	c.connected(p)
	if c.certificate() == before {
		c.t.Fatal("there is no new certificate")
	}
	seen := c.witness.effects()
	times := map[string]int{}
	for _, r := range c.compass.Admin().Requests() {
		what := r.Operations[len(r.Operations)-1] // runtime, applicationsForRuntime
		times[what]++
		seen = append(seen, effect{At: r.At, Compass: true, What: what, Nth: times[what]})
	}
	seen = slices.DeleteFunc(seen, func(e effect) bool { return e.At.After(c.done) })
	slices.SortStableFunc(seen, func(a, b effect) int { return a.At.Compare(b.At) })
	return seen
}

// forget makes cluster and Compass what they are before the first pairing.
func (c *crashes) forget() {
	c.t.Helper()
	for _, list := range []client.Object{&compassv1alpha1.CompassConnection{}, &applicationv1alpha1.Application{}} {
		if err := c.client.DeleteAllOf(c.t.Context(), list); err != nil {
			c.t.Fatal(err)
		}
	}
	for _, namespace := range []string{c.configuration.Namespace, c.authorities.Namespace} {
		if err := c.client.DeleteAllOf(c.t.Context(), &corev1.Secret{}, client.InNamespace(namespace)); err != nil {
			c.t.Fatal(err)
		}
	}
	if _, err := c.compass.Admin().PutRuntime(tenant, seed.Tenants[0].Runtimes[0]); err != nil { // without the labels that were set
		c.t.Fatal(err)
	}
	for _, auth := range c.compass.Admin().SystemAuths(runtimeID) {
		if err := c.compass.Admin().DeleteSystemAuth(auth.ID); err != nil {
			c.t.Fatal(err)
		}
	}
}

// killAt lets an agent run into a point, and kills it there.
func (c *crashes) killAt(point effect) {
	c.t.Helper()
	c.compass.Admin().ResetCounters()
	nth := 0
	reached := c.witness.isHolding
	if point.Compass {
		c.witness.watchFor(effect{})
		defer c.fault(compass.Fault{Kind: compass.FaultHang, Operation: point.What, Skip: point.Nth - 1, Count: 1})()
		reached = func() bool {
			nth = 0
			for _, r := range c.compass.Admin().Requests() {
				if r.Executed && slices.Contains(r.Operations, point.What) {
					nth++
				}
			}
			return nth >= point.Nth
		}
	} else {
		c.witness.watchFor(point)
	}
	p := c.spawn(c.witness)
	c.eventually("the effect "+point.String(), func() bool { return p.runs() && reached() }, func() any { return c.witness.effects() })
	c.witness.freeze()
	p.kill()
	c.witness.watchFor(effect{})
}

// certificate is the fingerprint of the certificate in the client Secret; empty if there is none.
func (c *crashes) certificate() string {
	secret := c.secret(c.credential)
	if secret == nil {
		return ""
	}
	credential, err := certs.DecodeClient(secret.Data)
	if err != nil {
		return ""
	}
	return credential.Fingerprint()
}

// connected waits until the agent has exactly one certificate, which is the one that the status tells and that Compass is
// called with, and nothing is left to do. Then it asks for a sync, and waits for that too.
func (c *crashes) connected(p *process) {
	c.t.Helper()
	var why string
	settled := func() bool {
		p.runs()
		why = c.unsettled()
		return why == ""
	}
	told := func() any { return why }
	c.eventually("the connection", settled, told)
	c.done = time.Now()
	asked := c.calls("applicationsForRuntime")
	c.edit(func(spec *compassv1alpha1.CompassConnectionSpec) { spec.ResyncNow = true })
	c.eventually("a sync with the one certificate", func() bool {
		return settled() && c.calls("applicationsForRuntime") > asked
	}, told)
	requests := c.compass.Admin().Requests()
	if last := requests[len(requests)-1]; last.CertificateHash != c.certificate() {
		c.t.Errorf("the last request, %v, came with certificate %s; current is %s", last.Operations, last.CertificateHash, c.certificate())
	}
	if valid := c.acceptedCertificates(); !slices.Contains(valid, c.certificate()) {
		c.t.Errorf("Compass did not issue the current certificate %s, but %v", c.certificate(), valid)
	}
	var apps applicationv1alpha1.ApplicationList
	if err := c.client.List(c.t.Context(), &apps); err != nil || len(apps.Items) != 1 {
		c.t.Errorf("%d Applications, %v", len(apps.Items), err)
	}
}

// unsettled says what is not yet as it is to be; empty if all is.
func (c *crashes) unsettled() string {
	connection := c.connection(c.t.Context())
	switch {
	case connection == nil:
		return "there is no CompassConnection"
	case connection.Status.State != compassv1alpha1.Synchronized:
		return fmt.Sprintf("state %s: %s", connection.Status.State, printed(c.t, connection.Status))
	case connection.Status.ObservedGeneration != connection.Generation:
		return "the generation was not observed"
	case connection.Spec.RefreshCredentialsNow || connection.Spec.ResyncNow:
		return "what was asked for is not done"
	case c.secret(pendingOf(c.stage)) != nil:
		return "there is a pending Secret"
	case c.certificate() == "" || fingerprint(connection) != c.certificate():
		return fmt.Sprintf("the status tells certificate %q, the client Secret holds %q", fingerprint(connection), c.certificate())
	case connection.Status.ConnectionStatus.Established.IsZero() || connection.Status.TokenFingerprint == "":
		return "the status does not tell of the pairing"
	case c.secret(c.credential).Annotations["compass.kyma-project.io/renewed"] != formatted(connection.Status.ConnectionStatus.Renewed):
		return fmt.Sprintf("the status tells of a renewal at %q, the client Secret at %q", formatted(connection.Status.ConnectionStatus.Renewed), c.secret(c.credential).Annotations["compass.kyma-project.io/renewed"])
	case c.secret(c.authorities) == nil:
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

// acceptedCertificates are the fingerprints of all that Compass issued to the runtime.
func (c *crashes) acceptedCertificates() (hashes []string) {
	for _, auth := range c.compass.Admin().SystemAuths(runtimeID) {
		for _, issued := range auth.Certificates {
			hashes = append(hashes, issued.Hash)
		}
	}
	return hashes
}

// goesOn says whether a pairing can be gone on with without a new token by the rules of the Connector: the first token was
// not sent yet, or else the second one was not and is stored, or else the certificate is.
func (c *crashes) goesOn() bool {
	executed := map[string]int{}
	for _, r := range c.compass.Admin().Requests() {
		if r.Endpoint == "token" && r.Executed {
			executed[r.Operations[0]]++
		}
	}
	if executed["configuration"] == 0 || c.certificate() != "" {
		return true
	}
	pending := c.secret(pendingOf(c.stage))
	if pending == nil {
		return false
	}
	return len(pending.Data["crt"]) > 0 || len(pending.Data["token"]) > 0 && executed["signCertificateSigningRequest"] == 0
}

// pairing kills a first agent at a point of the first pairing, and lets a second one go on. It says whether that needed a
// new token.
func (c *crashes) pairing(point effect) (burnt bool) {
	c.t.Helper()
	c.configure()
	c.killAt(point)
	burnt = !c.goesOn()
	issued := len(c.acceptedCertificates())
	p := c.spawn(c.witness)
	defer p.kill()
	if burnt {
		told := c.until("a status that says what is needed", func(connection *compassv1alpha1.CompassConnection) bool {
			stalled := meta.FindStatusCondition(connection.Status.Conditions, "Stalled")
			return p.runs() && connection.Status.State == compassv1alpha1.ConnectionFailed && stalled != nil && stalled.Reason == "TokenNeeded"
		})
		message := meta.FindStatusCondition(told.Status.Conditions, "Stalled").Message
		for _, want := range []string{"token", "key TOKEN of Secret " + c.stage.configuration.String()} {
			if !strings.Contains(message, want) {
				c.t.Errorf("condition Stalled says %q, which does not hold %q", message, want)
			}
		}
		if connected := meta.FindStatusCondition(told.Status.Conditions, "Ready"); connected == nil || connected.Status != "False" {
			c.t.Errorf("condition Ready: %+v", connected)
		}
		c.configure()
	}
	c.connected(p)
	if !burnt && len(c.acceptedCertificates()) != max(issued, 1) {
		c.t.Errorf("%d certificates were issued: a pairing that goes on needs one", len(c.acceptedCertificates()))
	}
	return burnt
}

// renewal kills a first agent at a point of a renewal, and lets a second one go on. No token is there to help: it is the
// one that the pairing used.
func (c *crashes) renewal(point effect, refresh func()) {
	c.t.Helper()
	before, issued := c.certificate(), len(c.acceptedCertificates())
	refresh()
	c.killAt(point)
	p := c.spawn(c.witness)
	defer p.kill()
	c.connected(p)
	if c.certificate() == before {
		c.t.Error("the certificate was not renewed")
	}
	// A certificate whose answer was lost is lost too. No other point costs a second one.
	wanted := issued + 1
	if point.What == "signCertificateSigningRequest" {
		wanted++
	}
	if got := len(c.acceptedCertificates()); got != wanted {
		c.t.Errorf("%d certificates were issued, want %d", got-issued, wanted-issued)
	}
	if token := c.calls("configuration"); token > 2 {
		c.t.Errorf("%d calls of configuration", token)
	}
}

// Package crashpoints kills agents wherever that can make a difference.
package crashpoints

import (
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/certs"
	"github.com/application-connector/application-connector/e2e/agenttest"
	"github.com/application-connector/application-connector/graphql"
	"github.com/application-connector/application-connector/graphql/connector"
	"github.com/application-connector/application-connector/simulator/compass"
)

func TestMain(m *testing.M) { agenttest.Run(m) }

// An agent that is killed leaves behind what it has done outside of itself, and nothing else. So there are as many points
// at which a kill can make a difference as there are effects: after each of them, which is before the next one. One run
// without a kill finds them: every write to the API server and every request to Compass. Then a real agent process gets
// SIGKILL at each of them, at a moment when the agenttest.Effect has happened and the agent was not told.
func TestCrashPoints(t *testing.T) {
	s := agenttest.New(t)
	w := agenttest.NewWitness(t)
	crash := &crashes{agenttest.Crashes{Stage: s, Witness: w}}

	t.Run("pairing", func(t *testing.T) {
		s.T = t
		points := crash.enumerate(func() { s.Configure() })
		t.Logf("%d effects: %v", len(points), points)
		for _, needed := range []string{"configuration", "signCertificateSigningRequest", "applicationsForRuntime", "PATCH secrets " + s.Credential.Name, "PATCH secrets " + s.Authorities.Name} {
			if !slices.ContainsFunc(points, func(e agenttest.Effect) bool { return e.What == needed }) {
				t.Fatalf("the run that finds the effects did not find %s", needed)
			}
		}
		burnt := 0
		for _, point := range points {
			t.Run(strings.ReplaceAll("after "+point.String(), "/", " "), func(t *testing.T) {
				s.T = t
				crash.Forget()
				if crash.pairing(point) {
					burnt++
				}
			})
		}
		s.T = t
		t.Logf("%d of %d points need a new token", burnt, len(points))
	})
	for name, begin := range map[string]func(){
		"renewal by request": func() {
			s.Edit(func(spec *compassv1alpha1.CompassConnectionSpec) { spec.RefreshCredentialsNow = true })
		},
		"renewal by date": crash.age,
	} {
		t.Run(name, func(t *testing.T) {
			s.T = t
			crash.Forget()
			s.Configure()
			p := s.Spawn(w)
			crash.Connected(p)
			p.Kill()
			points := crash.enumerate(begin)
			t.Logf("%d effects: %v", len(points), points)
			for _, needed := range []string{"configuration", "signCertificateSigningRequest", "viewer", "PATCH secrets " + s.Credential.Name} {
				if !slices.ContainsFunc(points, func(e agenttest.Effect) bool { return e.What == needed }) {
					t.Fatalf("the run that finds the effects did not find %s", needed)
				}
			}
			for _, point := range points {
				t.Run(strings.ReplaceAll("after "+point.String(), "/", " "), func(t *testing.T) {
					s.T = t
					crash.renewal(point, begin)
				})
			}
			s.T = t
		})
	}
}

type crashes struct{ agenttest.Crashes }

// age replaces the certificate by one whose time for renewal has come: five sixths of an hour are over.
func (c *crashes) age() {
	c.T.Helper()
	must := func(err error) {
		c.T.Helper()
		if err != nil {
			c.T.Fatal(err)
		}
	}
	stored := c.Secret(c.Credential)
	credential, err := certs.DecodeClient(stored.Data)
	must(err)
	roots, err := graphql.RootsFromFile(c.Env["APP_COMPASS_CA_FILE"])
	must(err)
	transport := graphql.NewTransport(graphql.Options{RootCAs: roots})
	defer transport.CloseIdleConnections()
	transport.SetCertificate(credential.TLS())
	defer c.Fault(compass.Fault{Kind: compass.FaultCertificateTimes, Shift: compass.Duration(-50 * time.Minute), Validity: compass.Duration(time.Hour)})()
	subject, err := certs.ParseSubject(credential.Leaf().Subject.String())
	must(err)
	csr, err := certs.NewRequest(credential.Key, subject)
	must(err)
	issued, err := connector.New(transport, c.Compass.MTLSConnectorURL()).Sign(c.T.Context(), "", csr)
	must(err)
	if issued.Certificate.NotBefore.After(time.Now().Add(-49*time.Minute)) || issued.Certificate.NotAfter.Before(time.Now()) {
		c.T.Fatalf("the certificate is valid from %s to %s", issued.Certificate.NotBefore, issued.Certificate.NotAfter)
	}
	credential.Chain, credential.CA = issued.Chain, issued.CA
	stored.Data, err = certs.EncodeClient(credential)
	must(err)
	must(c.Client.Update(c.T.Context(), stored))
	// The agent that is not there would have noted the time.
	connection := c.Connection(c.T.Context())
	noted := connection.DeepCopy()
	noted.Status.NextAttempt = nil
	must(c.Client.Status().Patch(c.T.Context(), noted, client.MergeFrom(connection)))
}

// enumerate runs an agent until it has done what begin asks for, and gives all it did, in order.
func (c *crashes) enumerate(begin func()) []agenttest.Effect {
	c.T.Helper()
	begin()
	c.Compass.Admin().ResetCounters()
	c.Witness.WatchFor(agenttest.Effect{})
	before := c.Certificate()
	p := c.Spawn(c.Witness)
	defer p.Kill()
	c.Connected(p)
	if c.Certificate() == before {
		c.T.Fatal("there is no new certificate")
	}
	seen := c.Witness.Effects()
	times := map[string]int{}
	for _, r := range c.Compass.Admin().Requests() {
		what := r.Operations[len(r.Operations)-1] // runtime, applicationsForRuntime
		times[what]++
		seen = append(seen, agenttest.Effect{At: r.At, Compass: true, What: what, Nth: times[what]})
	}
	seen = slices.DeleteFunc(seen, func(e agenttest.Effect) bool { return e.At.After(c.Done) })
	slices.SortStableFunc(seen, func(a, b agenttest.Effect) int { return a.At.Compare(b.At) })
	return seen
}

// goesOn says whether a pairing can be gone on with without a new token by the rules of the Connector: the first token was
// not sent yet, or else the second one was not and is stored, or else the certificate is.
func (c *crashes) goesOn() bool {
	executed := map[string]int{}
	for _, r := range c.Compass.Admin().Requests() {
		if r.Endpoint == "token" && r.Executed {
			executed[r.Operations[0]]++
		}
	}
	if executed["configuration"] == 0 || c.Certificate() != "" {
		return true
	}
	pending := c.Secret(c.Pending())
	if pending == nil {
		return false
	}
	return len(pending.Data["crt"]) > 0 || len(pending.Data["token"]) > 0 && executed["signCertificateSigningRequest"] == 0
}

// pairing kills a first agent at a point of the first pairing, and lets a second one go on. It says whether that needed a
// new token.
func (c *crashes) pairing(point agenttest.Effect) (burnt bool) {
	c.T.Helper()
	c.Configure()
	c.KillAt(point)
	burnt = !c.goesOn()
	issued := len(c.Accepted())
	p := c.Spawn(c.Witness)
	defer p.Kill()
	if burnt {
		told := c.Until("a status that says what is needed", func(connection *compassv1alpha1.CompassConnection) bool {
			stalled := meta.FindStatusCondition(connection.Status.Conditions, "Stalled")
			return p.Runs() && connection.Status.State == compassv1alpha1.ConnectionFailed && stalled != nil && stalled.Reason == "TokenNeeded"
		})
		message := meta.FindStatusCondition(told.Status.Conditions, "Stalled").Message
		for _, want := range []string{"token", "key TOKEN of Secret " + c.Stage.Configuration.String()} {
			if !strings.Contains(message, want) {
				c.T.Errorf("condition Stalled says %q, which does not hold %q", message, want)
			}
		}
		if connected := meta.FindStatusCondition(told.Status.Conditions, "Ready"); connected == nil || connected.Status != "False" {
			c.T.Errorf("condition Ready: %+v", connected)
		}
		c.Configure()
	}
	c.Connected(p)
	if !burnt && len(c.Accepted()) != max(issued, 1) {
		c.T.Errorf("%d certificates were issued: a pairing that goes on needs one", len(c.Accepted()))
	}
	return burnt
}

// renewal kills a first agent at a point of a renewal, and lets a second one go on. No token is there to help: it is the
// one that the pairing used.
func (c *crashes) renewal(point agenttest.Effect, begin func()) {
	c.T.Helper()
	begin()
	before, issued := c.Certificate(), len(c.Accepted())
	c.KillAt(point)
	p := c.Spawn(c.Witness)
	defer p.Kill()
	c.Connected(p)
	if c.Certificate() == before {
		c.T.Error("the certificate was not renewed")
	}
	// A certificate whose answer was lost is lost too. No other point costs a second one.
	wanted := issued + 1
	if point.What == "signCertificateSigningRequest" {
		wanted++
	}
	if got := len(c.Accepted()); got != wanted {
		c.T.Errorf("%d certificates were issued, want %d", got-issued, wanted-issued)
	}
	if token := c.Calls("configuration"); token > 2 {
		c.T.Errorf("%d calls of configuration", token)
	}
}

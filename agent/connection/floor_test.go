package connection_test

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"
	"sigs.k8s.io/controller-runtime/pkg/client"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/certs"
	"github.com/application-connector/application-connector/graphql"
	"github.com/application-connector/application-connector/secret"
)

const floor = 15 * time.Second

// judge watches every call at Compass. What it knows it has from outside: the calls, the tokens that were sent, the Secrets,
// and what people asked for.
type judge struct {
	*world
	r *rapid.T

	last  time.Time // when the last attempt called Compass; zero before the first
	calls []string  // of that attempt
	// belongs: that attempt made a certificate current, so one sync belongs to it; settled is the last that was current.
	belongs bool
	settled string
	// asked: a person asks for something that no attempt passed for yet. untold: one did, and could not write that down; the
	// next process does not know it.
	asked, untold bool
	// annotated: they do so by annotation, which waits for an attempt however long there is nothing to do; unanswered: what is
	// untold was.
	annotated, unanswered bool
	// known are the tokens that the process knows to be tried, and noted is the one that the next process knows.
	known map[secret.Value]bool
	noted secret.Value

	// ignorant: the process made no attempt yet. deleted: the status was, with the CompassConnection, since the last attempt.
	ignorant, deleted bool

	trace  []string  // of the last looks of the worker
	wake   time.Time // when the worker wants to be woken
	errors int       // in a row, of the API server
	kill   int       // after so many effects from now; 0 means never
	killed bool      // nothing gets out of the process any more
	alive  bool      // the process is at work, not the test
	refuse []refusal
	tokens int // how many were made
	random *rand.Rand
}

// refusal makes the API server refuse some requests of a kind.
type refusal struct {
	verb, name string
	// pattern has a bit for each of eight such requests, in turn.
	pattern uint8
	seen    int
}

func newJudge(t *testing.T, r *rapid.T) *judge {
	j := &judge{world: newMemoryWorld(t), r: r, known: map[secret.Value]bool{}, tokens: 1}
	j.random = rand.New(rand.NewPCG(rapid.Uint64().Draw(r, "seed of the jitter"), 0))
	j.world.refuse = j.answer
	j.compass.after = func(string) { j.effect() }
	j.compass.dead = func() bool { return j.killed }
	configured := j.compass.runtime
	j.compass.runtime = func() string { return cmp.Or(configured(), "runtime") }
	j.start()
	return j
}

// start is a new process.
func (j *judge) start() {
	j.restart()
	j.world.r.Schedule.Random = j.random.Float64
	j.world.r.Log = slog.New(slog.NewTextHandler(&j.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	j.wake, j.errors, j.kill, j.killed = j.clock.Now(), 0, 0, false
	if j.untold {
		j.untold = false
		j.asked, j.annotated = true, j.unanswered
	}
	j.ignorant = true
	if j.deleted {
		j.last = time.Time{}
	}
	j.known = map[secret.Value]bool{j.noted: true}
}

// effect counts what is done outside of the process, and kills it when it is time to.
func (j *judge) effect() {
	if j.kill--; j.kill == 0 {
		j.killed = true
	}
}

// answer of the API server to a write.
func (j *judge) answer(verb, name string) error {
	if !j.alive {
		return nil
	}
	if j.killed {
		return errors.New("the process is dead")
	}
	for i := range j.refuse {
		if f := &j.refuse[i]; f.verb == verb && f.name == name {
			f.seen++
			if f.pattern>>(f.seen%8)&1 == 1 {
				return apierrors.NewForbidden(corev1.Resource("any"), name, errors.New("no"))
			}
		}
	}
	j.effect()
	return nil
}

func (j *judge) told() bool {
	c := j.find()
	return c == nil || c.Status.ObservedGeneration == c.Generation
}

// find gives the CompassConnection; nil if there is none.
func (j *judge) find() *compassv1alpha1.CompassConnection {
	c := &compassv1alpha1.CompassConnection{}
	if j.client.Get(j.t.Context(), request.NamespacedName, c) != nil {
		return nil
	}
	return c
}

// current is the certificate in the client Secret, if nothing is pending.
func (j *judge) current() string {
	var client, pending corev1.Secret
	get := func(name string, into *corev1.Secret) bool {
		return j.client.Get(j.t.Context(), types.NamespacedName{Namespace: "ns", Name: name}, into) == nil
	}
	if !get("client", &client) || get("client-pending", &pending) {
		return ""
	}
	return string(client.Data[certs.ClientCertificate])
}

// look wakes the worker once, and judges what it does.
func (j *judge) look() {
	before, sent := j.current(), len(j.compass.sent)
	j.alive = true
	result, err := j.world.r.Reconcile(j.t.Context(), request)
	j.alive = false
	delay := result.RequeueAfter
	now := j.clock.Now()
	j.trace = append(j.trace[max(0, len(j.trace)-5):], fmt.Sprintf("%s %v %v\n%s", now.Format(time.StampMilli), result, err, j.log.String()))
	j.log.Reset()
	for len(j.events.Events) > 0 {
		<-j.events.Events
	}
	calls := j.compass.called()
	after := j.current()
	if len(calls) > 0 {
		j.attempt(now, calls, j.compass.sent[sent:], (j.killed || err == nil) && after != "" && after != before)
	} else if after != "" && after != j.settled {
		j.belongs = true // what the attempt could not end, when the API server refused the last write, has ended now
	}
	j.settled = cmp.Or(after, j.settled)
	if j.asked && (len(calls) > 0 || delay > time.Millisecond && err == nil && !j.annotated) {
		j.unanswered = j.annotated
		j.asked, j.annotated = false, false
		j.untold = j.killed || !j.told()
	}
	switch {
	case j.killed:
		j.start()
	case err != nil:
		j.wake = now.Add(5 * time.Millisecond << min(j.errors, 17)) // as the queue does it
		j.errors++
	default:
		j.errors = 0
		j.wake = now.Add(delay)
		if delay == 0 { // nothing to wait for
			j.wake = now.Add(24 * time.Hour)
		}
	}
}

// attempt judges calls at Compass.
func (j *judge) attempt(now time.Time, calls []string, tokens []secret.Value, current bool) {
	since := now.Sub(j.last)
	fresh := len(tokens) > 0 && !second(tokens[0]) && !j.known[tokens[0]]
	follows := j.belongs && !slices.Contains(calls, "sign") && len(tokens) == 0
	if !j.last.IsZero() && since < floor && !fresh && !follows && !j.asked {
		j.r.Logf("the worker's last looks:\n%s", strings.Join(j.trace, ""))
		j.r.Fatalf("%s after the attempt %v: %v", since, j.calls, calls)
	}
	j.last, j.calls, j.belongs, j.ignorant, j.deleted = now, calls, current, false, false
	for _, token := range tokens {
		if !second(token) {
			j.known[token], j.noted = true, token
		}
	}
}

// second: the token is one that Compass gave for another.
func second(token secret.Value) bool { return strings.HasSuffix(token.Reveal(), "-second") }

// pass lets time pass, in which the worker is woken as it wants to be, and at the end once more, as by a watch.
func (j *judge) pass(d time.Duration) {
	end := j.clock.Now().Add(d)
	for range 200 {
		if j.wake.After(end) {
			break
		}
		if j.wake.After(j.clock.Now()) {
			j.clock.SetTime(j.wake)
		}
		j.look()
	}
	if j.clock.Now().Before(end) {
		j.clock.SetTime(end)
	}
	j.look()
}

func (j *judge) edit(f func(*compassv1alpha1.CompassConnection)) {
	c := j.find()
	if c == nil {
		return
	}
	f(c)
	c.Generation++
	if err := j.client.Update(j.t.Context(), c); err != nil {
		j.r.Fatal(err)
	}
	j.asked = true
}

func (j *judge) remove(name string) {
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name}}
	if err := j.client.Delete(j.t.Context(), s); client.IgnoreNotFound(err) != nil {
		j.r.Fatal(err)
	}
	if name == "client-pending" { // what a killed process wrote down of a token stood nowhere else
		clear(j.known)
		j.noted = ""
	}
}

// newToken makes one that Compass takes.
func (j *judge) newToken() string {
	j.tokens++
	token := fmt.Sprintf("t%d", j.tokens)
	j.compass.good[secret.Value(token)] = true
	return token
}

var (
	operations = []string{"configuration", "sign", "viewer", "trial", "snapshot", "label"}
	kinds      = []graphql.Kind{
		graphql.Unreachable, graphql.Timeout, graphql.ServerUntrusted, graphql.CertificateExpired, graphql.CertificateRefused, graphql.Ambiguous,
		graphql.Refused, graphql.ScopeMissing, graphql.Throttled, graphql.Server, graphql.Rejected, graphql.Malformed,
	}
	writes = []refusal{
		{verb: "apply", name: "client"}, {verb: "apply", name: "client-pending"}, {verb: "apply", name: "ca"}, {verb: "delete", name: "client-pending"},
		{verb: "status", name: compassv1alpha1.ConnectionName}, {verb: "patch", name: compassv1alpha1.ConnectionName}, {verb: "create", name: compassv1alpha1.ConnectionName},
	}
)

// actions are what may happen to an agent. After each of them time passes.
func (j *judge) actions() map[string]func(*rapid.T) {
	token := "t1"
	runtime := "runtime"
	configure := func() { j.register(runtime, "tenant", token) }
	return map[string]func(*rapid.T){
		"time passes": func(t *rapid.T) {
			j.pass(time.Duration(rapid.Int64Range(0, int64(2*time.Hour)).Draw(t, "time")))
		},
		"moments pass": func(t *rapid.T) {
			for range rapid.IntRange(1, 5).Draw(t, "wake-ups") {
				j.pass(time.Duration(rapid.Int64Range(0, int64(20*time.Second)).Draw(t, "time")))
			}
		},
		"the time of renewal comes": func(*rapid.T) {
			if c := j.find(); c != nil && c.Status.ConnectionStatus != nil && c.Status.ConnectionStatus.CertificateStatus.RenewAt != nil {
				if at := c.Status.ConnectionStatus.CertificateStatus.RenewAt.Time; at.After(j.clock.Now()) {
					j.clock.SetTime(at)
				}
			}
		},
		"Compass fails": func(t *rapid.T) {
			failed := &graphql.Error{Kind: rapid.SampledFrom(kinds).Draw(t, "kind"), RetryAfter: time.Duration(rapid.SampledFrom([]int{0, 0, 1, 60, 1800}).Draw(t, "retry after")) * time.Second}
			for _, operation := range rapid.SliceOfDistinct(rapid.SampledFrom(operations), rapid.ID).Draw(t, "operations") {
				j.compass.fail(operation, failed)
			}
		},
		"Compass is mended": func(*rapid.T) {
			for _, operation := range operations {
				j.compass.fail(operation, nil)
			}
		},
		"Compass answers otherwise": func(t *rapid.T) {
			j.compass.incomplete = rapid.Bool().Draw(t, "incomplete")
			j.syncer.err = nil
			if rapid.Bool().Draw(t, "the cluster refuses Applications") {
				j.syncer.err = errors.New("no")
			}
			if rapid.Bool().Draw(t, "the certificate is another runtime's") && j.compass.inUse != nil {
				j.compass.issued[certs.Fingerprint(j.compass.inUse.Leaf)] = "other"
			}
		},
		"the certificate is revoked": func(*rapid.T) {
			if j.compass.inUse != nil {
				j.compass.revoked[certs.Fingerprint(j.compass.inUse.Leaf)] = true
			}
		},
		"the API server refuses": func(t *rapid.T) {
			w := rapid.SampledFrom(writes).Draw(t, "writes")
			w.pattern = rapid.Uint8().Draw(t, "pattern")
			j.refuse = append(j.refuse, w)
		},
		"the API server is mended": func(*rapid.T) { j.refuse = nil },
		"the process is killed": func(t *rapid.T) {
			j.kill = rapid.IntRange(1, 12).Draw(t, "after effects")
		},
		"the process starts anew": func(*rapid.T) { j.start() },
		"a sync is asked for": func(*rapid.T) {
			j.edit(func(c *compassv1alpha1.CompassConnection) { c.Spec.ResyncNow = true })
		},
		"a renewal is asked for": func(*rapid.T) {
			j.edit(func(c *compassv1alpha1.CompassConnection) { c.Spec.RefreshCredentialsNow = true })
		},
		"something is asked for by annotation": func(t *rapid.T) {
			annotation := rapid.SampledFrom([]string{compassv1alpha1.RenewAnnotation, compassv1alpha1.ResyncAnnotation}).Draw(t, "annotation")
			j.edit(func(c *compassv1alpha1.CompassConnection) {
				j.annotated = true
				c.Annotations = map[string]string{annotation: j.clock.Now().String()}
			})
		},
		"the CompassConnection is deleted": func(*rapid.T) {
			if c := j.find(); c != nil {
				if err := j.client.Delete(j.t.Context(), c); err != nil {
					j.r.Fatal(err)
				}
				j.asked, j.deleted, j.noted = true, true, ""
				if j.ignorant { // the status was all that it knew
					j.last = time.Time{}
					clear(j.known)
				}
			}
		},
		"a Secret is deleted": func(t *rapid.T) {
			j.remove(rapid.SampledFrom([]string{"client", "client-pending", "ca"}).Draw(t, "name"))
		},
		"a new token comes": func(t *rapid.T) {
			token = j.newToken()
			if rapid.Bool().Draw(t, "it is wrong") {
				j.compass.good[secret.Value(token)] = false
			}
			configure()
		},
		"the token is taken away": func(*rapid.T) { j.register(runtime, "tenant", "") },
		"the token is put back":   func(*rapid.T) { configure() },
		"an older token is put back": func(t *rapid.T) {
			token = fmt.Sprintf("t%d", rapid.IntRange(1, j.tokens).Draw(t, "number"))
			configure()
		},
		"another runtime is configured": func(t *rapid.T) {
			runtime = rapid.SampledFrom([]string{"runtime", "other", ""}).Draw(t, "runtime")
			configure()
		},
		"": func(t *rapid.T) { // after each of them
			j.pass(time.Duration(rapid.SampledFrom([]int64{0, 0, 1, 20, 1000}).Draw(t, "milliseconds")) * time.Millisecond)
		},
	}
}

func errorOf(c *compassv1alpha1.CompassConnection) string {
	if c.Status.SynchronizationStatus == nil {
		return ""
	}
	return c.Status.SynchronizationStatus.Error
}

// An attempt is one pairing, one renewal or one sync, with all calls that belong to it: the call that tries a new certificate,
// the one that tells a revoked certificate from an outage, and the sync that follows when a certificate has become current. What
// calls nobody is none, be it a write to the cluster that is repeated.
func TestNoPathOfFailureAttemptsSoonerThanTheFloor(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		j := newJudge(t, r)
		r.Repeat(j.actions())

		// And none of them ends where nothing but hands helps, if everybody else does what they should.
		j.refuse, j.kill = nil, 0
		for _, operation := range operations {
			j.compass.fail(operation, nil)
		}
		j.compass.incomplete, j.syncer.err = false, nil
		j.pass(time.Minute)
		j.register("runtime", "tenant", j.newToken())
		j.pass(2 * time.Hour)
		c := j.find()
		if c == nil {
			r.Fatal("there is no CompassConnection")
		}
		if c.Status.State != compassv1alpha1.Synchronized && c.Status.ConsecutiveFailures != 0 {
			r.Logf("the worker's last looks:\n%s", strings.Join(j.trace, ""))
			r.Fatalf("two hours later: %s %s", c.Status.ConnectionStatus.Error, errorOf(c))
		}
	})
}

// Package impostor plays external systems that try to pass for others. It generates pairs of Applications that are easily
// taken for each other, client certificates with whatever an authority may sign, and requests byte by byte; it sends them
// through a TLS terminator and a validator to a publisher, and holds in whose name the publisher would take each event
// against what it knows of the certificate.
//
// It knows neither how the terminator tells of a client nor how the validator reads that.
package impostor

import (
	"slices"
	"strconv"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
)

// Application is one in the cluster.
type Application struct {
	Name string
	// Managed says that Compass names its clients; else its client has the Application's name.
	Managed bool
	// Clients are the common names that may speak for it; there may be none if it is managed.
	Clients []string
}

// Object is the Application as it is created in the cluster.
func (a Application) Object() *v1alpha1.Application {
	object := &v1alpha1.Application{ObjectMeta: metav1.ObjectMeta{Name: a.Name}, Spec: v1alpha1.ApplicationSpec{Description: "test", Services: []v1alpha1.Service{}}}
	if a.Managed {
		object.Spec.CompassMetadata = &v1alpha1.CompassMetadata{ApplicationID: a.Name, Authentication: v1alpha1.Authentication{ClientIDs: append([]string{}, a.Clients...)}}
	}
	return object
}

// pair is two Applications that are easily taken for each other.
type pair [2]Application

// drawPair draws a pair; unique is part of both names, so that they are new in the cluster.
func drawPair(rt *rapid.T, unique int) pair {
	word := rapid.StringMatching(`[a-z][a-z0-9]{1,7}`)
	victim := word.Draw(rt, "victim") + strconv.Itoa(unique)
	attacker := victim + "-" + word.Draw(rt, "attacker")
	id := rapid.StringMatching(`[0-9a-f]{8}-[0-9a-f]{4}`).Draw(rt, "client id")
	own := func(name string) Application { return Application{Name: name, Clients: []string{name}} }
	managed := func(name string, clients ...string) Application { return Application{name, true, clients} }
	return rapid.SampledFrom([]pair{
		{own(victim), own(attacker)},                               // one name begins with the other
		{managed(victim, id), managed(attacker, victim)},           // a client has the name of another's Application
		{managed(victim, id, attacker), managed(attacker, id)},     // they share a client
		{managed(victim), managed(attacker, id)},                   // nobody may speak for one
		{own(victim), managed(attacker, id)},                       // one is managed, and its name is not its client's
		{managed(victim, id), managed(attacker, id+",CN="+victim)}, // a common name that reads like two
		{managed(victim, id), managed(attacker, "A-"+id, id+" ")},  // nearly the same client
		{managed(victim, "O=x+CN="+id), managed(attacker, id)},     // a common name that reads like another attribute
	}).Draw(rt, "pair")
}

// words are the names that are worth to be taken for.
func (p pair) words() []string {
	var all []string
	for _, a := range p {
		all = append(append(all, a.Name), a.Clients...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// of returns the Application of a name, or one that nobody may speak for.
func (p pair) of(name string) Application {
	for _, a := range p {
		if a.Name == name {
			return a
		}
	}
	return Application{Name: name, Managed: true}
}

// namedBy draws one of the Applications that a certificate seems to belong to, or any if it seems to belong to none.
func (p pair) namedBy(rt *rapid.T, c certificate) Application {
	named := slices.DeleteFunc(slices.Clone(p[:]), func(a Application) bool { return !c.claimsToSpeakFor(a) })
	if len(named) == 0 {
		named = p[:]
	}
	return rapid.SampledFrom(named).Draw(rt, "named")
}

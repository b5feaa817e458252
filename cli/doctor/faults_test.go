package doctor_test

import (
	"crypto/tls"
	"crypto/x509/pkix"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/certs"
	"github.com/application-connector/application-connector/cli/doctor"
	"github.com/application-connector/application-connector/simulator/authority"
)

// fault is one thing that is wrong, and what the command must say of it.
type fault struct {
	name  string
	plant func(w *world)
	// args after the flags; w.application stands for shop.
	args []string
	// step that must be found, and code, the exit code: 1 if it is 0 here.
	step string
	code int
	// line is the whole line.
	line string
}

// directed leads the cluster to another Director, whose agent has not reached it either.
func directed(url func(w *world) string) func(*world) {
	return func(w *world) {
		w.connect(unconnected, func(c *compassv1alpha1.CompassConnection) { c.Spec.ManagementInfo.DirectorURL = url(w) })
	}
}

// targeted leads an API elsewhere.
func targeted(service string, url func(w *world) string) func(*world) {
	return func(w *world) { w.entry(service, func(e *v1alpha1.Entry) { e.TargetURL = url(w) }) }
}

// always is an URL that needs nothing of the world.
func always(url string) func(*world) string { return func(*world) string { return url } }

// condition sets a condition of the CompassConnection.
func condition(kind string, status metav1.ConditionStatus, reason, message string) func(*compassv1alpha1.CompassConnection) {
	return func(c *compassv1alpha1.CompassConnection) {
		c.Status.Conditions = slices.DeleteFunc(c.Status.Conditions, func(c metav1.Condition) bool { return c.Type == kind })
		c.Status.Conditions = append(c.Status.Conditions, metav1.Condition{Type: kind, Status: status, Reason: reason, Message: message, LastTransitionTime: metav1.Now()})
	}
}

// refusedBySync is an Application of which the agent says that it is not as Compass says.
func refusedBySync(a *v1alpha1.Application) {
	a.Spec.CompassMetadata = &v1alpha1.CompassMetadata{ApplicationID: "1", Authentication: v1alpha1.Authentication{ClientIDs: []string{}}}
	a.Status.Conditions = append(a.Status.Conditions, metav1.Condition{
		Type: v1alpha1.ConditionSynchronized, Status: metav1.ConditionFalse, Reason: "InvalidData", Message: "bundles[0].name is missing", LastTransitionTime: metav1.Now(),
	})
}

func TestEachPlantedFaultIsFoundAndNamed(t *testing.T) {
	for _, f := range slices.Concat(compassFaults, targetFaults) {
		t.Run(f.name, func(t *testing.T) { f.isFound(newWorld(t)) })
	}
}

// isFound plants the fault, and wants it found and named.
func (f fault) isFound(w *world) {
	t := w.t
	t.Helper()
	f.plant(w)
	args := slices.Clone(f.args)
	for i := range args {
		args[i] = w.named(args[i])
	}
	r, out := w.report(args...)
	want := f.code
	if want == 0 {
		want = 1
	}
	if out.code != want {
		t.Errorf("exit code %d, want %d", out.code, want)
	}
	if out.line != f.line {
		t.Errorf("got  %s\nwant %s", out.line, f.line)
	}
	state := map[int]doctor.State{1: doctor.Wrong, 2: doctor.Unknown}[want]
	i := slices.IndexFunc(r.Steps, func(s doctor.Step) bool { return s.State != doctor.OK && s.State != doctor.Skipped })
	if i < 0 || r.Steps[i].Name != f.step || r.Steps[i].State != state {
		t.Errorf("%s should be the first that is not well, and %s: %+v", f.step, state, r.Steps)
	}
	if t.Failed() {
		t.Log(w.plain(w.examine(args...).stdout))
	}
}

// secured starts a server with a certificate of the other authority, for names.
func (w *world) secured(place string, change func(*tls.Config), names ...string) string {
	w.t.Helper()
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.TLS = &tls.Config{Certificates: []tls.Certificate{w.certificate(names...)}}
	if change != nil {
		change(s.TLS)
	}
	s.StartTLS()
	w.t.Cleanup(s.Close)
	w.knows(hostOf(s.URL), place)
	return s.URL
}

// certificate is a server's, of the other authority.
func (w *world) certificate(names ...string) tls.Certificate {
	w.t.Helper()
	cert, key, err := w.authority.Issue(authority.Request{Subject: pkix.Name{CommonName: "server"}, Hosts: names, Server: true})
	if err != nil {
		w.t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		w.t.Fatal(err)
	}
	return pair
}

// peer accepts connections, has each handled and closes it.
func (w *world) peer(place string, handle func(net.Conn)) string {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				handle(conn)
				conn.Close()
			})
		}
	})
	w.t.Cleanup(func() {
		l.Close()
		running.Wait()
	})
	w.knows(l.Addr().String(), place)
	return "https://" + l.Addr().String()
}

// set gives the Application, as it is, settings.
func (w *world) set(settings v1alpha1.TargetSettings) {
	w.t.Helper()
	app := &v1alpha1.Application{}
	if err := w.client.Get(w.t.Context(), types.NamespacedName{Name: w.application}, app); err != nil {
		w.t.Fatal(err)
	}
	app.Spec.TargetSettings = append(app.Spec.TargetSettings, settings)
	if err := w.client.Update(w.t.Context(), app); err != nil {
		w.t.Fatal(err)
	}
	app.Status.Conditions[0].ObservedGeneration = app.Generation
	if err := w.client.Status().Update(w.t.Context(), app); err != nil {
		w.t.Fatal(err)
	}
}

// credential is the content of a client Secret of an authority that Compass does not know.
func (w *world) credential() map[string][]byte {
	w.t.Helper()
	cert, key, err := w.authority.Issue(authority.Request{Subject: pkix.Name{CommonName: "stranger"}})
	if err != nil {
		w.t.Fatal(err)
	}
	return map[string][]byte{certs.ClientKey: key, certs.ClientCertificate: cert, certs.ClientChain: append(slices.Clone(cert), w.authority.CA()...)}
}

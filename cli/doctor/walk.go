package doctor

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/klog/v2"
	"sigs.k8s.io/controller-runtime/pkg/client"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/certs"
	"github.com/application-connector/application-connector/gateway/credentials"
	"github.com/application-connector/application-connector/gateway/csrf"
	"github.com/application-connector/application-connector/gateway/tokens"
	"github.com/application-connector/application-connector/gateway/transport"
	"github.com/application-connector/application-connector/graphql"
)

// walk is one run, with what the agent and the gateway would use.
type walk struct {
	*Options
	cluster client.Client
	from    string

	// transport is the agent's way to Compass.
	transport *graphql.Transport
	// pool and resolver are the gateway's ways to APIs and their tokens. probes is a pool of the same kind whose transports
	// carry no request: one that does changes its TLS configuration with the first, while others may look at it.
	pool     *transport.Pool
	probes   *transport.Pool
	tokens   *tokens.Manager
	sessions *csrf.Manager
	resolver *credentials.Resolver
}

// start makes ready what is needed. It calls nobody.
func (o *Options) start() (*walk, error) {
	// What client-go and controller-runtime log by themselves is said by the steps, in words.
	klog.SetLogger(logr.Discard())
	ctrllog.SetLogger(logr.Discard())
	w := &walk{Options: o, from: FromMachine}
	if o.Getenv("KUBERNETES_SERVICE_HOST") != "" { // Kubernetes sets it in every Pod
		w.from = FromCluster
	}
	o.config.QPS = -1 // one run of the command is no burden, and a limit of its own would only slow it down
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), v1alpha1.AddToScheme(scheme), compassv1alpha1.AddToScheme(scheme)); err != nil {
		return nil, err
	}
	var err error
	if w.cluster, err = client.New(o.config, client.Options{Scheme: scheme}); err != nil {
		return nil, fmt.Errorf("the cluster at %s: %w", o.config.Host, err)
	}
	compass := graphql.Options{InsecureSkipVerify: o.agent.SkipCompassTLSVerify, Timeout: callTimeout, UserAgent: "appconn-doctor"}
	if o.agent.CompassCAFile != "" {
		if compass.RootCAs, err = graphql.RootsFromFile(o.agent.CompassCAFile); err != nil {
			return nil, fmt.Errorf("environment variable APP_COMPASS_CA_FILE: %w", err)
		}
	}
	var roots *x509.CertPool
	if o.TargetCAFile != "" {
		if roots, err = transport.Roots(o.TargetCAFile); err != nil {
			return nil, fmt.Errorf("--target-ca-file: %w", err)
		}
	}
	api, err := transport.APIServerOf(o.config, os.Getenv)
	if err != nil {
		return nil, err
	}
	guard, err := transport.NewGuard(o.allowed, api, o.Clock)
	if err != nil {
		return nil, err
	}
	w.transport = graphql.NewTransport(compass)
	w.pool, w.probes = transport.New(transport.Options{Roots: roots, Guard: guard}), transport.New(transport.Options{Roots: roots, Guard: guard})
	through := func(direct bool) func(string, *credentials.Identity, credentials.Trust) http.RoundTripper {
		return func(host string, identity *credentials.Identity, trust credentials.Trust) http.RoundTripper {
			return w.pool.For(transport.Target{Host: host, Identity: identity, Trust: trust, Direct: direct})
		}
	}
	w.tokens = tokens.New(tokens.Options{Transports: through(true), Timeout: callTimeout, Clock: o.Clock})
	w.sessions = csrf.New(csrf.Options{Transports: through(false), Timeout: callTimeout, Clock: o.Clock})
	w.resolver = &credentials.Resolver{Tokens: w.tokens, Sessions: w.sessions}
	return w, nil
}

// close gives up what start made.
func (w *walk) close() {
	w.tokens.Close()
	w.sessions.Close()
	w.pool.CloseIdleConnections()
	w.transport.CloseIdleConnections()
}

func (w *walk) now() time.Time { return w.Clock.Now() }

// all is every step.
func (w *walk) all(ctx context.Context) Report {
	var c chain
	c.do(ctx, StepCluster, nil, w.reachable)
	if len(c.roots) > 0 { // everything else is in the cluster
		return newReport(w.from, c.steps)
	}
	steps := c.steps
	var own *certs.Credential
	if !w.Standalone {
		var found []Step
		found, own = w.compass(ctx)
		steps = append(steps, found...)
	}
	steps = append(steps, w.inbound(ctx, own)...)
	if w.target.application == "" {
		steps = append(steps, w.applications(ctx)...)
	} else {
		steps = append(steps, w.application(ctx, w.target)...)
	}
	return newReport(w.from, steps)
}

// reachable judges the cluster itself.
func (w *walk) reachable(ctx context.Context) outcome {
	var some v1alpha1.ApplicationList
	if err := w.cluster.List(ctx, &some, &client.ListOptions{Limit: 1}); err != nil {
		return unreadable(err)
	}
	return fine("%s answers, and has the resource definitions", w.config.Host)
}

// unreadable says what to do when the cluster does not give something.
func unreadable(err error) outcome {
	switch {
	case meta.IsNoMatchError(err):
		return wrong("apply manifests/crds, or choose another cluster by --context", "the cluster does not have the resource definitions of Application Connector: %s", err)
	case apierrors.IsUnauthorized(err):
		return unknown("the credentials in the kubeconfig are wrong or too old: get new ones", "the cluster does not know who you are: %s", err)
	case apierrors.IsForbidden(err):
		return unknown("ask for the rights that docs/reference/appconn-doctor.md lists", "you may not read what is needed: %s", err)
	}
	return unknown("is it the right --context, and does the server run?", "the cluster cannot be read: %s", err)
}

// fromHere takes into account that names and private addresses of the cluster's network mean nothing, or something else,
// outside of it.
func (w *walk) fromHere(o outcome, l *link) outcome {
	if w.from != FromMachine || o.state != Wrong && o.state != Unknown || transport.Forbidden(l.dialled) != nil || !clusterName(l.host) && !private(l) {
		return o
	}
	return unknown("run this command in the cluster: see docs/reference/appconn-doctor.md", "could not be checked from here, for it may be of the cluster's network: %s", o.finding)
}

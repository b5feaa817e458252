package doctor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/gateway/credentials"
	"github.com/application-connector/application-connector/gateway/proxy"
	"github.com/application-connector/application-connector/gateway/routes"
	"github.com/application-connector/application-connector/gateway/settings"
	"github.com/application-connector/application-connector/gateway/transport"
)

// noCalls is why a step is left out by --no-calls.
const noCalls = "left out by --no-calls"

// Whom connections lead to, in words.
const (
	apiPeer   = "the API"
	tokenPeer = "the token endpoint"
)

// called is one API that is looked at.
type called struct {
	*walk
	chain
	*api
	app *v1alpha1.Application
	// data and failed are the Secrets that the API names, among others, and why some cannot be read.
	data   map[string]map[string][]byte
	failed map[string]error
}

// api looks at one API as the gateway calls it.
func (w *walk) api(ctx context.Context, app *v1alpha1.Application, a *api, data map[string]map[string][]byte, failed map[string]error) []Step {
	c := &called{walk: w, api: a, app: app, data: data, failed: failed}
	c.about = a.path(app.Name)
	c.do(ctx, StepAPI, nil, func(context.Context) outcome { return a.addressed(app.Name) })
	if len(c.roots) > 0 { // there is no call that would lead to it
		return c.steps
	}
	c.do(ctx, StepCredentials, nil, c.prepared)
	c.reach(ctx)
	r := a.route
	if r.Credentials != nil && r.Credentials.Token != nil {
		c.call(ctx, StepToken, []string{StepCredentials}, c.token)
	}
	if r.CSRF != "" {
		c.call(ctx, StepCSRF, []string{StepCredentials, StepToken}, c.csrf)
	}
	c.call(ctx, StepAnswer, []string{StepCredentials, StepTargetTLS, StepToken, StepCSRF}, c.answer)
	return c.steps
}

// call makes a step that sends something to somebody.
func (c *called) call(ctx context.Context, name string, needs []string, check func(context.Context) outcome) {
	if c.NoCalls {
		check = func(context.Context) outcome { return left(noCalls) }
	}
	c.do(ctx, name, needs, check)
}

// fromCompass says whether the Application is the agent's to write.
func (c *called) fromCompass() bool { return c.app.Spec.CompassMetadata != nil }

// mend is what to do about what stands in the Application or in a Secret.
func (c *called) mend(what string) string {
	if c.fromCompass() {
		return what + " in Compass: the agent brings it here with its next sync"
	}
	return what
}

// prepared judges what the gateway makes of the entry and the Secrets that it names.
func (c *called) prepared(context.Context) outcome {
	for _, name := range c.uses {
		if err := c.failed[name]; err != nil {
			return unreadable(err)
		}
	}
	if len(c.problems) > 0 {
		return c.problem()
	}
	r, spec := c.route, c.spec.Credentials
	text := "of type " + r.Credentials.Kind
	if names := slices.Compact(slices.Sorted(slices.Values(c.uses))); len(names) > 0 {
		text += fmt.Sprintf("; in namespace %s, Secret %s has what is needed", c.agent.IntegrationNamespace, strings.Join(names, " and Secret "))
	}
	identity := r.Credentials.Identity
	if r.Credentials.Token != nil && r.Credentials.Token.Identity != nil {
		identity = r.Credentials.Token.Identity
	}
	if identity == nil {
		return fine("%s", text)
	}
	leaf := identity.Certificate.Leaf
	switch {
	case !c.now().Before(leaf.NotAfter):
		return wrong(c.mend("put a new certificate with its key there"), "the client certificate %s in Secret %s ended at %s", leaf.Subject, spec.SecretName, stamp(leaf.NotAfter))
	case c.now().Before(leaf.NotBefore):
		return wrong("compare the clocks", "the client certificate %s in Secret %s is valid from %s only", leaf.Subject, spec.SecretName, stamp(leaf.NotBefore))
	}
	return fine("%s; client certificate %s, issued by %s, valid until %s", text, leaf.Subject, leaf.Issuer, stamp(leaf.NotAfter))
}

// problem is the first of what the gateway finds wrong, with the others.
func (c *called) problem() outcome {
	var texts []string
	for _, p := range c.problems {
		texts = append(texts, p.Message)
	}
	remedy := c.mend("correct it")
	switch reason := c.problems[0].Reason; reason {
	case routes.ReasonSecretMissing:
		remedy = fmt.Sprintf("create it in namespace %s", c.agent.IntegrationNamespace)
		if c.fromCompass() {
			remedy = "look at the agent, which writes it, and at condition CredentialsReady of the Application"
		}
	case routes.ReasonSettingsInvalid:
		remedy = "correct the field in the Application: it is not Compass's"
	case routes.Reason(credentials.ReasonKeyMissing), routes.Reason(credentials.ReasonCertificateInvalid), routes.Reason(credentials.ReasonParametersInvalid):
		remedy = c.mend("put the right value there")
	}
	return wrong(remedy, "%s", strings.Join(texts, "; "))
}

// target says where calls go through the pool, as the gateway's engine does.
func (c *called) target() transport.Target {
	r := c.route
	t := transport.Target{Host: r.Target.Scheme + "://" + r.Target.Host, Trust: r.Trust, Connect: r.Settings.Timeouts.Connect}
	if r.Credentials != nil {
		t.Identity = r.Credentials.Identity
	}
	return t
}

// peer is whom connections lead to.
func (c *called) peer(what, source string) peer {
	return peer{
		what: what, source: source, now: c.now(),
		trust:       fmt.Sprintf("put the authority into %s.tls of the Application or, if the gateway has it by -targetCAFile, name that file by --target-ca-file", settings.Path(c.service+"/"+c.entry)),
		certificate: c.certificate(what),
	}
}

// certificate is what to do about a peer that does not accept the client certificate, or demands one.
func (c *called) certificate(what string) string {
	switch kind := c.spec.Credentials.Type; {
	case kind == v1alpha1.CredentialsTypeOAuthWithCert && what == apiPeer && !c.route.Settings.OAuth.CertificateBound:
		return fmt.Sprintf("set oauth.certificateBound in %s of the Application: it has the API get the certificate too", settings.Path(c.service+"/"+c.entry))
	case kind == v1alpha1.CredentialsTypeOAuth && what == tokenPeer:
		return c.mend("give the entry credentials of type " + v1alpha1.CredentialsTypeOAuthWithCert)
	case kind == v1alpha1.CredentialsTypeOAuthWithCert, kind == v1alpha1.CredentialsTypeCertificateGen:
		return c.mend("compare the certificate in Secret " + c.spec.Credentials.SecretName + " with what " + what + " accepts, and correct it")
	}
	return c.mend("give the entry credentials of type " + v1alpha1.CredentialsTypeCertificateGen)
}

// reach connects to the API.
func (c *called) reach(ctx context.Context) {
	p := c.peer(apiPeer, "targetUrl of the entry")
	var l *link
	needs := []string{StepCredentials}
	if c.route.Target != nil && credentials.CheckURL(c.route.Target.String()) == nil {
		needs = nil // whatever is wrong with the credentials, the API can be looked for
	}
	c.do(ctx, StepTargetDNS, needs, func(ctx context.Context) outcome {
		l = connect(ctx, c.probes.For(c.target()).Transport, c.route.Target)
		return c.fromHere(p.dns(l), l)
	})
	c.do(ctx, StepTargetTCP, []string{StepTargetDNS}, func(context.Context) outcome { return c.fromHere(p.tcp(l), l) })
	needs = []string{StepTargetTCP}
	if c.route.Refused != nil { // the handshake may want a certificate that is not to be had
		needs = append(needs, StepCredentials)
	}
	c.do(ctx, StepTargetTLS, needs, func(ctx context.Context) outcome { return p.tls(ctx, l) })
}

// token asks for a token, as the gateway does.
func (c *called) token(ctx context.Context) outcome {
	request := c.route.Credentials.Token
	u, err := url.Parse(request.URL)
	if err != nil {
		return wrong(c.mend("correct it"), "credentials.authenticationUrl cannot be parsed as a URL")
	}
	p := c.peer(tokenPeer, "credentials.authenticationUrl of the entry")
	direct := c.probes.For(transport.Target{Host: u.Host, Identity: request.Identity, Trust: c.route.Trust, Direct: true}).Transport
	if o := p.judge(ctx, connect(ctx, direct, u), c.fromHere); o != nil {
		return *o
	}
	use := c.route.Use()
	use.CSRF = ""
	if _, err := c.resolver.Resolve(ctx, use); err != nil {
		return c.refused(err, p)
	}
	return fine("%s gives a token", credentials.PrintableURL(request.URL))
}

// csrf opens a session, as the gateway does.
func (c *called) csrf(ctx context.Context) outcome {
	p := c.peer("the CSRF token endpoint", "credentials.csrfInfo.tokenEndpointURL of the entry")
	u, err := url.Parse(c.route.CSRF)
	if err != nil {
		return wrong(c.mend("correct it"), "credentials.csrfInfo.tokenEndpointURL cannot be parsed as a URL")
	}
	through := c.probes.For(transport.Target{Host: u.Host, Identity: c.route.Credentials.Identity, Trust: c.route.Trust}).Transport
	if o := p.judge(ctx, connect(ctx, through, u), c.fromHere); o != nil {
		return *o
	}
	if _, err := c.resolver.Resolve(ctx, c.route.Use()); err != nil {
		return c.refused(err, p)
	}
	return fine("%s gives a token in %s", credentials.PrintableURL(c.route.CSRF), c.route.Settings.CSRF.Holds())
}

// refused says what it means that an endpoint gave nothing.
func (c *called) refused(err error, p peer) outcome {
	call, ok := errors.AsType[*credentials.CallError](err)
	if !ok {
		return unknown("run it again", "%s was not waited for: %s", p.what, err)
	}
	who := "run " + p.what
	switch status := call.Answered; {
	case status == 0:
		return wrong("look whether "+p.what+" is well, and at what may be on the way", "%s", call.Message)
	case status == http.StatusTooManyRequests:
		return unknown("run it again later", "%s", call.Message)
	case status == http.StatusBadRequest, status == http.StatusUnauthorized, status == http.StatusForbidden:
		return wrong(c.mend("correct the credentials in "+c.secret()), "%s", call.Message)
	case status >= 500:
		return wrong("ask those who "+who, "%s", call.Message)
	}
	return wrong(c.mend("correct "+p.source)+", if that is not "+p.what, "%s", call.Message)
}

// secret names the Secret of the credentials.
func (c *called) secret() string {
	if name := c.spec.Credentials.SecretName; name != "" {
		return "Secret " + name
	}
	return "the entry, which names none"
}

// answer has the gateway's own engine call the API's root by GET.
func (c *called) answer(ctx context.Context) outcome {
	status, reason, err := c.get(ctx)
	if err != nil {
		return unknown("run it again", "the call could not be made: %s", err)
	}
	where := credentials.PrintableURL(c.route.Target.String())
	switch {
	case reason == proxy.FailureTarget:
		return wrong("ask those who run the API", "GET %s is answered by %d", where, status)
	case reason == proxy.FailureTimeout:
		return wrong("ask those who run the API, or raise timeouts.header in "+settings.Path(c.service+"/"+c.entry)+" of the Application", "GET %s is not answered in time", where)
	case reason != "":
		return wrong("look at the reason in docs/reference/gateway.md", "GET %s fails, and the gateway gives the reason %s", where, reason)
	case status == http.StatusUnauthorized, status == http.StatusForbidden:
		return c.rejected(where, status)
	case status == http.StatusTooManyRequests:
		return unknown("run it again later", "GET %s is answered by %d: there were too many calls", where, status)
	case status >= http.StatusBadRequest:
		return fine("GET %s is answered by %d: the API is there, and does not refuse the credentials", where, status)
	}
	return fine("GET %s is answered by %d", where, status)
}

// rejected is for an API that does not accept the credentials, or wants some where there are none.
func (c *called) rejected(where string, status int) outcome {
	switch {
	case c.route.Credentials.Kind == v1alpha1.CredentialsTypeNone && c.route.Parameters == nil:
		return wrong(c.mend("add credentials"), "GET %s is answered by %d, and the entry names no credentials", where, status)
	case c.route.Credentials.Kind == v1alpha1.CredentialsTypeNone:
		return wrong(c.mend("correct the values in Secret "+c.spec.RequestParametersSecretName), "GET %s is answered by %d: the API does not accept the request parameters", where, status)
	}
	remedy := c.mend("correct the credentials in " + c.secret())
	if c.route.Credentials.Token != nil {
		remedy += ", or give the client the right to call the API"
	}
	return wrong(remedy, "GET %s is answered by %d: the API does not accept the credentials of type %s", where, status, c.route.Credentials.Kind)
}

// get calls the API's root through the gateway's engine, and gives the API's status and the gateway's reason, if it gave one.
func (c *called) get(ctx context.Context) (status int, reason string, err error) {
	// Who may call is not in question here, and who looks is no workload.
	open := c.alone
	open.Spec.TargetSettings = slices.Clone(open.Spec.TargetSettings)
	for i := range open.Spec.TargetSettings {
		open.Spec.TargetSettings[i].AllowedCallers = nil
	}
	snapshot := routes.NewSnapshot([]v1alpha1.Application{open}, c.data)
	engine := proxy.New(proxy.Options{
		Snapshot: func() *routes.Snapshot { return snapshot }, Resolver: c.resolver, Transports: c.pool, Timeout: callTimeout, Log: slog.New(slog.DiscardHandler),
	})
	handler := engine.Entries()
	if c.entry == "" { // its address has no last part
		handler = engine.Services()
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://gateway/"+c.about, http.NoBody)
	if err != nil {
		return 0, "", err
	}
	request.Header.Set("User-Agent", "appconn-doctor")
	w := &headOnly{header: http.Header{}}
	handler.ServeHTTP(w, request)
	if ctx.Err() != nil {
		return 0, "", context.Cause(ctx)
	}
	status = w.status
	if own, err := strconv.Atoi(w.header.Get(proxy.HeaderTargetStatus)); err == nil {
		status = own
	}
	return status, w.header.Get(proxy.HeaderReason), nil
}

// headOnly takes an answer's status and header. The first piece of its body ends the call: nobody reads it.
type headOnly struct {
	header http.Header
	status int
}

var errEnough = errors.New("the body is not read")

// Header implements http.ResponseWriter.
func (w *headOnly) Header() http.Header { return w.header }

// WriteHeader implements http.ResponseWriter. What informs comes before the answer.
func (w *headOnly) WriteHeader(status int) {
	if w.status == 0 && status >= http.StatusOK {
		w.status = status
	}
}

// Write implements http.ResponseWriter.
func (w *headOnly) Write([]byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return 0, errEnough
}

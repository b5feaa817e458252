package compass

import (
	"context"
	"errors"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/99designs/gqlgen/graphql/executor"
	"github.com/vektah/gqlparser/v2/gqlerror"
)

// maxRequestBytes is the limit of the real one's gateway.
const maxRequestBytes = 2 << 20

const (
	contentTypeJSON    = "application/json"
	contentTypeRefused = "application/json;charset=UTF-8"
)

// Names of the endpoints and APIs, as Request has them.
const (
	endpointToken = "token"
	endpointMTLS  = "mtls"
	endpointAdmin = "admin"
	apiConnector  = "connector"
	apiDirector   = "director"
)

// endpoint is one GraphQL API at one listener.
type endpoint struct {
	name, api string
	exec      *executor.Executor
}

// answer is a response before it is written, so that faults can change it.
type answer struct {
	status      int
	contentType string
	header      http.Header
	body        []byte
}

func refused(status int) answer { return answer{status: status, contentType: contentTypeRefused} }

// call is what one request carries through the resolvers.
type call struct {
	consumer consumer
	faults   activeFaults
	inv      atomic.Pointer[inventory]
	// foreignTenant says that the Connector was called with the tenant of
	// somebody else.
	foreignTenant bool
	// nested holds the page arguments that a nested list was first asked
	// with: the real Director uses them for every list of that name in the
	// document.
	nested sync.Map
}

type callKey struct{}

func callOf(ctx context.Context) *call { return ctx.Value(callKey{}).(*call) }

func (s *Server) handle(e endpoint) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequestBytes))
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return
		}
		if err != nil {
			return // the client went away
		}
		operations := rootFields(body)
		number := s.traffic.received(describeRequest(e, r, operations, len(body), s.now()))
		status := 0
		defer func() { s.traffic.answered(number, operations, status) }()
		faults := s.faults.take(operations)
		a, cut := replacedAnswer(faults, operations, false)
		if !cut && a == nil {
			executed := s.answer(r, e, body, faults)
			s.traffic.executed(number)
			a = &executed
			if replaced, cutNow := replacedAnswer(faults, operations, true); replaced != nil || cutNow {
				a, cut = replaced, cutNow
			}
		}
		if cut {
			panic(http.ErrAbortHandler)
		}
		status = s.deliver(w, r, *a, faults)
	}
}

func describeRequest(e endpoint, r *http.Request, operations []string, size int, now time.Time) Request {
	out := Request{
		At: now, Endpoint: e.name, API: e.api, Operations: operations, BodyBytes: size,
		RequestID: r.Header.Get("X-Request-Id"), Tenant: r.Header.Get("Tenant"), UserAgent: r.UserAgent(),
		WithToken: r.Header.Get("Connector-Token") != "" || r.URL.Query().Has("token"),
	}
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		out.CertificateHash = certificateHash(r.TLS.PeerCertificates[0].Raw)
	}
	return out
}

// answer goes the way that a request goes in a real landscape: the hydrator
// finds out who calls and burns the token, the gateway looks at the body, and
// only then Connector or Director see it.
func (s *Server) answer(r *http.Request, e endpoint, body []byte, faults activeFaults) answer {
	if f, ok := faults.find(FaultRateLimited); ok {
		return rateLimited(f.RetryAfter)
	}
	if faults.has(FaultHydratorDown) {
		return answer{status: http.StatusInternalServerError, contentType: contentTypeJSON,
			body: []byte(`{"error":{"code":500,"status":"Internal Server Error","message":"An internal server error occurred, please contact the system administrator"}}`)}
	}
	who := s.resolveConsumer(r, e, faults)
	if faults.has(FaultGatewayDown) {
		return answer{status: http.StatusBadGateway}
	}
	c := &call{faults: faults}
	var tenantError error
	c.consumer, tenantError = s.applyTenant(who, r.Header.Get("Tenant"))
	if tenantError != nil && e.api == apiConnector {
		c.consumer, c.foreignTenant = who, true
	}
	if bad, ok := checkBody(r, body); !ok {
		return bad
	}
	switch {
	case e.api == apiConnector && faults.has(FaultConnectorDown), e.api == apiDirector && faults.has(FaultDirectorDown):
		return refused(http.StatusBadGateway)
	case e.api == apiConnector && c.consumer.kind == nobody:
		return refused(http.StatusBadRequest)
	case e.api == apiDirector && tenantError != nil:
		return graphQLAnswer(http.StatusBadRequest, gqlerror.List{presentTenantError(tenantError)}, nil)
	}
	return s.execute(r, e, body, c)
}

func (s *Server) resolveConsumer(r *http.Request, e endpoint, faults activeFaults) consumer {
	switch {
	case e.name == endpointAdmin:
		return consumer{kind: administrator, id: "administrator", scopes: administratorScopes}
	case faults.has(FaultDatabaseDown), faults.has(FaultDirectorDown):
		return consumer{} // the hydrator asks Director, which asks the database
	case e.name == endpointToken:
		return s.consumerByToken(r)
	case r.TLS != nil && len(r.TLS.PeerCertificates) > 0:
		return s.consumerByCertificate(r.TLS.PeerCertificates[0])
	}
	return consumer{}
}

package proxy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/gateway/routes"
)

// TestAcceptance are the cases, by number, that tell this gateway from the one it takes the place of. Those that need an
// API server are in package gateway, that of a token without expires_in is in package tokens.
func TestAcceptance(t *testing.T) {
	for _, c := range []struct {
		name string
		test func(*testing.T)
	}{
		{"01-names that run together", applicationsWhoseNamesRunTogetherReachTheirOwnTargets},
		{"02-an external token that is refused", aCallWithAnExternalTokenIsNeverRepeatedNorGivenTheStoredCredential},
		{"03-two tenants with one CSRF URL", sessionsOfOneURLAreNotSharedBetweenApplications},
		{"04-a certificate is for its own tenant", aCertificateIsPresentedOnlyForItsOwnCredential},
		{"05-no foreign cookies", cookiesOfCallersNeverMix},
		{"06-another scope, another token", tokensAreNotSharedBetweenCredentialsThatDiffer},
		{"07-a caller cannot strip the credential", aCallerCannotStripTheCredential},
		{"08-no secret in any log", noSecretIsInAnyLogLine},
		{"09-repeated calls are complete", aRepeatedCallsAnswerIsComplete},
		{"10-an answer that breaks off", aTargetThatBreaksOffIsVisibleToTheCaller},
		{"11-a caller who leaves", aCallerWhoLeavesEndsTheTargetsWork},
		{"12-streams/server-sent events", theFirstEventOfAStreamArrivesBeforeTheStreamEnds},
		{"12-streams/WebSocket", aWebSocketEchoesBothWays},
		{"12-streams/gRPC", gRPCCallsPassUnaryAndStreaming},
		{"13-large uploads/first byte before the last", aRequestBodyReachesTheTargetWhileTheCallerStillSends},
		{"13-large uploads/memory", aLargeUploadTakesNoMemory},
		{"15-one token for many first calls", manyFirstCallsFetchOneToken},
		{"16-few connections for many calls", manyCallsShareFewConnections},
		{"17-renewing tokens leaves nothing open", manyTokenFetchesLeaveNothingOpen},
		{"20-paths round-trip", pathsArriveAsTheyAreSpelt},
		{"21-a thousand services", aThousandServicesCostALookUpNoMoreThanOne},
		{"22-observation/trace continuity", traceContextsReachTheTargetAndTheAccessLine},
		{"24-everything at once", callersOfEveryKindGetTheirOwnCredentialWhileRoutesChange},
	} {
		t.Run(c.name, c.test)
	}
}

func aCallerCannotStripTheCredential(t *testing.T) {
	r := newRig(t)
	r.secret("s", "username", "u", "password", "p")
	r.application("app", nil, entryWith("svc", r.echoAuthorization("T").URL, "Basic", "s", ""))
	for _, connection := range []string{"Authorization", "authorization", "close, Authorization", "keep-alive,AUTHORIZATION"} {
		if a := r.get("/app/svc", "Connection", connection, "Authorization", "Bearer callers-own"); a.Body != "T saw Basic dTpw" {
			t.Errorf("Connection: %s: %+v", connection, a)
		}
	}
}

// health is a gRPC service: Check answers once, Watch streams.
type health struct {
	healthv1.UnimplementedHealthServer
	seen chan string // the Authorization of each call
	next chan struct{}
}

func (h *health) Check(ctx context.Context, r *healthv1.HealthCheckRequest) (*healthv1.HealthCheckResponse, error) {
	h.note(ctx)
	if r.Service == "unknown" {
		return nil, status.Error(codes.NotFound, "no such service")
	}
	return &healthv1.HealthCheckResponse{Status: healthv1.HealthCheckResponse_SERVING}, nil
}

func (h *health) Watch(_ *healthv1.HealthCheckRequest, s grpc.ServerStreamingServer[healthv1.HealthCheckResponse]) error {
	h.note(s.Context())
	for i := range 3 {
		if err := s.Send(&healthv1.HealthCheckResponse{Status: healthv1.HealthCheckResponse_ServingStatus(i)}); err != nil {
			return err
		}
		select {
		case <-h.next: // not before the caller has the message before
		case <-s.Context().Done():
			return s.Context().Err()
		}
	}
	return status.Error(codes.Aborted, "that was all")
}

func (h *health) note(ctx context.Context) {
	m, _ := metadata.FromIncomingContext(ctx)
	h.seen <- strings.Join(m.Get("authorization"), ",")
}

func gRPCCallsPassUnaryAndStreaming(t *testing.T) {
	r := newRig(t)
	service := &health{seen: make(chan string, 10), next: make(chan struct{})}
	server := grpc.NewServer()
	healthv1.RegisterHealthServer(server, service)
	target := httptest.NewUnstartedServer(server)
	target.EnableHTTP2 = true
	target.StartTLS()
	defer target.Close()
	r.secret("s", "username", "u", "password", "p")
	r.application("app", func(s *v1alpha1.ApplicationSpec) { s.SkipVerify = true }, entryWith("svc", target.URL, "Basic", "s", ""))

	conn, err := grpc.NewClient("passthrough:///"+r.services.Listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), generous)
	defer cancel()
	var answer healthv1.HealthCheckResponse
	if err := conn.Invoke(ctx, "/app/svc/grpc.health.v1.Health/Check", &healthv1.HealthCheckRequest{}, &answer); err != nil || answer.Status != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("%v %v", &answer, err)
	}
	if seen := <-service.seen; seen != "Basic dTpw" {
		t.Errorf("the service saw %q", seen)
	}
	err = conn.Invoke(ctx, "/app/svc/grpc.health.v1.Health/Check", &healthv1.HealthCheckRequest{Service: "unknown"}, &answer)
	if s, _ := status.FromError(err); s.Code() != codes.NotFound || s.Message() != "no such service" {
		t.Errorf("%v", err)
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/app/svc/grpc.health.v1.Health/Watch")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.SendMsg(&healthv1.HealthCheckRequest{}); err != nil {
		t.Fatal(err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := stream.RecvMsg(&answer); err != nil || int(answer.Status) != i {
			t.Fatalf("message %d: %v %v", i, &answer, err)
		}
		service.next <- struct{}{}
	}
	if s, _ := status.FromError(stream.RecvMsg(&answer)); s.Code() != codes.Aborted || s.Message() != "that was all" {
		t.Errorf("the stream ended by %v", s)
	}
}

// zeros is a body of n bytes that takes no memory.
type zeros struct{ n int64 }

func (z *zeros) Read(p []byte) (int, error) {
	if z.n == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), z.n)
	clear(p[:n])
	z.n -= n
	return int(n), nil
}

func aLargeUploadTakesNoMemory(t *testing.T) {
	const size, bound = 400 << 20, 64 << 20
	r := newRig(t)
	target := r.target(func(w http.ResponseWriter, q *http.Request) {
		n, err := io.Copy(io.Discard, q.Body)
		fmt.Fprint(w, n, err)
	})
	r.application("app", nil, entry("svc", target.URL))
	for name, length := range map[string]int64{"Content-Length": size, "chunked": -1} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		request, err := http.NewRequest(http.MethodPut, r.services.URL+"/app/svc", &zeros{size})
		if err != nil {
			t.Fatal(err)
		}
		request.ContentLength = length
		response, err := r.client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(response.Body)
		response.Body.Close()
		if err != nil || string(text) != fmt.Sprint(size, nil) {
			t.Errorf("%s: %s %v", name, text, err)
		}
		// Of all that was ever allocated, freed or not, by caller, gateway and target together.
		runtime.ReadMemStats(&after)
		if grown := after.TotalAlloc - before.TotalAlloc; grown > bound {
			t.Errorf("%s: %d bytes were allocated for an upload of %d", name, grown, size)
		}
	}
}

// descriptors are how many files and connections this process has open: caller, gateway and targets are all in it.
func descriptors(t *testing.T) int {
	t.Helper()
	open, err := os.ReadDir("/dev/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(open)
}

func manyTokenFetchesLeaveNothingOpen(t *testing.T) {
	const fetches = 300
	r := newRig(t)
	var opened, fetched atomic.Int64
	tokens := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := fetched.Add(1)
		if n%3 == 0 {
			w.WriteHeader(http.StatusInternalServerError) // what was refused must be closed too
		}
		fmt.Fprintf(w, `{"access_token":"t%d","expires_in":3600}`, n)
	}))
	tokens.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			opened.Add(1)
		}
	}
	tokens.Start()
	defer tokens.Close()
	target := r.echoAuthorization("T")
	call := func(i int) {
		r.secret("s", "clientId", "c", "clientSecret", fmt.Sprint(i)) // so that the token of before is nobody's
		want := answer{Status: http.StatusOK, Body: fmt.Sprintf("T saw Bearer t%d", i)}
		if i%3 == 0 {
			want.Status = http.StatusBadGateway
		}
		if a := r.get("/app/svc"); a.Status != want.Status || want.Status == http.StatusOK && a.Body != want.Body {
			t.Fatalf("%+v, want %+v", a, want)
		}
	}
	r.application("app", nil, entryWith("svc", target.URL, "OAuth", "s", tokens.URL))
	call(1)
	before := descriptors(t)
	for i := 2; i <= fetches; i++ {
		call(i)
	}
	// A connection of which an answer has just been read may still be busy when the next call needs one.
	if after := descriptors(t); after > before+6 || opened.Load() > 3 || fetched.Load() != fetches {
		t.Errorf("%d fetches opened %d connections; %d descriptors before, %d after", fetched.Load(), opened.Load(), before, after)
	}
}

func pathsArriveAsTheyAreSpelt(t *testing.T) {
	r := newRig(t)
	target := r.target(func(w http.ResponseWriter, q *http.Request) { io.WriteString(w, q.RequestURI) })
	r.application("app", nil, entry("svc", target.URL+"/base"), entry("enc", target.URL+"/a%2Fb"))
	for path, want := range map[string]string{
		"/app/svc/a%2Fb":              "/base/a%2Fb",
		"/app/svc/x:y":                "/base/x:y",
		"/app/svc/urn:isbn:1/x":       "/base/urn:isbn:1/x",
		"/app/svc/1:2":                "/base/1:2",
		"/app/svc/x/":                 "/base/x/",
		"/app/svc//x":                 "/base//x",
		"/app/svc///h//x//":           "/base///h//x//",
		"/app/svc/O('1')":             "/base/O('1')",
		"/app/svc/O(%271%27)":         "/base/O(%271%27)",
		"/app/svc/caf%c3%a9?q=%zz;&a": "/base/caf%c3%a9?q=%zz;&a",
		"/app/enc/c%2Fd":              "/a%2Fb/c%2Fd",
	} {
		// By hand, because the library's client changes paths.
		conn, err := net.Dial("tcp", r.services.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n", path)
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(response.Body)
		response.Body.Close()
		conn.Close()
		if err != nil || string(got) != want {
			t.Errorf("%s: the target saw %s %v, want %s", path, got, err, want)
		}
	}
}

func aThousandServicesCostALookUpNoMoreThanOne(t *testing.T) {
	snapshot := func(n int) *routes.Snapshot {
		var app v1alpha1.Application
		app.Name = "app"
		for i := range n {
			name := fmt.Sprint("service ", i)
			app.Spec.Services = append(app.Spec.Services, v1alpha1.Service{Name: name, DisplayName: name, Entries: []v1alpha1.Entry{{Type: "API", Name: "api", TargetURL: "http://h/" + fmt.Sprint(i)}}})
		}
		return routes.NewSnapshot([]v1alpha1.Application{app}, nil)
	}
	one, thousand := snapshot(1), snapshot(1000)
	for i := range 1000 {
		route, err := thousand.Service("app", fmt.Sprint("service-", i))
		if err != nil || route.Target.Path != "/"+fmt.Sprint(i) {
			t.Fatalf("service %d: %+v %v", i, route, err)
		}
	}
	allocations := func(s *routes.Snapshot) float64 {
		return testing.AllocsPerRun(100, func() {
			if _, err := s.Service("app", "service-0"); err != nil {
				t.Error(err)
			}
			if _, err := s.Entry("app", "service-0", "api"); err != nil {
				t.Error(err)
			}
		})
	}
	if few, many := allocations(one), allocations(thousand); many != few {
		t.Errorf("%v allocations with one service, %v with a thousand", few, many)
	}
}

func callersOfEveryKindGetTheirOwnCredentialWhileRoutesChange(t *testing.T) {
	const callers, rounds = 8, 40
	r := newRig(t)
	tokens := r.target(func(w http.ResponseWriter, q *http.Request) {
		io.WriteString(w, `{"access_token":"`+q.FormValue("client_id")+`","expires_in":1}`)
	})
	target := r.target(func(w http.ResponseWriter, q *http.Request) {
		io.Copy(w, q.Body)
		io.WriteString(w, " "+q.Header.Get("Authorization"))
	})
	want := map[string]string{"/none/svc": "body "}
	r.application("none", nil, entry("svc", target.URL))
	for i := range 4 {
		name := fmt.Sprint("app", i)
		r.secret(name, "username", name, "password", "p", "clientId", name, "clientSecret", "s")
		r.application(name, nil, entryWith("basic", target.URL, "Basic", name, ""), entryWith("oauth", target.URL, "OAuth", name, tokens.URL))
		basic := &http.Request{Header: http.Header{}}
		basic.SetBasicAuth(name, "p")
		want["/"+name+"/basic"] = "body " + basic.Header.Get("Authorization")
		want["/"+name+"/oauth"] = "body Bearer " + name
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	applications, secrets := r.applications, r.secrets
	changing := make(chan struct{})
	go func() {
		defer close(changing)
		for {
			select {
			case <-stop:
				return
			default:
				r.snapshot.Store(routes.NewSnapshot(applications, secrets))
			}
		}
	}()
	for path, body := range want {
		for range callers {
			wg.Go(func() {
				for range rounds {
					a, err := r.try("POST", r.services.URL+path, strings.NewReader("body"))
					if err != nil || a.Status != 200 || a.Body != body {
						t.Errorf("%s: %+v %v", path, a, err)
						return
					}
				}
			})
		}
	}
	wg.Wait()
	close(stop)
	<-changing
}

package gateway_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/coder/websocket"
	clocktesting "k8s.io/utils/clock/testing"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/gateway"
)

func TestAWebSocketGoesOnWhileTheGatewayEndsAndTheGatewayWaitsForIt(t *testing.T) {
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.CloseNow()
		for {
			kind, text, err := conn.Read(r.Context())
			if err != nil {
				return
			}
			if err := conn.Write(r.Context(), kind, text); err != nil {
				return
			}
		}
	}))
	defer target.Close()
	h := start(t)
	h.application("websocket", v1alpha1.ApplicationSpec{Services: []v1alpha1.Service{api("echo", target.URL)}})
	ctx, cancel := context.WithTimeout(context.Background(), generous)
	defer cancel()
	conn, _, err := websocket.Dial(ctx, "http://"+h.addresses.Services+"/websocket/echo", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.CloseNow()
	ended := make(chan error, 1)
	go func() { ended <- h.stop() }()
	h.eventually("the ports are closed", func() error {
		_, err := h.try(http.MethodGet, h.addresses.Services, "/", nil)
		return expect(err != nil, "still open")
	})
	for range 3 {
		if err := conn.Write(ctx, websocket.MessageText, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		if _, text, err := conn.Read(ctx); err != nil || string(text) != "hello" {
			t.Fatalf("%q %v", text, err)
		}
	}
	select {
	case err := <-ended:
		t.Fatalf("the gateway did not wait: %v", err)
	default:
	}
	if err := conn.Close(websocket.StatusNormalClosure, ""); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestTheGatewayServesOnForTheDrainDelayAndSendsItsCallersElsewhere(t *testing.T) {
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) }))
	defer target.Close()
	now := clocktesting.NewFakeClock(time.Unix(0, 0))
	h := start(t, func(o *gateway.Options) { o.DrainDelay, o.Clock = 10*time.Second, now })
	h.application("leaving", v1alpha1.ApplicationSpec{Services: []v1alpha1.Service{api("svc", target.URL)}})
	call := func() (status int, closes bool, err error) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+h.addresses.Services+"/leaving/svc", nil)
		if err != nil {
			return 0, false, err
		}
		response, err := h.http.Do(r)
		if err != nil {
			return 0, false, err
		}
		return response.StatusCode, response.Close, response.Body.Close()
	}
	h.eventually("the API can be called", func() error {
		status, closes, err := call()
		return expect(status == http.StatusAccepted && !closes && err == nil, "%d, closes %v, %v", status, closes, err)
	})
	ended := make(chan error, 1)
	go func() { ended <- h.stop() }()
	h.eventually("the delay runs", func() error { return expect(now.HasWaiters(), "not yet") })
	if h.gateway.Ready() == nil {
		t.Error("it is ready while it is ending")
	}
	if status, closes, err := call(); status != http.StatusAccepted || !closes || err != nil {
		t.Errorf("within the delay a call gets %d, closes %v, %v", status, closes, err)
	}
	now.Step(10 * time.Second)
	h.eventually("the ports are closed", func() error {
		_, _, err := call()
		return expect(err != nil, "still open")
	})
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

package gateway_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/coder/websocket"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
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

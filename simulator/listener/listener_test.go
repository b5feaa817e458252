package listener_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/application-connector/application-connector/simulator/listener"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestATakenPortIsNamedTogetherWithItsOption(t *testing.T) {
	first, err := listener.Listen(t.Context(), "EdgeAddress", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	address := first.Addr().String()
	_, err = listener.Listen(t.Context(), "EdgeAddress", address)
	port := address[strings.LastIndex(address, ":")+1:]
	want := "EdgeAddress: port " + port + " of " + address + " is taken by another process: end that process or choose another port"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	var typed *listener.Error
	if !errors.As(err, &typed) || !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("%#v is not a *listener.Error around EADDRINUSE", err)
	}
}

func TestAnAddressThatIsNoneSaysWhatOneLooksLike(t *testing.T) {
	_, err := listener.Listen(t.Context(), "Address", "8080")
	if err == nil || !strings.HasPrefix(err.Error(), `Address: cannot listen on "8080", which must be host:port: `) {
		t.Errorf("got %v", err)
	}
}

func TestCloseEndsStreamsThatWaitForTheirContext(t *testing.T) {
	l, err := listener.Listen(t.Context(), "Address", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan struct{})
	s := listener.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		close(started)
		<-r.Context().Done()
	}), nil, slog.New(slog.DiscardHandler))
	ended := make(chan error, 1)
	go func() {
		request, _ := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+l.Addr().String(), nil)
		transport := &http.Transport{}
		defer transport.CloseIdleConnections()
		resp, err := transport.RoundTrip(request)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		ended <- err
	}()
	<-started
	if err := s.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if err := <-ended; err != nil {
		t.Errorf("the client saw %v", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
}

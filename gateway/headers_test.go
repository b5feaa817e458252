package gateway_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
)

func TestAHeaderMayBeAsLongAsItEverMightAndNoLonger(t *testing.T) {
	lengths := make(chan int, 1)
	target := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { lengths <- len(r.Header.Get("X-Long")) }))
	defer target.Close()
	h := start(t)
	h.application("long", v1alpha1.ApplicationSpec{Services: []v1alpha1.Service{api("svc", target.URL)}})
	for length, want := range map[int]int{1000 << 10: 200, 1100 << 10: 431} {
		conn, err := net.Dial("tcp", h.addresses.Services)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(generous))
		go fmt.Fprintf(conn, "GET /long/svc HTTP/1.1\r\nHost: g\r\nConnection: close\r\nX-Long: %s\r\n\r\n", strings.Repeat("x", length))
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || response.StatusCode != want {
			t.Errorf("%d bytes: %+v %v, want %d", length, response, err, want)
		} else if want == 200 {
			if got := <-lengths; got != length {
				t.Errorf("the API got %d bytes of %d", got, length)
			}
		}
		conn.Close()
	}
}

package resources

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// ingress is what the mesh says of an external system: its certificate, and that the ingress gateway saw it.
const ingress = `Subject="CN=shop",By=spiffe://cluster.local/ns/kyma-system/sa/central-application-connectivity-validator;Hash=6f1ed002ab5595859014ebf0951522d9a8ae9f16a1ab0a2ac6b45a1f1b8a3d21;Subject="";` +
	`URI=spiffe://cluster.local/ns/istio-system/sa/istio-ingressgateway-service-account`

// load is requests of one kind.
type load struct {
	url    string
	header http.Header
	body   int // bytes
	// perSecond is how many are begun a second, whether or not those before are done; 0 is as many as the connections take.
	perSecond   int
	connections int
}

// done is how many were answered well.
func (l load) send(tb testing.TB, lasts time.Duration) (done int64) {
	tb.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: l.connections, MaxConnsPerHost: l.connections, DisableCompression: true}
	defer transport.CloseIdleConnections()
	body := bytes.Repeat([]byte("x"), l.body)
	end := time.Now().Add(lasts)
	begin := make(chan struct{}, max(1, l.perSecond)) // no more than what a second has may wait
	var answered atomic.Int64
	var working sync.WaitGroup
	for range l.connections {
		working.Go(func() {
			for range begin {
				if err := l.one(tb, transport, body); err != nil {
					tb.Error(err)
					return
				}
				answered.Add(1)
			}
		})
	}
	next := time.Now()
	for time.Now().Before(end) && !tb.Failed() {
		if l.perSecond > 0 {
			next = next.Add(time.Second / time.Duration(l.perSecond))
			time.Sleep(time.Until(next))
		}
		select {
		case begin <- struct{}{}:
		case <-time.After(time.Until(end)):
		}
	}
	close(begin)
	working.Wait()
	return answered.Load()
}

func (l load) one(tb testing.TB, transport *http.Transport, body []byte) error {
	r, err := http.NewRequestWithContext(tb.Context(), http.MethodPost, l.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header = l.header.Clone()
	response, err := transport.RoundTrip(r)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<10))
	if err != nil {
		return err
	}
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("%s: %s %.300s", l.url, response.Status, text)
	}
	_, err = io.Copy(io.Discard, response.Body)
	return err
}

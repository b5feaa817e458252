package proxy_test

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// BenchmarkCall is one call with Basic through the engine, with caller and target in the same process. It is for profiles;
// what compares the gateway with others is in package gateway.
func BenchmarkCall(b *testing.B) {
	r := newRig(b)
	target := r.target(func(w http.ResponseWriter, q *http.Request) { _, _ = io.Copy(w, q.Body) })
	r.secret("s", "username", "u", "password", "p")
	r.application("app", nil, entryWith("svc", target.URL, "Basic", "s", ""))
	body := strings.Repeat("x", 1<<10)
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			if a, err := r.try(http.MethodPost, r.services.URL+"/app/svc/items", strings.NewReader(body)); err != nil || a.Status != http.StatusOK {
				b.Errorf("%+v %v", a, err)
				return
			}
		}
	})
}

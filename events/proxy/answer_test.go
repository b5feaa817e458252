package proxy_test

import (
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/application-connector/application-connector/events/proxy"
)

func TestThePublishersAnswer(t *testing.T) {
	for what, tc := range map[string]struct {
		publisher  int
		strict     int
		compatible int
		decision   string
		reason     string
	}{
		"success":                    {200, 200, 200, "accepted", "delivered"},
		"a redirect is not followed": {302, 302, 302, "failed", "publisher_refused"},
		"a broken event":             {400, 400, 400, "failed", "publisher_refused"},
		"too many":                   {429, 429, 429, "failed", "publisher_refused"},
		"an error":                   {500, 500, 502, "failed", "publisher_failed"},
		"a bad gateway":              {502, 503, 502, "failed", "publisher_failed"},
		"unavailable":                {503, 503, 502, "failed", "publisher_failed"},
		"a gateway's time-out":       {504, 503, 502, "failed", "publisher_failed"},
		"the last status":            {599, 599, 502, "failed", "publisher_failed"},
	} {
		for _, mode := range []string{"strict", "compatible"} {
			t.Run(what+", "+mode, func(t *testing.T) {
				want := answer{tc.strict, http.Header{"Content-Type": {"text/x"}, "Retry-After": {"9"}, "Location": {"/elsewhere"}}, "the publisher's own words"}
				config := func(*proxy.Config) {}
				if mode == "compatible" {
					want.Status, config = tc.compatible, compatible
				}
				if tc.publisher >= 500 {
					want.Header.Set("Target-System-Status", strconv.Itoa(tc.publisher))
				}
				r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Content-Type", "text/x")
					w.Header().Set("Retry-After", "9")
					w.Header().Set("Location", "/elsewhere")
					w.WriteHeader(tc.publisher)
					_, _ = io.WriteString(w, "the publisher's own words")
				}, config)
				got := r.send("POST", "/test-application/v2/events", event("CN=test-application"), "{}")
				if d := cmp.Diff(want, got); d != "" {
					t.Errorf("(-want +got)\n%s", d)
				}
				if audit := r.audit(); len(audit) != 1 || audit[0]["decision"] != tc.decision || audit[0]["reason"] != tc.reason || audit[0]["status"] != float64(want.Status) {
					t.Errorf("audit: %v", audit)
				}
			})
		}
	}
}

func TestAPublisherThatBreaksOff(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "half")
	}, nil)
	request, err := http.NewRequest(http.MethodPost, r.server.URL+"/test-application/events", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	request.Header = event("CN=test-application")
	got, err := r.server.Client().Do(request)
	if err == nil {
		_, err = io.ReadAll(got.Body)
		got.Body.Close()
	}
	if err == nil {
		t.Error("half an answer passed for a whole one")
	}
	if audit := r.audit(); len(audit) != 1 || audit[0]["decision"] != "failed" || audit[0]["reason"] != "publisher_answer_broken" || audit[0]["detail"] != "unexpected EOF" {
		t.Errorf("audit: %v", audit)
	}
}

func TestAnAnswerWithoutEndIsCut(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
		for b := make([]byte, 64<<10); ; {
			if _, err := w.Write(b); err != nil {
				return
			}
		}
	}, nil)
	request, err := http.NewRequest(http.MethodPost, r.server.URL+"/test-application/events", strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	request.Header = event("CN=test-application")
	got, err := r.server.Client().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer got.Body.Close()
	if n, err := io.Copy(io.Discard, got.Body); err == nil || n > 1<<20 {
		t.Errorf("%d bytes, %v", n, err)
	}
}

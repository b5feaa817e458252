package controller

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"github.com/application-connector/application-connector/cli/onboard/directortest"
	"github.com/application-connector/application-connector/cli/onboard/enrolment"
)

// Whoever is asked knows the token that it was shown, and may say it again.
func TestWhatAClusterAnswersIsBoundedAndNotRepeated(t *testing.T) {
	release := make(chan struct{})
	for name, test := range map[string]struct {
		answer http.HandlerFunc
		reason Reason
		says   string
	}{
		"an error that repeats the token": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":%q,"reason":"Forbidden","code":403}`, r.Header.Get("Authorization"))
		}, ReasonClusterRefuses, "the cluster answers HTTP 403, so the credentials of the kubeconfig are wrong or lack a right"},
		"an error page that repeats the token": {func(w http.ResponseWriter, r *http.Request) {
			w.WriteHeader(http.StatusBadGateway)
			fmt.Fprint(w, r.Header.Get("Authorization"))
		}, ReasonClusterUnreachable, "the cluster answers HTTP 502"},
		"a text that repeats the token": {func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Header.Get("Authorization")) }, ReasonClusterUnreachable, "the answer cannot be read"},
		"a redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://169.254.169.254/?"+canaryToken, http.StatusFound)
		}, ReasonClusterUnreachable, "it redirects, and credentials are not sent on"},
		"an answer without end": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			for line := strings.Repeat(" ", 1<<16); r.Context().Err() == nil; {
				if _, err := fmt.Fprint(w, line); err != nil {
					return
				}
			}
		}, ReasonClusterUnreachable, "its answer is larger than 4194304 bytes"},
		"no answer": {func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
			case <-release:
			}
		}, ReasonClusterUnreachable, "no answer came in time"},
		"an identity that is none": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"kube-system","uid":%q}}`, canaryToken+`") {id} }`)
		}, ReasonClusterUnreachable, "the answer cannot be read"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewTLSServer(test.answer)
			defer server.Close()
			timeout := 30 * time.Second
			if name == "no answer" {
				timeout = 200 * time.Millisecond
				defer close(release)
			}
			kube, end, err := open(&rest.Config{Host: server.URL, BearerToken: canaryToken, TLSClientConfig: rest.TLSClientConfig{CAData: directortest.Authority(server)}}, timeout, admission{loopback: true})
			if err != nil {
				t.Fatal(err)
			}
			defer end()
			_, err = (&enrolment.Cluster{Kube: kube}).UID(t.Context())
			f := judge(t.Context(), err)
			if want := "reading namespace kube-system of the cluster: " + test.says; f.reason != test.reason || f.text != want {
				t.Errorf("%s: %s\nwant %s: %s", f.reason, f.text, test.reason, want)
			}
		})
	}
}

func TestPausesGrowToABoundAndNeverComeTogether(t *testing.T) {
	for n, want := range map[int]time.Duration{0: 5 * time.Second, 1: 5 * time.Second, 2: 10 * time.Second, 5: 80 * time.Second, 8: 10 * time.Minute, 1000: 10 * time.Minute} {
		seen := map[time.Duration]bool{}
		for range 100 {
			got := backoff(n, firstPause, longestPause)
			if got < want*8/10 || got > want*12/10 {
				t.Fatalf("after %d failures: %s, not about %s", n, got, want)
			}
			seen[got] = true
		}
		if len(seen) < 10 {
			t.Errorf("after %d failures all come back at the same time", n)
		}
	}
}

func TestAMessageIsOneLineOfBoundedLength(t *testing.T) {
	got := message("a\nb\x1b[31m" + strings.Repeat("é", maxMessage))
	if len(got) > maxMessage || strings.ContainsAny(got, "\n\x1b") || !strings.HasSuffix(got, "…") || !strings.HasPrefix(got, "a b") {
		t.Errorf("%d bytes: %q", len(got), got)
	}
}

func TestARecordHasANameThatFitsAndIsNoOthers(t *testing.T) {
	long := strings.Repeat("a", 253)
	for secret, want := range map[string]string{"c": "c-onboarding", long: ""} {
		got := recordName(secret)
		if want != "" && got != want || len(got) > 253 || got == recordName(secret[1:]+"b") {
			t.Errorf("%s: %s", secret, got)
		}
	}
}

func TestAClusterThatIsNotVerifiedIsToldInTheLogTheRecordAndTheMetricsAtEachAttempt(t *testing.T) {
	w := newWorld(t)
	r := w.controller(func(s *Settings) { s.Insecure = true })
	w.enlist("c", fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Config","current-context":"c","clusters":[{"name":"c","cluster":{"server":"%s/c/c","insecure-skip-tls-verify":true}}],
		"users":[{"name":"c","user":{"token":%q}}],"contexts":[{"name":"c","context":{"cluster":"c","user":"c"}}]}`, w.front.URL, home.BearerToken))
	for attempt := range 2 {
		w.mustStep(r, "c")
		w.passes(time.Hour)
		if got := strings.Count(w.log.String(), "is NOT verified"); got != attempt+1 {
			t.Errorf("after %d attempts it is told %d times", attempt+1, got)
		}
	}
	if got := w.record("c"); got["unverified"] != "true" || r.memory.tally().unverified != 1 {
		t.Errorf("record %v, metrics %v", got, r.memory.tally())
	}
	w.edit("c", func(s *corev1.Secret) { s.Data["config"] = w.kubeconfig("c", home.BearerToken) })
	w.mustStep(r, "c")
	if got := w.record("c"); got["unverified"] != "" || r.memory.tally().unverified != 0 {
		t.Errorf("once it is verified: record %v, metrics %v", got, r.memory.tally())
	}
}

func TestANameThatLeadsToThisMachineIsNotDialledUnlessThatIsAllowed(t *testing.T) {
	reached := 0
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		reached++
		w.WriteHeader(http.StatusForbidden)
	}))
	defer server.Close()
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(server.URL, "https://"))
	for _, allowed := range []bool{false, true} {
		kube, end, err := open(&rest.Config{Host: "https://localhost:" + port, BearerToken: canaryToken, TLSClientConfig: rest.TLSClientConfig{CAData: directortest.Authority(server), ServerName: "example.com"}}, 30*time.Second, admission{loopback: allowed})
		if err != nil {
			t.Fatal(err)
		}
		_, err = (&enrolment.Cluster{Kube: kube}).UID(t.Context())
		end()
		f := judge(t.Context(), err)
		if refused := strings.Contains(f.text, "is an address at which no cluster is looked for"); refused == allowed || (reached > 0) != allowed {
			t.Errorf("allowed %v: reached %d times, %s: %s", allowed, reached, f.reason, f.text)
		}
	}
}

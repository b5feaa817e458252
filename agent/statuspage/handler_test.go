package statuspage_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/application-connector/application-connector/agent/report"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
)

func TestThePageShowsTheWholeWorld(t *testing.T) {
	empty := &world{standby: true}
	unpaired := newWorld()
	unpaired.connection.Status = compassv1alpha1.CompassConnectionStatus{}
	unpaired.applications, unpaired.events = nil, nil
	for name, w := range map[string]*world{"page.html": newWorld(), "nothing-on-a-standby.html": empty, "not-paired.html": unpaired} {
		answer := w.get(t, "/")
		if answer.Code != http.StatusOK {
			t.Errorf("%s: %d", name, answer.Code)
		}
		golden(t, name, answer.Body.String())
	}
}

func TestTheJSONIsTheReportOfAppconnStatus(t *testing.T) {
	w := newWorld()
	answer := w.get(t, "/status.json")
	want := report.New(w.connection, w.applications, now)
	var text bytes.Buffer
	if err := want.WriteJSON(&text); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(text.String(), answer.Body.String()); diff != "" || answer.Code != http.StatusOK || answer.Header().Get("Content-Type") != "application/json" {
		t.Errorf("%d, %v, %s", answer.Code, answer.Header(), diff)
	}
}

func TestHostileTextsStayTexts(t *testing.T) {
	for _, path := range []string{"/", "/?name=" + "%3Cscript%3E", "/?name=mp-%22%3E%3Cimg&refresh=on&only=unknown"} {
		body := newWorld().get(t, path).Body.String()
		for _, tag := range regexp.MustCompile(`(?i)<(script|img|iframe)|\son\w+=|javascript:|style=`).FindAllString(strings.ReplaceAll(body, "&lt;img src=x onerror=", ""), -1) {
			t.Errorf("%s: %q is markup", path, tag)
		}
	}
	if body := newWorld().get(t, "/").Body.String(); strings.Count(body, "&lt;script&gt;alert(") < 5 {
		t.Error("the hostile texts are not shown")
	}
}

func TestEveryAnswerForbidsWhatABrowserCouldDoWithIt(t *testing.T) {
	policy := []string{
		"Cache-Control: no-store",
		"Content-Security-Policy: default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
	}
	rest := []string{
		"Cross-Origin-Opener-Policy: same-origin", "Cross-Origin-Resource-Policy: same-origin", "Referrer-Policy: no-referrer",
		"X-Content-Type-Options: nosniff",
	}
	for path, kind := range map[string]string{
		"/": "text/html; charset=utf-8", "/status.json": "application/json", "/style.css": "text/css; charset=utf-8",
		"/?page=x": "text/plain; charset=utf-8", "/else": "text/plain; charset=utf-8",
	} {
		var want []string
		want = append(append(append(want, policy...), "Content-Type: "+kind), rest...)
		if diff := cmp.Diff(want, header(newWorld().get(t, path).Header())); diff != "" {
			t.Errorf("%s: %s", path, diff)
		}
	}
}

func TestThePageIsServedForHostsThatNobodyElseCanName(t *testing.T) {
	for host, want := range map[string]int{
		"127.0.0.1:8091": http.StatusOK, "127.0.0.1": http.StatusOK, "[::1]:8091": http.StatusOK, "[::1]": http.StatusOK, "10.1.2.3:80": http.StatusOK,
		"localhost:8091": http.StatusOK, "LocalHost": http.StatusOK, "localhost.:8091": http.StatusOK, "agent.localhost:1": http.StatusOK,
		"agent.example.com:8091": http.StatusOK, "AGENT.example.com": http.StatusOK,
		"evil.example.com": http.StatusMisdirectedRequest, "evil.example.com:8091": http.StatusMisdirectedRequest, "agent.example.com.evil.net": http.StatusMisdirectedRequest,
		"127.0.0.1.evil.net:8091": http.StatusMisdirectedRequest, "localhost.evil.net": http.StatusMisdirectedRequest, "evillocalhost": http.StatusMisdirectedRequest,
		"": http.StatusMisdirectedRequest, ":8091": http.StatusMisdirectedRequest, "2130706433": http.StatusMisdirectedRequest,
	} {
		for _, path := range []string{"/", "/status.json", "/style.css"} {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
			r.Host = host
			answer := httptest.NewRecorder()
			newWorld().handler(t).ServeHTTP(answer, r)
			if answer.Code != want {
				t.Errorf("%s for host %q: %d, want %d", path, host, answer.Code, want)
			}
			if want != http.StatusOK && answer.Body.String() != "this page is served for localhost, for IP addresses and for the host of APP_STATUS_PAGE_ADDRESS, not for this name\n" {
				t.Errorf("%s for host %q: %s", path, host, answer.Body)
			}
		}
	}
}

func TestThePageCanOnlyBeRead(t *testing.T) {
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions, http.MethodTrace, http.MethodConnect, "OTHER"} {
		for _, path := range []string{"/", "/status.json", "/style.css", "/else"} {
			r := httptest.NewRequestWithContext(t.Context(), method, path, nil)
			r.Host = "localhost"
			answer := httptest.NewRecorder()
			newWorld().handler(t).ServeHTTP(answer, r)
			if answer.Code != http.StatusMethodNotAllowed || answer.Header().Get("Allow") != "GET, HEAD" || answer.Body.String() != "this page can only be read: GET or HEAD is needed\n" {
				t.Errorf("%s %s: %d, %v, %s", method, path, answer.Code, answer.Header(), answer.Body)
			}
		}
	}
	server := httptest.NewServer(newWorld().handler(t))
	defer server.Close()
	for _, path := range []string{"/", "/status.json", "/style.css"} {
		response, err := server.Client().Head(server.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != http.StatusOK {
			t.Errorf("HEAD %s: %d", path, response.StatusCode)
		}
	}
}

func TestAWrongQuerySaysWhatWouldBeRight(t *testing.T) {
	for query, want := range map[string]string{
		"only=broken":                          `only="broken": it must be one of failed, unknown and ready, or left out`,
		"page=0":                               `page="0": it must be a whole number from 1`,
		"page=-1":                              `page="-1": it must be a whole number from 1`,
		"page=one":                             `page="one": it must be a whole number from 1`,
		"page=99999999999999999999":            `page="99999999999999999999": it must be a whole number from 1`,
		"refresh=5":                            `refresh="5": it must be on or off`,
		"name=" + strings.Repeat("a", 254):     "name has 254 bytes: the names of Applications have 253 at most",
		"refresh=" + strings.Repeat("a", 5000): `refresh="` + strings.Repeat("a", 252) + `…": it must be on or off`,
	} {
		answer := newWorld().get(t, "/?"+query)
		if got := strings.TrimSuffix(answer.Body.String(), "\n"); answer.Code != http.StatusBadRequest || got != want {
			t.Errorf("%s: %d %s, want %s", query, answer.Code, got, want)
		}
	}
}

// shown are the names of the Applications on a page, and how it sums them up.
func shown(t *testing.T, w *world, path string) (names []string, caption string) {
	t.Helper()
	answer := w.get(t, path)
	if answer.Code != http.StatusOK {
		t.Fatalf("%s: %d %s", path, answer.Code, answer.Body)
	}
	for _, m := range regexp.MustCompile(`<th scope="row"><bdi>([^<]*)</bdi>`).FindAllStringSubmatch(answer.Body.String(), -1) {
		names = append(names, m[1])
	}
	if m := regexp.MustCompile(`<caption>([^<]*)</caption>`).FindStringSubmatch(answer.Body.String()); m != nil {
		caption = m[1]
	}
	return names, caption
}

func TestTenThousandApplicationsAreShownByPages(t *testing.T) {
	w := many(10_000)
	numbered := func(from, count, step int) (names []string) {
		for i := range count {
			names = append(names, fmt.Sprintf("mp-system-%05d", from+i*step))
		}
		return names
	}
	for path, want := range map[string]struct {
		names   []string
		caption string
	}{
		"/":                        {numbered(0, 50, 10), "1 to 50 of 10000, first what failed"},
		"/?page=2":                 {numbered(500, 50, 10), "51 to 100 of 10000, first what failed"},
		"/?page=200":               {nil, "9951 to 10000 of 10000, first what failed"},
		"/?page=5000":              {nil, "9951 to 10000 of 10000, first what failed"},
		"/?only=failed&page=20":    {numbered(9500, 50, 10), "951 to 1000 of 1000, first what failed"},
		"/?only=unknown":           {nil, ""},
		"/?name=0999&only=ready":   {append([]string{"mp-system-00999"}, numbered(9991, 9, 1)...), "1 to 10 of 10, first what failed"},
		"/?name=system-00010":      {[]string{"mp-system-00010"}, "1 to 1 of 1, first what failed"},
		"/?name=there+is+none":     {nil, ""},
		"/?only=ready&refresh=off": {append(append(append(append(append(numbered(1, 9, 1), numbered(11, 9, 1)...), numbered(21, 9, 1)...), numbered(31, 9, 1)...), numbered(41, 9, 1)...), numbered(51, 5, 1)...), "1 to 50 of 9000, first what failed"},
	} {
		names, caption := shown(t, w, path)
		if strings.HasPrefix(path, "/?page=200") || strings.HasPrefix(path, "/?page=5000") {
			if len(names) != 50 || names[49] != "mp-system-09999" {
				t.Errorf("%s: %d, the last is %v", path, len(names), names)
			}
			names = nil
		}
		if diff := cmp.Diff(want.names, names); diff != "" || caption != want.caption {
			t.Errorf("%s: %q, %s", path, caption, diff)
		}
	}
	if size := w.get(t, "/").Body.Len(); size > 100_000 {
		t.Errorf("a page has %d bytes", size)
	}
}

func TestLinksKeepWhatWasAskedFor(t *testing.T) {
	body := many(1000).get(t, "/?only=failed&name=system&page=2&refresh=on").Body.String()
	var links []string
	for _, m := range regexp.MustCompile(`<a[^>]* href="([^"]*)"`).FindAllStringSubmatch(body, -1) {
		links = append(links, strings.ReplaceAll(m[1], "&amp;", "&"))
	}
	want := []string{
		"#applications", "?name=system&only=failed&page=2", "?name=system&refresh=on#applications", "?name=system&only=failed&refresh=on#applications",
		"?name=system&only=unknown&refresh=on#applications", "?name=system&only=ready&refresh=on#applications",
		"?name=system&only=failed&refresh=on#applications", "/status.json",
	}
	if diff := cmp.Diff(want, links); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(body, `<meta http-equiv="refresh" content="15">`) {
		t.Error("the page does not ask again")
	}
}

func TestBeforeTheCachesAreFilledThePageSaysSo(t *testing.T) {
	w := newWorld()
	w.unread = errors.New("the cache is not started: canary-text")
	for _, path := range []string{"/", "/status.json"} {
		answer := w.get(t, path)
		const want = "the agent has not read the cluster yet: try again in some seconds; if it stays so, look at /readyz and at the agent's log\n"
		if answer.Code != http.StatusServiceUnavailable || answer.Body.String() != want || answer.Header().Get("Retry-After") != "5" {
			t.Errorf("%s: %d %s %v", path, answer.Code, answer.Body, answer.Header())
		}
	}
}

// eventsOf is the section of the page with the events.
func eventsOf(t *testing.T, w *world) string {
	t.Helper()
	_, section, found := strings.Cut(w.get(t, "/").Body.String(), `<h2 id="events">Latest events</h2>`)
	if !found {
		t.Fatal("no events")
	}
	section, _, _ = strings.Cut(section, "</section>")
	return strings.TrimSpace(section)
}

func TestWithoutEventsThePageSaysWhyAndShowsTheRest(t *testing.T) {
	for want, err := range map[string]error{
		"The agent may not list events in namespace default: its Role compass-runtime-agent-events does not let it.": apierrors.NewForbidden(schema.GroupResource{Group: "events.k8s.io", Resource: "events"}, "", errors.New("canary-text")),
		"The API server did not answer in time.":                          fmt.Errorf("get: %w", context.DeadlineExceeded),
		"The API server did not give them: the agent&#39;s log says why.": errors.New("canary-text"),
	} {
		w := newWorld()
		w.noEvents = err
		if got := eventsOf(t, w); got != `<p class="bad">`+want+"</p>" {
			t.Errorf("%v: %s", err, got)
		}
		if names, _ := shown(t, w, "/"); len(names) != len(w.applications) {
			t.Errorf("%v: Applications %v", err, names)
		}
	}
}

func TestOfManyEventsTheNewestTwentyAreShown(t *testing.T) {
	w := newWorld()
	template := w.events[0]
	w.events = nil
	for i := range 1200 { // more than are asked for at a time, the newest in the middle
		e := template
		e.Reason, e.Type = fmt.Sprintf("Reason%d", i), corev1.EventTypeNormal
		e.EventTime.Time = now.Add(-time.Duration(max(i-600, 600-i)) * time.Second)
		w.events = append(w.events, e)
	}
	section := eventsOf(t, w)
	var reasons []string
	for _, m := range regexp.MustCompile(`<b><bdi>Reason(\d+)</bdi></b>`).FindAllStringSubmatch(section, -1) {
		reasons = append(reasons, m[1])
	}
	want := strings.Fields("600 599 601 598 602 597 603 596 604 595 605 594 606 593 607 592 608 591 609 590")
	if diff := cmp.Diff(want, reasons); diff != "" {
		t.Error(diff)
	}
	if strings.Contains(section, "newer ones") {
		t.Error("not all of them were looked through")
	}
	for len(w.events) < 2001 {
		w.events = append(w.events, template)
	}
	if section := eventsOf(t, w); !strings.Contains(section, "There are more than are looked through; newer ones may be among them.") {
		t.Error("the page keeps silent about the events that it does not look at")
	}
}

package statuspage_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	cdpruntime "github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/google/go-cmp/cmp"

	appv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
)

// browser is a Chromium without a window, until the test ends; CHROMIUM names the program.
func browser(t *testing.T) context.Context {
	t.Helper()
	program := os.Getenv("CHROMIUM")
	if program == "" {
		t.Skip("CHROMIUM is not set: \"make test\" sets it if there is a chromium in PATH, and CI fails without one")
	}
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]), chromedp.ExecPath(program), chromedp.NoSandbox, // of root there is none
		chromedp.WSURLReadTimeout(2*time.Minute))
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	if err := chromedp.Run(ctx); err != nil {
		t.Fatal(err)
	}
	return ctx
}

// seen is what a page did while it was looked at.
type seen struct {
	mu         sync.Mutex
	complaints []string
	requests   []string
}

func (s *seen) listen(ctx context.Context) {
	chromedp.ListenTarget(ctx, func(event any) {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch e := event.(type) {
		case *cdplog.EventEntryAdded:
			s.complaints = append(s.complaints, e.Entry.Text)
		case *cdpruntime.EventConsoleAPICalled:
			s.complaints = append(s.complaints, string(e.Type))
		case *cdpruntime.EventExceptionThrown:
			s.complaints = append(s.complaints, e.ExceptionDetails.Error())
		case *page.EventJavascriptDialogOpening:
			s.complaints = append(s.complaints, "dialog: "+e.Message)
		case *network.EventRequestWillBeSent:
			s.requests = append(s.requests, e.Request.URL)
		}
	})
}

// contrasts gives, for each text and each text of a style sheet, how little it stands out from what is behind it: those below
// 4.5, as WCAG 2.2 asks for (1.4.3). Each colour of the page is opaque.
const contrasts = `(() => {
	const channels = c => c.match(/[\d.]+/g).map(Number);
	const luminance = c => channels(c).slice(0, 3).map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
		.reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
	const behind = e => {
		for (; e; e = e.parentElement) {
			const c = getComputedStyle(e).backgroundColor, a = channels(c);
			if (a.length < 4 || a[3] === 1) return c;
			if (a[3] !== 0) return 'rgb(127, 127, 127)';
		}
		return 'rgb(127, 127, 127)';
	};
	const out = {texts: 0, low: []};
	const judge = (e, style, text) => {
		out.texts++;
		const [a, b] = [luminance(style.color), luminance(behind(e))].sort((x, y) => y - x), ratio = (a + .05) / (b + .05);
		if (ratio < 4.5 || style.opacity !== '1') out.low.push(text.trim().slice(0, 40) + ' in ' + style.color + ' on ' + behind(e) + ': ' + ratio.toFixed(2));
	};
	const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	for (let n; n = walker.nextNode();) if (n.data.trim()) judge(n.parentElement, getComputedStyle(n.parentElement), n.data);
	for (const e of document.querySelectorAll('input')) judge(e, getComputedStyle(e), e.value || 'input');
	for (const e of document.querySelectorAll('td')) {
		const style = getComputedStyle(e, '::before');
		if (style.content !== 'none') judge(e, style, style.content);
	}
	return out;
})()`

// wide gives what sticks out of the window to the right.
const wide = `(() => [...document.body.querySelectorAll('*')]
	.filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + .5)
	.map(e => e.outerHTML.slice(0, 80))
	.concat(document.documentElement.scrollWidth > document.documentElement.clientWidth ? ['the page is ' + document.documentElement.scrollWidth + ' wide'] : []))()`

// small gives what fingers miss: below 24 by 24 pixels (WCAG 2.2, 2.5.8), but for links within a sentence.
const small = `[...document.querySelectorAll('nav a, button, input:not([type=hidden])')]
	.filter(e => e.getBoundingClientRect().height < 24 || e.getBoundingClientRect().width < 24).map(e => e.outerHTML)`

// focusable is what the keyboard must reach, in this order; focused is where it is, and whether that can be seen.
const (
	focusable = `[...document.querySelectorAll('a[href], button, input:not([type=hidden])')].map(e => e.outerHTML)`
	focused   = `(e => e === document.body ? '' : (getComputedStyle(e).outlineStyle === 'none' ? 'not to be seen: ' : '') + e.outerHTML)(document.activeElement)`
)

func TestInABrowserThePageFitsCanBeReadAndAsksNobodyElse(t *testing.T) {
	ctx := browser(t)
	worlds := map[string]*world{"page": newWorld(), "nothing": {standby: true}, "many": many(1000)}
	worlds["example"] = example()
	worlds["many"].connection.Status.FailedApplications[0].Name = strings.Repeat("W", 300) // no place to break it
	for name, w := range worlds {
		server := httptest.NewServer(w.handler(t))
		t.Cleanup(server.Close)
		for _, width := range []int64{320, 1280} {
			for _, scheme := range []string{"light", "dark"} {
				t.Run(fmt.Sprintf("%s %d %s", name, width, scheme), func(t *testing.T) {
					tab, cancel := chromedp.NewContext(ctx)
					defer cancel()
					s := &seen{}
					s.listen(tab)
					var sticking, tiny, reach, reached []string
					var contrast struct {
						Texts int      `json:"texts"`
						Low   []string `json:"low"`
					}
					var title, background string
					var picture []byte
					err := chromedp.Run(tab, network.Enable(), cdplog.Enable(),
						emulation.SetDeviceMetricsOverride(width, 800, 1, width < 600),
						emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}),
						chromedp.Navigate(server.URL+"/"), chromedp.Title(&title),
						chromedp.Evaluate(`getComputedStyle(document.body).backgroundColor`, &background),
						chromedp.Evaluate(wide, &sticking), chromedp.Evaluate(small, &tiny), chromedp.Evaluate(contrasts, &contrast),
						chromedp.Evaluate(focusable, &reach), chromedp.FullScreenshot(&picture, 100),
						chromedp.ActionFunc(func(ctx context.Context) error {
							for range reach {
								var at string
								if err := chromedp.Run(ctx, chromedp.KeyEvent(kb.Tab), chromedp.Evaluate(focused, &at)); err != nil {
									return err
								}
								reached = append(reached, at)
							}
							return nil
						}))
					if err != nil {
						t.Fatal(err)
					}
					if folder := os.Getenv("STATUS_PAGE_PICTURES"); folder != "" {
						if err := os.WriteFile(filepath.Join(folder, fmt.Sprintf("%s-%d-%s.png", name, width, scheme)), picture, 0o600); err != nil {
							t.Fatal(err)
						}
					}
					if !strings.HasSuffix(title, " · Application Connector") {
						t.Errorf("the title is %q", title)
					}
					if want := map[string]string{"light": "rgb(255, 255, 255)", "dark": "rgb(18, 23, 29)"}[scheme]; background != want {
						t.Errorf("the background is %s, want %s", background, want)
					}
					if len(sticking) > 0 {
						t.Errorf("sticks out to the right: %s", strings.Join(sticking, "\n"))
					}
					if len(tiny) > 0 {
						t.Errorf("too small: %s", strings.Join(tiny, "\n"))
					}
					if contrast.Texts < 10 || len(contrast.Low) > 0 {
						t.Errorf("of %d texts these can't be read well: %s", contrast.Texts, strings.Join(contrast.Low, "\n"))
					}
					if diff := cmp.Diff(reach, reached); len(reach) < 7 || diff != "" {
						t.Errorf("by keyboard (-want +got):\n%s", diff)
					}
					s.mu.Lock()
					defer s.mu.Unlock()
					if diff := cmp.Diff([]string(nil), s.complaints); diff != "" {
						t.Errorf("the browser complains: %s", diff)
					}
					want := []string{server.URL + "/", server.URL + "/style.css"}
					if diff := cmp.Diff(want, slices.DeleteFunc(slices.Clone(s.requests), func(url string) bool { return url == "data:," })); diff != "" {
						t.Errorf("requests: %s", diff)
					}
				})
			}
		}
	}
}

// example is the world of the picture in docs/status-page.md, without attackers.
func example() *world {
	w := newWorld()
	for i := range w.connection.Status.FailedApplications {
		f := &w.connection.Status.FailedApplications[i]
		f.Name, f.Message = "Archive", "the name mp-archive is taken by an Application that is not from Compass"
	}
	w.applications = slices.DeleteFunc(w.applications, func(a appv1alpha1.Application) bool { return strings.Contains(a.Name, hostile) })
	for i := range w.applications {
		for j := range w.applications[i].Status.Conditions {
			c := &w.applications[i].Status.Conditions[j]
			c.Message = strings.TrimSuffix(c.Message, ": "+hostile)
		}
	}
	for i := range w.events {
		w.events[i].Note = strings.TrimSuffix(w.events[i].Note, ": "+hostile)
	}
	return w
}

// TestTheChecksOfTheBrowserFindWhatIsWrong has them look at a page on which everything is.
func TestTheChecksOfTheBrowserFindWhatIsWrong(t *testing.T) {
	ctx := browser(t)
	var sticking, tiny []string
	var contrast struct {
		Low []string `json:"low"`
	}
	s := &seen{}
	tab, cancel := chromedp.NewContext(ctx)
	defer cancel()
	s.listen(tab)
	const bad = `data:text/html,<body style="background:white"><nav><a href=x style="font-size:5px">x</a></nav><p style="width:3000px;color:rgb(150,150,150)">grey</p><script>console.error("complaint")</script>`
	err := chromedp.Run(tab, network.Enable(), cdplog.Enable(), chromedp.Navigate(bad),
		chromedp.Evaluate(wide, &sticking), chromedp.Evaluate(small, &tiny), chromedp.Evaluate(contrasts, &contrast))
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(sticking) != 2 || len(tiny) != 1 || len(contrast.Low) != 1 || !slices.Equal(s.complaints, []string{"error"}) {
		t.Errorf("found %q, %q, %q, %q", sticking, tiny, contrast.Low, s.complaints)
	}
}

package statuspage

import (
	_ "embed"
	"fmt"
	"html/template"
	"strings"
	"time"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/application-connector/application-connector/agent/report"
	appv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
)

// longestText bounds what is shown of a message, in characters. The JSON has all of it.
const longestText = 500

//go:embed page.html
var layoutText string

var layout = template.Must(template.New("page").Funcs(template.FuncMap{
	"short": func(s string) string { return shortened(s, longestText) },
	"class": connectionClass,
}).Parse(layoutText))

// state of an Application.
type state string

const (
	// failed: a condition is False.
	failed state = "failed"
	// unknown: a condition is Unknown, or nobody has told one.
	unknown state = "unknown"
	// ready: all conditions are True.
	ready state = "ready"
)

// states in the order in which Applications are shown.
var states = []state{failed, unknown, ready}

// view is what the layout shows.
type view struct {
	*report.Report
	Version string
	Acts    bool
	Now     time.Time
	Query   query
	// RefreshSeconds is 0 if the page does not ask for itself.
	RefreshSeconds int
	Refresh        query

	Timeline *timeline
	Filters  []filter
	Rows     []row
	// Matching Applications of which Rows are some: From to To, on page Query.Page of Pages.
	Matching, From, To, Pages int
	Previous, Next            *query

	Latest   latest
	NoEvents string
}

// filter is a link that shows Applications of one state, or all.
type filter struct {
	Name    string
	Count   int
	Query   query
	Current bool
}

// row is one Application.
type row struct {
	Name, CompassID string
	State           state
	APIs, Events    int
	Services        int
	Cells           []cell
	Messages        []string
}

// cell is one condition of an Application.
type cell struct{ Title, Status, Class, Reason string }

// timeline of the certificate: where, in percent of its validity, the renewal and now are.
type timeline struct{ Renewal, Now float64 }

func (p *page) view(r *report.Report, q query, events latest, noList error) *view {
	now := p.Clock.Now()
	v := &view{Report: r, Version: p.Version, Acts: p.Acts(), Now: now, Latest: events, Timeline: newTimeline(r.Certificate, now)}
	if noList != nil {
		v.NoEvents = noEvents(noList)
	}
	if q.Refresh {
		v.RefreshSeconds = int(refreshing.Seconds())
	}
	v.applications(q)
	v.Refresh = v.Query
	v.Refresh.Refresh = !q.Refresh
	return v
}

// applications chooses those that are shown: first what failed, then by name. A page beyond the last one is the last one: while
// somebody looks, their number may shrink.
func (v *view) applications(q query) {
	byState := map[state][]*report.Application{}
	total := 0
	for i := range v.Report.Applications {
		a := &v.Report.Applications[i]
		if strings.Contains(a.Name, q.Name) {
			byState[stateOf(a)] = append(byState[stateOf(a)], a)
			total++
		}
	}
	link := func(only state) query { return query{Only: only, Name: q.Name, Page: 1, Refresh: q.Refresh} }
	v.Filters = []filter{{Name: "all", Count: total, Query: link(""), Current: q.Only == ""}}
	var matching []*report.Application
	for _, s := range states {
		v.Filters = append(v.Filters, filter{Name: string(s), Count: len(byState[s]), Query: link(s), Current: q.Only == s})
		if q.Only == "" || q.Only == s {
			matching = append(matching, byState[s]...)
		}
	}
	v.Matching = len(matching)
	v.Pages = max(1, (len(matching)+perPage-1)/perPage)
	q.Page = min(q.Page, v.Pages)
	v.Query = q
	begin, end := (q.Page-1)*perPage, min(q.Page*perPage, len(matching))
	v.From, v.To = begin+1, end
	for _, a := range matching[begin:end] {
		v.Rows = append(v.Rows, newRow(a))
	}
	turn := func(page int) *query {
		if page < 1 || page > v.Pages {
			return nil
		}
		to := q
		to.Page = page
		return &to
	}
	v.Previous, v.Next = turn(q.Page-1), turn(q.Page+1)
}

func stateOf(a *report.Application) state {
	s := ready
	if len(a.Conditions) == 0 {
		s = unknown
	}
	for _, c := range a.Conditions {
		switch c.Status {
		case metav1.ConditionFalse:
			return failed
		case metav1.ConditionUnknown:
			s = unknown
		}
	}
	return s
}

func newRow(a *report.Application) row {
	r := row{Name: a.Name, CompassID: a.CompassID, State: stateOf(a), Services: len(a.Services)}
	for _, s := range a.Services {
		for _, e := range s.Entries {
			switch e.Type {
			case appv1alpha1.EntryTypeAPI:
				r.APIs++
			case appv1alpha1.EntryTypeEvents:
				r.Events++
			}
		}
	}
	for _, column := range []struct{ title, kind string }{
		{"Synchronised", appv1alpha1.ConditionSynchronized}, {"Credentials", appv1alpha1.ConditionCredentialsReady}, {"Routes", appv1alpha1.ConditionRoutesReady},
	} {
		c := meta.FindStatusCondition(a.Conditions, column.kind)
		if c == nil {
			r.Cells = append(r.Cells, cell{Title: column.title, Status: "–", Class: "none"})
			continue
		}
		r.Cells = append(r.Cells, cell{Title: column.title, Status: string(c.Status), Class: class(c.Status), Reason: c.Reason})
		if c.Status != metav1.ConditionTrue && c.Message != "" {
			r.Messages = append(r.Messages, column.title+": "+c.Message)
		}
	}
	return r
}

// class of the style sheet for a status; what is neither True nor False is not known.
func class(s metav1.ConditionStatus) string {
	switch s {
	case metav1.ConditionTrue:
		return "good"
	case metav1.ConditionFalse:
		return "bad"
	default:
		return "open"
	}
}

// connectionClass is the same for a condition of the connection, some of which are only there while something is wrong.
func connectionClass(c metav1.Condition) string {
	switch c.Type {
	case compassv1alpha1.ConditionReconciling:
		return "open"
	case compassv1alpha1.ConditionStalled, compassv1alpha1.ConditionPruneBlocked, compassv1alpha1.ConditionStale:
		return "bad"
	default:
		return class(c.Status)
	}
}

// newTimeline is nil without a certificate, and for one whose times make no sense.
func newTimeline(c *report.Certificate, now time.Time) *timeline {
	if c == nil || c.NotBefore == nil || c.NotAfter == nil || c.RenewAt == nil || !c.NotAfter.After(c.NotBefore.Time) {
		return nil
	}
	whole := c.NotAfter.Sub(c.NotBefore.Time)
	place := func(t time.Time) float64 {
		return min(100, max(0, 100*float64(t.Sub(c.NotBefore.Time))/float64(whole)))
	}
	return &timeline{Renewal: place(c.RenewAt.Time), Now: place(now)}
}

// Class of the style sheet for the health.
func (v *view) Class() string {
	switch v.Health {
	case report.Healthy:
		return "good"
	case report.Unhealthy:
		return "bad"
	default:
		return "open"
	}
}

// moment is a time for people and for programs.
type moment struct{ Text, Machine, Ago string }

// When gives a time as it is and as seen from now; nil if it is not known.
func (v *view) When(at any) *moment {
	var t time.Time
	switch at := at.(type) {
	case time.Time:
		t = at
	case metav1.Time:
		t = at.Time
	case *metav1.Time:
		if at != nil {
			t = at.Time
		}
	}
	if t.IsZero() {
		return nil
	}
	m := &moment{Text: t.UTC().Format("2006-01-02 15:04:05 UTC"), Machine: t.UTC().Format(time.RFC3339)}
	switch {
	case t.After(v.Now):
		m.Ago = "in " + duration.HumanDuration(t.Sub(v.Now))
	default:
		m.Ago = duration.HumanDuration(v.Now.Sub(t)) + " ago"
	}
	return m
}

// NowAt is the share of the validity that is over.
func (t *timeline) NowAt() string { return fmt.Sprintf("%.1f%%", t.Now) }

// RenewalAt is where the renewal lies.
func (t *timeline) RenewalAt() string { return fmt.Sprintf("%.1f%%", t.Renewal) }

// AfterRenewal is the share that follows the renewal.
func (t *timeline) AfterRenewal() string { return fmt.Sprintf("%.1f%%", 100-t.Renewal) }

// shortened ends what is too long with an ellipsis.
func shortened(s string, characters int) string {
	if utf8.RuneCountInString(s) <= characters {
		return s
	}
	return string([]rune(s)[:characters-1]) + "…"
}

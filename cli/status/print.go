package status

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/cli-runtime/pkg/printers"
	"sigs.k8s.io/yaml"

	"github.com/application-connector/application-connector/agent/report"
	appv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/cli/terminal"
)

// The formats of --output.
const (
	formatTable = "table"
	formatWide  = "wide"
	formatJSON  = "json"
	formatYAML  = "yaml"
)

var formats = []string{formatTable, formatWide, formatJSON, formatYAML}

// none stands in a table where nothing is known, as in kubectl's.
const none = "<none>"

func (o *Options) print(r report.Report) error {
	switch o.Output {
	case formatJSON:
		return r.WriteJSON(o.Out)
	case formatYAML:
		text, err := yaml.Marshal(r)
		if err != nil {
			return err
		}
		_, err = o.Out.Write(text)
		return err
	default:
		return table(&r, o.Out, o.Clock.Now(), o.Output == formatWide)
	}
}

// table prints for people.
func table(r *report.Report, out io.Writer, now time.Time, wide bool) error {
	w := printers.GetNewTabWriter(out)
	row := func(cells ...string) {
		for i := range cells {
			cells[i] = terminal.Line(cells[i]) // much of it was written outside of the cluster
		}
		_, _ = fmt.Fprintln(w, strings.Join(cells, "\t")) // Flush tells of errors
	}
	summary(r, row, now, wide)
	if err := w.Flush(); err != nil {
		return err
	}
	row()
	if len(r.Applications) == 0 {
		row("No Applications.")
		return w.Flush()
	}
	if wide {
		row("APPLICATION", "COMPASS ID", "SERVICE", "ENTRY", "TYPE", "URL", "SYNCED", "CREDENTIALS", "ROUTES")
	} else {
		row("APPLICATION", "SERVICE", "APIS", "EVENTS", "SYNCED", "CREDENTIALS", "ROUTES")
	}
	for i := range r.Applications {
		if wide {
			wideRows(&r.Applications[i], row)
		} else {
			rows(&r.Applications[i], row)
		}
	}
	return w.Flush()
}

// summary is everything but the Applications.
func summary(r *report.Report, row func(...string), now time.Time, wide bool) {
	if r.Reason == "" {
		row("HEALTH", string(r.Health))
	} else {
		row("HEALTH", fmt.Sprintf("%s: %s", r.Health, r.Reason))
	}
	if c := r.Connection; c != nil {
		row("CONNECTION", orNone(c.State))
		if wide {
			row("DIRECTOR", orNone(c.DirectorURL))
			row("CONNECTOR", orNone(c.ConnectorURL))
		}
	}
	if c := r.Certificate; c != nil {
		row("CERTIFICATE", fmt.Sprintf("expires %s, renews %s", when(c.NotAfter, now), when(c.RenewAt, now)))
		if wide {
			row("SUBJECT", orNone(c.Subject))
			row("ISSUER", orNone(c.Issuer))
			row("FINGERPRINT", orNone(c.Fingerprint))
		}
	}
	if s := r.Sync; s != nil {
		row("SYNC", fmt.Sprintf("last %s, next %s: %d systems, %d ready, %d failed", when(s.Last, now), when(s.Next, now), s.Total, s.Ready, s.Failed))
		if s.Error != "" {
			row("SYNC ERROR", s.Error)
		}
		for _, f := range s.Failures {
			row("FAILED", fmt.Sprintf("%s: %s: %s", f.Name, f.Reason, f.Message))
		}
	}
}

// rows are one for each service; an Application without any has one row.
func rows(a *report.Application, row func(...string)) {
	if len(a.Services) == 0 {
		row(append([]string{a.Name, none, "0", "0"}, conditionCells(a)...)...)
	}
	for _, s := range a.Services {
		apis, events := 0, 0
		for _, e := range s.Entries {
			switch e.Type {
			case appv1alpha1.EntryTypeAPI:
				apis++
			case appv1alpha1.EntryTypeEvents:
				events++
			}
		}
		row(append([]string{a.Name, title(&s), strconv.Itoa(apis), strconv.Itoa(events)}, conditionCells(a)...)...)
	}
}

// wideRows are one for each entry; what has none has one row.
func wideRows(a *report.Application, row func(...string)) {
	if len(a.Services) == 0 {
		row(append([]string{a.Name, orNone(a.CompassID), none, none, none, none}, conditionCells(a)...)...)
	}
	for _, s := range a.Services {
		if len(s.Entries) == 0 {
			row(append([]string{a.Name, orNone(a.CompassID), title(&s), none, none, none}, conditionCells(a)...)...)
		}
		for _, e := range s.Entries {
			row(append([]string{a.Name, orNone(a.CompassID), title(&s), orNone(e.Name), e.Type, orNone(e.URL)}, conditionCells(a)...)...)
		}
	}
}

// conditionCells are the last columns of every row.
func conditionCells(a *report.Application) []string {
	return []string{
		statusOf(a.Conditions, appv1alpha1.ConditionSynchronized),
		statusOf(a.Conditions, appv1alpha1.ConditionCredentialsReady),
		statusOf(a.Conditions, appv1alpha1.ConditionRoutesReady),
	}
}

func title(s *report.Service) string { return cmp.Or(s.DisplayName, s.Name, none) }

func statusOf(conditions []metav1.Condition, conditionType string) string {
	if c := meta.FindStatusCondition(conditions, conditionType); c != nil {
		return string(c.Status)
	}
	return none
}

func orNone(s string) string { return cmp.Or(s, none) }

// when gives a time both as it is and seen from now.
func when(t *metav1.Time, now time.Time) string {
	if t == nil || t.IsZero() {
		return none
	}
	text := t.UTC().Format(time.RFC3339)
	if t.After(now) {
		return fmt.Sprintf("%s (in %s)", text, duration.HumanDuration(t.Sub(now)))
	}
	return fmt.Sprintf("%s (%s ago)", text, duration.HumanDuration(now.Sub(t.Time)))
}

package status

import (
	"cmp"
	"encoding/json"
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

func (o *Options) print(r Report) error {
	switch o.Output {
	case formatJSON:
		text, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(o.Out, "%s\n", text)
		return err
	case formatYAML:
		text, err := yaml.Marshal(r)
		if err != nil {
			return err
		}
		_, err = o.Out.Write(text)
		return err
	default:
		return r.table(o.Out, o.Clock.Now(), o.Output == formatWide)
	}
}

// table prints for people.
func (r *Report) table(out io.Writer, now time.Time, wide bool) error {
	w := printers.GetNewTabWriter(out)
	row := func(cells ...string) {
		for i := range cells {
			cells[i] = terminal.Line(cells[i]) // much of it was written outside of the cluster
		}
		_, _ = fmt.Fprintln(w, strings.Join(cells, "\t")) // Flush tells of errors
	}
	r.summary(row, now, wide)
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
			r.Applications[i].wideRows(row)
		} else {
			r.Applications[i].rows(row)
		}
	}
	return w.Flush()
}

// summary is everything but the Applications.
func (r *Report) summary(row func(...string), now time.Time, wide bool) {
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
func (a *Application) rows(row func(...string)) {
	if len(a.Services) == 0 {
		row(append([]string{a.Name, none, "0", "0"}, a.conditionCells()...)...)
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
		row(append([]string{a.Name, s.title(), strconv.Itoa(apis), strconv.Itoa(events)}, a.conditionCells()...)...)
	}
}

// wideRows are one for each entry; what has none has one row.
func (a *Application) wideRows(row func(...string)) {
	if len(a.Services) == 0 {
		row(append([]string{a.Name, orNone(a.CompassID), none, none, none, none}, a.conditionCells()...)...)
	}
	for _, s := range a.Services {
		if len(s.Entries) == 0 {
			row(append([]string{a.Name, orNone(a.CompassID), s.title(), none, none, none}, a.conditionCells()...)...)
		}
		for _, e := range s.Entries {
			row(append([]string{a.Name, orNone(a.CompassID), s.title(), orNone(e.Name), e.Type, orNone(e.URL)}, a.conditionCells()...)...)
		}
	}
}

// conditionCells are the last columns of every row.
func (a *Application) conditionCells() []string {
	return []string{
		statusOf(a.Conditions, appv1alpha1.ConditionSynchronized),
		statusOf(a.Conditions, appv1alpha1.ConditionCredentialsReady),
		statusOf(a.Conditions, appv1alpha1.ConditionRoutesReady),
	}
}

func (s *Service) title() string { return cmp.Or(s.DisplayName, s.Name, none) }

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

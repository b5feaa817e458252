package connection

import (
	"bytes"
	"context"
	"encoding/json"
	"time"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/graphql"
	"github.com/application-connector/application-connector/graphql/director"
)

// ReportLabel is the label of the runtime in Director that says what became of its systems, if Options.Report is set.
const ReportLabel = "runtime_applications"

// report is the value of ReportLabel. It holds neither times nor texts, so that it changes only when a result does. The two
// lists give a reason for each id of a system, and have as many as a status has.
type report struct {
	Total           int               `json:"total"`
	Synced          int               `json:"synced"`
	Ready           int               `json:"ready"`
	Failed          int               `json:"failed"`
	PendingDeletion int               `json:"pendingDeletion"`
	Failures        map[string]string `json:"failures,omitempty"`
	NotReady        map[string]string `json:"notReady,omitempty"`
}

func newReport(result Result) report {
	return report{
		Total: result.Total, Synced: result.Synced, Ready: result.Ready, Failed: result.Failed, PendingDeletion: result.PendingDeletion,
		Failures: reasons(result.Failures), NotReady: reasons(result.NotReady),
	}
}

func reasons(list []compassv1alpha1.FailedApplication) map[string]string {
	byID := map[string]string{}
	for _, f := range list {
		byID[f.ID] = f.Reason
	}
	return byID
}

// report writes the result of a sync into the label, if it is another one than the snapshot shows. It gives for how long
// Director wants to be left alone; whatever else goes wrong is logged: the sync is as good without.
func (r *Reconciler) report(ctx context.Context, v *view, d Director, snapshot director.Snapshot, result Result) time.Duration {
	if !r.Report || !snapshot.Complete { // of an answer that is not whole the counts say nothing
		return 0
	}
	value := newReport(result)
	text := canonical(value)
	if text == canonical(snapshot.RuntimeLabels[ReportLabel]) || text == r.unreported {
		return 0
	}
	err := d.SetRuntimeLabel(ctx, v.config.runtimeID, ReportLabel, value)
	switch graphql.KindOf(err) {
	case graphql.Rejected, graphql.ScopeMissing:
		r.unreported = text // it would be refused again
	}
	if err != nil {
		r.Log.WarnContext(ctx, "the results of the sync could not be reported to Compass", "label", ReportLabel, "error", cause(err))
	}
	return retryAfter(err)
}

// canonical writes the same JSON for the same value, be it of a Go type or as it was read. What cannot be written is "".
func canonical(value any) string {
	text, err := json.Marshal(value)
	if err != nil {
		return ""
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var plain any
	if decoder.Decode(&plain) != nil {
		return ""
	}
	if text, err = json.Marshal(plain); err != nil {
		return ""
	}
	return string(text)
}

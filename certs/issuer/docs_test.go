package issuer_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/cert-manager/issuer-lib/api/v1alpha1"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/application-connector/application-connector/certs/issuer"
	"github.com/application-connector/application-connector/graphql"
)

// rows reads the rows of the first table below a heading of the reference page, without the head.
func rows(t *testing.T, heading string) [][]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/reference/compassissuer.md")
	if err != nil {
		t.Fatal(err)
	}
	_, below, _ := strings.Cut(string(text), "\n## "+heading+"\n")
	below, _, _ = strings.Cut(below, "\n## ")
	var all [][]string
	for line := range strings.Lines(below) {
		if !strings.HasPrefix(line, "|") {
			continue
		}
		var cells []string
		for cell := range strings.SplitSeq(strings.Trim(strings.TrimSpace(line), "|"), "|") {
			cells = append(cells, strings.Trim(strings.TrimSpace(cell), "`"))
		}
		all = append(all, cells)
	}
	if len(all) < 3 {
		t.Fatalf("no table below %q", heading)
	}
	return all[2:]
}

func first(table [][]string) []string {
	var names []string
	for _, row := range table {
		names = append(names, row[0])
	}
	return names
}

func TestTheReferenceHoldsEveryOutcomeAndWhatBecomesOfTheToken(t *testing.T) {
	var want [][]string
	for _, k := range graphql.Kinds() {
		s := newStage(t)
		s.pairing()
		s.failed = &graphql.Error{Kind: k}
		if _, err := s.sign(requested(t, subject, key())); err == nil {
			t.Fatal("no error")
		}
		kept := "taken out"
		if s.holdsToken() {
			kept = "kept"
		}
		want = append(want, []string{string(k), string(issuer.Outcomes[k]), kept})
	}
	if diff := cmp.Diff(want, rows(t, "Outcomes")); diff != "" {
		t.Error(diff)
	}
}

func TestTheReferenceHoldsEveryKeyReasonAndEvent(t *testing.T) {
	if diff := cmp.Diff(issuer.Keys(), first(rows(t, "Pairing Secret"))); diff != "" {
		t.Error(diff)
	}
	reasons := []string{v1alpha1.IssuerConditionReasonInitializing, v1alpha1.IssuerConditionReasonChecked, v1alpha1.IssuerConditionReasonPending, v1alpha1.IssuerConditionReasonFailed}
	if diff := cmp.Diff(reasons, first(rows(t, "Conditions"))); diff != "" {
		t.Error(diff)
	}
	for _, row := range rows(t, "Events") {
		if !slices.Contains([]string{corev1.EventTypeNormal, corev1.EventTypeWarning}, row[1]) {
			t.Errorf("event %s is of type %s", row[0], row[1])
		}
	}
	if n := fmt.Sprint(issuer.MaxRetryDuration); n != "1h0m0s" {
		t.Errorf("the page says that a request fails when it is an hour old, the code says %s", n)
	}
}

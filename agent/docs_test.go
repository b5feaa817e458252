package agent_test

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/application-connector/application-connector/agent"
	"github.com/application-connector/application-connector/agent/connection"
	"github.com/application-connector/application-connector/agent/status"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
)

// table reads the rows of the first table below a heading, without the head.
func table(t *testing.T, file, heading string) [][]string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, below, found := strings.Cut(string(text), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("%s has no heading %q", file, heading)
	}
	below, _, _ = strings.Cut(below, "\n## ")
	var rows [][]string
	for line := range strings.Lines(below) {
		if !strings.HasPrefix(line, "|") {
			continue
		}
		var cells []string
		for _, cell := range strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|") {
			cells = append(cells, strings.TrimSpace(cell))
		}
		rows = append(rows, cells)
	}
	if len(rows) < 3 {
		t.Fatalf("%s has no table below %q", file, heading)
	}
	return rows[2:]
}

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}

func TestTheReferenceListsEveryEnvironmentVariable(t *testing.T) {
	var want [][]string
	for _, v := range agent.Variables {
		want = append(want, []string{code(v.Name), code(v.Default), v.Want, v.Means})
	}
	if diff := cmp.Diff(want, table(t, "../docs/reference/agent.md", "Environment variables")); diff != "" {
		t.Error(diff)
	}
}

func TestTheReferenceListsEveryMetric(t *testing.T) {
	descriptions := make(chan *prometheus.Desc, 100)
	recorder := &recordingRegisterer{}
	status.NewMetrics(recorder)
	for _, c := range recorder.collectors {
		c.Describe(descriptions)
	}
	close(descriptions)
	form := regexp.MustCompile(`fqName: "([^"]*)".*variableLabels: \{([^}]*)\}`)
	want := map[string]string{}
	for d := range descriptions {
		m := form.FindStringSubmatch(d.String())
		want[m[1]] = m[2]
	}
	got := map[string]string{}
	for _, row := range table(t, "../docs/reference/agent.md", "Metrics") {
		got[strings.Trim(row[0], "`")] = strings.ReplaceAll(strings.ReplaceAll(row[2], "`", ""), " ", "")
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

type recordingRegisterer struct {
	prometheus.Registerer
	collectors []prometheus.Collector
}

func (r *recordingRegisterer) MustRegister(c ...prometheus.Collector) {
	r.collectors = append(r.collectors, c...)
}

// constants gives the values of the string constants of a file whose names begin with a prefix.
func constants(t *testing.T, file, prefix string) []string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var values []string
	for _, m := range regexp.MustCompile(`(?m)^\t`+prefix+`\w+ = "([^"]+)"$`).FindAllStringSubmatch(string(text), -1) {
		values = append(values, m[1])
	}
	slices.Sort(values)
	return slices.Compact(values)
}

func TestTheReferenceListsEveryConditionAndReason(t *testing.T) {
	var types, reasons []string
	for _, row := range table(t, "../docs/reference/agent.md", "Conditions") {
		types = append(types, strings.Trim(row[0], "`"))
		if row[1] != "any other" {
			reasons = append(reasons, strings.Trim(row[1], "`"))
		}
	}
	slices.Sort(types)
	slices.Sort(reasons)
	if diff := cmp.Diff(constants(t, "status/conditions.go", "Reason"), slices.Compact(reasons)); diff != "" {
		t.Errorf("reasons: %s", diff)
	}
	if diff := cmp.Diff(constants(t, "../api/compass/v1alpha1/compassconnection.go", "Condition"), slices.Compact(types)); diff != "" {
		t.Errorf("types: %s", diff)
	}
}

func TestTheReferenceListsEveryEvent(t *testing.T) {
	var got []string
	for _, row := range table(t, "../docs/reference/agent.md", "Events") {
		got = append(got, strings.Trim(row[0], "`"))
	}
	want := status.EventReasons()
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, reason := range constants(t, "status/events.go", "Event") {
		if !slices.Contains(want, reason) {
			t.Errorf("event reason %s is not in EventReasons", reason)
		}
	}
}

func TestTheReferenceListsEveryAnnotation(t *testing.T) {
	var got []string
	for _, row := range table(t, "../docs/reference/agent.md", "Annotations of the client Secret") {
		got = append(got, strings.Trim(row[0], "`"))
	}
	if diff := cmp.Diff(connection.Annotations(), got); diff != "" {
		t.Error(diff)
	}
}

func TestThePageOnTheConnectionHasTheDecisionTableAndEveryState(t *testing.T) {
	var want [][]string
	for _, row := range connection.Table {
		want = append(want, []string{row.Name, string(row.Do)})
	}
	if diff := cmp.Diff(want, table(t, "../docs/connection.md", "When Compass is called")); diff != "" {
		t.Error(diff)
	}
	var states []string
	for _, row := range table(t, "../docs/connection.md", "States") {
		states = append(states, strings.Trim(row[0], "`"))
	}
	all := []string{
		string(compassv1alpha1.Connected), string(compassv1alpha1.Synchronized), string(compassv1alpha1.ConnectionFailed),
		string(compassv1alpha1.ConnectionMaintenanceFailed), string(compassv1alpha1.SynchronizationFailed),
		string(compassv1alpha1.ResourceApplicationFailed), string(compassv1alpha1.MetadataUpdateFailed),
	}
	if diff := cmp.Diff(all, states); diff != "" {
		t.Error(diff)
	}
}

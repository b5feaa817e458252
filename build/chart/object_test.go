package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestAChoiceIsPutWhereItsPathSays(t *testing.T) {
	fields := func() map[string]any {
		return map[string]any{"spec": map[string]any{"args": []any{"a"}, "ports": []any{map[string]any{"port": 1}}}}
	}
	for path, want := range map[string]any{
		"spec/args":          map[string]any{"args": "X", "ports": []any{map[string]any{"port": 1}}},
		"spec/args/0":        map[string]any{"args": []any{"X"}, "ports": []any{map[string]any{"port": 1}}},
		"spec/args/+":        map[string]any{"args": []any{"a", "X"}, "ports": []any{map[string]any{"port": 1}}},
		"spec/ports/0/port":  map[string]any{"args": []any{"a"}, "ports": []any{map[string]any{"port": "X"}}},
		"spec/ports/0/+name": map[string]any{"args": []any{"a"}, "ports": []any{map[string]any{"port": 1, "name": "X"}}},
	} {
		got := fields()
		if err := put(got, strings.Split(path, "/"), "X"); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		if diff := cmp.Diff(map[string]any{"spec": want}, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
	for path, want := range map[string]string{
		"spec/arg":         "there is no arg",
		"spec/args/1":      "there is no 1 in a list of 1",
		"spec/args/first":  "there is no first in a list of 1",
		"spec/args/0/0":    "0 is in nothing",
		"spec/+args":       "args is there already",
		"spec/args/0/+":    "+ is in nothing",
		"spec/ports/0/x/y": "there is no x",
	} {
		if err := put(fields(), strings.Split(path, "/"), "X"); err == nil || err.Error() != want {
			t.Errorf("%s gives the error %v, not %q", path, err, want)
		}
	}
}

func TestTheManifestsBecomeTemplatesThatHelmWillNotMistakeTheirBracesIn(t *testing.T) {
	o := object{id: id{kind: "ConfigMap", name: "c"}}
	got, err := o.text(map[string]any{
		"kind": "ConfigMap", "metadata": map[string]any{"name": "c", "labels": map[string]any{"a": "b"}},
		"data": map[string]any{"legend": "{{ instance }}", "url": "https://gateway.kyma.example.com"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"data:", `  legend: '{{ "{{" }} instance }}'`, "  url: https://gateway.{{ .Values.domain }}", "kind: ConfigMap", "metadata:", "  labels:", "    a: b",
		`{{- include "application-connector.labels" . | nindent 4 }}`, "  name: c",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

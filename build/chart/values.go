package main

import (
	"fmt"
	"strconv"
	"strings"
)

// domain and collector are those of the overlays; the chart's values name others.
const (
	domain    = "kyma.example.com"
	collector = "http://collector.observability:4318"
)

// base is the build that the templates begin with, and each of the features says what else there may be: what changes where a
// value of the chart is true. Values that exclude each other are told apart by the chart's schema.
const base = "resources: [../overlays/compass, ../istio/fail-closed]"

var features = []struct{ value, kustomization string }{
	{"not .Values.agent.enabled", "resources: [../overlays/standalone, ../istio/fail-closed]"},
	{"not .Values.istio.enabled", "resources: [../overlays/no-istio]"},
	{".Values.istio.gatewayAPI", base + "\ncomponents: [../components/gateway-api, ../settings]"},
	{".Values.istio.serverCertificate.enabled", base + "\ncomponents: [../components/server-certificate, ../settings]"},
	{".Values.agent.certManager", base + "\ncomponents: [../components/agent-cert-manager]"},
	{".Values.tracing.endpoint", base + "\ncomponents: [../components/tracing]"},
	{".Values.monitoring.enabled", "resources: [../overlays/compass, ../istio/fail-closed, ../monitoring]"},
	{".Values.onboarding.enabled", "resources: [../overlays/compass, ../istio/fail-closed, ../onboarding]"},
	{"and .Values.monitoring.enabled .Values.onboarding.enabled", "resources: [../overlays/compass, ../istio/fail-closed, ../monitoring/onboarding]"},
	{"and .Values.monitoring.enabled .Values.agent.enabled", "resources: [../overlays/compass, ../istio/fail-closed, ../monitoring/agent]"},
}

// component is one of the programs: its name in the cluster, that of its values, and that in the names of its policies.
type component struct {
	name, value, policies string
}

var components = []component{
	{name: "compass-runtime-agent", value: "agent", policies: "compass"},
	{name: "central-application-gateway", value: "gateway", policies: "gateway"},
	{name: "central-application-connectivity-validator", value: "validator", policies: "validator"},
	{name: onboarding, value: "onboarding", policies: "onboarding"},
}

// onboarding is the name of the controller, and of its namespace.
const onboarding = "application-connector-onboarding"

// whole puts objects of a kind, or those whose name has a pattern (path.Match), under a condition.
type whole struct {
	kind, name, value string
}

var wholes = []whole{
	{kind: "CustomResourceDefinition", value: ".Values.crds.enabled"},
	{kind: "NetworkPolicy", value: ".Values.networkPolicies.enabled"},
	{kind: "ConfigMap", name: "application-connector-dashboard-*", value: ".Values.monitoring.dashboards"},
	{kind: "ConfigMap", name: "application-connector-dashboard-agent", value: ".Values.agent.enabled"},
	// Which authorities there are is the agent's or an administrator's to say: what is there is left alone.
	{kind: "Secret", name: "kyma-gateway-certs-cacert", value: `and .Values.istio.failClosed (not (lookup "v1" "Secret" "istio-system" "kyma-gateway-certs-cacert"))`},
}

// choice puts a value of the chart into objects of a kind, a name, or both.
type choice struct {
	kind, name string
	// path of the field, its parts separated by "/": see put.
	path string
	// replace gives the line of the field, or several, from what stands in it before the value.
	replace func(before string) string
}

var choices = []choice{
	{path: "metadata/labels/+zz", replace: lines(`{{- include "application-connector.labels" . | nindent INDENT }}`)},
	// No part of the release, or a rollback to the revision that made it would put it back over what the agent wrote.
	{kind: "Secret", name: "kyma-gateway-certs-cacert", path: "metadata/annotations/+zz", replace: lines("helm.sh/hook: pre-install,pre-upgrade")},
	{kind: "PodMonitor", path: "metadata/labels/+zy", replace: items(".Values.monitoring.labels")},
	{kind: "PrometheusRule", path: "metadata/labels/+zy", replace: items(".Values.monitoring.labels")},
	{kind: "Certificate", path: "spec/issuerRef", replace: block("issuerRef", ".Values.istio.serverCertificate.issuer")},
	{kind: "NetworkPolicy", name: "kyma-project.io--acm-module-to-api-server", path: "spec/egress/0", replace: lines(
		"- ports:", "{{- range .Values.networkPolicies.apiServer.ports }}", "  - port: {{ . }}", "    protocol: TCP", "{{- end }}",
		"{{- with .Values.networkPolicies.apiServer.cidrs }}", "  to:", "{{- range . }}", "  - ipBlock:", "      cidr: {{ . }}", "{{- end }}", "{{- end }}")},
	{kind: "NetworkPolicy", name: "kyma-project.io--acm-module-allow-to-external-system", path: "spec/egress/0", replace: lines(
		"- to:", "{{- range .Values.networkPolicies.externalSystems }}", "  - ipBlock: {{ toJson . }}", "{{- end }}")},
	{kind: "NetworkPolicy", name: "kyma-project.io--acm-module-allow-to-collector", path: "spec/egress/0", replace: lines(
		"- ports:", "{{- range .Values.networkPolicies.collector.ports }}", "  - port: {{ . }}", "    protocol: TCP", "{{- end }}",
		"{{- with .Values.networkPolicies.collector.peers }}", "  to: {{ toJson . }}", "{{- end }}")},
}

func init() {
	for _, c := range components {
		values, pod := ".Values."+c.value, "spec/template/spec/"
		of := func(kind, path string, replace func(string) string) {
			choices = append(choices, choice{kind: kind, name: c.name, path: path, replace: replace})
		}
		deployment := func(path string, replace func(string) string) { of("Deployment", path, replace) }
		image := c.name
		if c.value == "onboarding" {
			image = "appconn"
		}
		deployment(pod+"containers/0/image", inline(`{{ include "application-connector.image" (list . "%s" "%s") }}`, c.value, image))
		deployment(pod+"containers/0/imagePullPolicy", inline("{{ .Values.image.pullPolicy }}"))
		deployment(pod+"containers/0/resources", block("resources", values+".resources"))
		deployment(pod+"+imagePullSecrets", optional("imagePullSecrets", ".Values.image.pullSecrets"))
		deployment(pod+"+nodeSelector", optional("nodeSelector", values+".nodeSelector"))
		deployment(pod+"+tolerations", optional("tolerations", values+".tolerations"))
		deployment(pod+"+affinity", optional("affinity", values+".affinity"))
		deployment("spec/template/metadata/annotations/+zz", items(values+".podAnnotations"))
		deployment("spec/template/metadata/labels/+zz", items(values+".podLabels"))
		if c.value == "onboarding" { // it may be away for a while
			deployment("spec/replicas", inline("{{ "+values+".replicas }}"))
			deployment(pod+"containers/0/args/3", inline("--director-url={{ "+values+".directorURL }}"))
			deployment(pod+"containers/0/args/+", lines("{{- if "+values+".offboard }}", "- --on-delete=offboard", "{{- end }}", "{{- with "+values+".extraArgs }}", "{{- toYaml . | nindent INDENT }}", "{{- end }}"))
			deployment(pod+"containers/0/+env", optional("env", values+".extraEnv"))
			deployment(pod+"containers/0/volumeMounts/+", items(values+".extraVolumeMounts"))
			deployment(pod+"volumes/+", items(values+".extraVolumes"))
			of("Role", "rules/0/verbs/+", lines("{{- if "+values+".offboard }}", "- patch", "{{- end }}"))
			choices = append(choices, choice{kind: "NetworkPolicy", name: onboarding + "-to-clusters", path: "spec/egress/0", replace: lines(
				"- ports:", "{{- range "+values+".egress.ports }}", "  - port: {{ . }}", "    protocol: TCP", "{{- end }}",
				"  to:", "{{- range "+values+".egress.addresses }}", "  - ipBlock: {{ toJson . }}", "{{- end }}")})
			continue
		}
		deployment(pod+"priorityClassName", inline("{{ "+values+".priorityClass.name }}"))
		priority := whole{kind: "PriorityClass", name: c.name + "-priority-class", value: values + ".priorityClass.create"}
		wholes = append(wholes, priority)
		choices = append(choices,
			choice{kind: priority.kind, name: priority.name, path: "metadata/name", replace: inline("{{ " + values + ".priorityClass.name }}")},
			choice{kind: priority.kind, name: priority.name, path: "value", replace: inline("{{ " + values + ".priorityClass.value }}")})
		wholes = append(wholes, whole{kind: "PodDisruptionBudget", name: c.name, value: values + ".podDisruptionBudget.enabled"})
		of("PodDisruptionBudget", "spec/maxUnavailable", inline("{{ "+values+".podDisruptionBudget.maxUnavailable }}"))
		deployment(pod+"containers/0/env/+", lines(extraEnv+values+".extraEnv"))
		deployment(pod+"containers/0/+volumeMounts", optional("volumeMounts", values+".extraVolumeMounts"))
		deployment(pod+"+volumes", optional("volumes", values+".extraVolumes"))
		if c.value == "agent" {
			deployment("spec/replicas", inline("{{ "+values+".replicas }}"))
			continue
		}
		deployment("spec/+replicas", lines("{{- if not "+values+".autoscaling.enabled }}", "replicas: {{ "+values+".replicas }}", "{{- end }}"))
		deployment(pod+"containers/0/args/+", items(values+".extraArgs"))
		wholes = append(wholes, whole{kind: "HorizontalPodAutoscaler", name: c.name, value: values + ".autoscaling.enabled"})
		of("HorizontalPodAutoscaler", "spec/minReplicas", inline("{{ "+values+".autoscaling.minReplicas }}"))
		of("HorizontalPodAutoscaler", "spec/maxReplicas", inline("{{ "+values+".autoscaling.maxReplicas }}"))
		of("HorizontalPodAutoscaler", "spec/metrics/0/resource/target/averageUtilization", inline("{{ "+values+".autoscaling.targetCPUUtilization }}"))
	}
}

// inline puts a template in the place of the value.
func inline(template string, args ...any) func(string) string {
	template = fmt.Sprintf(template, args...)
	return func(before string) string { return before + template }
}

// lines replaces the whole line, at its indentation, which INDENT stands for; BELOW is that of what belongs to a key of it.
func lines(all ...string) func(string) string {
	return func(before string) string {
		indent := before[:len(before)-len(strings.TrimLeft(before, " "))]
		out := make([]string, len(all))
		for i, line := range all {
			if !strings.HasPrefix(line, "{{-") {
				line = indent + line
			}
			out[i] = strings.NewReplacer("INDENT", strconv.Itoa(len(indent)), "BELOW", strconv.Itoa(len(indent)+2)).Replace(line)
		}
		return strings.Join(out, "\n")
	}
}

// block puts a map or list below its key.
func block(key, value string) func(string) string {
	return lines(key+":", "{{- toYaml "+value+" | nindent BELOW }}")
}

// optional puts a map or list below its key, and both only if it is not empty.
func optional(key, value string) func(string) string {
	return lines("{{- with "+value+" }}", key+":", "{{- toYaml . | nindent BELOW }}", "{{- end }}")
}

// items puts those of a map or list beside others.
func items(value string) func(string) string {
	return lines("{{- with "+value+" }}", "{{- toYaml . | nindent INDENT }}", "{{- end }}")
}

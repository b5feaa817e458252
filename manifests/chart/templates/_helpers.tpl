{{- /* The labels that Helm asks for, beside those that the objects have anyway. */ -}}
{{- define "application-connector.labels" -}}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- /* The image of a component: (list . VALUES NAME). */ -}}
{{- define "application-connector.image" -}}
{{- $root := index . 0 -}}
{{- $values := index $root.Values (index . 1) -}}
{{- if $values.image -}}
{{ $values.image }}
{{- else if $root.Values.image.registry -}}
{{ $root.Values.image.registry }}/{{ index . 2 }}:{{ $root.Values.image.tag | default $root.Chart.AppVersion }}
{{- else -}}
{{- fail (printf "image.registry: name the registry that the images are pulled from, or set %s.image" (index . 1)) -}}
{{- end -}}
{{- end }}

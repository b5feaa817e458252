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

{{- /* The variables of a container, with those of the values in the place of the chart's that have the same name: (list YAML VALUES). */ -}}
{{- define "application-connector.env" -}}
{{- $given := dict -}}
{{- range index . 1 -}}
{{- $_ := set $given .name . -}}
{{- end -}}
{{- $env := list -}}
{{- range concat (fromYamlArray (index . 0)) (default list (index . 1)) -}}
{{- if not (hasKey $given .name) -}}
{{- $env = append $env . -}}
{{- else if get $given .name -}}
{{- $env = append $env (get $given .name) -}}
{{- $_ := set $given .name false -}}
{{- end -}}
{{- end -}}
{{- toYaml $env -}}
{{- end }}

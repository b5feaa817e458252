package chart

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"helm.sh/helm/v4/pkg/action"
	"sigs.k8s.io/yaml"
)

func TestHelmsLinterHasNothingToSay(t *testing.T) {
	for _, v := range variants {
		lint := action.NewLint()
		lint.Strict, lint.Namespace = true, system
		result := lint.Run([]string{chart}, values(t, every, v.values))
		if err := errors.Join(result.Errors...); err != nil || result.TotalChartsLinted != 1 {
			t.Errorf("%s: %v", v.name, err)
		}
		for _, m := range result.Messages {
			if !strings.Contains(m.Err.Error(), "icon is recommended") {
				t.Errorf("%s: %v", v.name, m)
			}
		}
	}
}

func TestWrongValuesAreRefusedAndNamed(t *testing.T) {
	for wrong, want := range map[string]string{
		`domain: ""`:                                "at '/domain'",
		`domain: "a.b\nc: d"`:                       "at '/domain'",
		`domain: https://example.com`:               "at '/domain'",
		`domian: example.com`:                       "additional properties 'domian' not allowed",
		`image: {registry: "r/"}`:                   "at '/image/registry'",
		`image: {tag: "a b"}`:                       "at '/image/tag'",
		`image: {pullPolicy: Sometimes}`:            "at '/image/pullPolicy'",
		`image: {pullSecrets: [s]}`:                 "at '/image/pullSecrets/0'",
		`crds: {enabled: "yes"}`:                    "at '/crds/enabled'",
		`istio: {enabled: false, gatewayAPI: true}`: "at '/istio/gatewayAPI'",
		`istio: {enabled: false, serverCertificate: {enabled: true, issuer: {name: i}}}`: "at '/istio/serverCertificate/enabled'",
		`istio: {serverCertificate: {enabled: true}}`:                                    "at '/istio/serverCertificate/issuer/name'",
		`istio: {serverCertificate: {issuer: {kind: issuer}}}`:                           "at '/istio/serverCertificate/issuer/kind'",
		`agent: {enabled: false, certManager: true}`:                                     "at '/agent/certManager'",
		`monitoring: {labels: [a]}`:                                                      "at '/monitoring/labels'",
		`istio: {enabled: "false"}`:                                                      "at '/istio/enabled'",
		`networkPolicies: {apiServer: {ports: []}}`:                                      "at '/networkPolicies/apiServer/ports'",
		`networkPolicies: {apiServer: {ports: [https]}}`:                                 "at '/networkPolicies/apiServer/ports/0'",
		`networkPolicies: {apiServer: {ports: [65536]}}`:                                 "at '/networkPolicies/apiServer/ports/0'",
		`networkPolicies: {apiServer: {cidrs: [10.0.0.1]}}`:                              "at '/networkPolicies/apiServer/cidrs/0'",
		`networkPolicies: {apiServer: {cidrs: ["fd00::1/129"]}}`:                         "at '/networkPolicies/apiServer/cidrs/0'",
		`networkPolicies: {externalSystems: []}`:                                         "at '/networkPolicies/externalSystems'",
		`networkPolicies: {externalSystems: [{cidr: 10.0.0.0/33}]}`:                      "at '/networkPolicies/externalSystems/0/cidr'",
		`networkPolicies: {externalSystems: [{cidr: 10.0.0.0/8, except: [10.0.0.0/a]}]}`: "at '/networkPolicies/externalSystems/0/except/0'",
		`networkPolicies: {collector: {ports: []}}`:                                      "at '/networkPolicies/collector/ports'",
		`networkPolicies: {collector: {ports: [0]}}`:                                     "at '/networkPolicies/collector/ports/0'",
		`networkPolicies: {collector: {peers: [{}]}}`:                                    "at '/networkPolicies/collector/peers/0'",
		`networkPolicies: {collector: {peers: [{namespace: a}]}}`:                        "at '/networkPolicies/collector/peers/0'",
		`tracing: {endpoint: "collector:4318"}`:                                          "at '/tracing/endpoint'",
		`tracing: {endpoint: "http://c:4318\nx: y"}`:                                     "at '/tracing/endpoint'",
		`gateway: {extraEnv: [{value: "A"}]}`:                                            "at '/gateway/extraEnv/0'",
		`validator: {extraEnv: [{name: "A B"}]}`:                                         "at '/validator/extraEnv/0/name'",
		`agent: {replicas: -1}`:                                                          "at '/agent/replicas'",
		`agent: {autoscaling: {enabled: true}}`:                                          "at '/agent': additional properties 'autoscaling' not allowed",
		`agent: {extraEnv: [{name: "A=B"}]}`:                                             "at '/agent/extraEnv/0/name'",
		`gateway: {autoscaling: {minReplicas: 0}}`:                                       "at '/gateway/autoscaling/minReplicas'",
		`gateway: {autoscaling: {targetCPUUtilization: 101}}`:                            "at '/gateway/autoscaling/targetCPUUtilization'",
		`gateway: {resources: {requests: {cpu: a lot}}}`:                                 "at '/gateway/resources/requests/cpu'",
		`gateway: {resources: {claims: []}}`:                                             "at '/gateway/resources'",
		`agent: {podDisruptionBudget: {maxUnavailable: 0}}`:                              "at '/agent/podDisruptionBudget/maxUnavailable'",
		`gateway: {podDisruptionBudget: {maxUnavailable: 0}}`:                            "at '/gateway/podDisruptionBudget/maxUnavailable'",
		`gateway: {priorityClass: {name: "A B"}}`:                                        "at '/gateway/priorityClass/name'",
		`gateway: {priorityClass: {value: 1000000001}}`:                                  "at '/gateway/priorityClass/value'",
		`onboarding: {enabled: true}`:                                                    "at '/onboarding/directorURL'",
		`onboarding: {directorURL: "http://d.test"}`:                                     "at '/onboarding/directorURL'",
		`onboarding: {egress: {addresses: []}}`:                                          "at '/onboarding/egress/addresses'",
		`gateway: {image: "a b"}`:                                                        "at '/gateway/image'",
		`gateway: {extraArgs: [value]}`:                                                  "at '/gateway/extraArgs/0'",
		`validator: {nodeSelector: {a: 1}}`:                                              "at '/validator/nodeSelector/a'",
		`validator: {podLabels: {a: true}}`:                                              "at '/validator/podLabels/a'",
		`validator: {podLabels: {app: a}}`:                                               "at '/validator/podLabels/app'",
		`agent: {podLabels: {sidecar.istio.io/inject: "false"}}`:                         "at '/agent/podLabels/sidecar.istio.io~1inject'",
		`gateway: {podAnnotations: {kubectl.kubernetes.io/default-container: a}}`:        "at '/gateway/podAnnotations/kubectl.kubernetes.io~1default-container'",
		`agent: {extraVolumes: [{configMap: {name: c}}]}`:                                "at '/agent/extraVolumes/0'",
		`agent: {extraVolumeMounts: [{name: c, mountPath: c}]}`:                          "at '/agent/extraVolumeMounts/0/mountPath'",
		`validator: {image: ""}`:                                                         "image.registry: name the registry that the images are pulled from, or set validator.image",
	} {
		_, err := template(values(t, every, wrong))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s gives the error %v, without %q", wrong, err, want)
		}
	}
}

func TestValuesChangeWhatTheyAreFor(t *testing.T) {
	deployment := func(name string) string { return "apps/v1 Deployment kyma-system " + name }
	const (
		gateway   = "central-application-gateway"
		validator = "central-application-connectivity-validator"
		agent     = "compass-runtime-agent"
		policy    = "networking.k8s.io/v1 NetworkPolicy kyma-system kyma-project.io--acm-module-"
		pod       = "spec.template.spec."
	)
	for _, c := range []struct{ values, object, path, want string }{
		{`image: {registry: r.test/a, tag: v1}
gateway: {image: ""}`, deployment(gateway), pod + "containers.0.image", `"r.test/a/central-application-gateway:v1"`},
		{`image: {registry: r.test:5000}
agent: {image: ""}`, deployment(agent), pod + "containers.0.image", `"r.test:5000/compass-runtime-agent:0.1.0"`},
		{`validator: {image: "r.test/v@sha256:0a"}`, deployment(validator), pod + "containers.0.image", `"r.test/v@sha256:0a"`},
		{`image: {pullPolicy: Always}`, deployment(agent), pod + "containers.0.imagePullPolicy", `"Always"`},
		{`image: {pullSecrets: [{name: s}]}`, deployment(agent), pod + "imagePullSecrets", `[{"name":"s"}]`},
		{`agent: {replicas: 2}`, deployment(agent), "spec.replicas", `2`},
		{`agent: {extraEnv: [{name: APP_LOG_LEVEL, value: debug}]}`, deployment(agent), pod + "containers.0.env.15", `{"name":"APP_LOG_LEVEL","value":"debug"}`},
		{`agent: {extraEnv: [{name: APP_LOG_LEVEL, value: debug}]}`, deployment(agent), pod + "containers.0.env.18", ``},
		{`agent: {extraEnv: [{name: A, value: "1"}, {name: B, value: "2"}, {name: A, value: "3"}]}`, deployment(agent), pod + "containers.0.env.18", `{"name":"A","value":"3"}`},
		{`agent: {extraVolumes: [{name: c, configMap: {name: c}}]}`, deployment(agent), pod + "volumes", `[{"configMap":{"name":"c"},"name":"c"}]`},
		{`agent: {extraVolumeMounts: [{name: c, mountPath: /c}]}`, deployment(agent), pod + "containers.0.volumeMounts", `[{"mountPath":"/c","name":"c"}]`},
		{`agent: {podDisruptionBudget: {maxUnavailable: 50%}}`, "policy/v1 PodDisruptionBudget kyma-system " + agent, "spec.maxUnavailable", `"50%"`},
		{`agent: {podDisruptionBudget: {enabled: false}}`, "policy/v1 PodDisruptionBudget kyma-system " + agent, "", ``},
		{`agent: {priorityClass: {create: false, name: mine}}`, deployment(agent), pod + "priorityClassName", `"mine"`},
		{`agent: {priorityClass: {create: false, name: mine}}`, "scheduling.k8s.io/v1 PriorityClass  mine", "", ``},
		{`agent: {priorityClass: {name: mine, value: 5}}`, "scheduling.k8s.io/v1 PriorityClass  mine", "value", `5`},
		{`gateway: {replicas: 3}`, deployment(gateway), "spec.replicas", ``},
		{`gateway: {replicas: 3, autoscaling: {enabled: false}}`, deployment(gateway), "spec.replicas", `3`},
		{`gateway: {autoscaling: {enabled: false}}`, "autoscaling/v2 HorizontalPodAutoscaler kyma-system " + gateway, "", ``},
		{`gateway: {autoscaling: {minReplicas: 3}}`, "autoscaling/v2 HorizontalPodAutoscaler kyma-system " + gateway, "spec.minReplicas", `3`},
		{`validator: {autoscaling: {maxReplicas: 3}}`, "autoscaling/v2 HorizontalPodAutoscaler kyma-system " + validator, "spec.maxReplicas", `3`},
		{`validator: {autoscaling: {targetCPUUtilization: 30}}`, "autoscaling/v2 HorizontalPodAutoscaler kyma-system " + validator, "spec.metrics.0.resource.target.averageUtilization", `30`},
		{`gateway: {resources: {requests: {cpu: 1}, limits: {memory: 1Gi, cpu: null}}}`, deployment(gateway), pod + "containers.0.resources", `{"limits":{"memory":"1Gi"},"requests":{"cpu":1,"memory":"128Mi"}}`},
		{`gateway: {extraArgs: [--logLevel=debug]}`, deployment(gateway), pod + "containers.0.args.10", `"--logLevel=debug"`},
		{`validator: {extraArgs: [--rateLimit=5]}`, deployment(validator), pod + "containers.0.args.11", `"--rateLimit=5"`},
		{`gateway: {nodeSelector: {disk: ssd}}`, deployment(gateway), pod + "nodeSelector", `{"disk":"ssd"}`},
		{`gateway: {tolerations: [{operator: Exists}]}`, deployment(gateway), pod + "tolerations", `[{"operator":"Exists"}]`},
		{`gateway: {affinity: {podAffinity: {}}}`, deployment(gateway), pod + "affinity", `{"podAffinity":{}}`},
		{`gateway: {podAnnotations: {a: b}}`, deployment(gateway), "spec.template.metadata.annotations.a", `"b"`},
		{`gateway: {podLabels: {a: "1"}}`, deployment(gateway), "spec.template.metadata.labels.a", `"1"`},
		{`gateway: {podDisruptionBudget: {maxUnavailable: 20%}}`, "policy/v1 PodDisruptionBudget kyma-system " + gateway, "spec.maxUnavailable", `"20%"`},
		{`gateway: {podDisruptionBudget: {enabled: false}}`, "policy/v1 PodDisruptionBudget kyma-system " + gateway, "", ``},
		{`networkPolicies: {apiServer: {ports: [16443]}}`, policy + "to-api-server", "spec.egress", `[{"ports":[{"port":16443,"protocol":"TCP"}]}]`},
		{`networkPolicies: {apiServer: {cidrs: [10.0.0.1/32, "fd00::1/128"]}}`, policy + "to-api-server", "spec.egress.0.to", `[{"ipBlock":{"cidr":"10.0.0.1/32"}},{"ipBlock":{"cidr":"fd00::1/128"}}]`},
		{`networkPolicies: {externalSystems: [{cidr: "2001:db8::/32", except: ["2001:db8::/64"]}]}`, policy + "allow-to-external-system", "spec.egress", `[{"to":[{"ipBlock":{"cidr":"2001:db8::/32","except":["2001:db8::/64"]}}]}]`},
		{`tracing: {endpoint: "https://c.test:4318/x"}`, deployment(gateway), pod + "containers.0.env.2", `{"name":"OTEL_EXPORTER_OTLP_ENDPOINT","value":"https://c.test:4318/x"}`},
		{`tracing: {endpoint: "http://[fd00::1]:4318"}`, deployment(validator), pod + "containers.0.env.4", `{"name":"OTEL_EXPORTER_OTLP_ENDPOINT","value":"http://[fd00::1]:4318"}`},
		{``, policy + "allow-to-collector", "", ``},
		{`networkPolicies: {collector: {ports: [4319]}}`, policy + "allow-to-collector", "", ``},
		{`{tracing: {endpoint: "http://c.test"}, networkPolicies: {enabled: false}}`, policy + "allow-to-collector", "", ``},
		{`tracing: {endpoint: "http://c.test"}`, policy + "allow-to-collector", "spec.egress", `[{"ports":[{"port":4318,"protocol":"TCP"}]}]`},
		{`{tracing: {endpoint: "http://c.test"}, networkPolicies: {collector: {ports: [80, 4319], peers: [{podSelector: {matchLabels: {a: b}}}, {ipBlock: {cidr: "fd00::/8"}}]}}}`, policy + "allow-to-collector", "spec.egress", `[{"ports":[{"port":80,"protocol":"TCP"},{"port":4319,"protocol":"TCP"}],"to":[{"podSelector":{"matchLabels":{"a":"b"}}},{"ipBlock":{"cidr":"fd00::/8"}}]}]`},
		{`gateway: {extraEnv: [{name: HTTPS_PROXY, value: "http://proxy"}]}`, deployment(gateway), pod + "containers.0.env.2", `{"name":"HTTPS_PROXY","value":"http://proxy"}`},
		{`{tracing: {endpoint: "http://c.test"}, validator: {extraEnv: [{name: A, valueFrom: {secretKeyRef: {name: s, key: k}}}]}}`, deployment(validator), pod + "containers.0.env.5", `{"name":"A","valueFrom":{"secretKeyRef":{"key":"k","name":"s"}}}`},
		{`networkPolicies: {enabled: false}`, policy + "to-api-server", "", ``},
		{`monitoring: {enabled: true, labels: {release: stack}}`, "monitoring.coreos.com/v1 PodMonitor kyma-system " + gateway, "metadata.labels.release", `"stack"`},
		{`monitoring: {enabled: true, labels: {release: stack}}`, "monitoring.coreos.com/v1 PrometheusRule kyma-system " + agent, "metadata.labels.release", `"stack"`},
		{`istio: {serverCertificate: {enabled: true, issuer: {kind: Issuer, name: mine}}}`, "cert-manager.io/v1 Certificate istio-system kyma-gateway-certs", "spec.issuerRef", `{"group":"cert-manager.io","kind":"Issuer","name":"mine"}`},
		{`crds: {enabled: false}`, "apiextensions.k8s.io/v1 CustomResourceDefinition  applications.applicationconnector.kyma-project.io", "", ``},
		{`onboarding: {enabled: true, directorURL: "https://d.test/g", extraArgs: [--concurrency=5]}`, "apps/v1 Deployment application-connector-onboarding application-connector-onboarding", pod + "containers.0.args",
			`["/appconn","onboard","controller","--director-url=https://d.test/g","--credentials=/etc/director/credentials.yaml","--namespace=application-connector-onboarding","--concurrency=5"]`},
		{`onboarding: {enabled: true, directorURL: "https://d.test/g", extraEnv: [{name: HTTPS_PROXY, value: "http://p"}]}`, "apps/v1 Deployment application-connector-onboarding application-connector-onboarding", pod + "containers.0.env", `[{"name":"HTTPS_PROXY","value":"http://p"}]`},
		{`onboarding: {enabled: true, directorURL: "https://d.test/g", egress: {ports: [443], addresses: [{cidr: 10.0.0.0/8}]}}`, "networking.k8s.io/v1 NetworkPolicy application-connector-onboarding application-connector-onboarding-to-clusters", "spec.egress", `[{"ports":[{"port":443,"protocol":"TCP"}],"to":[{"ipBlock":{"cidr":"10.0.0.0/8"}}]}]`},
		{`onboarding: {enabled: true, directorURL: "https://d.test/g", extraVolumes: [{name: ca, configMap: {name: ca}}], extraVolumeMounts: [{name: ca, mountPath: /ca}]}`, "apps/v1 Deployment application-connector-onboarding application-connector-onboarding", pod + "volumes.1", `{"configMap":{"name":"ca"},"name":"ca"}`},
		{``, "v1 Namespace  application-connector-onboarding", "", ``},
		{`istio: {failClosed: false}`, "v1 Secret istio-system kyma-gateway-certs-cacert", "", ``},
	} {
		object := objects(t, rendered(t, values(t, every, c.values)))[c.object]
		switch {
		case object == nil && c.path == "":
		case object == nil || c.path == "":
			t.Errorf("%s: %s is there: %v", c.values, c.object, object != nil)
		default:
			if got := field(object.Object, strings.Split(c.path, ".")); got != c.want {
				t.Errorf("%s: %s of %s is %s, not %s", c.values, c.path, c.object, got, c.want)
			}
		}
	}
}

func TestTheDomainOfTheValuesIsWhereverThatOfTheOverlaysIs(t *testing.T) {
	here, there := rendered(t, values(t, every)), rendered(t, values(t, every, `domain: eu.shop.test`))
	if got := strings.ReplaceAll(there, "eu.shop.test", "kyma.example.com"); got != here {
		t.Errorf("(-kyma.example.com +eu.shop.test):\n%s", cmp.Diff(here, got))
	}
	if strings.Count(there, "eu.shop.test") != 6 {
		t.Errorf("it is there %d times", strings.Count(there, "eu.shop.test"))
	}
}

func TestNoImageIsPulledFromNowhereInParticular(t *testing.T) {
	_, err := template(values(t, `domain: kyma.example.com`))
	if err == nil || !strings.Contains(err.Error(), "image.registry: name the registry") {
		t.Errorf("without a registry: %v", err)
	}
}

// TestTheSchemaKnowsTheValuesAndTheDocumentationTheSchema: each value has a default and a row.
func TestTheSchemaKnowsTheValuesAndTheDocumentationTheSchema(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(chart, "values.schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	var root map[string]any
	if err := json.Unmarshal(text, &root); err != nil {
		t.Fatal(err)
	}
	text, err = os.ReadFile(filepath.Join(chart, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var defaults map[string]any
	if err := yaml.UnmarshalStrict(text, &defaults); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{}
	described(t, root, root, defaults, "", want)
	page, err := os.ReadFile("../../docs/reference/chart.md")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (.*) \\|$").FindAllStringSubmatch(string(page), -1) {
		got[row[1]] = row[2]
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("docs/reference/chart.md (-schema and values +page):\n%s", diff)
	}
}

// described collects default and description of every value that is not a group of others.
func described(t *testing.T, root, schema, defaults map[string]any, prefix string, into map[string]string) {
	t.Helper()
	properties, _ := schema["properties"].(map[string]any)
	for name := range defaults {
		if properties[name] == nil {
			t.Errorf("the schema does not know %s", prefix+name)
		}
	}
	for name, of := range properties {
		property := of.(map[string]any)
		description, _ := property["description"].(string)
		if ref, ok := property["$ref"].(string); ok {
			property = root["$defs"].(map[string]any)[strings.TrimPrefix(ref, "#/$defs/")].(map[string]any)
		}
		value, has := defaults[name]
		if !has && prefix+name != "global" {
			t.Errorf("values.yaml has no default of %s", prefix+name)
		}
		if below, ok := value.(map[string]any); ok && property["properties"] != nil && name != "resources" {
			described(t, root, property, below, prefix+name+".", into)
			continue
		}
		if !has {
			continue
		}
		shown, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		into[prefix+name] = fmt.Sprintf("`%s` | %s", shown, description)
	}
}

// field is a field of an object as JSON; empty if it is not there.
func field(at any, path []string) string {
	for _, part := range path {
		switch of := at.(type) {
		case map[string]any:
			at = of[part]
		case []any:
			var i int
			if _, err := fmt.Sscan(part, &i); err != nil || i >= len(of) {
				return ""
			}
			at = of[i]
		default:
			return ""
		}
	}
	if at == nil {
		return ""
	}
	text, err := json.Marshal(at)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

package istio

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"istio.io/istio/pkg/config/analysis/analyzers"
	"istio.io/istio/pkg/config/analysis/local"
)

// analysis is what "istioctl analyze" says of these objects, each message as its level, code and object.
func analysis(t *testing.T, all []object) []string {
	t.Helper()
	analyzer := local.NewSourceAnalyzer(analyzers.AllCombined(), "", istio, nil)
	var sources []local.ReaderSource
	for _, o := range all {
		if o.GetKind() == "CustomResourceDefinition" {
			continue
		}
		sources = append(sources, local.ReaderSource{Name: o.String(), Reader: strings.NewReader(o.text)})
	}
	// With Pods, Services and Secrets: without them most analyzers have nothing to compare with.
	if err := analyzer.AddTestReaderKubeSource(sources); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	t.Cleanup(func() { close(stop) })
	result, err := analyzer.Analyze(stop)
	if err != nil {
		t.Fatal(err)
	}
	if len(result.SkippedAnalyzers) > 0 || len(result.ExecutedAnalyzers) < 50 {
		t.Errorf("ran only %v, skipped %v", result.ExecutedAnalyzers, result.SkippedAnalyzers)
	}
	var messages []string
	for _, m := range result.Messages {
		messages = append(messages, fmt.Sprintf("%s %s %s: %s", m.Type.Level(), m.Type.Code(), m.Resource.Metadata.FullName, fmt.Sprintf(m.Type.Template(), m.Parameters...)))
	}
	return messages
}

// installed is an overlay in a mesh, with the Secrets of the edge.
func installed(t *testing.T, overlay string) []object {
	t.Helper()
	all := rendered(t, overlay)
	all = append(all, mesh(t, all)...)
	all = append(all, rendered(t, "istio/fail-closed")...)
	return append(all, serverSecret(t, newAuthority(t, "of the server")))
}

func TestIstiosAnalyzersFindNothing(t *testing.T) {
	for _, overlay := range overlays {
		t.Run(overlay, func(t *testing.T) {
			if diff := cmp.Diff([]string(nil), analysis(t, installed(t, overlay))); diff != "" {
				t.Errorf("messages (-want +got):\n%s", diff)
			}
		})
	}
}

func TestIstiosAnalyzersFindAMistake(t *testing.T) {
	for name, c := range map[string]struct{ kind, right, wrong, code string }{
		"a VirtualService for a Gateway that is not there": {
			"VirtualService", "kyma-system/kyma-gateway-application-connector", "kyma-system/another", "IST0101",
		},
		"a VirtualService for another host than the Gateway's": {
			"VirtualService", "gateway.kyma.example.com", "gateway.example.com", "IST0132",
		},
		"a VirtualService to a Service that is not there": {
			"VirtualService", "host: central-application-connectivity-validator", "host: another", "IST0101",
		},
		"a Gateway without its certificate": {
			"Gateway", "credentialName: kyma-gateway-certs", "credentialName: another", "IST0101",
		},
		"a Gateway on a port that the ingress gateway does not serve": {
			"Gateway", "number: 443", "number: 8444", "IST0162",
		},
		"a policy for Pods that are not there": {
			"AuthorizationPolicy", "matchLabels:\n      app: central-application-connectivity-validator", "matchLabels:\n      app: another", "IST0127",
		},
	} {
		t.Run(name, func(t *testing.T) {
			all := installed(t, "overlays/compass")
			var mistaken bool
			for i, o := range all {
				if o.GetKind() == c.kind && strings.Contains(o.text, c.right) {
					all[i] = objects(t, strings.ReplaceAll(o.text, c.right, c.wrong))[0]
					mistaken = true
				}
			}
			if !mistaken {
				t.Fatalf("no %s has %q, where the mistake was to be made", c.kind, c.right)
			}
			messages := analysis(t, all)
			if !slices.ContainsFunc(messages, func(m string) bool { return strings.Contains(m, " "+c.code+" ") }) {
				t.Errorf("%s is not among %q", c.code, messages)
			}
		})
	}
}

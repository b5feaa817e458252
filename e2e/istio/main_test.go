package istio

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"istio.io/istio/pkg/log"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

const (
	system    = "kyma-system"
	istio     = "istio-system"
	host      = "gateway.kyma.example.com"
	validator = "central-application-connectivity-validator"
)

// overlays are those with Istio.
var overlays = []string{"overlays/compass", "overlays/standalone"}

// kubectl is the program that renders the manifests.
var kubectl = os.Getenv("KUBECTL")

func TestMain(m *testing.M) {
	if kubectl == "" {
		fmt.Fprintln(os.Stderr, `istio: KUBECTL is not set: run the tests by "make test", or set it to the program that "make build" put at bin/kubectl`)
		os.Exit(1)
	}
	// What Istio logs drowns what the tests say.
	for _, scope := range log.Scopes() {
		scope.SetOutputLevel(log.NoneLevel)
	}
	os.Exit(m.Run())
}

// object is one of the manifests.
type object struct {
	unstructured.Unstructured
	text string // YAML
}

// renders keeps what kustomize made of each folder: it takes long, beside Istio.
var renders = map[string][]object{}

// rendered is what kustomize makes of a folder of the manifests.
func rendered(t *testing.T, folder string) []object {
	t.Helper()
	if all, ok := renders[folder]; ok {
		return slices.Clone(all)
	}
	cmd := exec.CommandContext(t.Context(), kubectl, "kustomize", filepath.Join("..", "..", "manifests", folder))
	var stderr strings.Builder
	cmd.Stderr = &stderr
	text, err := cmd.Output()
	if err != nil {
		t.Fatalf("kustomize: %v\n%s", err, stderr.String())
	}
	renders[folder] = objects(t, string(text))
	return slices.Clone(renders[folder])
}

func objects(t *testing.T, text string) []object {
	t.Helper()
	var all []object
	for document := range strings.SplitSeq(text, "\n---\n") {
		o := object{text: document}
		if err := yaml.UnmarshalStrict([]byte(document), &o.Object); err != nil {
			t.Fatalf("%v in\n%s", err, document)
		}
		all = append(all, o)
	}
	return all
}

// ofIstio says whether Istio's webhook is asked about it.
func (o object) ofIstio() bool {
	return strings.HasSuffix(o.GroupVersionKind().Group, ".istio.io")
}

func (o object) String() string {
	return fmt.Sprintf("%s %s/%s", o.GetKind(), o.GetNamespace(), o.GetName())
}

package plan

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/application-connector/application-connector/agent/sync/internal/systems"
	v1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
)

func TestTheReferenceHoldsEveryReasonUnderItsCondition(t *testing.T) {
	parsed, err := parser.ParseFile(token.NewFileSet(), "reasons.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, declaration := range parsed.Decls {
		group, ok := declaration.(*ast.GenDecl)
		if !ok {
			continue
		}
		// Each group of constants is for one condition, which its comment names.
		condition := regexp.MustCompile(`condition (\w+)`).FindStringSubmatch(group.Doc.Text())[1]
		for _, spec := range group.Specs {
			reason := spec.(*ast.ValueSpec).Values[0].(*ast.BasicLit).Value
			want = append(want, condition+" "+strings.Trim(reason, `"`))
		}
	}

	page := reference(t)
	var got []string
	for _, match := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\| `(\\w+)` \\| (?:True|False) \\|").FindAllStringSubmatch(page, -1) {
		got = append(got, match[1]+" "+match[2])
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" || len(want) == 0 {
		t.Errorf("reasons (-), page (+):\n%s", diff)
	}
}

func TestTheReferenceHoldsTheNumbersOfTheDeletionRule(t *testing.T) {
	page := strings.Join(strings.Fields(reference(t)), " ")
	for _, text := range []string{
		fmt.Sprintf("more than %d and more than half of them", DefaultGuardCount),
		fmt.Sprintf("until %d complete answers in a row", DefaultGuardConfirmations),
		fmt.Sprintf("over at least %v hour", DefaultGuardSpan.Hours()),
		fmt.Sprintf("kubectl annotate applications NAME... %s=%s", v1alpha1.ConfirmDeletionAnnotation, v1alpha1.DeletionConfirmed),
		fmt.Sprintf("the first %d bytes of the Application's name", secretPrefixLength),
		fmt.Sprintf("at most %d bytes", maxSegment),
		fmt.Sprintf("an Application holds %d KiB in all", metadataBudget>>10),
		fmt.Sprintf("cut to %d bytes", maxLabel),
		"`" + noDescription + "`", "`" + typePending + "`",
	} {
		if !strings.Contains(page, text) {
			t.Errorf("the page does not say %q", text)
		}
	}
	if DefaultGuardShare != 0.5 {
		t.Errorf("the page says half, the code %v", DefaultGuardShare)
	}
}

// The fields that an update writes are those of the page, without those that only creation writes.
func TestTheReferenceHoldsEveryManagedField(t *testing.T) {
	w := mapApplication("mp-shop", systems.Shop(), past{}, systems.Gateway, false)
	empty := w.application.DeepCopy()
	empty.Labels, empty.Spec.Description, empty.Spec.Labels, empty.Spec.CompassMetadata, empty.Spec.Services = nil, "", nil, nil, nil
	page := reference(t)
	for _, field := range changes(empty, w.application) {
		if !strings.Contains(page, "| `"+field) {
			t.Errorf("the page has no row for %s", field)
		}
	}
	for _, key := range []string{keyUsername, keyPassword, keyClientID, keyClientSecret, keyCertificate, keyPrivateKey, keyHeaders, keyQuery, labelApplication, labelBundle} {
		if !strings.Contains(page, "`"+key+"`") {
			t.Errorf("the page does not name the key %s", key)
		}
	}
}

func reference(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("../../../docs/reference/sync.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

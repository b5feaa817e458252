package monitoring

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"testing"

	"github.com/blues/jsonata-go"
	"github.com/google/go-cmp/cmp"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"

	applicationv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
)

// widget is an entry of a list or of details, with all fields that are used of those that Busola knows.
type widget struct {
	Name                string   `json:"name"`
	Source              string   `json:"source"`
	Widget              string   `json:"widget"`
	Highlights          any      `json:"highlights"`
	Description         string   `json:"description"`
	Visibility          string   `json:"visibility"`
	Severity            string   `json:"severity"`
	Separator           string   `json:"separator"`
	Copyable            bool     `json:"copyable"`
	Sort                bool     `json:"sort"`
	Search              bool     `json:"search"`
	Filter              string   `json:"filter"`
	HideInvolvedObjects bool     `json:"hideInvolvedObjects"`
	CollapsibleTitle    string   `json:"collapsibleTitle"`
	Children            []widget `json:"children"`
	Collapsible         []widget `json:"collapsible"`
}

// kinds are Busola's widgets that may be used, and whether they work without a source.
var kinds = map[string]bool{
	"": false, "Badge": false, "Text": false, "JoinedArray": false, "Labels": false, "ConditionList": false, "Table": false, "Alert": false,
	"Panel": true, "EventList": true,
}

// extensions are the resources for which there is one, with all types of their conditions and all their states.
var extensions = map[string]struct {
	definition         string
	conditions, states []string
}{
	"application": {"applicationconnector.kyma-project.io_applications.yaml", []string{
		applicationv1alpha1.ConditionSynchronized, applicationv1alpha1.ConditionCredentialsReady, applicationv1alpha1.ConditionRoutesReady,
	}, nil},
	"compassconnection": {"compass.kyma-project.io_compassconnections.yaml", []string{
		compassv1alpha1.ConditionReady, compassv1alpha1.ConditionReconciling, compassv1alpha1.ConditionStalled, compassv1alpha1.ConditionPruneBlocked, compassv1alpha1.ConditionStale,
	}, []string{
		string(compassv1alpha1.Connected), string(compassv1alpha1.ConnectionFailed), string(compassv1alpha1.ConnectionMaintenanceFailed),
		string(compassv1alpha1.MetadataUpdateFailed), string(compassv1alpha1.ResourceApplicationFailed), string(compassv1alpha1.SynchronizationFailed),
		string(compassv1alpha1.Synchronized),
	}},
}

func TestTheKymaDashboardNamesOnlyFieldsThatResourcesHave(t *testing.T) {
	for folder, e := range extensions {
		t.Run(folder, func(t *testing.T) {
			var definition apiextensionsv1.CustomResourceDefinition
			if err := yaml.UnmarshalStrict(read(t, manifests("crds", e.definition)), &definition); err != nil {
				t.Fatal(err)
			}
			var general struct {
				Resource                                   map[string]string `json:"resource"`
				Name, Category, Icon, URLPath, Description string
				Scope                                      string
				Features                                   map[string]map[string]bool
			}
			strict(t, folder, "general", &general)
			version := definition.Spec.Versions[0]
			if diff := cmp.Diff(map[string]string{"kind": definition.Spec.Names.Kind, "group": definition.Spec.Group, "version": version.Name}, general.Resource); diff != "" {
				t.Errorf("resource (-definition +general):\n%s", diff)
			}
			if general.Scope != "cluster" || definition.Spec.Scope != apiextensionsv1.ClusterScoped || general.URLPath != definition.Spec.Names.Plural {
				t.Errorf("scope %s, path %s", general.Scope, general.URLPath)
			}

			s := sampler{conditions: e.conditions}
			root, ok := s.value(*version.Schema.OpenAPIV3Schema, "").(map[string]any)
			if !ok {
				t.Fatal("the resource definition is no object")
			}
			root["kind"], root["metadata"] = general.Resource["kind"], map[string]any{"name": "sample"}
			c := checker{t: t, root: root, states: e.states}
			var list []widget
			strict(t, folder, "list", &list)
			c.all(list, root, root)
			var details struct {
				Status struct {
					Header []widget `json:"header"`
					Body   []widget `json:"body"`
				} `json:"status"`
				Body []widget `json:"body"`
			}
			strict(t, folder, "details", &details)
			for _, part := range [][]widget{details.Status.Header, details.Status.Body, details.Body} {
				c.all(part, root, root)
			}
			if c.seen < 20 {
				t.Errorf("only %d sources were looked at", c.seen)
			}
		})
	}
}

func TestAFieldThatIsNotThereIsFound(t *testing.T) {
	root := map[string]any{"kind": "K", "metadata": map[string]any{"name": "n"}, "spec": map[string]any{"list": []any{map[string]any{"name": "x"}}}}
	c := checker{t: t, root: root}
	for source, want := range map[string]bool{
		"spec.list.name": true, "spec.lists.name": false, "$count(spec.list)": true, "$count(spec.lists)": false,
		"$readableTimestamp(spec.list.name)": true, "$readableTimestamp(spec.list.names)": false, "spec..": false,
	} {
		if _, err := c.evaluate(source, root, root, nil); (err == nil) != want {
			t.Errorf("%s: %v", source, err)
		}
	}
}

// strict reads a part of an extension, and refuses fields that Busola has no meaning for.
func strict(t *testing.T, folder, part string, into any) {
	t.Helper()
	if err := yaml.UnmarshalStrict(read(t, manifests("busola", folder, part+".yaml")), into); err != nil {
		t.Fatalf("%s: %v", filepath.Join(folder, part), err)
	}
}

// sampler makes an object that has each field that a resource definition names, none of them empty.
type sampler struct{ conditions []string }

func (s sampler) value(schema apiextensionsv1.JSONSchemaProps, field string) any {
	switch {
	case schema.Type == "object" && schema.AdditionalProperties != nil:
		return map[string]any{"key": s.value(*schema.AdditionalProperties.Schema, "key")}
	case schema.Type == "object":
		object := map[string]any{}
		for name, property := range schema.Properties {
			object[name] = s.value(property, name)
		}
		return object
	case schema.Type == "array":
		// One of each type that an element can have.
		types := []string{""}
		if kind, has := schema.Items.Schema.Properties["type"]; has && field == "conditions" {
			types = s.conditions
		} else if has && len(kind.Enum) > 0 {
			types = nil
			for _, value := range kind.Enum {
				var text string
				if yaml.Unmarshal(value.Raw, &text) == nil {
					types = append(types, text)
				}
			}
		}
		var list []any
		for _, kind := range types {
			element := s.value(*schema.Items.Schema, "")
			if object, ok := element.(map[string]any); ok && kind != "" {
				object["type"] = kind
			}
			list = append(list, element)
		}
		return list
	case schema.Type == "boolean":
		return true
	case schema.Type == "integer" || schema.Type == "number":
		return 1.0
	}
	return "sample"
}

// checker evaluates what widgets say.
type checker struct {
	t      *testing.T
	root   map[string]any
	states []string
	seen   int
}

// all looks at widgets whose sources start from scope, with item as the nearest element of an array.
func (c *checker) all(widgets []widget, scope, item any) {
	c.t.Helper()
	for _, w := range widgets {
		sourceless, known := kinds[w.Widget]
		if !known || w.Name == "" || (w.Source == "" && !sourceless) {
			c.t.Errorf("%+v: no known widget, no name or no source", w)
			continue
		}
		value := scope
		if w.Source != "" {
			c.seen++
			result, err := c.evaluate(w.Source, scope, item, nil)
			if err != nil {
				c.t.Errorf("%s: %v", w.Name, err)
				continue
			}
			value = result
		}
		for _, expression := range []string{w.Description, w.Visibility} {
			if expression == "" {
				continue
			}
			if _, err := c.evaluate(expression, scope, item, value); err != nil {
				c.t.Errorf("%s: %v", w.Name, err)
			}
		}
		if w.Filter != "" {
			event := map[string]any{"involvedObject": map[string]any{"kind": c.root["kind"], "name": "sample"}}
			if _, err := c.evaluate(w.Filter, event, event, nil); err != nil {
				c.t.Errorf("%s: %v", w.Name, err)
			}
		}
		if w.Source == "status.connectionState" {
			c.highlights(w)
		}
		elements := []any{value}
		if list, ok := value.([]any); ok {
			elements = list
		}
		for _, element := range elements {
			inner := item
			if w.Source != "" {
				inner = element
			}
			if w.CollapsibleTitle != "" {
				if _, err := c.evaluate(w.CollapsibleTitle, element, element, nil); err != nil {
					c.t.Errorf("%s: %v", w.Name, err)
				}
			}
			c.all(slices.Concat(w.Children, w.Collapsible), element, inner)
		}
	}
}

// highlights fails unless each state has a colour, and nothing else has.
func (c *checker) highlights(w widget) {
	c.t.Helper()
	var named []string
	byColour, ok := w.Highlights.(map[string]any)
	if !ok {
		c.t.Errorf("%s: highlights are %v", w.Name, w.Highlights)
		return
	}
	for _, colour := range slices.Sorted(maps.Keys(byColour)) {
		values, ok := byColour[colour].([]any)
		if !ok {
			c.t.Errorf("%s: %s is no list", w.Name, colour)
		}
		for _, value := range values {
			named = append(named, fmt.Sprint(value))
		}
	}
	slices.Sort(named)
	if diff := cmp.Diff(c.states, named); diff != "" {
		c.t.Errorf("%s (-states +highlights):\n%s", w.Name, diff)
	}
}

// evaluate gives what a JSONata expression finds; an error if that is nothing, or empty.
func (c *checker) evaluate(expression string, scope, item, value any) (any, error) {
	compiled, err := jsonata.Compile(expression)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", expression, err)
	}
	if err := compiled.RegisterVars(map[string]any{"root": c.root, "item": item, "value": value}); err != nil {
		return nil, err
	}
	// Those of Busola's own.
	err = compiled.RegisterExts(map[string]jsonata.Extension{
		"readableTimestamp": {Func: func(of string) string { return "in words: " + of }},
		"matchEvents": {Func: func(event map[string]any, kind, name string) bool {
			involved, ok := event["involvedObject"].(map[string]any)
			return ok && involved["kind"] == kind && involved["name"] == name
		}},
	})
	if err != nil {
		return nil, err
	}
	result, err := compiled.Eval(scope)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", expression, err)
	case result == nil, result == "", result == false, result == 0.0, result == 0:
		return nil, fmt.Errorf("%s gives %v where each field has a value: it names one that there is not", expression, result)
	}
	return result, nil
}

package plan

import (
	"bytes"
	"encoding/json"

	v1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	"github.com/application-connector/application-connector/graphql/director"
)

// metadataBudget bounds, in bytes, what an Application holds of metadata: nothing needs it to call an API, and an object in
// Kubernetes may have 1.5 MiB in all.
const metadataBudget = 256 << 10

// commonLabels are what Director itself gives every system: they say nothing that is not said elsewhere.
var commonLabels = map[string]bool{"name": true, "managed": true, "scenarios": true}

// budget is what is left for metadata.
type budget struct {
	left int
	over bool
}

// keep gives back a text that there is room for; any other is left out.
func (b *budget) keep(text string) string {
	if len(text) > b.left {
		b.over = true
		return ""
	}
	b.left -= len(text)
	return text
}

// labels as the resource holds them: what is no text as its JSON. Nil if there are none.
func (b *budget) labels(all map[string]any) map[string]string {
	var kept map[string]string
	for _, key := range sortedKeys(all) {
		value, isText := all[key].(string)
		if commonLabels[key] || all[key] == nil {
			continue
		}
		if !isText {
			value = compactJSON(all[key])
		}
		if len(key)+len(value) > b.left {
			b.over = true
			continue
		}
		b.left -= len(key) + len(value)
		if kept == nil {
			kept = map[string]string{}
		}
		kept[key] = value
	}
	return kept
}

func (b *budget) version(v director.Version) *v1alpha1.Version {
	if v == (director.Version{}) {
		return nil
	}
	return &v1alpha1.Version{Value: b.keep(v.Value), Deprecated: v.Deprecated, DeprecatedSince: b.keep(v.DeprecatedSince), ForRemoval: v.ForRemoval}
}

// describeEntries gives the entries of the services of a system their descriptions. These come last: they are long, and are
// not to take the room of what is short.
func (b *budget) describeEntries(services []v1alpha1.Service, bundles []director.Bundle) {
	for i, bundle := range bundles {
		entries := services[i].Entries
		for j, api := range bundle.APIs {
			entries[j].Description = b.keep(api.Description)
		}
		for j, event := range bundle.Events {
			entries[len(bundle.APIs)+j].Description = b.keep(event.Description)
		}
	}
}

// compactJSON writes a value that came as JSON, always in the same way.
func compactJSON(value any) string {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		panic(err) // what came as JSON can be written as JSON
	}
	return string(bytes.TrimSuffix(text.Bytes(), []byte("\n")))
}

package compass

import (
	"bytes"
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// formatJSONB writes JSON as PostgreSQL writes its type jsonb: a space after
// colons and commas, keys by length and then by bytes, of equal keys the last.
// Text that is no JSON comes back as it is.
func formatJSONB(text string) string {
	decoder := json.NewDecoder(strings.NewReader(text))
	decoder.UseNumber()
	var value any
	if decoder.Decode(&value) != nil {
		return text
	}
	var b strings.Builder
	writeJSONB(&b, value)
	return b.String()
}

func writeJSONB(b *strings.Builder, value any) {
	switch v := value.(type) {
	case map[string]any:
		keys := slices.SortedFunc(maps.Keys(v), func(a, b string) int {
			return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
		})
		b.WriteByte('{')
		for i, key := range keys {
			if i > 0 {
				b.WriteString(", ")
			}
			writeJSONB(b, key)
			b.WriteString(": ")
			writeJSONB(b, v[key])
		}
		b.WriteByte('}')
	case []any:
		b.WriteByte('[')
		for i, item := range v {
			if i > 0 {
				b.WriteString(", ")
			}
			writeJSONB(b, item)
		}
		b.WriteByte(']')
	default:
		var out bytes.Buffer
		encoder := json.NewEncoder(&out)
		encoder.SetEscapeHTML(false)
		if encoder.Encode(v) == nil { // strings, numbers, booleans and null always encode
			b.WriteString(strings.TrimSuffix(out.String(), "\n"))
		}
	}
}

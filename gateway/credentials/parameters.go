package credentials

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/textproto"
	"slices"

	"golang.org/x/net/http/httpguts"

	"github.com/application-connector/application-connector/secret"
)

// Parameter is one name with its values in order.
type Parameter struct {
	Name   string
	Values []secret.Value
}

// Parameters are header fields and query parameters that calls get unless they already have them. Names of header fields
// are in canonical form. Sorted by name. Immutable.
type Parameters struct {
	Header []Parameter
	Query  []Parameter
}

// Empty says whether there is nothing to add. It accepts nil.
func (p *Parameters) Empty() bool { return p == nil || len(p.Header)+len(p.Query) == 0 }

// notForParameters are fields that belong to a connection or are set by the HTTP library: they never had an effect.
var notForParameters = map[string]bool{
	"Connection": true, "Content-Length": true, "Host": true, "Keep-Alive": true, "Proxy-Authenticate": true, "Proxy-Authorization": true,
	"Proxy-Connection": true, "Te": true, "Trailer": true, "Transfer-Encoding": true, "Upgrade": true,
}

// ParseParameters reads the keys headers and queryParameters of a Secret: JSON objects from name to a list of values.
// Either may be absent or null. A failure is an *Error.
func ParseParameters(data map[string][]byte) (*Parameters, error) {
	header, err := parseParameters(data, KeyHeaders)
	if err != nil {
		return nil, err
	}
	query, err := parseParameters(data, KeyQuery)
	if err != nil {
		return nil, err
	}
	canonical := map[string][]string{}
	for _, name := range slices.Sorted(maps.Keys(header)) {
		if !httpguts.ValidHeaderFieldName(name) {
			return nil, &Error{ReasonParametersInvalid, fmt.Sprintf("key headers: %q is not the name of a header field", name)}
		}
		for _, v := range header[name] {
			if !httpguts.ValidHeaderFieldValue(v) {
				return nil, &Error{ReasonParametersInvalid, fmt.Sprintf("key headers: a value of %q holds characters that a header field cannot hold", name)}
			}
		}
		if c := textproto.CanonicalMIMEHeaderKey(name); !notForParameters[c] {
			canonical[c] = append(canonical[c], header[name]...)
		}
	}
	return &Parameters{Header: parameters(canonical), Query: parameters(query)}, nil
}

func parseParameters(data map[string][]byte, key string) (map[string][]string, error) {
	text := bytes.TrimSpace(data[key])
	if len(text) == 0 {
		return nil, nil
	}
	var m map[string][]string
	if err := json.Unmarshal(text, &m); err != nil {
		// The error of the JSON library can quote the text, which is secret.
		return nil, &Error{ReasonParametersInvalid, fmt.Sprintf(`key %s is not a JSON object of lists of strings, such as {"name":["value"]}`, key)}
	}
	return m, nil
}

func parameters(m map[string][]string) []Parameter {
	var list []Parameter
	for _, name := range slices.Sorted(maps.Keys(m)) {
		if len(m[name]) == 0 {
			continue
		}
		p := Parameter{Name: name}
		for _, v := range m[name] {
			p.Values = append(p.Values, secret.Value(v))
		}
		list = append(list, p)
	}
	return list
}

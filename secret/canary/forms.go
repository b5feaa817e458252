package canary

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"net/url"
	"strconv"
	"strings"
)

// secretOf is the signature of a JSON Web Token; any other text is secret as it is.
func secretOf(value string) string {
	parts := strings.Split(value, ".")
	if len(parts) != 3 || len(parts[2]) < window {
		return value
	}
	header, err := base64.RawURLEncoding.DecodeString(parts[0])
	var algorithm struct {
		Alg string `json:"alg"`
	}
	if err != nil || json.Unmarshal(header, &algorithm) != nil || algorithm.Alg == "" {
		return value
	}
	return parts[2]
}

// textForms are all in which a text may be told.
func textForms(value string) []string {
	escaped, markup := inJSON(value, true), html.EscapeString(value)
	return append(binaryForms([]byte(value)),
		url.QueryEscape(value), url.PathEscape(value), markup, strings.ReplaceAll(markup, "+", "&#43;"), // the last as html/template does
		escaped, inJSON(value, false), inJSON(escaped, true), // the last is JSON within JSON
		unquoted(strconv.Quote(value)), unquoted(strconv.QuoteToASCII(value)))
}

// binaryForms are all in which bytes may be told.
func binaryForms(value []byte) []string {
	lower := hex.EncodeToString(value)
	return append(encoded(value), string(value), lower, strings.ToUpper(lower), strings.Trim(fmt.Sprintf("%d", value), "[]"))
}

// encoded are the base64 forms of bytes, wherever they stand in what is encoded.
func encoded(value []byte) (forms []string) {
	for shift := range 3 {
		if shift >= len(value) {
			break
		}
		whole := value[shift:] // three bytes are four letters
		whole = whole[:len(whole)-len(whole)%3]
		forms = append(forms, base64.StdEncoding.EncodeToString(whole), base64.URLEncoding.EncodeToString(whole))
	}
	return forms
}

// inJSON is a text as it stands between the quotes of a JSON string; markup is escaped as encoding/json does by default.
func inJSON(value string, markup bool) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(markup)
	if e.Encode(value) != nil {
		return "" // a string can always be encoded
	}
	return unquoted(strings.TrimSuffix(b.String(), "\n"))
}

func unquoted(s string) string { return s[1 : len(s)-1] }

package directorapi

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/99designs/gqlgen/graphql"
)

// MarshalTimestamp writes t as Director does: RFC 3339, UTC, whole seconds,
// and the zero time as "0001-01-01T00:00:00Z" instead of null.
func MarshalTimestamp(t time.Time) graphql.Marshaler {
	return graphql.MarshalString(t.UTC().Format(time.RFC3339))
}

// UnmarshalTimestamp reads an RFC 3339 string.
func UnmarshalTimestamp(v any) (time.Time, error) {
	s, ok := v.(string)
	if !ok {
		return time.Time{}, fmt.Errorf("timestamp: want an RFC 3339 string, got %T", v)
	}
	return time.Parse(time.RFC3339, s)
}

// MarshalStringLists writes the scalars HttpHeaders and QueryParams: a JSON
// object whose values are lists of strings.
func MarshalStringLists(m map[string][]string) graphql.Marshaler {
	return graphql.WriterFunc(func(w io.Writer) {
		if err := json.NewEncoder(w).Encode(m); err != nil {
			panic(err) // maps of string lists always encode; a failing writer ends the request
		}
	})
}

// UnmarshalStringLists reads the scalars HttpHeaders and QueryParams.
func UnmarshalStringLists(v any) (map[string][]string, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var m map[string][]string
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, fmt.Errorf("want an object of string lists: %w", err)
	}
	return m, nil
}

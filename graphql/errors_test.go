package graphql_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/application-connector/application-connector/graphql"
)

func TestOnlyDirectorsOwnWordSaysThatSomethingIsNotThere(t *testing.T) {
	missing := graphql.ServerError{Name: "NotFound", Code: 20}
	for name, test := range map[string]struct {
		err  error
		want bool
	}{
		"not found":                     {&graphql.Error{Kind: graphql.Rejected, Errors: []graphql.ServerError{missing}}, true},
		"within another error":          {fmt.Errorf("deleting: %w", &graphql.Error{Kind: graphql.Rejected, Errors: []graphql.ServerError{missing}}), true},
		"refused for another reason":    {&graphql.Error{Kind: graphql.Rejected, Errors: []graphql.ServerError{{Name: "InvalidOperation", Code: 27}}}, false},
		"not found, and something else": {&graphql.Error{Kind: graphql.Server, Errors: []graphql.ServerError{missing, {Code: 10}}}, false},
		"an HTTP status without a word": {&graphql.Error{Kind: graphql.Invalid, Status: 404}, false},
		"an error of somebody else":     {errors.New("not found"), false},
		"no error":                      {nil, false},
	} {
		if got := graphql.IsNotFound(test.err); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

package director_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/application-connector/application-connector/graphql/director"
)

// A Director that does not filter as it is asked to must not hide a runtime: it would be registered a second time.
func TestARuntimeIsFoundByItsLabelWhateverDirectorMakesOfTheFilter(t *testing.T) {
	const page = `{"data":{"runtimes":{"data":[%s],"pageInfo":{"startCursor":"","endCursor":"","hasNextPage":false},"totalCount":%d}}}`
	const ours, other = `{"id":"1","name":"ours","labels":{"k":"a\"b"}}`, `{"id":"2","name":"other","labels":{"k":"c"}}`
	all := fmt.Sprintf(page, ours+","+other, 2)
	for name, test := range map[string]struct {
		filtered string
		status   int
		requests []string
		fails    bool
	}{
		"it filters":                 {fmt.Sprintf(page, ours, 1), 200, []string{`"a\"b"`}, false},
		"it gives others too":        {all, 200, []string{`"a\"b"`}, false},
		"it gives none":              {fmt.Sprintf(page, "", 0), 200, []string{`"a\"b"`, ""}, false},
		"it gives another alone":     {fmt.Sprintf(page, other, 1), 200, []string{`"a\"b"`, ""}, false},
		"it says no to it":           {`{"errors":[{"message":"Invalid data","extensions":{"error":"InvalidData","error_code":22}}],"data":null}`, 200, []string{`"a\"b"`, ""}, false},
		"it is down":                 {``, 502, []string{`"a\"b"`}, true},
		"it gives less than it says": {fmt.Sprintf(page, ours, 2), 200, []string{`"a\"b"`}, true},
	} {
		t.Run(name, func(t *testing.T) {
			var requests []string
			server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				var asked struct{ Variables struct{ Value string } }
				if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
					t.Error(err)
				}
				requests = append(requests, asked.Variables.Value)
				w.Header().Set("Content-Type", "application/json")
				if asked.Variables.Value == "" {
					fmt.Fprint(w, all)
					return
				}
				w.WriteHeader(test.status)
				fmt.Fprint(w, test.filtered)
			}))
			defer server.Close()
			got, err := clientOf(t, server).RuntimesWithLabel(t.Context(), "k", `a"b`)
			want := []director.RegisteredRuntime{{ID: "1", Name: "ours"}}
			if test.fails {
				want = nil
			}
			if diff := cmp.Diff(want, got); diff != "" || test.fails != (err != nil) {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
			if diff := cmp.Diff(test.requests, requests); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}

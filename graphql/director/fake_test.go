package director_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/application-connector/application-connector/graphql"
	"github.com/application-connector/application-connector/graphql/director"
)

const runtimeID = "1ae04041-17e5-478f-91f8-3a2ddc7700de"

type object = map[string]any

// inventory is a Director over HTTPS that pages as the real one does: by offset, cursor "" after the last page.
type inventory struct {
	apps []object // each with "bundles": []object, each with "apis" and "events": []object

	mu sync.Mutex
	// asked are the operations, in order.
	asked []string
	// before is called with the number of the request, from 1, before it is answered. It may change apps.
	before func(n int, operation string)
	// edit changes an answer before it is sent.
	edit func(n int, operation string, answer object)
}

// start serves the inventory and gives a client of it.
func (i *inventory) start(t *testing.T) *director.Client {
	t.Helper()
	server := httptest.NewTLSServer(i)
	t.Cleanup(server.Close)
	return clientOf(t, server)
}

func clientOf(t *testing.T, server *httptest.Server) *director.Client {
	t.Helper()
	transport := graphql.NewTransport(graphql.Options{RootCAs: server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs})
	t.Cleanup(transport.CloseIdleConnections)
	return director.New(transport, server.URL+"/director/graphql", "tenant-1")
}

func (i *inventory) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	defer i.mu.Unlock()
	var req struct {
		OperationName string
		Query         string
		Variables     struct {
			Runtime, Application, Bundle, After string
			First, Nested                       int
		}
	}
	if err := json.NewDecoder(r.Body).Decode(&req); err != nil || r.Header.Get("Tenant") != "tenant-1" {
		http.Error(w, "bad request", http.StatusBadRequest)
		return
	}
	v := req.Variables
	i.asked = append(i.asked, req.OperationName)
	if i.before != nil {
		i.before(len(i.asked), req.OperationName)
	}
	var answer object
	switch req.OperationName {
	case "ApplicationsForRuntime":
		var apps []any
		for _, a := range i.apps {
			a = clone(a)
			a["bundles"] = bundlePage(a["bundles"].([]object), v.Nested, "")
			apps = append(apps, a)
		}
		answer = object{
			"runtime":                object{"labels": object{"isNormalized": "true"}},
			"applicationsForRuntime": page(apps, v.First, v.After),
		}
	case "ApplicationIDs":
		var ids []any
		for _, a := range i.apps {
			ids = append(ids, object{"id": a["id"]})
		}
		answer = object{"applicationsForRuntime": page(ids, v.First, v.After)}
	case "BundlesOfApplication":
		answer = object{"application": nil}
		if a := find(i.apps, v.Application); a != nil {
			answer["application"] = object{"bundles": bundlePage(a["bundles"].([]object), v.Nested, v.After)}
		}
	case "APIsOfBundle", "EventsOfBundle":
		answer = object{"application": nil}
		if a := find(i.apps, v.Application); a != nil {
			answer["application"] = object{"bundle": nil}
			if b := find(a["bundles"].([]object), v.Bundle); b != nil {
				list, field := "apis", "apiDefinitions"
				if req.OperationName == "EventsOfBundle" {
					list, field = "events", "eventDefinitions"
				}
				answer["application"] = object{"bundle": object{field: page(anys(b[list]), v.First, v.After)}}
			}
		}
	default:
		http.Error(w, "unknown operation "+req.OperationName, http.StatusUnprocessableEntity)
		return
	}
	body := object{"data": answer}
	if i.edit != nil {
		i.edit(len(i.asked), req.OperationName, body)
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(body)
}

func bundlePage(bundles []object, first int, after string) object {
	var out []any
	for _, b := range bundles {
		b = clone(b)
		b["apiDefinitions"] = page(anys(b["apis"]), first, "")
		b["eventDefinitions"] = page(anys(b["events"]), first, "")
		out = append(out, b)
	}
	return page(out, first, after)
}

// page cuts a page out of a list that is sorted by id, as Director does.
func page(items []any, first int, after string) object {
	slices.SortFunc(items, func(a, b any) int {
		return strings.Compare(a.(object)["id"].(string), b.(object)["id"].(string))
	})
	offset := 0
	if after != "" {
		raw, _ := base64.StdEncoding.DecodeString(after)
		offset, _ = strconv.Atoi(strings.TrimPrefix(string(raw), "prefix"))
	}
	from := min(offset, len(items))
	to := min(from+first, len(items))
	end := ""
	if to < len(items) {
		end = base64.StdEncoding.EncodeToString([]byte("prefix" + strconv.Itoa(to)))
	}
	return object{
		"data":       append([]any{}, items[from:to]...),
		"pageInfo":   object{"startCursor": after, "endCursor": end, "hasNextPage": to < len(items)},
		"totalCount": len(items),
	}
}

func anys(list any) []any {
	var out []any
	objects, _ := list.([]object)
	for _, o := range objects {
		out = append(out, o)
	}
	return out
}

func clone(o object) object {
	out := object{}
	for k, v := range o {
		out[k] = v
	}
	return out
}

func find(list []object, id string) object {
	for _, o := range list {
		if o["id"] == id {
			return o
		}
	}
	return nil
}

// Items of an inventory. Ids have leading zeroes, so that their order is the one of numbers.

func app(n int, bundles ...object) object {
	return object{
		"id": fmt.Sprintf("app-%05d", n), "name": fmt.Sprintf("mp-app-%d", n), "labels": object{"managed": "false"},
		"status": object{"condition": "CONNECTED"}, "auths": []any{}, "bundles": bundles,
	}
}

func bundle(n int, apis, events []object) object {
	return object{
		"id": fmt.Sprintf("bundle-%05d", n), "name": fmt.Sprintf("Bundle %d", n), "instanceAuths": []any{},
		"apis": apis, "events": events,
	}
}

func api(n int) object {
	return object{"id": fmt.Sprintf("api-%05d", n), "name": fmt.Sprintf("API %d", n), "targetURL": "https://shop.example.com/" + strconv.Itoa(n)}
}

func event(n int) object {
	return object{"id": fmt.Sprintf("event-%05d", n), "name": fmt.Sprintf("order.created.%d", n)}
}

func many(n int, item func(int) object) []object {
	out := []object{}
	for i := range n {
		out = append(out, item(i))
	}
	return out
}

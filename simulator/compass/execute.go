package compass

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"regexp"
	"strings"

	"github.com/99designs/gqlgen/graphql"
	"github.com/99designs/gqlgen/graphql/executor"
	"github.com/99designs/gqlgen/graphql/handler/extension"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"
	"github.com/vektah/gqlparser/v2/parser"

	"github.com/application-connector/application-connector/simulator/compass/connectorapi"
	"github.com/application-connector/application-connector/simulator/compass/directorapi"
)

// operations are the root fields of both APIs.
var operations = rootOperations(
	connectorapi.NewExecutableSchema(connectorapi.Config{}).Schema(),
	directorapi.NewExecutableSchema(directorapi.Config{}).Schema(),
)

func rootOperations(schemas ...*ast.Schema) []string {
	var names []string
	for _, schema := range schemas {
		for _, root := range []*ast.Definition{schema.Query, schema.Mutation} {
			for _, field := range root.Fields {
				if !strings.HasPrefix(field.Name, "__") {
					names = append(names, field.Name)
				}
			}
		}
	}
	return names
}

func (s *Server) newExecutors() (connector, director *executor.Executor) {
	connector = executor.New(connectorapi.NewExecutableSchema(connectorapi.Config{Resolvers: connectorResolvers{s}}))
	connector.SetErrorPresenter(presentConnectorError)
	director = executor.New(directorapi.NewExecutableSchema(directorapi.Config{Resolvers: directorResolvers{s}}))
	director.SetErrorPresenter(presentDirectorError(s.log))
	for _, exec := range []*executor.Executor{connector, director} {
		exec.SetRecoverFunc(func(ctx context.Context, err any) error {
			s.log.ErrorContext(ctx, "panic in a resolver", "error", fmt.Sprint(err))
			return fmt.Errorf("panic: %v", err)
		})
		exec.Use(extension.Introspection{})
		exec.AroundFields(guardField)
	}
	return connector, director
}

// guardField applies scopes and the faults of single fields.
func guardField(ctx context.Context, next graphql.Resolver) (any, error) {
	field := graphql.GetFieldContext(ctx)
	c := callOf(ctx)
	if len(c.faults) > 0 {
		if f, ok := c.faults.onField(FaultFieldError, field.Field.Name); ok {
			return nil, f.directorError()
		}
		if _, ok := c.faults.onField(FaultFieldNull, field.Field.Name); ok {
			return nil, nil
		}
	}
	if !field.IsResolver {
		return next(ctx)
	}
	name := fieldName{field.Object, field.Field.Name}
	if scope, ok := requiredScopes[name]; ok && !c.has(scope) {
		return nil, errInsufficientScopes(c.scopes(), scope)
	}
	if scope, ok := sanitizedFields[name]; ok && !c.has(scope) {
		return nil, nil
	}
	return next(ctx)
}

// scopes of the caller, without those that a fault took away.
func (c *call) scopes() []string {
	var out []string
	for _, scope := range c.consumer.scopes {
		if c.has(scope) {
			out = append(out, scope)
		}
	}
	return out
}

func (c *call) has(scope string) bool {
	for _, f := range c.faults {
		if f.Kind == FaultScopeLost && f.Scope == scope {
			return false
		}
	}
	return c.consumer.has(scope)
}

// checkBody refuses what the gateway refuses before anything reads GraphQL.
func checkBody(r *http.Request, body []byte) (answer, bool) {
	if mediaType, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || mediaType != contentTypeJSON || r.Method != http.MethodPost {
		a := graphQLAnswer(http.StatusBadRequest, gqlerror.List{{Message: "transport not supported"}}, nil)
		a.contentType = contentTypeRefused
		return a, false
	}
	if len(body) == 0 {
		return graphQLAnswer(http.StatusBadRequest, gqlerror.List{{Message: "json request body could not be decoded: EOF body:"}}, nil), false
	}
	var object map[string]json.RawMessage
	if json.Unmarshal(body, &object) != nil {
		return refused(http.StatusBadGateway), false
	}
	return answer{}, true
}

func decodeParams(body []byte) (*graphql.RawParams, error) {
	var params graphql.RawParams
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	if err := decoder.Decode(&params); err != nil {
		return nil, err
	}
	return &params, nil
}

// rootFields are the root fields of the operation in a request's body, none
// if it does not parse.
func rootFields(body []byte) []string {
	params, err := decodeParams(body)
	if err != nil {
		return nil
	}
	doc, err := parser.ParseQuery(&ast.Source{Input: params.Query})
	if err != nil {
		return nil
	}
	op := doc.Operations.ForName(params.OperationName)
	if op == nil {
		return nil
	}
	var names []string
	collectFields(doc, op.SelectionSet, &names, map[string]bool{})
	return names
}

func collectFields(doc *ast.QueryDocument, set ast.SelectionSet, names *[]string, seen map[string]bool) {
	for _, selection := range set {
		switch s := selection.(type) {
		case *ast.Field:
			*names = append(*names, s.Name)
		case *ast.InlineFragment:
			collectFields(doc, s.SelectionSet, names, seen)
		case *ast.FragmentSpread:
			if f := doc.Fragments.ForName(s.Name); f != nil && !seen[s.Name] {
				seen[s.Name] = true
				collectFields(doc, f.SelectionSet, names, seen)
			}
		}
	}
}

// execute runs the document.
func (s *Server) execute(r *http.Request, e endpoint, body []byte, c *call) answer {
	params, err := decodeParams(body)
	if err != nil {
		return graphQLAnswer(http.StatusBadRequest, gqlerror.List{{Message: fmt.Sprintf("json request body could not be decoded: %v body:%s", err, body)}}, nil)
	}
	legacy := false
	if e.api == apiDirector {
		s.noteConnected(c.consumer)
		defer s.noteBundles(c.consumer, params.Query)
		params.Query, legacy = withoutLegacyWords(params.Query)
	}
	c.inv.Store(s.inventory.Load())
	ctx := graphql.StartOperationTrace(context.WithValue(r.Context(), callKey{}, c))
	operation, refusals := e.exec.CreateOperationContext(ctx, params)
	if len(refusals) > 0 {
		if e.api == apiDirector {
			for i, err := range refusals {
				refusals[i] = presentDirectorRefusal(err)
			}
		}
		return graphQLAnswer(http.StatusUnprocessableEntity, refusals, nil)
	}
	respond, ctx := e.exec.DispatchOperation(ctx, operation)
	response := respond(ctx)
	if response == nil {
		return answer{status: http.StatusServiceUnavailable, contentType: contentTypeJSON, body: []byte(`{"Message":"operation has timed out"}`)}
	}
	out := graphQLAnswer(http.StatusOK, response.Errors, response.Data)
	if legacy {
		out.body = withLegacyWords(out.body)
	}
	return out
}

// graphQLAnswer always has a key data, as the real ones have.
func graphQLAnswer(status int, errs gqlerror.List, data json.RawMessage) answer {
	body, err := json.Marshal(struct {
		Errors gqlerror.List   `json:"errors,omitempty"`
		Data   json.RawMessage `json:"data"`
	}{errs, data})
	if err != nil { // data comes from the executor: it is JSON
		panic(fmt.Sprintf("compass: encode response: %v", err))
	}
	return answer{status: status, contentType: contentTypeJSON, body: body}
}

var (
	legacyRequest  = regexp.MustCompile(`\bpackage(s?)\b`)
	modernResponse = regexp.MustCompile(`"bundle(s?)":`)
)

// withoutLegacyWords reads documents of clients that know bundles under their
// first name, packages.
func withoutLegacyWords(query string) (string, bool) {
	if !legacyRequest.MatchString(query) {
		return query, false
	}
	return legacyRequest.ReplaceAllString(query, "bundle$1"), true
}

// withLegacyWords renames keys. A quote inside a JSON string is escaped, so
// that the pattern matches keys only.
func withLegacyWords(body []byte) []byte {
	return modernResponse.ReplaceAll(body, []byte(`"package$1":`))
}

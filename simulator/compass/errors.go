package compass

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"github.com/99designs/gqlgen/graphql"
	"github.com/google/uuid"
	"github.com/vektah/gqlparser/v2/gqlerror"
)

// directorError is an error in Director's own terms: a name, a code and a text
// for clients.
type directorError struct {
	Name    string
	Code    int
	Message string
	// Reason is set for internal errors that tell it; it stands after the
	// path in the message.
	Reason string
}

func (e *directorError) Error() string { return e.Message + e.Reason }

// Codes of Director's errors, as extensions.error_code has them.
const (
	codeInternal           = 10
	codeNotFound           = 20
	codeInvalidData        = 22
	codeInsufficientScopes = 23
	codeTenantRequired     = 24
	codeTenantNotFound     = 25
	codeInvalidOperation   = 27
	codeNotUniqueName      = 31
)

func errInternal(format string, args ...any) error {
	return &directorError{Name: "InternalError", Code: codeInternal, Reason: fmt.Sprintf(format, args...)}
}

func errNotFound(object string) error {
	return &directorError{Name: "NotFound", Code: codeNotFound, Message: fmt.Sprintf("Object not found [object=%s]", object)}
}

func errInvalidData(format string, args ...any) error {
	return &directorError{Name: "InvalidData", Code: codeInvalidData, Message: fmt.Sprintf("Invalid data [reason=%s]", fmt.Sprintf(format, args...))}
}

// errInvalidInput lists what is wrong with the fields of an input object.
func errInvalidInput(input string, fields ...string) error {
	return &directorError{Name: "InvalidData", Code: codeInvalidData, Message: fmt.Sprintf("Invalid data %s [%s]", input, strings.Join(fields, "; "))}
}

func errInsufficientScopes(actual []string, required string) error {
	return &directorError{Name: "InsufficientScopes", Code: codeInsufficientScopes,
		Message: fmt.Sprintf("insufficient scopes provided [actual=%s; required=%s]", strings.Join(actual, ";"), required)}
}

func errTenantRequired() error {
	return &directorError{Name: "TenantRequired", Code: codeTenantRequired, Message: "Tenant is required"}
}

func errTenantNotFound(id string) error {
	return &directorError{Name: "TenantNotFound", Code: codeTenantNotFound, Message: fmt.Sprintf("Tenant not found [externalTenant=%s]", id)}
}

func errInvalidOperation(detail string) error {
	return &directorError{Name: "InvalidOperation", Code: codeInvalidOperation, Message: fmt.Sprintf("The operation is not allowed [%s]", detail)}
}

func errNotUniqueName(object string) error {
	return &directorError{Name: "NotUniqueName", Code: codeNotUniqueName, Message: fmt.Sprintf("Object name is not unique [object=%s]", object)}
}

// presentDirectorError gives an error of a resolver the shape that Director
// gives it. Errors without a text for clients are logged under an id.
func presentDirectorError(log *slog.Logger) graphql.ErrorPresenterFunc {
	return func(ctx context.Context, err error) *gqlerror.Error {
		path := graphql.GetPath(ctx)
		var own *directorError
		if errors.As(err, &own) {
			message := own.Message
			if message == "" {
				message = internalMessage(fmt.Sprintf("input: %s %s", path.String(), own.Reason))
			}
			return &gqlerror.Error{Err: err, Message: message, Path: path, Extensions: directorExtensions(own.Name, own.Code)}
		}
		// gqlgen wraps what resolvers return; without something in it, the
		// error is of the document itself.
		var parsed *gqlerror.Error
		if errors.As(err, &parsed) && parsed.Err == nil {
			return &gqlerror.Error{Err: err, Message: internalMessage(describeGraphQLError(parsed)), Path: parsed.Path,
				Extensions: directorExtensions("InternalError", codeInternal)}
		}
		id := uuid.NewString()
		log.ErrorContext(ctx, "internal error in Director", "errorID", id, "path", path.String(), "error", err)
		return &gqlerror.Error{Err: err, Message: fmt.Sprintf("Internal Server Error [errorID=%s]", id), Path: path,
			Extensions: directorExtensions("InternalError", codeInternal)}
	}
}

// presentDirectorRefusal is for documents and variables that were not executed.
func presentDirectorRefusal(err *gqlerror.Error) *gqlerror.Error {
	return &gqlerror.Error{Message: internalMessage(describeGraphQLError(err)), Extensions: directorExtensions("InternalError", codeInternal)}
}

// presentTenantError is for a tenant that is refused before execution.
func presentTenantError(err error) *gqlerror.Error {
	var own *directorError
	if !errors.As(err, &own) {
		return &gqlerror.Error{Message: err.Error()}
	}
	return &gqlerror.Error{Message: own.Message, Extensions: directorExtensions(own.Name, own.Code)}
}

func directorExtensions(name string, code int) map[string]any {
	return map[string]any{"error": name, "error_code": code}
}

func internalMessage(reason string) string {
	return fmt.Sprintf("Internal Server Error [errorID=%s, reason: %s]", uuid.NewString(), reason)
}

// describeGraphQLError writes an error as "input:LINE: PATH MESSAGE", without
// what is not known of line and path.
func describeGraphQLError(err *gqlerror.Error) string {
	var b strings.Builder
	b.WriteString("input")
	if len(err.Locations) > 0 {
		b.WriteString(":" + strconv.Itoa(err.Locations[0].Line))
	}
	b.WriteString(": ")
	if path := err.Path.String(); path != "" {
		b.WriteString(path + " ")
	}
	b.WriteString(err.Message)
	return b.String()
}

// presentConnectorError gives an error of a resolver the Connector's shape: a
// text and a path, nothing else.
func presentConnectorError(ctx context.Context, err error) *gqlerror.Error {
	message := err.Error()
	var wrapped *gqlerror.Error
	if errors.As(err, &wrapped) {
		message = wrapped.Message
	}
	return &gqlerror.Error{Err: err, Message: message, Path: graphql.GetPath(ctx)}
}

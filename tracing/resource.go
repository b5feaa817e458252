package tracing

import (
	"go.opentelemetry.io/otel/attribute"
	semconv "go.opentelemetry.io/otel/semconv/v1.37.0"

	"github.com/application-connector/application-connector/version"
)

// named is what spans say of the process that made them.
func named(service string) []attribute.KeyValue {
	return []attribute.KeyValue{semconv.ServiceName(service), semconv.ServiceVersion(version.String())}
}

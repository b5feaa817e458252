// Package tracing sends the process's spans to a collector by OTLP, as OpenTelemetry's environment variables say. It owns
// which variables turn it on, their checks, and the drain at the end; it knows nothing of what the spans are about.
package tracing

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
	oteltrace "go.opentelemetry.io/otel/trace"
)

// drainTimeout bounds how long the end of the process waits for a collector.
const drainTimeout = 5 * time.Second

// complainPause is the least time between two log lines that say that spans cannot be sent.
const complainPause = time.Minute

// Variables that turn the export on or off, or that are checked. All others of OpenTelemetry's that concern traces hold
// too: those named OTEL_EXPORTER_OTLP_*, OTEL_BSP_*, OTEL_TRACES_SAMPLER*, OTEL_SPAN_*, OTEL_SERVICE_NAME and
// OTEL_RESOURCE_ATTRIBUTES.
const (
	envDisabled = "OTEL_SDK_DISABLED"
	envExporter = "OTEL_TRACES_EXPORTER"
	envSampler  = "OTEL_TRACES_SAMPLER"
	prefix      = "OTEL_EXPORTER_OTLP_"
	prefixTrace = "OTEL_EXPORTER_OTLP_TRACES_"
)

// Start makes the process's tracer provider send spans to a collector, if the environment asks for it, and returns what
// sends the last ones and ends it; without that it does nothing. Spans that the collector does not take in time are dropped,
// never waited for. Call the end when nothing makes spans any more. An error names the variable that is wrong, not its value
// where that may be secret.
func Start(ctx context.Context, service string, log *slog.Logger) (end func(), err error) {
	on, err := wanted(os.LookupEnv)
	if err != nil || !on {
		return func() {}, err
	}
	// The library would print variables that it cannot read, with what may be secret in them.
	otel.SetLogger(logr.Discard())
	otel.SetErrorHandler(complain(log))
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s*: %w", prefix, err)
	}
	// Later ones win: what the environment says of the service goes over our own name.
	about, err := resource.New(ctx, resource.WithTelemetrySDK(), resource.WithHost(), resource.WithAttributes(named(service)...), resource.WithFromEnv())
	if err != nil && !errors.Is(err, resource.ErrPartialResource) {
		return nil, fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES must be name=value pairs, separated by commas: %w", err)
	}
	made := trace.NewTracerProvider(trace.WithBatcher(exporter), trace.WithResource(about))
	before := otel.GetTracerProvider()
	otel.SetTracerProvider(made)
	provider.Store(made)
	log.Info("spans are exported by OTLP", "collector", collector(os.LookupEnv))
	return func() {
		// Not of ctx: the process ends because that has ended.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainTimeout)
		defer cancel()
		otel.SetTracerProvider(before)
		provider.Store(nil)
		if err := made.Shutdown(ctx); err != nil {
			log.Warn("the last spans were not exported", "error", printable(err))
		}
	}, nil
}

// provider is what Start made, until its end.
var provider atomic.Pointer[trace.TracerProvider]

// Provider makes spans that are exported; nil if Start was not asked for any.
func Provider() oteltrace.TracerProvider {
	if p := provider.Load(); p != nil {
		return p
	}
	return nil
}

// get is a variable of the traces' own, or else of all signals; empty if neither is set.
func get(lookup func(string) (string, bool), name string) (variable, value string) {
	for _, variable := range []string{prefixTrace + name, prefix + name} {
		if value, _ := lookup(variable); strings.TrimSpace(value) != "" {
			return variable, strings.TrimSpace(value)
		}
	}
	return "", ""
}

// wanted says whether spans are to be exported: only when a collector is named, or OTEL_TRACES_EXPORTER=otlp asks for the one
// on this host. It checks what the libraries would ignore silently.
func wanted(lookup func(string) (string, bool)) (bool, error) {
	disabled, _ := lookup(envDisabled)
	if strings.EqualFold(strings.TrimSpace(disabled), "true") {
		return false, nil
	}
	exporter, _ := lookup(envExporter)
	endpointVariable, endpoint := get(lookup, "ENDPOINT")
	switch exporter = strings.TrimSpace(exporter); exporter {
	case "none":
		return false, nil
	case "otlp":
	case "":
		if endpoint == "" {
			return false, nil
		}
	default:
		return false, fmt.Errorf("%s=%q: use otlp or none", envExporter, exporter)
	}
	var errs []error
	if endpoint != "" {
		if u, err := url.Parse(endpoint); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			errs = append(errs, fmt.Errorf("%s: use a URL as http://collector:4318", endpointVariable))
		}
	}
	if variable, protocol := get(lookup, "PROTOCOL"); protocol != "" && protocol != "http/protobuf" {
		errs = append(errs, fmt.Errorf("%s=%q: only http/protobuf is spoken; a collector takes it on port 4318", variable, protocol))
	}
	if variable, compression := get(lookup, "COMPRESSION"); compression != "" && compression != "none" && compression != "gzip" {
		errs = append(errs, fmt.Errorf("%s=%q: use gzip or none", variable, compression))
	}
	if variable, timeout := get(lookup, "TIMEOUT"); timeout != "" {
		if n, err := strconv.Atoi(timeout); err != nil || n < 1 {
			errs = append(errs, fmt.Errorf("%s=%q: use milliseconds, as 10000", variable, timeout))
		}
	}
	if variable, headers := get(lookup, "HEADERS"); headers != "" {
		for pair := range strings.SplitSeq(headers, ",") {
			name, value, ok := strings.Cut(pair, "=")
			if _, err := url.PathUnescape(value); !ok || err != nil || strings.TrimSpace(name) == "" {
				errs = append(errs, fmt.Errorf("%s: use name=value pairs, separated by commas, with values in percent-encoding", variable))
				break
			}
		}
	}
	errs = append(errs, files(lookup)...)
	samplers := []string{"", "always_on", "always_off", "traceidratio", "parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio"}
	if sampler, _ := lookup(envSampler); !slices.Contains(samplers, strings.TrimSpace(sampler)) {
		errs = append(errs, fmt.Errorf("%s=%q: use one of %s", envSampler, sampler, strings.Join(samplers[1:], ", ")))
	}
	if err := errors.Join(errs...); err != nil {
		return false, errors.New(strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return true, nil
}

// files checks that the certificates can be read.
func files(lookup func(string) (string, bool)) (errs []error) {
	if variable, file := get(lookup, "CERTIFICATE"); file != "" {
		text, err := os.ReadFile(file)
		if err == nil && !x509.NewCertPool().AppendCertsFromPEM(text) {
			err = errors.New("it holds no certificate in PEM form")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s=%q: %w", variable, file, err))
		}
	}
	variable, certificate := get(lookup, "CLIENT_CERTIFICATE")
	keyVariable, key := get(lookup, "CLIENT_KEY")
	switch {
	case certificate == "" && key == "":
	case certificate == "" || key == "":
		errs = append(errs, fmt.Errorf("%s%s is set without the other: a client certificate needs both CLIENT_CERTIFICATE and CLIENT_KEY", variable, keyVariable))
	default:
		if _, err := tls.LoadX509KeyPair(certificate, key); err != nil {
			errs = append(errs, fmt.Errorf("%s and %s: %w", variable, keyVariable, err))
		}
	}
	return errs
}

// collector is the host that spans go to.
func collector(lookup func(string) (string, bool)) string {
	if _, endpoint := get(lookup, "ENDPOINT"); endpoint != "" {
		if u, err := url.Parse(endpoint); err == nil {
			return u.Host
		}
	}
	return "localhost:4318"
}

// printable is an error without the URL that it is about, which may hold a token.
func printable(err error) string {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err.Error()
	}
	return err.Error()
}

// complain logs that spans are lost, now and then.
func complain(log *slog.Logger) otel.ErrorHandler {
	var last atomic.Int64
	return otel.ErrorHandlerFunc(func(err error) {
		now := time.Now().UnixNano()
		if before := last.Load(); now-before < int64(complainPause) || !last.CompareAndSwap(before, now) {
			return
		}
		log.Warn("spans could not be exported and are lost; this is said once a minute at most", "error", printable(err))
	})
}

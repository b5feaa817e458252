package controller

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/application-connector/application-connector/cli/onboard/enrolment"
	"github.com/application-connector/application-connector/cli/terminal"
	"github.com/application-connector/application-connector/graphql"
)

// Reason is why a cluster is in its state, for programs.
type Reason string

// Reasons; docs/reference/appconn-onboard.md explains each.
const (
	// ReasonTokenUnused of WaitingForAgent: the agent has not tried the token.
	ReasonTokenUnused Reason = "TokenUnused"
	// ReasonPairing of WaitingForAgent: the agent has tried the token, and does not say that it needs another.
	ReasonPairing Reason = "Pairing"
	// ReasonTokenSpent of WaitingForAgent: the agent needs another token, and had too many lately.
	ReasonTokenSpent Reason = "TokenSpent"
	// ReasonConnected of Connected.
	ReasonConnected Reason = "Connected"
	// ReasonKubeconfigInvalid of Failed: the kubeconfig is not admitted.
	ReasonKubeconfigInvalid Reason = "KubeconfigInvalid"
	// ReasonTenantMissing of Failed: neither label nor flag says the tenant.
	ReasonTenantMissing Reason = "TenantMissing"
	// ReasonClusterUnreachable of Failed: there is no answer of the cluster that can be used.
	ReasonClusterUnreachable Reason = "ClusterUnreachable"
	// ReasonClusterRefuses of Failed: the cluster does not accept the credentials of the kubeconfig, or they lack a right.
	ReasonClusterRefuses Reason = "ClusterRefuses"
	// ReasonClusterTwice of Failed: another Secret leads to the same cluster.
	ReasonClusterTwice Reason = "ClusterTwice"
	// ReasonClusterChanged of Failed: the Secret led to another cluster before.
	ReasonClusterChanged Reason = "ClusterChanged"
	// ReasonRuntimeNotOurs of Failed: the runtime of the cluster was registered otherwise.
	ReasonRuntimeNotOurs Reason = "RuntimeNotOurs"
	// ReasonSecretNotWritable of Failed and Offboarding: the finalizer could not be set on the Secret, or taken off.
	ReasonSecretNotWritable Reason = "SecretNotWritable"
	// ReasonAccessFailed of Failed: there is no access token for the Director.
	ReasonAccessFailed Reason = "AccessFailed"
	// ReasonDirectorFailed of Failed: the Director did not do what it was asked for.
	ReasonDirectorFailed Reason = "DirectorFailed"
)

// Reasons gives all reasons.
func Reasons() []Reason {
	return []Reason{
		ReasonTokenUnused, ReasonPairing, ReasonTokenSpent, ReasonConnected, ReasonKubeconfigInvalid, ReasonTenantMissing, ReasonClusterUnreachable,
		ReasonClusterRefuses, ReasonClusterTwice, ReasonClusterChanged, ReasonRuntimeNotOurs, ReasonSecretNotWritable, ReasonAccessFailed, ReasonDirectorFailed,
	}
}

// failure is why a cluster could not be brought on.
type failure struct {
	reason Reason
	// text says what is wrong and, if it is known, what would be right. Nothing of it is secret.
	text string
	// forGood: nothing changes before somebody changes the Secret. Else it is tried again, not before after, if that is not zero.
	forGood bool
	after   time.Time
}

// Error implements error.
func (f *failure) Error() string { return f.text }

// forGood makes a failure that waits for somebody.
func forGood(reason Reason, format string, args ...any) error {
	return &failure{reason: reason, text: fmt.Sprintf(format, args...), forGood: true}
}

// judge makes a failure of any error. What a target cluster wrote is not repeated, since it knows the credentials that it was
// shown; what the Director wrote is, without the access token: see package graphql.
func judge(ctx context.Context, err error) *failure {
	if f, ok := errors.AsType[*failure](err); ok {
		return f
	}
	if paused, ok := errors.AsType[*pausedError](err); ok {
		return &failure{reason: ReasonDirectorFailed, text: paused.Error(), after: paused.until}
	}
	if access, ok := errors.AsType[accessError](err); ok {
		return &failure{reason: ReasonAccessFailed, text: access.Error()}
	}
	step := ""
	if s, ok := errors.AsType[*enrolment.StepError](err); ok {
		step = s.Step + ": "
	}
	if status, ok := errors.AsType[*apierrors.StatusError](err); ok {
		f := &failure{reason: ReasonClusterUnreachable, text: fmt.Sprintf("%sthe cluster answers HTTP %d", step, status.Status().Code)}
		if apierrors.IsUnauthorized(err) || apierrors.IsForbidden(err) {
			f.reason, f.text = ReasonClusterRefuses, f.text+", so the credentials of the kubeconfig are wrong or lack a right"
		}
		return f
	}
	if _, ok := errors.AsType[*graphql.Error](err); ok {
		return &failure{reason: ReasonDirectorFailed, text: err.Error()}
	}
	if s, ok := errors.AsType[*enrolment.StepError](err); ok {
		return &failure{reason: ReasonClusterUnreachable, text: step + unreachable(ctx, s.Err)}
	}
	return &failure{reason: ReasonDirectorFailed, text: err.Error()}
}

// unreachable says why no answer of a cluster came, in words of this machine alone.
func unreachable(ctx context.Context, err error) string {
	for _, own := range []error{errTooLarge, errRedirect} {
		if errors.Is(err, own) {
			return own.Error()
		}
	}
	if untrusted, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return untrusted.Error()
	}
	if dial, ok := errors.AsType[*net.OpError](err); ok && dial.Op == "dial" {
		return dial.Error()
	}
	kind := graphql.KindOfTransport(ctx, err)
	if _, ok := errors.AsType[net.Error](err); !ok && kind == graphql.Unreachable {
		return "the answer cannot be read"
	}
	return map[graphql.Kind]string{
		graphql.Timeout: "no answer came in time", graphql.CertificateExpired: "the client certificate has ended", graphql.CertificateRefused: "the client certificate is refused",
		graphql.TLS: "no TLS connection could be made", graphql.Canceled: "it was given up",
	}[kind] + map[bool]string{true: "the connection broke off"}[kind == graphql.Unreachable]
}

// message is a text as it is told: one line, of bounded length.
func message(text string) string {
	text = terminal.Line(text)
	if len(text) > maxMessage {
		text = strings.ToValidUTF8(text[:maxMessage-len("…")], "") + "…"
	}
	return text
}

package connection

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
	"github.com/application-connector/application-connector/graphql"
)

// What it takes to give a certificate up that is valid by its dates, and to spend a token on another one. Compass answers in
// the same words to a revoked certificate and while parts of it are down.
const (
	// refusalsBeyondDoubt is how often in a row Compass must refuse it.
	refusalsBeyondDoubt = 3
	// doubtFloors is how long that must last, in floors of the schedule: five minutes, if nothing else is configured. An outage
	// that is over sooner spends no token.
	doubtFloors = 20
)

// rejected: Compass refuses the certificate beyond doubt.
func (r *Reconciler) rejected(v *view) bool {
	d := v.status().CertificateRefused
	return d != nil && (d.Alert || d.Count >= refusalsBeyondDoubt && v.now.Sub(d.Since.Time) >= doubtFloors*r.Schedule.Floor)
}

// accepted forgets refusals: Compass accepts the certificate, or it is another one now.
func accepted(v *view) { v.status().CertificateRefused = nil }

// suspect counts refusals of the certificate, on the status, so that they outlive the process. TLS alerts about it are beyond
// doubt; an answer that Compass gives in an outage just the same counts only if viewer is refused too, and only in numbers and
// for a while.
func (r *Reconciler) suspect(ctx context.Context, v *view, err error) {
	switch graphql.KindOf(err) {
	case graphql.CertificateExpired, graphql.CertificateRefused:
		refused(v).Alert = true
	case graphql.Ambiguous, graphql.Refused:
		_, directorURL := r.urls(v)
		_, err := r.Compass.Director(directorURL, v.tenant()).Viewer(ctx)
		switch graphql.KindOf(err) {
		case graphql.Ambiguous, graphql.Refused, graphql.Server, graphql.CertificateExpired, graphql.CertificateRefused:
			refused(v)
		}
	}
}

func refused(v *view) *compassv1alpha1.CertificateRefused {
	st := v.status()
	d := st.CertificateRefused
	if d == nil || v.now.Before(d.Since.Time) { // or the clock was wrong
		d = &compassv1alpha1.CertificateRefused{Since: metav1.Time{Time: stamp(v.now, v.now)}}
		st.CertificateRefused = d
	}
	d.Count++
	return d
}

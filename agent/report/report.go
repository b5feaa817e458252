// Package report is what can be told of a cluster's connection to Compass by the CompassConnection and the Applications alone:
// how it is, and why. It owns the form in which programs read that. It knows no Secret, and nobody who shows it.
package report

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	appv1alpha1 "github.com/application-connector/application-connector/api/applicationconnector/v1alpha1"
	compassv1alpha1 "github.com/application-connector/application-connector/api/compass/v1alpha1"
)

// Health sums a report up.
type Health string

// What a connection can be. The exit codes of "appconn status" are 0, 1 and 2, in this order.
const (
	Healthy   Health = "Healthy"
	Unhealthy Health = "Unhealthy"
	Unknown   Health = "Unknown"
)

// Overdue is how late the agent may be for what it announced before it is taken for dead. It covers a slow answer of
// Compass, a rolling update of the agent, and clocks that differ by a minute or two.
const Overdue = 5 * time.Minute

// Report is what "appconn status -o json" prints, and the status page of the agent gives at /status.json. Times are in RFC 3339, null when unknown; lists are never null.
type Report struct {
	// Health sums everything up, and Reason says why it is not Healthy.
	Health Health `json:"health"`
	Reason string `json:"reason"`

	Connection   *Connection   `json:"connection"`
	Certificate  *Certificate  `json:"certificate"`
	Sync         *Sync         `json:"sync"`
	Applications []Application `json:"applications"`
}

// Connection tells of the CompassConnection; it is null when there is none.
type Connection struct {
	Name         string             `json:"name"`
	State        string             `json:"state"`
	ConnectorURL string             `json:"connectorUrl"`
	DirectorURL  string             `json:"directorUrl"`
	Established  *metav1.Time       `json:"established"`
	Failures     int32              `json:"consecutiveFailures"`
	Conditions   []metav1.Condition `json:"conditions"`
}

// Certificate tells of the client certificate; it is null before the cluster is paired.
type Certificate struct {
	// Acquired is when it was issued to this cluster, Renewed when one was last renewed; null if it never was.
	Acquired *metav1.Time `json:"acquired"`
	Renewed  *metav1.Time `json:"renewed"`
	// It is valid from NotBefore to NotAfter, and will be renewed at RenewAt.
	NotBefore   *metav1.Time `json:"notBefore"`
	NotAfter    *metav1.Time `json:"notAfter"`
	RenewAt     *metav1.Time `json:"renewAt"`
	Subject     string       `json:"subject"`
	Issuer      string       `json:"issuer"`
	Fingerprint string       `json:"fingerprint"`
}

// Sync tells of the last time that Compass's inventory was brought into the cluster.
type Sync struct {
	// Last is when it last succeeded, Next when Compass will be called again.
	Last *metav1.Time `json:"last"`
	Next *metav1.Time `json:"next"`
	// Total counts the systems that Compass named, Ready those in place, Failed those that could not be.
	Total  int32  `json:"total"`
	Ready  int32  `json:"ready"`
	Failed int32  `json:"failed"`
	Error  string `json:"error"`
	// Failures names those that failed, fifty at most.
	Failures []compassv1alpha1.FailedApplication `json:"failures"`
}

// Application tells of one external system.
type Application struct {
	Name       string             `json:"name"`
	CompassID  string             `json:"compassId"`
	Conditions []metav1.Condition `json:"conditions"`
	Services   []Service          `json:"services"`
}

// Service is a group of APIs and events.
type Service struct {
	Name        string  `json:"name"`
	DisplayName string  `json:"displayName"`
	Entries     []Entry `json:"entries"`
}

// Entry is one API or one kind of events. URL is where workloads call an API: the gateway's, never the target's.
type Entry struct {
	Name string `json:"name"`
	Type string `json:"type"`
	URL  string `json:"url"`
}

// Read reads everything that a report is made of, the Applications by pages of so many; 0 is for a cache, which has no pages.
// Nothing that it reads is changed. Its errors are those of reader; that there is no CompassConnection is none.
func Read(ctx context.Context, reader client.Reader, now time.Time, page int64) (Report, error) {
	connection := &compassv1alpha1.CompassConnection{}
	err := reader.Get(ctx, types.NamespacedName{Name: compassv1alpha1.ConnectionName}, connection)
	if apierrors.IsNotFound(err) {
		connection, err = nil, nil
	}
	if err != nil {
		return Report{}, err
	}
	var applications []appv1alpha1.Application
	options := &client.ListOptions{Limit: page, UnsafeDisableDeepCopy: ptr.To(true)} // thousands of them, only looked at
	for {
		var list appv1alpha1.ApplicationList
		if err := reader.List(ctx, &list, options); err != nil {
			return Report{}, err
		}
		applications = append(applications, list.Items...)
		if options.Continue = list.Continue; page == 0 || options.Continue == "" {
			return New(connection, applications, now), nil
		}
	}
}

// WriteJSON writes the report as programs read it.
func (r *Report) WriteJSON(w io.Writer) error {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	_, err = w.Write(append(text, '\n'))
	return err
}

// New sums up what was read from the cluster at the time now. A nil connection means that there is none.
func New(connection *compassv1alpha1.CompassConnection, applications []appv1alpha1.Application, now time.Time) Report {
	r := Report{Applications: make([]Application, 0, len(applications))}
	for i := range applications {
		r.Applications = append(r.Applications, newApplication(&applications[i]))
	}
	slices.SortFunc(r.Applications, func(a, b Application) int { return cmp.Compare(a.Name, b.Name) })
	if connection != nil {
		r.Connection = newConnection(connection)
		r.Certificate = newCertificate(connection.Status.ConnectionStatus)
		r.Sync = newSync(&connection.Status)
	}
	r.Health, r.Reason = r.judge(now)
	return r
}

func newConnection(c *compassv1alpha1.CompassConnection) *Connection {
	out := &Connection{
		Name: c.Name, State: string(c.Status.State),
		ConnectorURL: c.Spec.ManagementInfo.ConnectorURL, DirectorURL: c.Spec.ManagementInfo.DirectorURL,
		Failures: c.Status.ConsecutiveFailures, Conditions: orEmpty(c.Status.Conditions),
	}
	if s := c.Status.ConnectionStatus; s != nil {
		out.Established = orNil(s.Established)
	}
	return out
}

func newCertificate(s *compassv1alpha1.ConnectionStatus) *Certificate {
	if s == nil || s.CertificateStatus.NotAfter.IsZero() {
		return nil
	}
	c := s.CertificateStatus
	return &Certificate{
		Acquired: orNil(c.Acquired), Renewed: orNil(s.Renewed), NotBefore: orNil(c.NotBefore), NotAfter: orNil(c.NotAfter), RenewAt: c.RenewAt,
		Subject: c.Subject, Issuer: c.Issuer, Fingerprint: c.Fingerprint,
	}
}

func newSync(s *compassv1alpha1.CompassConnectionStatus) *Sync {
	out := &Sync{Next: s.NextAttempt, Failures: orEmpty(s.FailedApplications)}
	if s.SynchronizationStatus != nil {
		out.Last = orNil(s.SynchronizationStatus.LastSuccessfulApplication)
		out.Error = s.SynchronizationStatus.Error
	}
	if s.Applications != nil {
		out.Total, out.Ready, out.Failed = s.Applications.Total, s.Applications.Synced, s.Applications.Failed
	}
	return out
}

func newApplication(a *appv1alpha1.Application) Application {
	out := Application{Name: a.Name, Conditions: orEmpty(a.Status.Conditions), Services: make([]Service, 0, len(a.Spec.Services))}
	if a.Spec.CompassMetadata != nil {
		out.CompassID = a.Spec.CompassMetadata.ApplicationID
	}
	for _, s := range a.Spec.Services {
		service := Service{Name: s.Name, DisplayName: s.DisplayName, Entries: make([]Entry, 0, len(s.Entries))}
		for _, e := range s.Entries {
			service.Entries = append(service.Entries, Entry{Name: e.Name, Type: e.Type, URL: cmp.Or(e.CentralGatewayURL, e.GatewayURL)})
		}
		out.Services = append(out.Services, service)
	}
	return out
}

// judge looks first at what the agent says, then at what it would not say if it had died.
func (r *Report) judge(now time.Time) (Health, string) {
	if r.Connection == nil {
		return Unknown, fmt.Sprintf("there is no CompassConnection %q: the agent does not run here, or was never given a token", compassv1alpha1.ConnectionName)
	}
	if health, reason := r.Connection.judge(); health != Healthy {
		return health, reason
	}
	if c := r.Certificate; c != nil && c.NotAfter != nil && !now.Before(c.NotAfter.Time) {
		return Unhealthy, fmt.Sprintf("the client certificate expired at %s", c.NotAfter.UTC().Format(time.RFC3339))
	}
	if n := r.Sync.Next; n != nil && now.After(n.Add(Overdue)) {
		return Unhealthy, fmt.Sprintf("the agent meant to call Compass at %s and has not: it does not run", n.UTC().Format(time.RFC3339))
	}
	if r.Sync.Failed > 0 {
		return Unhealthy, fmt.Sprintf("%d of %d systems could not be brought into the cluster", r.Sync.Failed, r.Sync.Total)
	}
	for _, a := range r.Applications {
		for _, c := range a.Conditions {
			if c.Status == metav1.ConditionFalse {
				return Unhealthy, fmt.Sprintf("Application %s: %s is False: %s", a.Name, c.Type, c.Message)
			}
		}
	}
	return Healthy, ""
}

// judge goes by the condition Ready. Agents of before it existed left only a state.
func (c *Connection) judge() (Health, string) {
	ready := meta.FindStatusCondition(c.Conditions, compassv1alpha1.ConditionReady)
	switch {
	case ready != nil && ready.Status == metav1.ConditionTrue:
		return Healthy, ""
	case ready != nil && ready.Status == metav1.ConditionFalse:
		return Unhealthy, fmt.Sprintf("not ready: %s", cmp.Or(ready.Message, ready.Reason))
	case ready != nil:
		return Unknown, fmt.Sprintf("the agent does not know yet: %s", cmp.Or(ready.Message, ready.Reason))
	case c.State == string(compassv1alpha1.Synchronized):
		return Healthy, ""
	case c.State == "":
		return Unknown, "the agent has not written a status yet"
	default:
		return Unhealthy, fmt.Sprintf("the connection is in state %s", c.State)
	}
}

func orNil(t metav1.Time) *metav1.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}
